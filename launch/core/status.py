"""How a child process tells the pipeline what it is doing.

The tools' own chatter goes to a log, so a child needs a second way to speak: one JSON object a line on the
file descriptor that the environment variable :data:`STATUS_FD` names.  Without the variable (F5 in VS Code,
a command pasted from ``make command``) the same messages go to standard error as plain text.
"""

import json
import os
import sys
import time
from typing import Any, Dict, Iterable, Iterator, Optional

from .errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, KitError

STATUS_FD = "LAUNCH_STATUS_FD"

_started = time.monotonic()


def _descriptor() -> Optional[int]:
    value = os.environ.get(STATUS_FD, "")
    return int(value) if value.isdigit() else None


def _send(message: Dict[str, Any], text: str) -> None:
    descriptor = _descriptor()
    if descriptor is None:
        print(text, file=sys.stderr, flush=True)
        return
    try:
        os.write(descriptor, (json.dumps(message) + "\n").encode())
    except OSError:
        # The pipeline has gone; the work is still worth finishing.
        print(text, file=sys.stderr, flush=True)


def step(name: str) -> None:
    """Say what begins now, in a few words (``calibrating activation ranges``)."""
    _send({"step": name}, f"[{time.monotonic() - _started:6.1f} s] {name}")


def error(problem: KitError) -> None:
    """Hand the user's error over with its three parts apart."""
    _send({"error": problem.as_dict()}, str(problem))


def read(lines: Iterable[str]) -> Iterator[Dict[str, Any]]:
    """Yield the messages in ``lines``; what is not one (a child killed while writing) is passed over."""
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if isinstance(message, dict):
            yield message


def run(body: Any, *arguments: Any) -> "int":
    """Return ``body``'s exit status; a :class:`KitError` is handed over and becomes status 2."""
    try:
        return int(body(*arguments) or 0)
    except KitError as problem:
        error(problem)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
