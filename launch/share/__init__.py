"""What is done with finished trees: compare, report, package."""

import time
from typing import Callable

from ..core import child

SILENCE = 2.0
"""Least seconds between two reports of progress."""


def make_ticker(what: str) -> Callable[[str], None]:
    """Return a function that reports the name of what is worked on, every :data:`SILENCE` seconds at most."""
    said = time.monotonic()

    def tick(name: str) -> None:
        nonlocal said
        if time.monotonic() - said > SILENCE:
            said = time.monotonic()
            child.report_step(f"{what} {name}")

    return tick
