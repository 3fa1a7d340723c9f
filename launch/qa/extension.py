"""NNCF's C++ extensions: compiled once, under the build folder, and never waited for in vain.

torch compiles under a lock *file*, which a killed compiler leaves behind, and later runs then wait for ever.
So whoever wants the extension first takes a lock of the operating system's on the folder, which vanishes with
its holder: a lock file that is found while holding it is stale.

Importing NNCF compiles, and takes seconds where there is nothing to compile: a stamp says that there is not.
"""

import importlib.util
import os
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

from ..core import digests, locks, place, status
from ..core.errors import KitError
from ..core.stamp import Stamp

NAME = "quantized_functions_cpu"
"""The extension's name in NNCF."""

FOLDER = "TORCH_EXTENSIONS_DIR"
"""The variable that says below which folder torch compiles."""

_STAMP = ".kit-stamp.json"
"""In the folder: for which key NNCF was last imported, from which sources, and what is compiled."""

_LOCK_FILES = "*/lock"
"""Torch's, below the folder."""


def find_built(folder: Path) -> Path:
    """Return where the compiled extension is below ``folder``, once it is there."""
    return folder / NAME / f"{NAME}.so"


def will_compile(folder: Path) -> bool:
    """Return whether importing NNCF will compile, for the terminal: torch itself decides it otherwise."""
    stamp = Stamp.read(folder / _STAMP)
    return not find_built(folder).is_file() or stamp is None or stamp.made["sources"] != _sources()


def _sources() -> str:
    """Return the digest of the extensions' sources and flags in the NNCF that an import would find."""
    spec = importlib.util.find_spec("nncf")
    found = {}
    for package in (spec.submodule_search_locations or []) if spec else []:
        torch = Path(package) / "torch"
        for path in [*torch.glob("*/extensions.py"), *torch.glob("extensions/**/*.*")]:
            if path.suffix != ".pyc":
                found[str(path)] = digests.digest_file(path)
    return digests.digest_value(found)


def _check_compiler() -> None:
    """Check that an extension can be compiled.

    :raises KitError: there is no C++ compiler, or the running Python has no headers.
    """
    place.find_compiler()
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not headers.is_file():
        raise KitError(
            "This Python has no headers; NNCF compiles an extension against them.",
            where=str(headers),
            hint="Install them (Debian, Ubuntu: apt install python3.8-dev), or set PYTHON= to another 3.8.",
        )


@contextmanager
def hold_extension_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, and remove the lock files that a killed compiler left in it.

    The terminal is told of waiting: a process that a debugger has stopped may hold the lock for long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locks.hold_folder(
        folder, lambda: status.report_step("waiting for another run, which imports or compiles NNCF")
    ):
        for stale in folder.glob(_LOCK_FILES):
            stale.unlink()
        yield


def is_current(folder: Path, key: str) -> bool:
    """Return whether :func:`load_extension` with ``key`` has nothing to do.

    That is where nobody holds the folder's lock, torch has left no lock file, and every compiled file has the
    bytes and the time that it had when NNCF was last imported for ``key``.
    """
    if locks.is_held(folder) or any(folder.glob(_LOCK_FILES)):
        return False
    stamp = Stamp.read(folder / _STAMP)
    return stamp is not None and stamp.key == key and stamp.made["compiled"] == _compiled(folder)


def _compiled(folder: Path) -> Dict[str, List[Any]]:
    return {
        path.relative_to(folder).as_posix(): [path.stat().st_mtime_ns, digests.digest_file(path)]
        for path in folder.glob("*/*.so")
    }


def write_stamp(folder: Path, key: str) -> None:
    """Record what is compiled for ``key``; the caller has just imported NNCF, and holds the lock.

    Without a key, a stamp that is still true stays.
    """
    stamp, made = Stamp.read(folder / _STAMP), {"sources": _sources(), "compiled": _compiled(folder)}
    if key or stamp is None or stamp.made != made:
        Stamp(key, made).write(folder / _STAMP)


def _clear_damaged(folder: Path) -> None:
    """Remove each compiled file that is not what it was: ninja goes by times, and would leave it as it is."""
    stamp = Stamp.read(folder / _STAMP)
    before = stamp.made["compiled"] if stamp else {}
    for name, now in _compiled(folder).items():
        if before.get(name, now) != now:
            (folder / name).unlink()


def load_extension(key: str = "") -> None:
    """Import NNCF's quantization functions, compiling the extension where that has not happened yet.

    :param key: stands for all that decides whether there is something to compile; empty where nobody asks
        :func:`is_current` later.
    :raises KitError: it cannot be compiled; the compiler's words are part of the error.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        raise KitError(
            "Nothing says where NNCF's compiled extension goes.",
            where=f"env of the configuration: {FOLDER}",
            hint="Set it to a folder that only this kit uses, as the kit's launch file does.",
        )
    where = Path(folder)
    if will_compile(where):
        _check_compiler()
        status.report_step("compiling NNCF's C++ extension")
    with hold_extension_lock(where):
        _clear_damaged(where)
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
        write_stamp(where, key)


if __name__ == "__main__":
    sys.exit(status.run_body(load_extension, *sys.argv[1:]))
