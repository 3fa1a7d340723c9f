"""What is done with finished trees: compare, report, package."""

import time
from typing import Callable

from ..core import child

SILENCE = 2.0
"""Seconds after which long work says how far it is."""


def make_ticker(what: str) -> Callable[[str], None]:
    """Return a function that takes each thing's name before it is worked on, and says it now and then."""
    said = time.monotonic()

    def tick(name: str) -> None:
        nonlocal said
        if time.monotonic() - said > SILENCE:
            said = time.monotonic()
            child.report_step(f"{what} {name}")

    return tick
