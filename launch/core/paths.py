"""Where things are in a checkout; what a run reads and writes is in the launch file."""

import os
from pathlib import Path


def _entered(folder: Path) -> Path:
    """Return ``folder``, a real path, by the name that the shell has for it where it is in this folder.

    A shell keeps the symbolic link that it was led through (POSIX: ``PWD``), and so does VS Code.
    """
    called = os.environ.get("PWD", "")
    absolute = called == os.path.normpath(called) and Path(called).is_absolute()
    return Path(called) if absolute and os.path.realpath(called) == str(folder) else folder


REPOSITORY = _entered(Path(__file__).resolve().parent.parent.parent)
"""The checkout: VS Code's ``${workspaceFolder}``."""

PACKAGE = REPOSITORY / "launch"
LAUNCH_FILE = REPOSITORY / ".vscode" / "launch.json"
CONFIGS = PACKAGE / "configs"
ENVIRONMENT_DATA = PACKAGE / "setup" / "locks"
SAMPLE = PACKAGE / "sample"
PATCHES = REPOSITORY / "patches"

VENV = REPOSITORY / ".venv"
VENV_PYTHON = VENV / "bin" / "python"

_BUILD = REPOSITORY / "build"

BUILD = Path(os.environ.get("KIT_BUILD") or _BUILD)
"""Everything derived that is not a published tree; removing it loses time, and work on ``patches/`` in it.

Tests that run side by side have a folder each, which ``KIT_BUILD`` names; what setup makes, they share.
"""

DERIVED_SOURCES = _BUILD / "src"
ENVIRONMENTS = _BUILD / "env"  # for what cannot be in VENV
EXTENSIONS = _BUILD / "torch_extensions"


def show_path(path: Path) -> str:
    """Return ``path`` as a person wants to read it: relative to the current folder where it lies below it."""
    here = Path.cwd()
    for folder in (here, _entered(here)):
        if folder in (path, *path.parents):
            return str(path.relative_to(folder))
    return str(path)
