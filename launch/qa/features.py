"""Questions become features: overlapping windows of ``max_seq_length`` tokens, as in upstream's run_qa.py."""

import contextlib
import hashlib
import inspect
import json
import os
from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..core import files, paths
from ..core.errors import KitError
from ..model import model_folder, squad
from .arguments import Arguments

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""A feature's inputs to the model, each ``max_seq_length`` whole numbers."""

FOLDER = paths.BUILD / "cache" / "features"
"""Kept features; a file's name is a digest of all that its content depends on."""

WORTH = 1000
"""Number of questions from which on features are kept: a thousand take a second, and 11 MB."""

KEPT = 2
"""Files that are kept: features to calibrate on, and to evaluate on."""


def load_tokenizer(args: Arguments, vocab_size: int) -> Any:
    """:raises KitError: it cannot be loaded, is not fast, or does not fit the model or the features."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    source = args.tokenizer_source
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
    except Exception as error:
        # The library raises anything from OSError to bare Exception here, depending on the broken file.
        raise KitError(
            f"The tokenizer cannot be loaded: {' '.join(str(error).split())[:300]}",
            where=source,
            hint="The folder needs config.json and a tokenizer (vocab.txt or tokenizer.json).",
        ) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise KitError(
            f"The tokenizer is a {type(tokenizer).__name__}, which is not a fast one.",
            where=source,
            hint="Give a model whose tokenizer has a fast form: a BERT with vocab.txt or tokenizer.json.",
        )
    if len(tokenizer) > vocab_size:
        raise model_folder.make_too_many_error(len(tokenizer), vocab_size, source)
    if tokenizer.model_max_length < args.max_seq_length:
        raise model_folder.make_too_short_error(tokenizer.model_max_length, args.max_seq_length, source)
    return tokenizer


def load_examples(args: Arguments, split: str) -> List[squad.Example]:
    """:raises KitError: there are no questions of ``split`` (``train``, ``validation``), or unsound ones."""
    path = getattr(args, f"{split}_file")
    if path is None:
        raise KitError(
            f"No {split} questions are given.",
            where=f"--{split}_file is missing",
            hint=f"Give --{split}_file.",
        )
    return squad.read_questions(Path(path), f"--{split}_file")


def tokenize_examples(
    examples: Sequence[squad.Example], tokenizer: Any, args: Arguments, limit: Optional[int]
) -> Any:
    """Return the examples' features as a ``datasets.Dataset``; those of many are kept (:data:`FOLDER`).

    Columns: :data:`MODEL_INPUTS`; ``example_id``; ``offset_mapping``, one (first, last + 1) pair of character
    positions a token, empty for tokens that are not the context's.

    :param limit: use at most so many examples, and then at most so many features, as upstream does.
    :raises KitError: a question leaves too little of a feature to its context.
    """
    chosen = examples[:limit]
    columns = _columns(chosen)
    with _explaining(chosen, tokenizer, args):
        length, stride = args.max_seq_length, args.doc_stride
        kept = len(chosen) >= WORTH
        name = digest_features(columns, tokenizer, length=length, stride=stride) if kept else ""
        features = _mapped(columns, lambda batch: _encode(batch, tokenizer, args), name)
    return features if limit is None else features.select(range(min(limit, len(features))))


def encode_examples(
    examples: Sequence[squad.Example], tokenizer: Any, args: Arguments
) -> Dict[str, List[Any]]:
    """As :func:`tokenize_examples`, but the columns are lists, and no package ``datasets`` is needed.

    :raises KitError: as there; or the tokenizer leaves out an end of a long context.
    """
    with _explaining(examples, tokenizer, args):
        encoded = _encode(_columns(examples), tokenizer, args)
    _check_ends(examples, encoded, tokenizer)
    return encoded


def label_window(
    ids: Sequence[int], offsets: Sequence[Sequence[int]], answer: Tuple[str, int], cls: int
) -> Tuple[int, int]:
    """Return the first and the last token of an answer; the token ``cls``, twice, where it is not all there.

    :param offsets: of the tokens ``ids``, as :func:`tokenize_examples` has them.
    """
    text, start = answer
    end = start + len(text)
    tokens = [token for token, pair in enumerate(offsets) if pair]
    if not tokens or offsets[tokens[0]][0] > start or offsets[tokens[-1]][1] < end:
        return ids.index(cls), ids.index(cls)
    first = bisect_right([offsets[token][0] for token in tokens], start) - 1
    last = bisect_left([offsets[token][1] for token in tokens], end)
    return tokens[first], tokens[max(first, last)]


def _encode(batch: Dict[str, List[str]], tokenizer: Any, args: Arguments) -> Dict[str, Any]:
    length = args.max_seq_length
    question_first = tokenizer.padding_side == "right"
    context_part = 1 if question_first else 0
    first, second = ("question", "context") if question_first else ("context", "question")
    encoded = tokenizer(
        batch[first],
        batch[second],
        truncation="only_second" if question_first else "only_first",
        max_length=length,
        stride=args.doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding="max_length",
    )
    # A tokenizer without token types (XLM-R) leaves them to the model: BERT takes zeros.
    encoded.setdefault("token_type_ids", [[0] * length for _ in encoded["input_ids"]])
    owners = encoded.pop("overflow_to_sample_mapping")
    encoded["example_id"] = [batch["id"][owner] for owner in owners]
    encoded["offset_mapping"] = [
        [pair if part == context_part else [] for pair, part in zip(offsets, encoded.sequence_ids(index))]
        for index, offsets in enumerate(encoded["offset_mapping"])
    ]
    return dict(encoded)


@contextlib.contextmanager
def _explaining(examples: Sequence[squad.Example], tokenizer: Any, args: Arguments) -> Iterator[None]:
    """Raise the error of the first question that cannot be tokenized in place of what the library raises."""
    try:
        yield
    except BaseException as error:
        _check_is_of_a_question(error)
        for example in examples:
            try:
                _encode(_columns([example]), tokenizer, args)
            except BaseException as own:
                _check_is_of_a_question(own)
                raise _too_long(example, own, tokenizer, args) from None
        raise


def _columns(examples: Sequence[squad.Example]) -> Dict[str, List[str]]:
    return {
        "id": [example.id for example in examples],
        "question": [example.question.lstrip() for example in examples],
        "context": [example.context for example in examples],
    }


def _check_ends(examples: Sequence[squad.Example], encoded: Mapping[str, Any], tokenizer: Any) -> None:
    """:raises KitError: an end of a context is in no window, as with tokenizers 0.23.1 and 0.23.2.

    These stop where a window is full: https://github.com/huggingface/tokenizers/issues/2091.
    """
    covered: Dict[str, List[int]] = {}
    for owner, offsets in zip(encoded["example_id"], encoded["offset_mapping"]):
        first, last = (next(filter(None, pairs), (0, 0)) for pairs in (offsets, reversed(offsets)))
        covered.setdefault(owner, []).extend((first[0], last[1]))
    for example in examples:
        places = covered[example.id]
        for left in (example.context[: min(places)], example.context[max(places) :]):
            if left.strip() and tokenizer.tokenize(left):
                import tokenizers

                raise KitError(
                    f"tokenizers {tokenizers.__version__} leaves out {len(left)} characters of a text.",
                    where=example.where,
                    hint="Install another version; 0.22.2 and 0.23.3 leave out nothing.",
                )


def _check_is_of_a_question(error: BaseException) -> None:
    # A question that fills the window alone is an Exception of tokenizers'; one that leaves less than
    # --doc_stride of it is a panic, which is none and has no importable name.
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def _too_long(example: squad.Example, error: BaseException, tokenizer: Any, args: Arguments) -> KitError:
    tokens = len(tokenizer.tokenize(example.question.lstrip()))
    left = args.max_seq_length - tokens - tokenizer.num_special_tokens_to_add(pair=True)
    problem = f"it has {tokens} tokens, which leaves {max(0, left)} of a feature to the context"
    if left > args.doc_stride:
        problem = " ".join(str(error).split())[:300]
    return KitError(
        f"A question cannot be tokenized: {problem}.",
        where=f"{example.where}; --max_seq_length {args.max_seq_length}, --doc_stride {args.doc_stride}",
        hint=(
            "Shorten the question, take it out, or use a larger --max_seq_length or a smaller --doc_stride:\n"
            "more than --doc_stride tokens must be left."
        ),
    )


def digest_features(columns: Mapping[str, Sequence[str]], tokenizer: Any, **options: int) -> str:
    """Return a digest of what features depend on: questions, fast tokenizer, lengths, packages and code."""
    import datasets
    import tokenizers
    import transformers

    classes = {Path(inspect.getfile(kind)) for kind in type(tokenizer).__mro__ if kind is not object}
    content = [
        dict(columns),
        tokenizer.backend_tokenizer.to_str(),
        [type(tokenizer).__name__, tokenizer.padding_side, tokenizer.pad_token_id],
        [tokenizer.pad_token_type_id, tokenizer.model_input_names],
        options,
        [datasets.__version__, tokenizers.__version__, transformers.__version__],
        sorted([path.name, files.digest_file(path)] for path in (*classes, Path(__file__))),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _mapped(
    columns: Dict[str, List[str]], function: Callable[[Dict[str, List[str]]], Dict[str, Any]], name: str
) -> Any:
    """Return ``function`` of the columns, kept in :data:`FOLDER` under ``name`` unless that is empty."""
    from datasets import Dataset

    path = FOLDER / f"{name}.arrow"
    if name and path.is_file():
        with contextlib.suppress(Exception):  # a file that somebody has damaged is made again
            made = Dataset.from_file(str(path))
            os.utime(path)
            return made
    rows = Dataset.from_dict(columns)
    options: Dict[str, Any] = {"batched": True, "remove_columns": list(columns)}
    if name:
        with contextlib.suppress(OSError):  # what cannot be kept (a full disk) is made in memory
            FOLDER.mkdir(parents=True, exist_ok=True)
            made = rows.map(function, cache_file_name=str(path), **options)
            _forget(path)
            return made
    return rows.map(function, **options)


def _forget(newest: Path) -> None:
    # What killed runs have left goes, too.
    finished = sorted(newest.parent.glob("*.arrow"), key=lambda path: path.stat().st_mtime, reverse=True)
    kept = {newest, *finished[:KEPT]}
    for path in newest.parent.iterdir():
        if path not in kept:
            with contextlib.suppress(OSError):
                path.unlink()
