"""Environments beside the kit's, for what cannot be in it: each has a lock, and is made when asked for."""

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from . import environment, files, interpreters, locks, paths
from .errors import KitError
from .installer import uv_environment
from .steps import Steps


@dataclass(frozen=True)
class Separate:
    """One environment.

    :param name: its folder's.
    :param purpose: what it is for, in words.
    :param lock: the lock whose packages are in it; no others are.
    :param smoke_test: the Python code that must work before it counts as made.
    """

    name: str
    purpose: str
    lock: str
    smoke_test: str

    @property
    def folder(self) -> Path:
        """Where it is."""
        return paths.BUILD / "env" / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def _stamp_file(self) -> Path:
        return self.folder / ".kit-stamp.json"

    def _stamp(self) -> object:
        return {"lock": environment.lock_digest(self.lock)}

    def is_ready(self) -> bool:
        """Whether it is whole and made from its lock as that is now.

        :raises KitError: the lock cannot be read.
        """
        try:
            stamp = json.loads(self._stamp_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        # The link to the interpreter outlives the interpreter.
        return os.access(self.python, os.X_OK) and bool(stamp == self._stamp())

    def ensure(self) -> bool:
        """Make it if it is not ready; return whether it was made.

        The kit's environment must be ready: its interpreter's base and its uv are used.

        :raises KitError: a step failed; the next call starts over.
        """
        if self.is_ready():
            return False
        what = f"the environment of {self.purpose}"
        try:
            with locks.exclusive(self.folder.with_name(self.name + ".lock"), what) as lock:
                if self.is_ready():
                    return False
                self._make(lock)
        except OSError as error:
            raise KitError(
                f"{what[0].upper()}{what[1:]} cannot be made: {error.strerror or error}.",
                where=paths.shown(Path(error.filename) if error.filename else self.folder),
                hint="Free disk space or correct the permissions, then run the same command again.",
            ) from None
        return True

    def _make(self, lock: int) -> None:
        """Make it anew, which takes seconds where uv has its packages already."""
        started = time.monotonic()
        interpreter = _base()
        # Taken now: a lock that is edited while its packages are installed must count as changed.
        stamp = self._stamp()
        folder, python, uv = self.folder, str(self.python), str(paths.VENV / "bin" / "uv")
        log = paths.BUILD / "log" / f"{self.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as stream:
            steps = Steps(stream, log, lock, started)
            if self._stamp_file.exists():
                self._stamp_file.unlink()
            if folder.exists():
                shutil.rmtree(str(folder))
            steps.run(
                f"making {paths.shown(folder)} for {self.purpose}",
                [interpreter.path, "-I", "-m", "venv", "--without-pip", str(folder)],
            )
            steps.run(
                f"installing {len(environment.pins(self.lock))} packages",
                [
                    *(uv, "pip", "sync", "--python", python, "--require-hashes", "--only-binary", ":all:"),
                    str(paths.ENVIRONMENT_DATA / self.lock),
                ],
                environment=uv_environment(str(paths.VENV_PYTHON), uv),
                downloads=True,
            )
            steps.run("trying the environment", [python, "-I", "-c", self.smoke_test])
            files.flush_all()
            files.write(self._stamp_file, json.dumps(stamp) + "\n")
            steps.say(f"{paths.shown(folder)} is ready")


def _base() -> interpreters.Interpreter:
    """Return the interpreter that the kit's environment was made from.

    :raises KitError: there is no such environment, or it has lost its interpreter.
    """
    try:
        return interpreters.probe(str(paths.VENV_PYTHON), "the environment's interpreter")
    except interpreters.Unusable as reason:
        raise KitError(
            f"The interpreter of the kit's environment {reason}.",
            where=paths.shown(paths.VENV_PYTHON),
            hint="make setup",
        ) from None
