"""Where things are in a checkout; the launch file has what a run reads and writes."""

import os
from pathlib import Path


def _entered(folder: Path) -> Path:
    """Return ``folder``, a real path, by the link in ``PWD`` (POSIX) that leads to it, as VS Code does."""
    called = os.environ.get("PWD", "")
    absolute = called == os.path.normpath(called) and Path(called).is_absolute()
    return Path(called) if absolute and os.path.realpath(called) == str(folder) else folder


REPOSITORY = _entered(Path(__file__).resolve().parent.parent.parent)  # VS Code's ${workspaceFolder}
PACKAGE = REPOSITORY / "launch"
LAUNCH_FILE = REPOSITORY / ".vscode" / "launch.json"
CONFIGS = PACKAGE / "configs"
ENVIRONMENT_DATA = PACKAGE / "setup" / "locks"
SAMPLE = PACKAGE / "sample"
PATCHES = REPOSITORY / "patches"

QDQ = REPOSITORY / "qdq"  # where `make qdq` puts its files
VENV = REPOSITORY / ".venv"
VENV_PYTHON = VENV / "bin" / "python"

_BUILD = REPOSITORY / "build"

BUILD = Path(os.environ.get("KIT_BUILD") or _BUILD)
"""The folder of all derived files but published trees; parallel tests name one each in ``KIT_BUILD``."""

DERIVED_SOURCES = _BUILD / "src"
ENVIRONMENTS = _BUILD / "env"  # for what cannot be in VENV
EXTENSIONS = _BUILD / "torch_extensions"


def show_path(path: Path) -> str:
    """Return ``path`` for a message: relative to the current folder if it is below it."""
    here = Path.cwd()
    for folder in (here, _entered(here)):
        if folder in (path, *path.parents):
            return str(path.relative_to(folder))
    return str(path)
