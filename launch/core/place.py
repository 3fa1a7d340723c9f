"""What is here to build with: a path that every tool can stand, room on the disk, a compiler.

torch's extension builder (``torch/utils/cpp_extension.py``) writes include and library paths without quotes
into the compiler's command line, PYTHONPATH is split at ``:``, and Model Optimizer splits its list of folders
at ``,``.  A two-layer model was made below a folder with each of the signs and kinds of letters allowed here.
"""

import shutil
import unicodedata
from pathlib import Path
from typing import Mapping

from . import paths
from .errors import KitError

SIGNS = "@%+=./-_"
"""What a path may hold besides letters and digits of any language."""

_NAMES = {" ": "a space", "\n": "a line end", "\t": "a tab"}

_REASONS = {
    ":": "PYTHONPATH and PATH are split at it",
    ",": "Model Optimizer splits its list of folders at it",
}
_UNQUOTED = "torch's extension builder puts paths unquoted on the compiler's command line"

_GB = 1e9


def has_compiler(environ: Mapping[str, str]) -> bool:
    """Return whether ``$CXX``, else ``c++``, else ``g++``, is on the PATH of ``environ``."""
    # CXX may hold more than a name: "ccache g++".
    names = environ.get("CXX", "").split()[:1] or ("c++", "g++")
    return any(shutil.which(name, path=environ.get("PATH")) for name in names)


def check_place() -> None:
    """:raises KitError: what a build runs cannot stand the checkout's path."""
    _check(paths.REPOSITORY, "The checkout's path", "Move or clone the checkout to a path of")


def check_headers(folder: Path) -> None:
    """:raises KitError: the path of an interpreter's headers cannot stand on the compiler's command line."""
    _check(folder, "The path of this Python's headers", "Name another Python 3.8 with PYTHON=, in a path of")


def _check(path: Path, what: str, hint: str) -> None:
    for character in str(path):
        category = unicodedata.category(character)
        # Letters, the marks that some are written with, and numbers.
        if category[0] in "LMN" or character in SIGNS:
            continue
        name = repr(character) if character.isprintable() else f"U+{ord(character):04X}"
        if category == "Cs":
            name = f"a byte that is not UTF-8 ({ord(character) - 0xDC00:#04x})"
        raise KitError(
            f"{what} has {_NAMES.get(character, name)} in it, and nothing can be built there:"
            f" {_REASONS.get(character, _UNQUOTED)}.",
            where=str(path),
            hint=f"{hint} letters, digits and {' '.join(SIGNS)} only.",
        )


def measure_free_disk(folder: Path) -> int:
    """Return the free bytes of the filesystem that ``folder``, or its nearest existing parent, is on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_disk(what: str, folder: Path, need: int) -> None:
    """:raises KitError: less than ``need`` bytes are free where ``folder`` is."""
    free = measure_free_disk(folder)
    if free < need:
        raise KitError(
            f"{what} needs about {need / _GB:.1f} GB of disk; {free / _GB:.1f} GB are free.",
            where=paths.show_path(folder),
            hint="Free disk space, or set OUT= to a folder on another disk.",
        )
