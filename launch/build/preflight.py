"""What is checked of a job before anything starts: what it reads and runs is there."""

import os
import shutil
from pathlib import Path

from .. import vscode
from ..core import files, hidden, paths
from ..core.errors import KitError
from .jobs import Job, Run

_READ = ("model_name_or_path", "config_name", "nncf_config", "train_file", "validation_file")
"""Arguments that name a file or a folder to read."""


def check_job(job: Job) -> None:
    """Check that working directory, interpreter and program are there, and that no argument names a device.

    What a launch file names is checked: upstream's is rewritten to what the kit has made.

    :raises KitError: one of them is not there, or cannot be used.
    """
    if job.configuration is None:
        return
    invocation = job.invocation
    cwd, program = Path(invocation.cwd), job.local(invocation.target[-1])
    key = ""
    if not cwd.is_dir():
        key, named = "cwd", hidden.show_word(invocation.cwd)
        what = f"The working directory is {'no folder' if cwd.exists() else 'not there'}: {named}."
        hint = 'Correct or remove "cwd", or make the folder.'
    elif not _is_set_up(invocation.python) and not can_start(invocation):
        key = "pythonPath" if "pythonPath" in job.configuration.here else "python"
        what = f"This interpreter is not there, or cannot be run: {hidden.show_word(invocation.python)}."
        hint = f'Correct "{key}": ${{workspaceFolder}}/.venv/bin/python is what `make setup` makes.'
    elif not program.is_file():
        key, named = "program", hidden.show_word(invocation.target[-1])
        what = f"The program is {'no file' if program.exists() else 'not there'}: {named}."
        hint = 'Correct "program"; those of the kit are in launch/qa/.'
    if key:
        raise job.configuration.error(job.configuration.path(key), what, hint)
    for name in _READ:
        value = getattr(job.arguments, name)
        path = job.local(value or "")
        reason = files.explain_special(path) or ("" if path.exists() else "it does not exist")
        if value is not None and reason:
            raise KitError(
                f"A file that the launch configuration names cannot be read: {reason}.",
                where=f"{job.named(name)}={value}",
                hint="Make it readable, or name another.",
            )


def can_start(invocation: vscode.Invocation) -> bool:
    """Return whether the interpreter of an invocation can be started."""
    python = invocation.python
    if os.sep in python:
        found = Path(invocation.cwd) / python
        return found.is_file() and os.access(str(found), os.X_OK)
    return shutil.which(python, path=invocation.environment(os.environ).get("PATH")) is not None


def find_missing(run: Run) -> str:
    """Return in one line what keeps a printed command from running, often the setup; empty: nothing."""
    python = run.invocation.python
    folders = (run.invocation.env.get("PYTHONPATH") or "").split(os.pathsep)
    source = f" SOURCE={run.source.name}" if isinstance(run, Job) else ""
    missing = ""
    if _is_set_up(python) and not can_start(run.invocation):
        missing = python
    elif isinstance(run, Job) and str(run.source.tree) in folders and not run.source.tree.is_dir():
        missing = str(run.source.tree)
    if missing:
        return f"note: `make setup{source}` comes first: {missing} is not there yet"
    try:
        if isinstance(run, Job):
            check_job(run)
    except KitError as error:
        return f"note: this would not run: {error.what}  ({error.where})"
    return ""


def _is_set_up(python: str) -> bool:
    """Return whether an interpreter is the environment's, which is made before it is run."""
    return python == str(paths.VENV_PYTHON)
