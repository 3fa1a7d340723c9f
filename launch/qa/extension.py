"""NNCF's C++ extension: compiled once, under the build folder, and never waited for in vain.

torch compiles an extension under a lock *file*.  A compiler that is killed leaves it behind, and every later
run then waits for ever.  Here, whoever wants the extension first takes a lock of the operating system's on
the folder, which vanishes with its holder: a lock file that is found while holding it is stale, and removed.
"""

import fcntl
import os
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from .. import environment, status
from ..errors import KitError

NAME = "quantized_functions_cpu"
"""The extension's name in NNCF."""

FOLDER = "TORCH_EXTENSIONS_DIR"
"""The variable that says below which folder torch compiles."""


def built(folder: Path) -> Path:
    """Return where the compiled extension is below ``folder``, once it is there."""
    return folder / NAME / f"{NAME}.so"


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
    """Hold the folder's lock, and remove the lock files that a killed compiler left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".kit-lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for stale in folder.glob("*/lock"):
            stale.unlink()
        yield


def load() -> None:
    """Import NNCF's quantization functions, compiling the extension where that has not happened yet.

    :raises KitError: it cannot be compiled; the compiler's words are part of the error.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        raise KitError(
            "Nothing says where NNCF's compiled extension goes.",
            where=f"env of the configuration: {FOLDER}",
            hint="Set it to a folder that only this kit uses, as the kit's launch file does.",
        )
    if not built(Path(folder)).is_file():
        preflight()
        status.step("compiling NNCF's C++ extension (once)")
    with lock(Path(folder)):
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


if __name__ == "__main__":
    sys.exit(status.run(load))
