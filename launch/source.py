"""What every source of NNCF and transformers has in common: a tree derived from pins and patches.

Nothing is installed and nothing is patched in place: ``build/src/<name>`` is made from what is pinned and the
patch series, and made anew when either changes.
"""

import abc
import json
import shutil
from pathlib import Path
from typing import Callable, List

from . import paths
from .locks import exclusive

_STAMP = ".kit-source.json"


class Source(abc.ABC):
    """Where a run's NNCF and transformers come from."""

    name: str
    """What ``SOURCE=`` calls it."""

    @property
    def tree(self) -> Path:
        """The derived tree."""
        return paths.DERIVED_SOURCES / self.name

    @property
    def extensions(self) -> Path:
        """Where NNCF's compiled extension goes: each source has code of its own for it."""
        return paths.EXTENSIONS / self.name

    @property
    @abc.abstractmethod
    def python_path(self) -> List[Path]:
        """What selects the tree on ``PYTHONPATH``, in order."""

    @property
    @abc.abstractmethod
    def programs(self) -> Path:
        """The folder of ``run_qa.py`` and ``gen_hybrid_sparse_qa.py``."""

    @abc.abstractmethod
    def key(self) -> str:
        """Return what the tree depends on, pins and patches, as a sha256.

        :raises KitError: a patch is at fault.
        """

    @abc.abstractmethod
    def describe(self) -> str:
        """Return the source in one line: its name, versions and number of patches."""

    @abc.abstractmethod
    def _fill(self, staging: Path) -> None:
        """Write the patched files into the empty folder ``staging``.

        :raises KitError: they cannot be had, or a patch does not apply.
        """

    def is_ready(self) -> bool:
        """Return whether the derived tree is there and current."""
        try:
            stamp = json.loads((self.tree / _STAMP).read_text(encoding="utf-8"))
            return bool(stamp["key"] == self.key())
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def ensure(self, say: Callable[[str], None]) -> bool:
        """Derive the tree where it is missing or stale; return whether anything was done.

        The tree appears by one rename; after a run that was killed it is derived again.

        :param say: takes what happens, in a few words.
        :raises KitError: the source cannot be had, or a patch does not apply.
        """
        if self.is_ready():
            return False
        with exclusive(paths.BUILD / "sources.lock", "the source tree"):
            if self.is_ready():
                return False
            say(f"unpacking and patching {self.describe()}")
            key = self.key()
            staging = self.tree.with_name(f".{self.name}.staging")
            old = self.tree.with_name(f".{self.name}.old")
            for leftover in (staging, old):
                shutil.rmtree(leftover, ignore_errors=True)
            staging.mkdir(parents=True)
            self._fill(staging)
            (staging / _STAMP).write_text(json.dumps({"key": key}), encoding="utf-8")
            if self.tree.exists():
                self.tree.rename(old)
            staging.rename(self.tree)
            shutil.rmtree(old, ignore_errors=True)
        return True
