"""Locks of the operating system: they end with the process, so a killed run never blocks the next."""

import fcntl
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Dict, Iterator

from . import paths
from .errors import KitError

LOCK = paths.BUILD / "build.lock"  # held by every process that writes below build/ or .venv/
LOCKED = "this checkout"  # what LOCK locks, in words

_held: Dict[Path, int] = {}  # the locks of this process, with their descriptors


@contextmanager
def hold_lock(path: Path, what: str) -> Iterator[int]:
    """Lock a file, wait with a message while another process works on ``what``, and yield the descriptor.

    A child that inherits the descriptor holds the lock, too.

    :raises KitError: the lock's file cannot be made.
    """
    if path in _held:
        yield _held[path]
        return
    while True:
        with _open(path) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                holder = handle.read().strip() or "unknown"
                print(f"waiting: another process (pid {holder}) works on {what}", file=sys.stderr, flush=True)
                fcntl.flock(handle, fcntl.LOCK_EX)
            if not (path.exists() and os.path.samestat(os.fstat(handle.fileno()), path.stat())):
                continue  # somebody removed the file meanwhile: this lock locks nothing
            handle.seek(0)
            handle.truncate()
            handle.write(f"{os.getpid()}\n")
            handle.flush()
            _held[path] = handle.fileno()
            try:
                yield handle.fileno()
            finally:
                del _held[path]
            return


def _open(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")
    except OSError as error:
        raise KitError(
            f"The folder cannot be written to: {error.strerror}.",
            where=paths.show_path(path),
            hint="Correct its permissions, or clone the repository to a folder of your own.",
        ) from None


@contextmanager
def hold_folder(path: Path) -> Iterator[None]:
    """Lock an existing folder itself, which leaves no file behind."""
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
