"""Looking after the kit: what runs need is set up; tests, linters and resolver run; products are removed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Mapping, NoReturn, Sequence

from . import hub, patch_work, paths, place, source_rules, surroundings, third_party
from .environment import KIT, Venv
from .locks import LOCK, LOCKED, exclusive
from .optimizers import OPTIMIZERS
from .progress import duration
from .source import Source
from .source_registry import Registry

SOURCE = Registry.name
"""What the tests run on, also where the submodules are checked out."""

SEPARATE = (*(found.separate for found in OPTIMIZERS.values() if found.separate), hub.ENVIRONMENT)
"""All environments beside the kit's; the tests need them."""

MARKS = {"test": ("-m", "not forks"), "test-fast": (), "test-forks": ("-m", "forks")}
"""What each of the test commands tells pytest, whose own settings leave the slow tests and the forks' out."""


def set_up(python: str, source: Source, separate: Sequence[Venv] = ()) -> None:
    """Make what a run needs and is not current; the caller holds :data:`.locks.LOCK`.

    That is the kit's environment, others beside it, and the source tree.

    :param python: a Python 3.8 for the environment; empty: one that is found.
    :param separate: the others.
    :raises KitError: nothing can be built where the checkout lies; see also each of the three.
    """
    place.check()
    started = time.monotonic()
    made = [KIT.ensure(python), *(other.ensure() for other in separate), source.ensure(_say)]
    if any(made):
        _say(f"done in {duration(time.monotonic() - started)}")


def set_up_alone(python: str, source: Source, separate: Sequence[Venv] = ()) -> None:
    """As :func:`set_up`, where nothing else is done; what is current is told without the lock."""
    ready = KIT.is_ready() and all(other.is_ready() for other in separate) and source.is_ready()
    if python or not ready:
        with exclusive(LOCK, LOCKED):
            set_up(python, source, separate)
    else:
        _say("up to date")


def unpack(source: Source) -> None:
    """Derive the tree of a source that holds what a launch configuration may name.

    The forks' scripts, configs and launch file refer to each other; the releases hold packages only.
    """
    if source_rules.is_upstreams(source) and not source.is_ready():
        with exclusive(LOCK, LOCKED):
            source.ensure(_say)


def ready_environment(python: str) -> None:
    """Make the environment where it is not current; ``python`` as for :func:`set_up`."""
    if not KIT.is_ready():
        with exclusive(LOCK, LOCKED):
            KIT.ensure(python)


def in_environment(python: str, module: str, words: Sequence[str]) -> NoReturn:
    """Become a module of the kit in the environment, which has what it imports.

    So there is nothing that could outlive this process.  A Ctrl-C while it imports is kept for
    :func:`launch.errors.exit_with_message`.
    """
    ready_environment(python)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    argv = [str(paths.VENV_PYTHON), "-m", f"{__package__}.{module}", *words]
    _become(argv, surroundings.inherited(os.environ))


def _become(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Run another program in place of this one, in the repository's root."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(str(paths.REPOSITORY))
    os.execve(argv[0], list(argv), dict(env))


def _say(what: str) -> None:
    print(f"setup: {what}", file=sys.stderr, flush=True)


def pytest(command: str, words: Sequence[str]) -> NoReturn:
    """Become pytest, on the tests of a command; so Ctrl-C reaches it, and its status is the command's.

    :param command: a key of :data:`MARKS`.
    :param words: further arguments; a ``-m`` in them counts instead of the command's.
    """
    python = str(paths.VENV_PYTHON)
    _become([python, "-m", "pytest", *MARKS[command], *words], os.environ)


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


def clean(environment_too: bool) -> None:
    """Empty the build folder, but for the lock that is held meanwhile.

    :raises KitError: patches are being worked on in it.
    """
    with exclusive(LOCK, LOCKED):
        for fork in third_party.forks():
            patch_work.check_exported(fork)
        for entry in paths.BUILD.iterdir():
            if entry != LOCK:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        if environment_too and paths.VENV.exists():
            shutil.rmtree(paths.VENV)
