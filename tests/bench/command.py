"""``make bench-pipeline``."""

import sys
from pathlib import Path
from typing import Callable

from launch.core import paths
from launch.core.files import hold_lock
from launch.sources.source import Source

from . import plan as planning
from . import running
from .figures import differing


def run(source: Source, size: str, variant: str, repeat: str, to: Path, prepare: Callable[[], None]) -> int:
    """Benchmark the kit on ``source`` and print the table.

    Returns 0 if both sides made the same bytes, else 1.

    :param prepare: sets up the environment and the source; called with the build's lock held.
    :raises KitError: a value is none of those allowed, the machine is too small, or a run fails.
    """
    plan = planning.make(source, size, variant, repeat, to)
    planning.check_machine(plan)
    for side in plan.sides:
        print(f"{side.name:<7} {side.source.describe()}", file=sys.stderr, flush=True)
    with hold_lock() as lock:
        prepare()
        done = running.run(plan, lock)
        made = running.write(plan, done)
    print(made[1].read_text(encoding="utf-8"))
    for path in made:
        print(paths.show_path(path))
    return 1 if differing(done) else 0
