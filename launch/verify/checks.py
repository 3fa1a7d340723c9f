"""Results of checking a tree: checks that passed or failed, and signs of a degenerate model."""

from dataclasses import dataclass
from typing import Iterable, List

SHOWN = 4
"""Faults of one kind that are written out; the others are counted."""

LONGEST = 400
"""Characters of a fault that are shown."""


@dataclass(frozen=True)
class Check:
    """The result of one check; ``text`` says what was measured or, where it failed, what is wrong."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Finding:
    """A sign of a degenerate model; ``reason`` says why the recipe causes a ``known`` one."""

    kind: str
    text: str
    known: bool
    reason: str


def make_check(name: str, faults: Iterable[str], text: str) -> Check:
    """Return a check that passes with ``text`` if there are no faults, and otherwise lists the first few."""
    found = list(faults)
    return Check(name, not found, list_some(found) or text)


def list_some(items: List[str]) -> str:
    """Return the first few items in one line, and the number of the others."""
    items = [item if len(item) <= LONGEST else item[:LONGEST] + "…" for item in items]
    more = len(items) - SHOWN
    # One more is shown and not counted: "and 1 more" is as long as most.
    if more <= 1:
        return "; ".join(items)
    return "; ".join(items[:SHOWN]) + f"; and {more:,} more"


def shorten_error(text: str) -> str:
    """Return an error's first line and the first few of those after it."""
    first, *more = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{first} {list_some(more)}" if more else first
