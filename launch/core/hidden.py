"""Values of the person's own variables: handed on and counted, but never written down.

A launch configuration may hand variables of the environment on (``${env:NAME}``) and set others, a token
perhaps.  Programs get the values; what the kit prints, logs and publishes has the names.
"""

import re
from typing import Callable, Dict, Iterable, Optional

OWN = frozenset(
    (
        *("CUDA_VISIBLE_DEVICES", "GLIBC_TUNABLES", "HF_DATASETS_OFFLINE", "HF_HOME", "MKL_DYNAMIC"),
        *("MKL_NUM_THREADS", "OMP_NUM_THREADS", "PATH", "PYTHONHASHSEED", "PYTHONPATH"),
        *("TORCH_DISTRIBUTED_DEBUG", "TORCH_EXTENSIONS_DIR", "TRANSFORMERS_OFFLINE", "WANDB_DISABLED"),
    )
)
"""The kit's variables: those that its launch file, its rules and upstream's launch file set."""

NOT_SHOWN = "(not shown)"
"""What stands for a value that the launch file itself has."""

REFERENCE = re.compile(r"\$\{env:([^}]*)\}")
"""What stands for a value of the environment: the reference, as launch files have it."""

_SHORTEST = 6
"""Letters of a value that is looked for in what is printed: a shorter one is part of too many words."""

_values: Dict[str, str] = {}


class Word(str):
    """A text with values in it that are not to be shown; ``shown`` has references or NOT_SHOWN instead."""

    shown: str

    def __new__(cls, text: str, shown: str) -> "Word":
        """Return a text that remembers how it is shown."""
        made = super().__new__(cls, text)
        made.shown = shown
        return made


def show_word(word: str) -> str:
    """Return ``word`` as it may be shown."""
    return word.shown if isinstance(word, Word) else word


def map_word(change: Callable[[str], str], word: str) -> str:
    """Return ``change(word)``, with what is not to be shown still hidden."""
    return Word(change(word), change(word.shown)) if isinstance(word, Word) else change(word)


def join_words(separator: str, words: Iterable[str]) -> str:
    """Return ``separator.join(words)``, with what is not to be shown still hidden."""
    words = list(words)
    text, named = separator.join(words), separator.join(map(show_word, words))
    return Word(text, named) if any(isinstance(word, Word) for word in words) else text


def hide_variable(name: str, value: str) -> Word:
    """Return the value of a variable of the environment."""
    reference = f"${{env:{name}}}"
    _remember(value, reference)
    return Word(value, reference)


def hide_entry(name: str, written: str, value: Optional[str] = None) -> str:
    """Return the value of an entry of ``env`` in a launch file; the kit's own are shown.

    :param written: the value as in the file; where it is one reference, nothing is left to hide.
    :param value: the value, substituted; None: as written.
    """
    value = written if value is None else value
    if not value or name in OWN or REFERENCE.fullmatch(written):
        return value
    _remember(value, NOT_SHOWN)
    return Word(value, NOT_SHOWN)


def redact_text(text: str) -> str:
    """Return ``text``, which may quote any of the values, as it may be shown."""
    for value in sorted(_values, key=len, reverse=True):
        text = text.replace(value, _values[value])
    return text


def _remember(value: str, instead: str) -> None:
    if len(value) >= _SHORTEST:
        _values.setdefault(value, instead)
