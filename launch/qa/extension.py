"""NNCF's C++ extensions: compiled once, under the build folder, and never waited for in vain.

torch compiles an extension under a lock *file*.  A compiler that is killed leaves it behind, and every later
run then waits for ever.  Here, whoever wants the extension first takes a lock of the operating system's on
the folder, which vanishes with its holder: a lock file that is found while holding it is stale, and removed.

Importing NNCF is what compiles, and takes seconds where there is nothing to compile.  So whoever has imported
it for a caller with a key leaves a stamp, by which :func:`is_current` tells the next caller that it need not.
"""

import fcntl
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

from .. import digests, environment, files, status
from ..errors import KitError

NAME = "quantized_functions_cpu"
"""The extension's name in NNCF."""

FOLDER = "TORCH_EXTENSIONS_DIR"
"""The variable that says below which folder torch compiles."""

COMPILING = "compiling NNCF's C++ extension"
"""What is said while it is compiled, which takes half a minute."""

_LOCK = ".kit-lock"
_STAMP = ".kit-stamp.json"
_STAMP_BYTES = 1 << 16
"""What is read of a stamp at most."""

_SOURCES = ".kit-sources"
"""In the folder: the digest of the sources from which was compiled what is there."""

_WATCH = """
trap '' INT
before=" $(echo /proc/[0-9]*) "
read -r _ && exit  # fails where the other end was closed without a word
found=1
while [ "$found" ]; do
    found=
    for process in /proc/[0-9]*; do
        case $before in *" $process "*) continue ;; esac
        case $(readlink "$process/cwd") in "$1"/*) kill -9 "${process#/proc/}" && found=1 ;; esac
    done
done
"""
"""A shell script that kills what works below the folder ``$1``, and was started after it, if its input ends.

There ninja and what it starts (g++, cc1plus) work, each in a process group of its own.
"""


def built(folder: Path) -> Path:
    """Return where the compiled extension is below ``folder``, once it is there."""
    return folder / NAME / f"{NAME}.so"


def compiles(folder: Path) -> bool:
    """Return whether importing NNCF will compile, for the terminal: torch itself decides it otherwise."""
    if not built(folder).is_file():
        return True
    try:
        return files.read(folder / _SOURCES, _STAMP_BYTES).decode("ascii") != _sources()
    except (OSError, ValueError):
        return True


def compiled(folder: Path) -> None:
    """Remember what was compiled: for who has just imported NNCF, under the lock."""
    files.write(folder / _SOURCES, _sources())


def _sources() -> str:
    """Return the digest of the extensions' sources and flags in the NNCF that an import would find."""
    spec = importlib.util.find_spec("nncf")
    places = list(spec.submodule_search_locations or []) if spec else []
    found = {}
    for place in places:
        torch = Path(place) / "torch"
        for path in [*torch.glob("*/extensions.py"), *torch.glob("extensions/**/*.*")]:
            if path.suffix != ".pyc":
                found[str(path)] = digests.of_file(path)
    return digests.of_value(found)


def preflight() -> None:
    """Check that an extension can be compiled.

    :raises KitError: there is no C++ compiler, or the running Python has no headers.
    """
    environment.compiler()
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not headers.is_file():
        raise KitError(
            "This Python has no headers; NNCF compiles an extension against them.",
            where=str(headers),
            hint="Install them (Debian, Ubuntu: apt install python3.8-dev), or set PYTHON= to another 3.8.",
        )


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, and remove the lock files that a killed compiler left in it.

    Where another process holds it, that is said: one that a debugger has stopped while it imports NNCF may
    hold it for long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            status.step("waiting for another run, which is importing or compiling NNCF")
            fcntl.flock(handle, fcntl.LOCK_EX)
        for stale in _lock_files(folder):
            stale.unlink()
        yield


@contextmanager
def compilers_end_with_this(folder: Path) -> Iterator[None]:
    """Let nothing that compiles below ``folder`` outlive this process, whatever ends it, a SIGKILL too.

    A shell does that, which debuggers leave alone.  It inherits what this process has, the build's lock too.
    """
    argv = ["sh", "-c", _WATCH, "sh", str(folder.resolve())]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, close_fds=False) as watcher:
        yield
        assert watcher.stdin is not None
        watcher.stdin.write(b"\n")


def _lock_files(folder: Path) -> Iterator[Path]:
    """Yield torch's lock files below ``folder``."""
    return folder.glob("*/lock")


def is_current(folder: Path, key: str) -> bool:
    """Return whether :func:`load` with ``key`` has nothing to do: neither to compile, to clear nor to wait.

    That is where nobody holds the folder's lock, torch has left no lock file, and every compiled file has the
    bytes and the time that it had when NNCF was last imported for ``key``.
    """
    try:
        with (folder / _LOCK).open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return not any(_lock_files(folder)) and _stamp(folder) == _made(folder, key)
    except (OSError, ValueError):
        return False


def _stamp(folder: Path) -> Any:
    """Return what a stamp holds.

    :raises OSError: there is none.
    :raises ValueError: it is none.
    """
    return json.loads(files.read(folder / _STAMP, _STAMP_BYTES).decode("utf-8"))


def _made(folder: Path, key: str) -> Dict[str, Any]:
    """Return what a stamp says: the caller's key, and time and sha256 of each compiled file."""
    libraries = {
        path.relative_to(folder).as_posix(): [path.stat().st_mtime_ns, digests.of_file(path)]
        for path in folder.glob("*/*.so")
    }
    return {"key": key, "compiled": libraries}


def stamp(folder: Path, key: str) -> None:
    """Say that what is compiled is current for ``key``; only for who has just used it, under the lock."""
    files.write(folder / _STAMP, json.dumps(_made(folder, key), indent=2) + "\n")


def _changed(folder: Path) -> List[str]:
    """Return the compiled files that are not what the stamp says; none where there is no stamp."""
    try:
        then = _stamp(folder)["compiled"]
        now = _made(folder, "")["compiled"]
        return [name for name in now if name in then and then[name] != now[name]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _clear_damaged(folder: Path) -> None:
    """Remove each compiled file that is not what it was: ninja goes by times, and would leave it as it is."""
    for name in _changed(folder):
        (folder / name).unlink()


def load(key: str = "") -> None:
    """Import NNCF's quantization functions, compiling the extension where that has not happened yet.

    :param key: stands for everything that decides whether there is something to compile; see
        :func:`is_current`.  Empty where nobody will ask; a stamp is then removed that is no longer true.
    :raises KitError: it cannot be compiled; the compiler's words are part of the error.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        raise KitError(
            "Nothing says where NNCF's compiled extension goes.",
            where=f"env of the configuration: {FOLDER}",
            hint="Set it to a folder that only this kit uses, as the kit's launch file does.",
        )
    place = Path(folder)
    if compiles(place):
        preflight()
        status.step(COMPILING)
    with lock(place), compilers_end_with_this(place):
        _clear_damaged(place)
        try:
            import nncf.torch  # noqa: F401  (the import compiles)
        except RuntimeError as error:
            if "extension" not in str(error):
                raise
            raise KitError(
                f"NNCF's C++ extension cannot be compiled: {str(error)[-1500:]}",
                where=folder,
                hint="Mend the compiler's complaint; `make clean` removes what was compiled so far.",
            ) from None
        compiled(place)
        if key:
            stamp(place, key)
        elif _changed(place):
            # Compiled anew for a caller without a key: the next one would take it for damaged.
            (place / _STAMP).unlink()


if __name__ == "__main__":
    sys.exit(status.run(load, *sys.argv[1:]))
