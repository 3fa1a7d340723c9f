"""How far a download is, read from the progress bars that uv and pip draw on a terminal.

Neither says so in another way.  What is not understood (another release draws otherwise) is passed over: then
it is only shown how long the step has taken.
"""

import re
from typing import Dict, Tuple

from .progress import size

_ERASE = b"\x1b[2K"
"""What both write before they draw anew, so that what stands between two of it is one picture."""

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

_NUMBER = r"(\d+(?:\.\d+)?)"

_UV_BAR = re.compile(rf"(?<![\w.-])([A-Za-z0-9][\w.-]*) [ -]*{_NUMBER} ([KMG]i)?B/{_NUMBER} ([KMG]i)?B")
"""``torch  ----------  5.25 MiB/792.89 MiB``: one of several; a file that is there has none any more."""

_UV_COUNT = re.compile(r"\((\d+)/(\d+)\)")
"""``Preparing packages... (59/73)``."""

_PIP_BAR = re.compile(rf" {_NUMBER}/{_NUMBER} ([kMG]?)B ")
"""``━━━━━━  4.1/17.6 MB  3.2 MB/s``: of the one file under way."""

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

_LONGEST = 65536
"""Bytes without a new picture after which the old ones are forgotten."""


class Downloads:
    """What a program's pictures, one after the other, say of its downloads."""

    def __init__(self) -> None:
        self._pending = b""
        self._totals: Dict[str, float] = {}
        self._now: Dict[str, Tuple[float, float]] = {}
        self._count = ""

    def feed(self, output: bytes) -> None:
        """Take what the program has written since the last call."""
        *pictures, self._pending = (self._pending + output).split(_ERASE)
        self._pending = self._pending[-_LONGEST:]
        for picture in pictures:
            self._look(_CONTROL.sub("", picture.decode("utf-8", "replace")))

    def _look(self, picture: str) -> None:
        bars = {
            name: (float(done) * _UNITS[unit or ""], float(total) * _UNITS[of or ""])
            for name, done, unit, total, of in _UV_BAR.findall(picture)
        }
        pip = None if bars else _PIP_BAR.search(picture)
        if pip:
            done, total, unit = pip.groups()
            bars[""] = (float(done) * _UNITS[unit], float(total) * _UNITS[unit])
        count = _UV_COUNT.search(picture)
        if bars or count:
            self._now = bars
            self._totals.update({name: total for name, (_, total) in bars.items()})
        if count:
            self._count = "{} of {} packages".format(*count.groups())

    def __str__(self) -> str:
        """Return how far all of them are, and the one of which most is left; empty where nothing is known."""
        parts = [self._count] if self._count else []
        if self._totals:
            total = sum(self._totals.values())
            left = sum(of - done for done, of in self._now.values())
            parts.append(f"{size(total - left)} of {size(total)}")
        if len(self._totals) > 1 and self._now:
            name, (done, of) = max(self._now.items(), key=lambda bar: bar[1][1] - bar[1][0])
            parts.append(f"{name}: {size(done)} of {size(of)}")
        return ", ".join(parts)
