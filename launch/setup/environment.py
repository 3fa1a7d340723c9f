"""The virtual environments, made from locks and an interpreter, of which a stamp in each keeps record."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from ..core import files, machine, paths
from ..core.errors import KitError
from ..core.files import Stamp
from ..core.progress import format_size
from . import installer, interpreters, requirements
from .steps import Steps


@dataclass(frozen=True)
class Venv:
    """A virtual environment."""

    folder: Path
    purpose: str  # what it is for, in words
    locks: Tuple[str, ...]  # whose packages are in it; no others are
    bytes: float
    download: float  # of its bytes, where uv's cache has nothing
    smoke_test: str  # the Python code that must work before it counts as made
    base: Optional["Venv"] = None  # whose interpreter it is made with, and ready; None: one is looked for
    versions: Tuple[str, ...] = interpreters.VERSIONS  # of Python that it may have, the best first

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def _stamp_file(self) -> Path:
        return self.folder / ".kit-stamp.json"

    def _key(self) -> Dict[str, str]:
        return {name: requirements.digest_lock(name) for name in self.locks}

    def _stamp(self) -> Optional[Stamp]:
        """Return the stamp, if the environment is where it was made and still has its interpreter."""
        stamp = Stamp.read(self._stamp_file)
        whole = (
            stamp is not None
            # By whichever link somebody came to the checkout.
            and _same_file(Path(stamp.made["folder"]).parent, self.folder.parent)
            and os.access(stamp.made["python"], os.X_OK)
            and os.access(self.python, os.X_OK)
        )
        return stamp if whole else None

    def is_ready(self, python: str = "") -> bool:
        """Whether it is whole and made from the locks as they are now, and of ``python`` if that is named."""
        stamp = self._stamp()
        if stamp is None or stamp.key != self._key():
            return False
        # The interpreter is recognized by its path where possible: asking it takes a process.
        own = stamp.made["python"]
        if python in ("", own):
            return True
        found = interpreters.find_interpreter(python, versions=self.versions)
        return found is not None and _same_file(Path(found.path), Path(own))

    def ensure(self, python: str = "") -> bool:
        """Make the environment if it is not ready, and return whether there was anything to do.

        :param python: the make variable ``PYTHON``: an environment of another interpreter is made again.
        :raises KitError: the locks are not for this machine, uv or a Python is not to be had, or a step
            failed; the next call starts over.
        """
        if self.is_ready(python):
            return False
        with files.hold_lock() as lock:
            if self.is_ready(python):
                return False
            self._make(python, lock)
        return True

    def _choose(
        self, python: str, stamp: Optional[Stamp], tried: List[str]
    ) -> Optional[interpreters.Interpreter]:
        """Return the base's interpreter, or its own, even where a search would find another first."""
        known = str(self.base.python) if self.base else stamp.made["python"] if stamp and not python else ""
        if known:
            with contextlib.suppress(interpreters.Unusable):
                return interpreters.probe_interpreter(known, self.versions)
        return interpreters.find_interpreter(python, tried, self.versions)

    def _make(self, python: str, lock: int) -> None:
        machine.check_machine()
        tried: List[str] = []
        stamp = self._stamp()
        interpreter, uv = self._choose(python, stamp, tried), installer.find_uv()
        own = Path(stamp.made["python"]) if stamp else None
        keep = own is not None and interpreter is not None and _same_file(Path(interpreter.path), own)
        if not keep:
            self._check_space()
        key = self._key()  # now: a lock that is edited while its packages are installed has changed
        shown = paths.show_path(self.folder)
        steps = Steps(paths.BUILD / "log" / f"{self.folder.name.lstrip('.')}.log", lock)
        wanted = [
            *([] if uv else [f"uv, {format_size(installer.DOWNLOAD)}"]),
            *([] if interpreter else [f"CPython {self.versions[0]}, {format_size(interpreters.DOWNLOAD)}"]),
            f"packages, {format_size(self.download)}, but for those in uv's cache",
        ]
        steps.say(
            f"{shown} for {self.purpose} takes {format_size(self.bytes)}; to download: {'; '.join(wanted)}"
        )
        uv = uv or installer.fetch_uv(steps)
        interpreter = interpreter or interpreters.fetch_interpreter(uv, steps, tried, self.versions)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._stamp_file.unlink()
        if not keep:
            # Where it is a link somebody wanted it on another disk.
            folder = str(self.folder.resolve())
            steps.run(
                f"making {shown} with Python {interpreter.version} ({interpreter.path})",
                [uv, "venv", "--no-project", "--clear", "--force", "--python", interpreter.path, folder],
            )
        self._install(uv, steps)
        steps.run("trying the environment", [str(self.python), "-I", "-c", self.smoke_test])
        os.sync()
        Stamp(key, {"folder": str(self.folder), "python": interpreter.path}).write(self._stamp_file)
        steps.say(f"{shown} is ready: {steps.list_times()}")

    def _check_space(self) -> None:
        """:raises KitError: the disk has no room for a new environment."""
        free = machine.measure_free_disk(self.folder.resolve())
        wanted = 1.5 * self.bytes  # uv unpacks beside it
        if free < wanted:
            raise KitError(
                f"There is too little free disk space: {format_size(free)},"
                f" and making {paths.show_path(self.folder)} needs {format_size(wanted)}.",
                where=str(self.folder),
                hint="Free some space, or clone the repository to a larger disk.",
            )

    def _install(self, uv: str, steps: Steps) -> None:
        """Have uv install what the locks name and remove what they do not; it resolves nothing."""
        packages = len({package for name in self.locks for package in requirements.read_pins(name)})
        steps.run(
            f"installing {packages} packages, {format_size(self.bytes)}",
            [
                *(uv, "pip", "sync", "--python", str(self.python), "--require-hashes"),
                # jstyleson, of which there is only a source archive, is built: what builds it is locked too.
                *("--preview-features", "build-dependency-hashes", "--require-build-hashes"),
                *("--build-constraints", _lock_file("runtime.lock")),
                *("--build-constraints", _lock_file(installer.LOCK)),
                *map(_lock_file, self.locks),
            ],
            draws=True,
        )


def _lock_file(name: str) -> str:
    return str(paths.ENVIRONMENT_DATA / name)


def _same_file(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


KIT = Venv(
    paths.VENV,
    "the kit",
    ("runtime.lock", "report.lock", "dev.lock"),
    2.7e9,
    1.1e9,
    # The packages with the most compiled code.
    "import numpy, onnx, openvino.runtime, torch",
)
"""What every run uses."""
