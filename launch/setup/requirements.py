"""The lock files in :data:`launch.core.paths.ENVIRONMENT_DATA`: which packages, in which versions."""

import hashlib
import re
from typing import Dict, List

from ..core import paths
from ..core.errors import KitError


def _lines(name: str) -> List[str]:
    """Return a lock's lines without comments, blank lines and continuation marks."""
    lock = paths.ENVIRONMENT_DATA / name
    try:
        text = lock.read_text(encoding="utf-8")
    except OSError as error:
        raise KitError(
            f"A lock cannot be read: {error.strerror}.",
            where=paths.show_path(lock),
            hint="It belongs to the checkout: git checkout -- " + paths.show_path(lock),
        ) from None
    lines = (re.sub(r"(^|\s)#.*", "", line).rstrip("\\ \t").strip() for line in text.splitlines())
    return [line for line in lines if line]


def digest_lock(name: str) -> str:
    """Return the sha256 of what a lock asks for, comments left out; a KitError where it cannot be read."""
    return hashlib.sha256("\n".join(_lines(name)).encode()).hexdigest()


def read_pins(name: str) -> Dict[str, str]:
    """Return a lock's packages and their versions; a KitError where it cannot be read."""
    found = (re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line) for line in _lines(name))
    return {match.group(1): match.group(2) for match in found if match}


def read_sums(name: str, package: str) -> List[str]:
    """Return the sha256 sums that a lock accepts for a package; a KitError where it cannot be read."""
    entries = re.split(r"^(?=[\w.-]+==)", "\n".join(_lines(name)), flags=re.M)
    return [
        digest
        for entry in entries
        if entry.startswith(f"{package}==")
        for digest in re.findall("--hash=sha256:([0-9a-f]{64})", entry)
    ]
