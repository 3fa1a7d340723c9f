"""Free disk, and the error where there is too little."""

import shutil
from pathlib import Path

from . import paths
from .errors import KitError

_GB = 1e9


def free_disk(folder: Path) -> int:
    """Return the free bytes of the filesystem that ``folder``, or its nearest existing parent, is on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_disk(what: str, folder: Path, need: int) -> None:
    """Check that ``need`` bytes are free where ``folder`` is.

    :raises KitError: they are not.
    """
    free = free_disk(folder)
    if free < need:
        raise KitError(
            f"{what} needs about {need / _GB:.1f} GB of disk; {free / _GB:.1f} GB are free.",
            where=paths.shown(folder),
            hint="Free disk space, or set OUT= to a folder on another disk.",
        )
