"""What is done with finished trees: compare, report, package."""

import time
from typing import Any, Callable, Dict

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


def describe_weights(provenance: Dict[str, Any]) -> str:
    """Return in a few words where the weights of a tree with this provenance are from."""
    weights = provenance["weights"]
    if weights["kind"] == "random":
        return f"random, seed {weights['seed']}"
    return f"trained, {weights['source']}, sha256 {weights['sha256']}"
