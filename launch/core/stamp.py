"""What something was made from: a file beside it, by which the next run sees that it need not be made."""

import json
from pathlib import Path
from typing import Any, NamedTuple, Optional

from . import digests, files

FORMAT = 1
"""Raised where the form of a :attr:`Stamp.made` changes: a stamp of another form is none."""


class Stamp(NamedTuple):
    """What something was made from (``key``) and what was made, as JSON values.

    The stamp is the first thing removed and the last thing written: what has one is whole.  Where it does not
    have the digests of what was made, the caller has that flushed to disk before.
    """

    key: Any
    made: Any = None

    @classmethod
    def read(cls, path: Path) -> Optional["Stamp"]:
        """Return the stamp in a file; None where there is none, or where it is not as it was written."""
        try:
            content = json.loads(files.read_bytes(path, 4 << 20).decode("utf-8"))
            found, digest = cls(content["key"], content["made"]), content["sha256"]
            return found if digest == found._digest() else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self, path: Path) -> None:
        """:raises OSError: it cannot be written; an earlier one is untouched then."""
        content = {"sha256": self._digest(), **self._asdict()}
        files.write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def matches(self, path: Path) -> bool:
        """Return whether the file holds this stamp."""
        return self.read(path) == self

    def _digest(self) -> str:
        return digests.digest_value([FORMAT, *self])
