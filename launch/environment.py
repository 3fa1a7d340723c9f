"""The virtual environment: made from the locks, and made again only when they change.

A stamp in the environment says which locks and which interpreter it was made from.  The stamp is the first
thing removed and the last thing written, so that an environment with a stamp is whole: a setup that was
killed at any moment leaves none, and the next one starts over.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

from . import files, interpreters, locks, paths, place
from .errors import KitError
from .installer import uv_at_hand, uv_environment
from .steps import Steps

INSTALLER = "installer.lock"
"""The lock of the program that installs the others; pip installs this one, unless it is here already."""

LOCKS = (INSTALLER, "runtime.lock", "report.lock", "dev.lock")
"""The locks whose packages are in the environment; no others are, but for pip."""

FREE_BYTES = 4 * 10**9
"""Free disk space that a new environment needs: it holds 2.7 GB, and uv unpacks beside it."""

SMOKE_TEST = "import numpy, onnx, openvino.runtime, torch"
"""What must work before an environment counts as made: the packages with the most compiled code."""


class Stamp(NamedTuple):
    """What an environment was made from.

    :param python: path of the base interpreter.
    :param version: the interpreter's version.
    :param venv: where the environment was made; the programs in its ``bin`` run in that folder and no other.
    :param locks: :func:`lock_digest` of each lock.
    """

    python: str
    version: str
    venv: str
    locks: Dict[str, str]

    def whole(self) -> bool:
        """Whether the environment is still where it was made and still has its interpreter."""
        return (
            # By whichever link somebody came to the checkout.
            _same_file(str(Path(self.venv).parent), str(paths.VENV.parent))
            and os.access(self.python, os.X_OK)
            and os.access(paths.VENV_PYTHON, os.X_OK)
        )


def _stamp_file() -> Path:
    return paths.VENV / ".kit-stamp.json"


def _read_stamp() -> Optional[Stamp]:
    """Return the stamp; None where there is none that can be understood."""
    try:
        content = json.loads(_stamp_file().read_text(encoding="utf-8"))
        python, digests = content["python"], content["locks"]
        return Stamp(str(python["path"]), str(python["version"]), str(content["venv"]), dict(digests))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_stamp(stamp: Stamp) -> None:
    content = {
        "python": {"version": stamp.version, "path": stamp.python},
        "venv": stamp.venv,
        "locks": stamp.locks,
    }
    files.flush_all()
    files.write(_stamp_file(), json.dumps(content, indent=2) + "\n")


def _lines(name: str) -> List[str]:
    """Return a lock's lines without comments, blank lines and continuation marks.

    :raises KitError: the lock cannot be read.
    """
    lock = paths.ENVIRONMENT_DATA / name
    try:
        text = lock.read_text(encoding="utf-8")
    except OSError as error:
        raise KitError(
            f"A lock cannot be read: {error.strerror}.",
            where=paths.shown(lock),
            hint="It belongs to the checkout: git checkout -- " + paths.shown(lock),
        ) from None
    lines = (re.sub(r"(^|\s)#.*", "", line).rstrip("\\ \t").strip() for line in text.splitlines())
    return [line for line in lines if line]


def lock_digest(name: str) -> str:
    """Return the SHA-256 of what a lock asks for; comments and blank lines do not count.

    :raises KitError: the lock cannot be read.
    """
    return hashlib.sha256("\n".join(_lines(name)).encode()).hexdigest()


def pins(name: str) -> Dict[str, str]:
    """Return a lock's packages and their versions.

    :raises KitError: the lock cannot be read.
    """
    found = (re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line) for line in _lines(name))
    return {match.group(1): match.group(2) for match in found if match}


def _digests() -> Dict[str, str]:
    return {name: lock_digest(name) for name in LOCKS}


def is_ready() -> bool:
    """Whether the environment is whole and made from the locks as they are now.

    This is asked before every command, so it reads five small files and starts nothing.

    :raises KitError: a lock cannot be read.
    """
    stamp = _read_stamp()
    return stamp is not None and stamp.whole() and stamp.locks == _digests()


def ensure(python: str = "") -> bool:
    """Make the environment if it is not ready, and return whether there was anything to do.

    Only one setup works at a time; a second one waits for it and then has nothing to do.

    :param python: the make variable ``PYTHON``; empty where the kit may choose.  An environment made from
        another interpreter is made again.
    :raises KitError: there is no Python 3.8, a thing the setup needs is missing, or a step failed; the next
        call starts over.
    """
    if _satisfies(python):
        return False
    _check_writable()
    with locks.exclusive(paths.BUILD / "setup.lock", "the environment") as lock:
        if _satisfies(python):
            return False
        _make(python, lock)
    return True


def _satisfies(python: str) -> bool:
    stamp = _read_stamp()
    if stamp is None or not is_ready():
        return False
    # The interpreter is recognized by its path where possible: asking it takes a process.
    return python in ("", stamp.python) or _same_file(interpreters.find(python).path, stamp.python)


def _same_file(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _check_writable() -> None:
    """:raises KitError: the lock of a setup cannot be made."""
    file = paths.BUILD / "setup.lock"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a").close()
    except OSError as error:
        raise KitError(
            f"The checkout cannot be written to: {error.strerror}.",
            where=paths.shown(file),
            hint="Give yourself write permission, or clone the repository to a folder of your own.",
        ) from None


def compiler() -> str:
    """Return the C++ compiler that extensions are built with: ``$CXX``, else ``c++``, else ``g++``.

    :raises KitError: there is none.
    """
    chosen = os.environ.get("CXX", "").strip()
    if chosen:
        # CXX may hold more than a name: "ccache g++".
        if shutil.which(chosen.split()[0]):
            return chosen
        raise KitError(
            "The C++ compiler that CXX names is not on PATH.",
            where=f"CXX={chosen}",
            hint="Correct CXX, or unset it to have c++ used.",
        )
    for name in ("c++", "g++"):
        if shutil.which(name):
            return name
    raise KitError(
        "There is no C++ compiler; NNCF's extension is compiled on this machine.",
        where="c++ and g++, looked for on PATH",
        hint="Install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++), or set CXX.",
    )


def _check_interpreter(interpreter: interpreters.Interpreter) -> None:
    """:raises KitError: the interpreter cannot make environments, or its headers cannot be used."""
    hint = (
        "{} (Debian, Ubuntu: apt install {}), or name another interpreter with PYTHON=; those of pyenv and uv"
        " have everything."
    )
    if not interpreter.has_venv:
        raise KitError(
            f"Python {interpreter.version} cannot make a virtual environment: it has no ensurepip.",
            where=f"{interpreter.path} ({interpreter.origin})",
            hint=hint.format("Install its venv package", "python3.8-venv"),
        )
    if not interpreter.headers:
        raise KitError(
            f"Python {interpreter.version} has no Python.h; NNCF's extension is compiled against it.",
            where=f"{interpreter.path} ({interpreter.origin})",
            hint=hint.format("Install its headers", "python3.8-dev"),
        )
    place.check_headers(Path(interpreter.headers))


def _check_space() -> None:
    """:raises KitError: the disk has no room for a new environment."""
    folder = paths.VENV if paths.VENV.is_dir() else paths.VENV.parent
    free = shutil.disk_usage(str(folder)).free
    if free < FREE_BYTES:
        raise KitError(
            f"There is too little free disk space: {free / 1e9:.1f} GB,"
            f" and a new environment needs {FREE_BYTES / 1e9:.0f} GB.",
            where=str(folder),
            hint="Free some space, or clone the repository to a larger disk.",
        )


def _remove_venv() -> None:
    """Empty the environment's folder.

    The folder itself stays where it is a link: somebody wanted the environment on another disk.

    :raises KitError: something in it cannot be removed.
    """
    try:
        if not paths.VENV.is_symlink():
            if paths.VENV.is_dir():
                shutil.rmtree(str(paths.VENV))
            else:
                paths.VENV.unlink()
            return
        for entry in paths.VENV.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(str(entry))
            else:
                entry.unlink()
    except OSError as error:
        raise KitError(
            f"The old environment cannot be removed: {error.strerror}.",
            where=str(error.filename or paths.VENV),
            hint=f"Remove {paths.shown(paths.VENV)} by hand and run the command again.",
        ) from None


def _choose(python: str, stamp: Optional[Stamp]) -> Tuple[interpreters.Interpreter, bool]:
    """Return the interpreter to use, and whether the environment at hand can be brought up to date."""
    whole = stamp is not None and stamp.whole()
    if stamp is not None and whole and not python:
        # The environment's own interpreter, even where a search would now find another first.
        with contextlib.suppress(interpreters.Unusable):
            return interpreters.probe(stamp.python, "the environment's interpreter"), True
        return interpreters.find(), False
    interpreter = interpreters.find(python)
    return interpreter, stamp is not None and whole and _same_file(interpreter.path, stamp.python)


def _make(python: str, lock: int) -> None:
    """Make the environment, or bring it up to date where only the locks have changed."""
    started = time.monotonic()
    stamp = _read_stamp()
    interpreter, keep = _choose(python, stamp)
    compiler()
    _check_interpreter(interpreter)
    # Taken now: a lock that is edited while its packages are installed must count as changed.
    digests = _digests()
    log = paths.BUILD / "log" / "setup.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        steps = Steps(stream, log, lock, started)
        with contextlib.suppress(FileNotFoundError):
            _stamp_file().unlink()
        if not keep:
            if os.path.lexists(str(paths.VENV)):
                reason = "which is not the one wanted" if stamp else "left by a setup that did not finish"
                steps.say(f"removing {paths.shown(paths.VENV)}, {reason}")
                _remove_venv()
            _check_space()
        _install(steps, interpreter, keep)
        _write_stamp(Stamp(interpreter.path, interpreter.version, str(paths.VENV), digests))
        steps.say(f"{paths.shown(paths.VENV)} is ready")


def _install(steps: Steps, interpreter: interpreters.Interpreter, keep: bool) -> None:
    """Take the steps from an interpreter, or an environment with a stamp, to one with the locks' packages."""
    python, own_uv = str(paths.VENV_PYTHON), str(paths.VENV / "bin" / "uv")
    if not keep:
        _new_venv(steps, interpreter)
    uv = uv_at_hand(pins(INSTALLER).get("uv", ""), [own_uv] if keep else [])
    if uv not in ("", own_uv):
        try:
            _sync(steps, python, uv, f" with {uv}")
        except KitError:
            steps.say(f"{uv} has failed; trying once more, with the uv of the lock")
            uv = ""
    if not uv:
        uv = own_uv
        steps.run(
            "installing the installer",
            [
                *(python, "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"),
                *("--no-deps", "--no-compile", "--require-hashes", "--only-binary", ":all:"),
                *("-r", _lock_file(INSTALLER)),
            ],
            downloads=True,
        )
    if uv == own_uv:
        _sync(steps, python, uv)
    steps.run("trying the environment", [python, "-I", "-c", SMOKE_TEST])


def _lock_file(name: str) -> str:
    return str(paths.ENVIRONMENT_DATA / name)


def _sync(steps: Steps, python: str, uv: str, by: str = "") -> None:
    """Have uv install what the locks name and remove what they do not; it resolves nothing.

    It leaves pip, which `make` needs for downloading sources.

    :param by: what to add to the step's words.
    """
    packages = len({package for name in LOCKS for package in pins(name)})
    steps.run(
        f"installing {packages} packages{by}",
        [
            *(uv, "pip", "sync", "--python", python, "--require-hashes"),
            # jstyleson, of which there is only a source archive, is built: what builds it is locked too.
            *("--preview-features", "build-dependency-hashes", "--require-build-hashes"),
            *("--build-constraints", _lock_file("runtime.lock")),
            *("--build-constraints", _lock_file(INSTALLER)),
            *map(_lock_file, LOCKS),
        ],
        environment=uv_environment(python, uv),
        downloads=True,
    )


def _new_venv(steps: Steps, interpreter: interpreters.Interpreter) -> None:
    """Make an environment that has pip and nothing else that stays.

    Python's own way to put pip there runs pip from its wheel, which installs and compiles it and setuptools
    in two to three seconds.  Unpacking the same wheel gives the same package.
    """
    doing = f"making {paths.shown(paths.VENV)} with Python {interpreter.version} ({interpreter.path})"
    command = [interpreter.path, "-I", "-m", "venv"]
    if not interpreter.pip:
        steps.run(doing, [*command, str(paths.VENV)])
        return
    steps.run(doing, [*command, "--without-pip", str(paths.VENV)])
    library = "python{}.{}".format(*interpreter.version.split("."))
    folder = paths.VENV / "lib" / library / "site-packages"
    steps.run(
        "unpacking its pip", [interpreter.path, "-I", "-m", "zipfile", "-e", interpreter.pip, str(folder)]
    )
