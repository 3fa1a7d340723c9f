"""Absolute paths of a machine in texts that are to be published."""

import re
from pathlib import Path
from typing import Iterable, List

_ABSOLUTE = re.compile(r"(?:^|(?<=[\s\"'`=(,;:>|\[])|(?<=file://))/(?:[\w.+@~-]+/)+[\w.+@~-]+", re.M)
_NAMED = re.compile(r"<(?:tree|kit|venv)>/")
"""The start of a path below a folder that the kit has named (:mod:`launch.build.convert`)."""

TEXTS = (".csv", ".json", ".log", ".mapping", ".md", ".xml")
"""Suffixes of a tree's text files."""

MAX_BYTES = 64 * 10**6
"""Largest text file that is read; BERT-large's largest has two million bytes."""


def find_paths(text: str) -> List[str]:
    """Return the absolute paths of two parts or more; web addresses are none."""
    return _ABSOLUTE.findall(_NAMED.sub("", text))


def find_leaks(folder: Path, names: Iterable[str]) -> List[str]:
    """Return a line for each named text file that holds an absolute path or is too large."""
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
