"""Locks of the operating system's: they vanish with their holder, so a killed run never blocks the next."""

import fcntl
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Iterator

from . import paths

LOCK = paths.BUILD / "build.lock"
"""Held by whoever sets up, builds or cleans in this checkout."""

LOCKED = "artifact trees in this checkout"
"""What :data:`LOCK` locks, in words."""


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[int]:
    """Hold ``path``'s lock and yield its file descriptor; wait, and say so, while another process has it.

    :param what: what is locked, for the message.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                holder = handle.read().strip() or "unknown"
                print(f"waiting: another process (pid {holder}) works on {what}", file=sys.stderr, flush=True)
                fcntl.flock(handle, fcntl.LOCK_EX)
            if not _is_at(handle, path):
                continue  # somebody removed the file meanwhile: this lock locks nothing
            handle.seek(0)
            handle.truncate()
            handle.write(f"{os.getpid()}\n")
            handle.flush()
            yield handle.fileno()
            return


def _is_at(handle: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except OSError:
        return False


@contextmanager
def folder(path: Path) -> Iterator[None]:
    """Hold the lock of an existing folder itself, which leaves no file behind."""
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
