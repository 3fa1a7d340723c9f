"""How a child process tells the pipeline what it is doing.

The tools' own chatter goes to a log, so a child has a second way to speak: one JSON object a line on the file
descriptor in the environment variable :data:`STATUS_FD`.  Without it (F5 in VS Code, a command pasted from
``make command``) the same messages go to standard error as plain text.
"""

import json
import os
import sys
import time
from contextlib import suppress
from typing import Any, Dict

from .errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, KitError

STATUS_FD = "LAUNCH_STATUS_FD"

_started = time.monotonic()


def _send(message: Dict[str, Any], text: str) -> None:
    descriptor = os.environ.get(STATUS_FD, "")
    if descriptor.isdigit():
        with suppress(OSError):  # the pipeline has gone; the work is still worth finishing
            os.write(int(descriptor), (json.dumps(message) + "\n").encode())
            return
    print(text, file=sys.stderr, flush=True)


def report_step(name: str) -> None:
    """Say what begins now, in a few words (``calibrating activation ranges``)."""
    _send({"step": name}, f"[{time.monotonic() - _started:6.1f} s] {name}")


def run_body(body: Any, *arguments: Any) -> int:
    """Return ``body``'s exit status; a :class:`KitError` is handed over and becomes status 2."""
    try:
        return int(body(*arguments) or 0)
    except KitError as problem:
        _send({"error": problem.as_dict()}, str(problem))
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
