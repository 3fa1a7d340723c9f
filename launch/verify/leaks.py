"""Paths of a machine in texts that are to be published."""

import re
from pathlib import Path
from typing import Iterable, List

_ABSOLUTE = re.compile(r"(?:^|(?<=[\s\"'`=(,;:>|\[])|(?<=file://))/(?:[\w.+@~-]+/)+[\w.+@~-]+", re.M)
_NAMED = re.compile(r"<(?:tree|kit|venv)>/")
"""A path that starts at a folder which the kit has given a name (:mod:`launch.build.convert`)."""

TEXTS = (".csv", ".json", ".log", ".mapping", ".md", ".xml")
"""Suffixes of a tree's text files."""

MAX_BYTES = 64 * 10**6
"""What is read of a text file at most; the largest of BERT-large's has two million bytes."""


def find_paths(text: str) -> List[str]:
    """Return what looks like an absolute path: two parts or more from the root on, and no address."""
    return _ABSOLUTE.findall(_NAMED.sub("", text))


def find_leaks(folder: Path, names: Iterable[str]) -> List[str]:
    """Return a line for the first path in each of the named files that are there and texts.

    :raises OSError: a file cannot be read.
    """
    found = []
    for name, path in ((name, folder / name) for name in names):
        if path.suffix not in TEXTS or not path.is_file():
            continue
        if path.stat().st_size > MAX_BYTES:
            found.append(f"{name} has more than the {MAX_BYTES:,} bytes that are read")
        else:
            first = find_paths(path.read_text(encoding="utf-8", errors="replace"))[:1]
            found += [f"{name} holds {text}" for text in first]
    return found
