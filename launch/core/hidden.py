"""Hiding values of a person's variables, and paths of the machine, in text that is shown or published."""

import os
import re
from pathlib import Path
from typing import Callable, Dict, Iterable, Mapping, Optional

from . import paths

OWN = frozenset(
    (
        *("CUDA_VISIBLE_DEVICES", "GLIBC_TUNABLES", "HF_DATASETS_OFFLINE", "HF_HOME", "MKL_DYNAMIC"),
        *("MKL_NUM_THREADS", "OMP_NUM_THREADS", "PATH", "PYTHONHASHSEED", "PYTHONPATH"),
        *("TORCH_DISTRIBUTED_DEBUG", "TORCH_EXTENSIONS_DIR", "TRANSFORMERS_OFFLINE", "WANDB_DISABLED"),
    )
)
"""The kit's variables: those that its launch file, its rules and upstream's launch file set."""

NOT_SHOWN = "(not shown)"  # stands for a value that the launch file itself has
REFERENCE = re.compile(r"\$\{env:([^}]*)\}")  # stands for a value of the environment

_SHORTEST = 6  # letters of a value that is redacted: a shorter one is part of too many words
_values: Dict[str, str] = {}

_FOLDERS = {"${workspaceFolder}": paths.REPOSITORY, "${venv}": paths.VENV}

_PATH = re.compile(
    r"""( ^ | (?:^|\s)-[A-Za-z] | [\s=,;|&@<(\[{'"`] | \bfile:(?://[\w.-]*|(?!//)) | :(?!//) )
        ( /+ [^/\s:] [^\n]* )""",
    re.X | re.M,
)
"""What precedes an absolute path, and the path, to the line's end; no URL and no path after ``${name}``."""


class Word(str):
    """A text with hidden values; ``shown`` is the same text with references or NOT_SHOWN in their place."""

    shown: str

    def __new__(cls, text: str, shown: str) -> "Word":
        """Return ``text``, which is shown as ``shown``."""
        made = super().__new__(cls, text)
        made.shown = shown
        return made


def show_word(word: str) -> str:
    """Return ``word`` as it may be shown."""
    return word.shown if isinstance(word, Word) else word


def map_word(change: Callable[[str], str], word: str) -> str:
    """Return ``change(word)``; hidden values stay hidden."""
    return Word(change(word), change(word.shown)) if isinstance(word, Word) else change(word)


def join_words(separator: str, words: Iterable[str]) -> str:
    """Return ``separator.join(words)``; hidden values stay hidden."""
    words = list(words)
    text, named = separator.join(words), separator.join(map(show_word, words))
    return Word(text, named) if any(isinstance(word, Word) for word in words) else text


def hide_variable(name: str, value: str) -> Word:
    """Return the value of an environment variable, shown as ``${env:NAME}``."""
    reference = f"${{env:{name}}}"
    _remember(value, reference)
    return Word(value, reference)


def hide_entry(name: str, written: str, value: Optional[str] = None) -> str:
    """Return the value of an entry of ``env`` in a launch file, hidden unless its name is in :data:`OWN`.

    :param written: the value as in the file; if it is a single reference, nothing more is hidden.
    :param value: the value with its variables substituted; None: as written.
    """
    value = written if value is None else value
    if not value or name in OWN or REFERENCE.fullmatch(written):
        return value
    _remember(value, NOT_SHOWN)
    return Word(value, NOT_SHOWN)


def redact_text(text: str) -> str:
    """Return ``text`` with hidden values replaced, except those shorter than 6 characters."""
    for value in sorted(_values, key=len, reverse=True):
        text = text.replace(value, _values[value])
    return text


def _remember(value: str, instead: str) -> None:
    if len(value) >= _SHORTEST:
        _values.setdefault(value, instead)


def name_folders(text: str, folders: Mapping[str, Path]) -> str:
    """Return ``text`` with names for absolute ``folders``; of nested ones the innermost counts."""
    forms = {
        form: name
        for name, folder in folders.items()
        # The folder as the kit calls it, and as a program finds it that asks where it is.
        for form in (str(folder), str(folder.resolve()))
        if form != "/"
    }
    for form in sorted(forms, key=len, reverse=True):
        # Not within a longer path or name; but behind an option's letter.
        begin = r"(?:(?<![\w.~}+%-])|(?<=\s-[A-Za-z])|(?<=^-[A-Za-z]))"
        whole = begin + re.escape(form) + r"(?![\w+%@~-]|\.\w)"
        text = re.sub(whole, forms[form], text)
    return text


def remove_paths(text: str) -> str:
    """Return ``text`` with names for paths: the kit's, ``${userHome}``, ``${elsewhere}/<last part>``."""
    text = name_folders(text, _FOLDERS)
    entries = text.split(os.pathsep)
    if all(not entry or entry[0] in "/$" for entry in entries):
        return os.pathsep.join(map(_shorten, entries))  # a list as of PATH, or a single path
    return _shorten(text)


def _shorten(text: str) -> str:
    return _PATH.sub(lambda found: found.group(1) + _last(found.group(2)), text)


def _last(path: str) -> str:
    try:
        if Path(path) == Path.home():
            return "${userHome}"
    except RuntimeError:
        pass  # a user without a home
    return "${elsewhere}/" + path.rstrip("/").rpartition("/")[2]


def shows_path(text: str) -> bool:
    """Return whether ``text`` has an absolute path."""
    return _PATH.search(text) is not None
