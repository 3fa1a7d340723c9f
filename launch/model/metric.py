"""SQuAD v1.1's exact match and F1, in double precision, and files of answers, as in evaluate-v1.1.py
(Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text").
"""

import math
import re
import string
from collections import Counter
from pathlib import Path
from typing import Dict, Mapping, Sequence, Tuple

from ..core import files
from ..core.errors import KitError

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:an?|the)\b")

_HINT = 'Give answers in the official form, one object: {"<question id>": "<answer>", …}.'


def _normalise(text: str) -> str:
    # Punctuation goes before articles and leaves no space: state-of-the-art becomes stateoftheart.
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def score_question(answer: str, gold: Sequence[str]) -> Tuple[float, float]:
    """Return exact match (0 or 1) and F1 of an answer, each the best over ``gold``, at least one text.

    Case, ASCII punctuation and articles do not count.  F1 is the harmonic mean of precision and recall over
    words; of two texts without words it is 0, and exact match 1.
    """
    found, wanted = _normalise(answer), [_normalise(text) for text in gold]
    return float(found in wanted), max(_f1(found.split(), text.split()) for text in wanted)


def _f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted)) if common else 0.0


def score_answers(gold: Mapping[str, Sequence[str]], answers: Mapping[str, str]) -> Dict[str, float]:
    """Return ``exact_match`` and ``f1`` in percent, means over all of ``gold``; no answer counts as 0."""
    # fsum rounds once: the order of the questions does not reach the figures.
    scores = [score_question(answers[name], texts) for name, texts in gold.items() if name in answers]
    exact, f1 = (100 * math.fsum(score[which] for score in scores) / len(gold) for which in range(2))
    return {"exact_match": exact, "f1": f1}


def read_answers(path: Path, name: str, gold: Mapping[str, Sequence[str]], questions: str) -> Dict[str, str]:
    """Return the answers in a file by question id; errors name it ``name``, and the questions' ``questions``.

    :raises KitError: it cannot be read, has another form, an id twice, or one that is not in ``gold``.
    """
    content = files.read_json(path, name, unique=True)
    where = f"{name}={path}"
    if not isinstance(content, dict):
        raise KitError("The answers are not one JSON object.", where=where, hint=_HINT)
    for identity, answer in content.items():
        if not isinstance(answer, str):
            raise KitError(
                f"An answer is no text but {files.show_value(answer)}.",
                where=f"{where}: {files.show_value(identity)}",
                hint=_HINT,
            )
    unknown = [identity for identity in content if identity not in gold]
    if unknown:
        raise KitError(
            f"{len(unknown)} of {len(content)} answers are to no question of {questions}.",
            where=f"{where}: {', '.join(map(files.show_value, unknown[:3]))}",
            hint="Give the questions that were answered, or take these answers out.",
        )
    return content
