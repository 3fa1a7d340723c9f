"""Whether the kit can build here: there is a compiler, and the checkout does not lie below every path.

torch's extension builder (``torch/utils/cpp_extension.py``) writes include and library paths without quotes
into the compiler's command line, PYTHONPATH is split at ``:``, and Model Optimizer splits its list of folders
at ``,``.  A two-layer model was made below a folder with each of the signs and kinds of letters allowed here.
"""

import os
import shutil
import unicodedata
from pathlib import Path

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


def find_compiler() -> str:
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


def check() -> None:
    """Check that what a build runs can stand the checkout's path.

    :raises KitError: it cannot.
    """
    _check(paths.REPOSITORY, "The checkout's path", "Move or clone the checkout to a path of")


def check_headers(folder: Path) -> None:
    """Check that the path of an interpreter's headers can stand on the compiler's command line.

    :raises KitError: it cannot.
    """
    _check(folder, "The path of this Python's headers", "Name another Python 3.8 with PYTHON=, in a path of")


def _check(path: Path, what: str, hint: str) -> None:
    for character in str(path):
        if not _usable(character):
            reason = _REASONS.get(character, _UNQUOTED)
            raise KitError(
                f"{what} has {_name(character)} in it, and nothing can be built there: {reason}.",
                where=str(path),
                hint=f"{hint} letters, digits and {' '.join(SIGNS)} only.",
            )


def _usable(character: str) -> bool:
    # Letters, the marks that some are written with, and numbers.
    return unicodedata.category(character)[0] in "LMN" or character in SIGNS


def _name(character: str) -> str:
    """Return a character as an error calls it."""
    if unicodedata.category(character) == "Cs":
        return f"a byte that is not UTF-8 ({ord(character) - 0xDC00:#04x})"
    return _NAMES.get(character) or (
        repr(character) if character.isprintable() else f"U+{ord(character):04X}"
    )
