"""What checking a tree gives: checks that passed or failed, and signs of a degenerate model."""

from dataclasses import dataclass
from typing import Iterable, List

SHOWN = 4
"""How many faults of one kind are written out; the others are counted."""

LONGEST = 400
"""Letters of a fault that are shown."""


@dataclass(frozen=True)
class Check:
    """One thing that was checked; ``text`` says what was measured and, where it failed, what is wanted."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Finding:
    """A sign of a degenerate model; ``reason`` says why the recipe brings a ``known`` one about."""

    kind: str
    text: str
    known: bool
    reason: str


def make_check(name: str, faults: Iterable[str], text: str) -> Check:
    """Return the check that passes with ``text`` where there is no fault, and else names the first few."""
    found = list(faults)
    return Check(name, not found, list_some(found) or text)


def list_some(items: List[str]) -> str:
    """Return the first few of ``items`` in one line, and how many more there are."""
    items = [item if len(item) <= LONGEST else item[:LONGEST] + "…" for item in items]
    more = len(items) - SHOWN
    # One more is shown and not counted: "and 1 more" is as long as most.
    if more <= 1:
        return "; ".join(items)
    return "; ".join(items[:SHOWN]) + f"; and {more:,} more"


def shorten_error(text: str) -> str:
    """Return an error's first line and the first few of those that explain it."""
    first, *more = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{first} {list_some(more)}" if more else first
