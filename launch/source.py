"""What every source of NNCF and transformers has in common: a tree derived from pins and patches.

Nothing is installed and nothing is patched in place: ``build/src/<name>`` is made from what is pinned and the
patch series, and made anew when either changes, or when somebody has changed a file of it.
"""

import abc
import contextlib
import filecmp
import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple

from . import digests, files, patches, paths
from .locks import LOCK, LOCKED, exclusive
from .stamp import Stamp

_STAMP = ".kit-stamp.json"

_CACHE = "__pycache__"
"""What Python leaves beside modules that it has imported."""

_COMMIT = 40
"""Hexadecimal digits of a commit."""


class Source(abc.ABC):
    """Where a run's NNCF and transformers come from.

    :param fast: with the patches of the optional set ``fast``.
    """

    def __init__(self, fast: bool = True) -> None:
        self.fast = fast

    name: str
    """What ``SOURCE=`` calls it."""

    imports: Tuple[str, ...]
    """The libraries of the programs, in the order in which they import them.

    The order counts: NNCF replaces functions of torch's, and what was imported before may hold the old ones.
    """

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
    def packages(self) -> Dict[str, str]:
        """Return the packages in the order they are patched: version of a release, or commit."""

    @abc.abstractmethod
    def _identity(self, series: Dict[str, List[patches.Patch]]) -> Iterator[str]:
        """Yield what is pinned, and the diffs of ``series``, in the order that :meth:`key` digests them."""

    @abc.abstractmethod
    def _fill(self, staging: Path) -> None:
        """Write the patched files into the empty folder ``staging``.

        :raises KitError: they cannot be had, or a patch does not apply.
        """

    def series(self) -> Dict[str, List[patches.Patch]]:
        """Return each package's patches that belong to this source, in order; the optional set's if chosen.

        :raises KitError: a series or a patch is at fault.
        """
        return {package: patches.chosen(package, self.name, self.fast) for package in self.packages()}

    def key(self) -> str:
        """Return what the tree depends on, pins and patches, as a sha256.

        :raises KitError: a patch is at fault.
        """
        return hashlib.sha256("".join(self._identity(self.series())).encode()).hexdigest()

    def describe(self) -> str:
        """Return the source in one line: its name, versions, number of patches and what is left out."""
        versions = ", ".join(
            f"{package} {version[:12] if len(version) == _COMMIT else version}"
            for package, version in self.packages().items()
        )
        count = patches.counted(sum(map(len, self.series().values())))
        return f"{self.name} ({versions}, {count}{'' if self.fast else '; without the fast set'})"

    def derived(self) -> str:
        """Return what the tree was derived from, and its files with their times, as a sha256.

        Another one stands for another tree, or one that was derived anew; empty where there is none.
        """
        try:
            return digests.of_file(self.tree / _STAMP)
        except OSError:
            return ""

    def is_ready(self) -> bool:
        """Return whether the derived tree is there, current, and as it was derived."""
        return self._stale() is None

    def _stale(self) -> Optional[str]:
        """Return why the tree has to be derived; None where it has not.

        Empty where nobody has to be told: there is none, or another one is wanted.
        """
        stamp = Stamp.read(self.tree / _STAMP)
        if stamp is None or stamp.key != self.key():
            return ""
        if stamp.made == _listing(self.tree):
            return None
        return (
            f"{paths.shown(self.tree)} was changed after it had been derived, and is derived again:"
            " a change belongs into a patch (make patch-edit)"
        )

    def ensure(self, say: Callable[[str], None]) -> bool:
        """Derive the tree where it is missing, stale or changed; return whether anything was done.

        The tree appears by one rename; after a run that was killed it is derived again.

        :param say: takes what happens, in a few words.
        :raises KitError: the source cannot be had, or a patch does not apply.
        """
        if self.is_ready():
            return False
        with exclusive(LOCK, LOCKED):
            reason = self._stale()
            if reason is None:
                return False
            if reason:
                say(reason)
            say(f"unpacking and patching {self.describe()}")
            key = self.key()
            staging = self.tree.with_name(f".{self.name}.staging")
            old = self.tree.with_name(f".{self.name}.old")
            for leftover in (staging, old):
                shutil.rmtree(leftover, ignore_errors=True)
            staging.mkdir(parents=True)
            self._fill(staging)
            _keep_times(staging, self.tree)
            files.flush_all()
            Stamp(key, _listing(staging)).write(staging / _STAMP)
            if self.tree.exists():
                self.tree.rename(old)
            staging.rename(self.tree)
            files.flush(self.tree.parent)
            shutil.rmtree(old, ignore_errors=True)
        return True


def _files(folder: Path, below: str = "") -> Iterator[Tuple[str, os.stat_result]]:
    """Yield everything below ``folder`` that is no folder, by relative path, but Python's caches."""
    with os.scandir(f"{folder}/{below}") as entries:  # a third of the time that pathlib takes
        for entry in entries:
            name = below + entry.name
            if not entry.is_dir(follow_symlinks=False):
                yield name, entry.stat(follow_symlinks=False)
            elif entry.name != _CACHE:
                yield from _files(folder, name + "/")


def _listing(folder: Path) -> str:
    """Return one sha256 over name, size, time and mode of each file below ``folder``; the stamp's not."""
    return digests.of_value(
        sorted(
            (name, found.st_size, found.st_mtime_ns, found.st_mode)
            for name, found in _files(folder)
            if name != _STAMP
        )
    )


def _keep_times(new: Path, old: Path) -> None:
    """Give each file of ``new`` that has the same bytes in ``old`` the time that it has there.

    By their times alone is seen what has to be compiled again.
    """
    for name, found in _files(new):
        earlier = old / name
        with contextlib.suppress(OSError):
            before = earlier.lstat()
            both_plain = stat.S_ISREG(found.st_mode) and stat.S_ISREG(before.st_mode)
            if both_plain and filecmp.cmp(new / name, earlier, shallow=False):
                os.utime(new / name, ns=(before.st_atime_ns, before.st_mtime_ns))
