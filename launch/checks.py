"""What is run on the kit itself, with the environment's tools: tests, linters, the locks' resolver."""

import os
import subprocess
import sys
from typing import NoReturn, Sequence

from . import paths
from .optimizers import OPTIMIZERS
from .source_registry import Registry

SOURCE = Registry.name
"""What the tests run on, also where the submodules are checked out."""

OPTIMIZER = next(optimizer for optimizer in OPTIMIZERS.values() if optimizer.separate)
"""What the tests need beside the default one."""

MARKS = {"test": ("-m", "not forks"), "test-fast": (), "test-forks": ("-m", "forks")}
"""What each of the test commands tells pytest, whose own settings leave the slow tests and the forks' out."""


def pytest(command: str, words: Sequence[str]) -> NoReturn:
    """Become pytest, on the tests of a command; so Ctrl-C reaches it, and its status is the command's.

    :param command: a key of :data:`MARKS`.
    :param words: further arguments; a ``-m`` in them counts instead of the command's.
    """
    environ = {**os.environ, "LAUNCH_SOURCE": SOURCE, "LAUNCH_FAST": "1"}
    if command != "test-forks":
        environ["LAUNCH_MO"] = OPTIMIZER.name
    python = str(paths.VENV_PYTHON)
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(str(paths.REPOSITORY))
    os.execve(python, [python, "-m", "pytest", *MARKS[command], *words], environ)


def lint() -> int:
    """Run the linters; return the status of the first that finds something, 0 where none does."""
    for tool, *words in (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)):
        argv = [str(paths.VENV / "bin" / tool), *words]
        status = subprocess.run(argv, cwd=str(paths.REPOSITORY), check=False).returncode
        if status:
            return status
    return 0


def lock() -> int:
    """Resolve the locks anew; return the resolver's status."""
    return subprocess.run([str(paths.ENVIRONMENT_DATA / "lock.sh")], check=False).returncode
