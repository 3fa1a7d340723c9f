"""Questions become features: fixed-length token windows, and back to the answers' text.

The windows are those of upstream's run_qa.py: question and context in one sequence, long contexts cut into
overlapping windows, everything padded to ``max_seq_length``.
"""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from ..core.errors import KitError
from ..model import model_folder, squad
from . import cache
from .arguments import Arguments

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What a feature feeds to the model, each ``max_seq_length`` whole numbers."""


def load_tokenizer(args: Arguments, vocab_size: int) -> Any:
    """Return the fast tokenizer that ``args`` name.

    :param vocab_size: rows of the model's word embedding.
    :raises KitError: it cannot be loaded, is not a fast one, has more words than the model, or makes inputs
        shorter than features.
    """
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
        raise model_folder.too_many(len(tokenizer), vocab_size, source)
    if tokenizer.model_max_length < args.max_seq_length:
        raise model_folder.too_short(tokenizer.model_max_length, args.max_seq_length, source)
    return tokenizer


def load_examples(args: Arguments, split: str) -> List[squad.Example]:
    """Return the questions of a split, ``train`` or ``validation``, from the file that ``args`` name.

    :raises KitError: there are none, or they cannot be loaded.
    """
    path = args.train_file if split == "train" else args.validation_file
    if path is None:
        raise KitError(
            f"No {split} questions are given.",
            where=f"--{split}_file is missing",
            hint=f"Give --{split}_file.",
        )
    return squad.read(Path(path), f"--{split}_file")


def tokenize(examples: Sequence[squad.Example], tokenizer: Any, args: Arguments, limit: Optional[int]) -> Any:
    """Return the examples' features as a ``datasets.Dataset``; those of many are kept (:mod:`.cache`).

    Columns: :data:`MODEL_INPUTS`; ``example_id``; ``offset_mapping``, one (first, last + 1) pair of character
    positions a token, empty for tokens that are not the context's.

    A tokenizer without token types, such as XLM-R's and DistilBERT's, leaves them to the model: BERT takes
    zeros.

    :param limit: use at most so many examples, and then at most so many features, as upstream does.
    :raises KitError: a question leaves too little of a feature to its context.
    """
    length = args.max_seq_length
    question_first = tokenizer.padding_side == "right"
    context_part = 1 if question_first else 0

    def windows(batch: Dict[str, List[str]]) -> Dict[str, Any]:
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
        encoded.setdefault("token_type_ids", [[0] * length for _ in encoded["input_ids"]])
        owners = encoded.pop("overflow_to_sample_mapping")
        encoded["example_id"] = [batch["id"][owner] for owner in owners]
        encoded["offset_mapping"] = [
            [pair if part == context_part else [] for pair, part in zip(offsets, encoded.sequence_ids(index))]
            for index, offsets in enumerate(encoded["offset_mapping"])
        ]
        return dict(encoded)

    chosen = examples[:limit]
    columns = _columns(chosen)
    try:
        kept = len(chosen) >= cache.WORTH
        name = cache.key(columns, tokenizer, length=length, stride=args.doc_stride) if kept else ""
        features = cache.mapped(columns, windows, name)
    except BaseException as error:
        _check_is_of_a_question(error)
        for example in chosen:
            try:
                windows(_columns([example]))
            except BaseException as own:
                _check_is_of_a_question(own)
                raise _too_long(example, own, tokenizer, args) from None
        raise
    return features if limit is None else features.select(range(min(limit, len(features))))


def _columns(examples: Sequence[squad.Example]) -> Dict[str, List[str]]:
    return {
        "id": [example.id for example in examples],
        "question": [example.question.lstrip() for example in examples],
        "context": [example.context for example in examples],
    }


def _check_is_of_a_question(error: BaseException) -> None:
    """Raise ``error`` again unless it is one that a question brings about.

    A question that fills the window alone is an Exception of tokenizers'; one that leaves less than
    --doc_stride of it is a panic, which is none and has no importable name.
    """
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
