"""Whether what a job starts is there, said before anything starts and with its place in the launch file."""

import os
import shutil
from pathlib import Path

from .. import vscode
from ..core import files, hidden, paths
from ..core.errors import KitError
from .jobs import Job, Run
from ..vscode import Configuration

_READ = ("model_name_or_path", "config_name", "nncf_config", "train_file", "validation_file")
"""Arguments that name a file or a folder to read."""


def check(job: Job) -> None:
    """Check that working directory, interpreter and program are there, and that no argument names a device.

    What a launch file names is checked: upstream's is rewritten to what the kit has made.

    :raises KitError: one of them is not there, or cannot be used.
    """
    configuration = job.configuration
    if configuration is None:
        return
    invocation = job.invocation
    cwd, program = Path(invocation.cwd), job.local(invocation.target[-1])
    if not cwd.is_dir():
        named = hidden.shown(invocation.cwd)
        what = f"The working directory is {'no folder' if cwd.exists() else 'not there'}: {named}."
        raise _error(configuration, "cwd", what, 'Correct or remove "cwd", or make the folder.')
    if not _is_set_up(invocation.python) and not runs(invocation):
        key = "pythonPath" if "pythonPath" in configuration.here else "python"
        what = f"This interpreter is not there, or cannot be run: {hidden.shown(invocation.python)}."
        hint = f'Correct "{key}": ${{workspaceFolder}}/.venv/bin/python is what `make setup` makes.'
        raise _error(configuration, key, what, hint)
    if not program.is_file():
        named = hidden.shown(invocation.target[-1])
        what = f"The program is {'no file' if program.exists() else 'not there'}: {named}."
        raise _error(configuration, "program", what, 'Correct "program"; those of the kit are in launch/qa/.')
    for name in _READ:
        value = getattr(job.arguments, name)
        if value is not None:
            _check_readable(job, name, value)


def runs(invocation: vscode.Invocation) -> bool:
    """Return whether the interpreter of an invocation can be started."""
    python = invocation.python
    if os.sep in python:
        found = Path(invocation.cwd) / python
        return found.is_file() and os.access(str(found), os.X_OK)
    return shutil.which(python, path=invocation.environment(os.environ).get("PATH")) is not None


def missing(run: Run) -> str:
    """Return in one line what keeps a printed command from running, often the setup; empty: nothing."""
    python = run.invocation.python
    trees = (run.invocation.env.get("PYTHONPATH") or "").split(os.pathsep)
    if _is_set_up(python) and not runs(run.invocation):
        lacking = python
    elif isinstance(run, Job) and str(run.source.tree) in trees and not run.source.tree.is_dir():
        lacking = str(run.source.tree)
    else:
        return _refusal(run)
    source = f" SOURCE={run.source.name}" if isinstance(run, Job) else ""
    return f"note: `make setup{source}` comes first: {lacking} is not there yet"


def _refusal(run: Run) -> str:
    try:
        if isinstance(run, Job):
            check(run)
    except KitError as error:
        return f"note: this would not run: {error.what}  ({error.where})"
    return ""


def _is_set_up(python: str) -> bool:
    """Whether an interpreter is the environment's, which is made before it is run."""
    return python == str(paths.VENV_PYTHON)


def _check_readable(job: Job, name: str, value: str) -> None:
    path = job.local(value)
    reason = files.special(path) or ("" if path.exists() else "it does not exist")
    if reason:
        raise KitError(
            f"A file that the launch configuration names cannot be read: {reason}.",
            where=f"{job.named(name)}={value}",
            hint="Make it readable, or name another.",
        )


def _error(configuration: Configuration, key: str, what: str, hint: str) -> KitError:
    return configuration.error(configuration.path(key), what, hint)
