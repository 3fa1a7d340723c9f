"""Logits become answers: for every question the span of its context that the model scores highest.

A model scores every token of a window twice, as the first and as the last of the answer.  The candidates
are the best first tokens combined with the best last tokens, and a candidate's score is the sum of its two
logits.  Numbers, ties and the answer where no candidate is left are those of transformers 4.9.1's
question-answering example, so the same logits give the same texts.
"""

from dataclasses import dataclass
from typing import Any, Dict, Iterable, Mapping, Sequence

import numpy as np

from ..model import squad

NO_ANSWER = "empty"
"""The answer to a question for which nothing but an empty text is found; upstream's word for it."""


@dataclass
class _Best:
    """The best candidate of a question so far, and how many there were.

    :param score: the sum of its two logits.
    :param first: its first character in the context.
    :param last: the character after its last.
    :param candidates: candidates in all of the question's windows so far.
    """

    score: float = -np.inf
    first: int = 0
    last: int = 0
    candidates: int = 0


def _highest(logits: Any, count: int) -> Any:
    """Return the positions of each row's ``count`` highest logits, best first; (windows, tokens) in.

    Numpy's own sort decides among equal logits, as it does upstream; a stable one would decide otherwise.
    """
    return np.argsort(logits, axis=-1)[:, ::-1][:, :count]


def best_spans(
    examples: Sequence[squad.Example],
    windows: Iterable[Mapping[str, Any]],
    start_logits: Any,
    end_logits: Any,
    n_best_size: int,
    max_answer_length: int,
) -> Dict[str, str]:
    """Return each question's answer by its id, in the order of ``examples``.

    A candidate begins and ends in the context, is 1 … ``max_answer_length`` tokens long, and lies in one
    window.  Of equal scores the earlier window wins, then the higher first logit, then the higher last one.

    :param examples: questions with distinct ids.
    :param windows: one mapping a feature, of which ``example_id`` and ``offset_mapping`` are read: a pair of
        character positions a token, empty (or None) for tokens outside the context.
    :param start_logits: float array (windows, tokens), finite.
    :param end_logits: the same for the last token.
    :param n_best_size: how many first and how many last tokens of a window are combined.
    :param max_answer_length: in tokens.
    """
    best = {example.id: _Best() for example in examples}
    first_tokens, last_tokens = _highest(start_logits, n_best_size), _highest(end_logits, n_best_size)
    for row, window in enumerate(windows):
        offsets = window["offset_mapping"]
        in_context = np.zeros(start_logits.shape[1], dtype=bool)
        in_context[: len(offsets)] = [bool(pair) for pair in offsets]
        firsts, lasts = first_tokens[row], last_tokens[row]
        firsts, lasts = firsts[in_context[firsts]], lasts[in_context[lasts]]
        lengths = lasts[np.newaxis, :] - firsts[:, np.newaxis] + 1
        allowed = (lengths >= 1) & (lengths <= max_answer_length)
        if not allowed.any():
            continue
        scores = start_logits[row, firsts][:, np.newaxis] + end_logits[row, lasts][np.newaxis, :]
        # argmax takes the first of equals: rows and columns run from the highest logit down.
        place = np.argmax(np.where(allowed, scores, -np.inf))
        i, j = np.unravel_index(place, scores.shape)
        found = best[window["example_id"]]
        found.candidates += int(allowed.sum())
        if scores[i, j] > found.score:
            found.score = scores[i, j]
            found.first, found.last = offsets[firsts[i]][0], offsets[lasts[j]][1]
    answers = {}
    for example in examples:
        found = best[example.id]
        text = example.context[found.first : found.last]
        # Upstream keeps the n_best_size best of all candidates, and distrusts one that is alone and empty.
        alone = min(found.candidates, n_best_size) <= 1
        answers[example.id] = NO_ANSWER if alone and not text else text
    return answers
