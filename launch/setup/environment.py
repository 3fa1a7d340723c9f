"""The virtual environments: each is made from its locks, and brought up to date when those change.

A stamp in each says which locks and which interpreter it was made from.
"""

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Tuple

from ..core import locks, machine, paths
from ..core.errors import KitError
from ..core.files import Stamp
from ..core.progress import format_size
from . import installer, interpreters, requirements
from .steps import Steps

_UNPACK_PIP = """
import ensurepip, glob, os, sysconfig, zipfile
here = os.path.join(glob.escape(os.path.dirname(ensurepip.__file__)), "_bundled", "*.whl")
# Debian has the wheels elsewhere, and pip's parts in wheels of their own.
for wheel in glob.glob(here) or glob.glob("/usr/share/python-wheels/*.whl"):
    zipfile.ZipFile(wheel).extractall(sysconfig.get_path("purelib"))
"""
"""What ``python -m ensurepip`` does, which takes ten times as long: it runs pip and compiles all."""


@dataclass(frozen=True)
class Venv:
    """A virtual environment.

    :param purpose: what it is for, in words.
    :param locks: the locks whose packages are in it; no others are.
    :param bytes: how large it is.
    :param smoke_test: the Python code that must work before it counts as made.
    :param base: the environment whose interpreter and uv it is made with, which must be ready; None: an
        interpreter is looked for that NNCF's extension can be compiled for.
    """

    folder: Path
    purpose: str
    locks: Tuple[str, ...]
    bytes: float
    smoke_test: str
    base: Optional["Venv"] = None

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def _uv(self) -> Path:
        return self.folder / "bin" / "uv"

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

    def is_ready(self) -> bool:
        """Whether the environment is whole and made from the locks as they are now; starts no process.

        :raises KitError: a lock cannot be read.
        """
        return self._satisfies("")

    def ensure(self, python: str = "") -> bool:
        """Make the environment if it is not ready, and return whether there was anything to do.

        :param python: the make variable ``PYTHON``: an environment of another interpreter is made again.
        :raises KitError: a Python 3.8 or a compiler is missing, or a step failed; the next call starts over.
        """
        if self._satisfies(python):
            return False
        with locks.hold_lock(locks.LOCK, locks.LOCKED) as lock:
            if self._satisfies(python):
                return False
            self._make(python, lock)
        return True

    def _satisfies(self, python: str) -> bool:
        stamp = self._stamp()
        if stamp is None or stamp.key != self._key():
            return False
        # The interpreter is recognized by its path where possible: asking it takes a process.
        own = stamp.made["python"]
        return python in ("", own) or _same_file(Path(interpreters.find_interpreter(python).path), Path(own))

    def _choose(self, python: str, stamp: Optional[Stamp]) -> interpreters.Interpreter:
        """Return the base's interpreter, or its own, even where a search would find another first."""
        known = str(self.base.python) if self.base else stamp.made["python"] if stamp and not python else ""
        if known:
            with contextlib.suppress(interpreters.Unusable):
                return interpreters.probe_interpreter(known, "the environment's interpreter")
        return interpreters.find_interpreter(python)

    def _make(self, python: str, lock: int) -> None:
        stamp = self._stamp()
        interpreter = self._choose(python, stamp)
        keep = stamp is not None and _same_file(Path(interpreter.path), Path(stamp.made["python"]))
        if self.base is None:
            _check_interpreter(interpreter)
        key = self._key()  # now: a lock that is edited while its packages are installed has changed
        shown = paths.show_path(self.folder)
        steps = Steps(paths.BUILD / "log" / f"{self.folder.name.lstrip('.')}.log", lock)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._stamp_file.unlink()
        if not keep:
            # Where it is a link somebody wanted it on another disk; venv refuses a link.
            folder = str(self.folder.resolve())
            steps.run(
                f"making {shown} for {self.purpose}, with Python {interpreter.version} ({interpreter.path})",
                [interpreter.path, "-I", "-m", "venv", "--clear", "--without-pip", folder],
            )
            self._check_space()
        self._install(steps)
        steps.run("trying the environment", [str(self.python), "-I", "-c", self.smoke_test])
        os.sync()
        Stamp(key, {"folder": str(self.folder), "python": interpreter.path}).write(self._stamp_file)
        steps.say(f"{shown} is ready")

    def _check_space(self) -> None:
        """:raises KitError: the disk has no room for a new environment."""
        free = shutil.disk_usage(str(self.folder)).free
        wanted = 1.5 * self.bytes  # uv unpacks beside it
        if free < wanted:
            raise KitError(
                f"There is too little free disk space: {format_size(free)},"
                f" and making {paths.show_path(self.folder)} needs {format_size(wanted)}.",
                where=str(self.folder),
                hint="Free some space, or clone the repository to a larger disk.",
            )

    def _install(self, steps: Steps) -> None:
        """Have uv install what the locks name and remove what they do not; it resolves nothing."""
        python = str(self.python)
        uv = installer.find_uv([venv._uv for venv in (self, self.base) if venv])
        if not uv:
            uv = str(self._uv)
            steps.run("unpacking pip, to install uv", [python, "-I", "-c", _UNPACK_PIP])
            pip = [python, "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
            only = ["--no-deps", "--no-compile", "--require-hashes", "--only-binary", ":all:"]
            steps.run(
                "installing uv, 18 MB", [*pip, *only, "--requirement", _lock_file(installer.LOCK)], draws=True
            )
        packages = len({package for name in self.locks for package in requirements.read_pins(name)})
        steps.run(
            f"installing {packages} packages, {format_size(self.bytes)}, with {uv}",
            [
                *(uv, "pip", "sync", "--python", python, "--require-hashes"),
                # jstyleson, of which there is only a source archive, is built: what builds it is locked too.
                *("--preview-features", "build-dependency-hashes", "--require-build-hashes"),
                *("--build-constraints", _lock_file("runtime.lock")),
                *("--build-constraints", _lock_file(installer.LOCK)),
                *map(_lock_file, self.locks),
            ],
            environment=installer.derive_uv_settings(os.environ),
            draws=True,
        )


def _lock_file(name: str) -> str:
    return str(paths.ENVIRONMENT_DATA / name)


def _same_file(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _check_interpreter(interpreter: interpreters.Interpreter) -> None:
    """:raises KitError: the interpreter cannot make environments, or NNCF's extension be compiled for it."""
    if interpreter.lacks:
        raise KitError(
            f"Python {interpreter.version} has no {' and no '.join(interpreter.lacks)}: ensurepip has the pip"
            " that environments are made with, and against Python.h NNCF's extension is compiled.",
            where=f"{interpreter.path} ({interpreter.origin})",
            hint="Install them (Debian, Ubuntu: apt install python3.8-venv python3.8-dev), or name another"
            " interpreter with PYTHON=; those of pyenv and uv have everything.",
        )
    machine.check_headers(Path(interpreter.headers))


KIT = Venv(
    paths.VENV,
    "the kit",
    (installer.LOCK, "runtime.lock", "report.lock", "dev.lock"),
    2.7e9,
    # The packages with the most compiled code.
    "import numpy, onnx, openvino.runtime, torch",
)
"""What every run uses."""
