"""Locks of the operating system's: they vanish with their holder, so a killed run never blocks the next."""

import fcntl
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[int]:
    """Hold ``path``'s lock and yield its file descriptor; wait, and say so, while another process has it.

    :param what: what is locked, for the message.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            print(f"waiting: another process (pid {holder}) works on {what}", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.seek(0)
        handle.truncate()
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield handle.fileno()
