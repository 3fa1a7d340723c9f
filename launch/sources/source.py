"""NNCF and transformers as pinned, with patches applied (``SOURCE=``, ``FAST=``): ``build/src/<name>``."""

import abc
import os
import shutil
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple

from ..core import files, git, paths
from ..core.errors import make_unknown_error
from ..core.files import Stamp, hold_lock
from ..core.progress import format_count
from ..setup import installer, requirements
from ..setup.steps import Steps
from . import patches, third_party

_STAMP = ".kit-stamp.json"

_PARTS = {"nncf": ["nncf"], "transformers": ["src/transformers", "examples/pytorch/question-answering"]}
"""What of each fork a run reads."""

_LOCK = "sources.lock"  # the pinned releases
KINDS = ("auto", *patches.SOURCES)  # what SOURCE= may be


class Source(abc.ABC):
    """Where a run's NNCF and transformers come from; ``fast``: with the optional patches."""

    name: str

    def __init__(self, fast: bool = True) -> None:
        self.fast = fast

    @property
    def tree(self) -> Path:
        """The folder with the patched files."""
        return paths.DERIVED_SOURCES / self.name

    @property
    def extensions(self) -> Path:
        """Where NNCF's functions for a GPU are compiled: each source has code of its own for them."""
        return paths.EXTENSIONS / self.name

    @property
    @abc.abstractmethod
    def python_path(self) -> List[Path]:
        """The entries of ``PYTHONPATH`` that select the packages, in order."""

    @property
    @abc.abstractmethod
    def programs(self) -> Path:
        """The folder of ``run_qa.py`` and ``gen_hybrid_sparse_qa.py``."""

    @abc.abstractmethod
    def packages(self) -> Dict[str, str]:
        """Return the packages in the order they are patched: version of a release, or commit."""

    @abc.abstractmethod
    def _fill(self, staging: Path, lock: int) -> None:
        """Write the patched files into an empty folder; errors as :meth:`ensure`."""

    def series(self) -> Dict[str, List[patches.Patch]]:
        """Return each package's patches, in order; errors as :func:`.read_series`."""
        return {package: patches.choose_patches(package, self.name, self.fast) for package in self.packages()}

    def key(self) -> str:
        """Return a sha256 of the pins and the patches."""
        diffs = {package: [patch.diff for patch in series] for package, series in self.series().items()}
        return files.digest_value([self.packages(), _PARTS, diffs])

    def describe(self) -> str:
        """Return the source in one line: its name, versions, number of patches and what is left out."""
        versions = ", ".join(f"{package} {version[:12]}" for package, version in self.packages().items())
        count = format_count(sum(map(len, self.series().values())), "patch", "patches")
        return f"{self.name} ({versions}, {count}{'' if self.fast else '; without the fast set'})"

    def is_ready(self) -> bool:
        """Return whether the patched files are there, current and unchanged."""
        stamp = self._read_stamp()
        return stamp is not None and stamp.made == _listing(self.tree)

    def _read_stamp(self) -> Optional[Stamp]:
        """Return the stamp; None where there is none, or a pin or a patch has changed."""
        stamp = Stamp.read(self.tree / _STAMP)
        return stamp if stamp is not None and stamp.key == self.key() else None

    def ensure(self, say: Callable[[str], None]) -> bool:
        """Derive what is missing, stale or changed, whole or not at all; return whether anything was."""
        if self.is_ready():
            return False
        with hold_lock() as lock:
            if self.is_ready():
                return False
            if self._read_stamp():
                say(
                    f"{paths.show_path(self.tree)} was changed after it had been derived, and is derived"
                    " again: a change belongs into a patch (make patch-edit)"
                )
            say(f"unpacking and patching {self.describe()}")
            key = self.key()
            staging, old = (self.tree.with_name(f".{self.name}.{kind}") for kind in ("staging", "old"))
            for leftover in (staging, old):
                shutil.rmtree(leftover, ignore_errors=True)
            staging.mkdir(parents=True)
            self._fill(staging, lock)
            os.sync()
            Stamp(key, _listing(staging)).write(staging / _STAMP)
            if self.tree.exists():
                self.tree.rename(old)
            staging.rename(self.tree)
            files.flush_file(self.tree.parent)
            shutil.rmtree(old, ignore_errors=True)
        return True


class Fork(Source):
    """Upstream's own code and scripts: the submodules at their pins, patched."""

    name = "fork"

    @property
    def python_path(self) -> List[Path]:
        """Both packages, the scripts' folder, and the kit, whose metric the scripts compute."""
        # gen_hybrid_sparse_qa.py is a link: Python looks beside its target, and its modules are beside it.
        return [self.tree / "nncf", self.tree / "transformers" / "src", self.programs, paths.REPOSITORY]

    @property
    def programs(self) -> Path:
        """Upstream's question-answering examples."""
        return self.tree / "transformers" / "examples/pytorch/question-answering"

    def packages(self) -> Dict[str, str]:
        """Return the commit of each fork."""
        return {fork.name: fork.base for fork in third_party.read_forks()}

    def _fill(self, staging: Path, lock: int) -> None:
        third_party.require_forks()
        for name, series in self.series().items():
            fork, folder, index = third_party.find_fork(name), staging / name, staging / ".index"
            folder.mkdir()
            # With an index and a folder of its own, git writes nothing to the submodule.
            env = {"GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(folder)}
            words = ["checkout", "--quiet", fork.base, "--", *_PARTS[name]]
            git.ask_git(words, fork.folder, env=env)
            index.unlink()
            for patch in series:
                patches.apply_patch(patch, folder)


class Registry(Source):
    """The releases from the package index, fetched by hash, patched; the kit's own program runs on them."""

    name = "registry"

    @property
    def python_path(self) -> List[Path]:
        """The folder of both packages, and the kit, which holds the program."""
        return [self.tree, paths.REPOSITORY]

    @property
    def programs(self) -> Path:
        """The kit's own: the release of transformers has none."""
        return paths.PACKAGE / "qa"

    def packages(self) -> Dict[str, str]:
        """Return the version of each release."""
        return requirements.read_pins(_LOCK)

    def _fill(self, staging: Path, lock: int) -> None:
        installer.unpack_packages(_LOCK, staging, Steps(paths.BUILD / "log" / "releases.log", lock))
        for name, series in self.series().items():
            # A wheel holds one folder of the repository that the patch's paths are relative to.
            strip = 1 + len(Path(third_party.find_fork(name).packed).parts)
            for patch in series:
                patches.apply_patch(patch, staging, f"-p{strip}")


def choose_source(text: str, fast: bool = True) -> Source:
    """Return the source that ``SOURCE=text`` means (auto: the forks if checked out), or a KitError."""
    if text not in KINDS:
        raise make_unknown_error("source", text, "SOURCE", KINDS)
    if text == Fork.name:
        third_party.require_forks()
    elif text == Registry.name or not third_party.has_forks():
        return Registry(fast)
    return Fork(fast)


def _files(folder: Path, below: str = "") -> Iterator[Tuple[str, os.stat_result]]:
    """Yield the files below ``folder`` with their relative path, without Python's caches."""
    with os.scandir(f"{folder}/{below}") as entries:  # a third of the time that pathlib takes
        for entry in entries:
            name = below + entry.name
            if not entry.is_dir(follow_symlinks=False):
                yield name, entry.stat(follow_symlinks=False)
            elif entry.name != "__pycache__":
                yield from _files(folder, name + "/")


def _listing(folder: Path) -> str:
    """Return one sha256 over name, size, time and mode of each file below ``folder`` but the stamp."""
    return files.digest_value(
        sorted(
            (name, found.st_size, found.st_mtime_ns, found.st_mode)
            for name, found in _files(folder)
            if name != _STAMP
        )
    )
