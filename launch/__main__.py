"""The commands: each is a make target, and each works without make as ``python -m launch <command>``.

Options default to the variables that the Makefile exports (``LAUNCH_OUT`` …), so that no value passes
through a shell's quoting.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from typing import Callable, Dict, List, Optional, Sequence

from . import environment, files, help, inputs, jobs, paths, pipeline, sources, variants
from .errors import exit_with_message
from .locks import exclusive
from .progress import duration


def _option(parser: argparse.ArgumentParser, name: str, default: str, what: str) -> None:
    variable = "LAUNCH_" + name.upper()
    parser.add_argument(
        "--" + name.replace("_", "-"), dest=name, default=os.environ.get(variable) or default, help=what
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m launch", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", metavar="<command>")
    commands.add_parser("help", help="targets, variables and variants")
    commands.add_parser("clean", help="remove what is derived")
    commands.add_parser("distclean", help="remove what is derived, and the environment")
    setup = commands.add_parser("setup", help="make the environment and the patched sources")
    _option(setup, "python", "", "a Python 3.8")
    for name, what in (
        ("all", "make the five trees"),
        ("variant", "make one tree"),
        ("configs", "compute the four hybrid configs"),
        ("command", "print a configuration as a shell command"),
        ("evaluate", "evaluate a model on questions"),
    ):
        command = commands.add_parser(name, help=what)
        _option(command, "input", "sample", "sample, files or hub")
        _option(command, "model", "", "folder with config.json and tokenizer (INPUT=files)")
        _option(command, "train_file", "", "questions to calibrate on (INPUT=files)")
        _option(command, "validation_file", "", "questions to evaluate on (INPUT=files)")
        _option(command, "seed", "", "seed of the random weights")
        _option(command, "launch", str(paths.LAUNCH_FILE), "the launch file")
        _option(command, "python", "", "a Python 3.8 for the environment")
        if name in ("all", "variant"):
            _option(command, "out", "gen_hybrid_sparse", "where trees are published")
        if name in ("variant", "command"):
            _option(command, "v", "", "the variant; for command, any configuration's name")
        if name == "command":
            _option(command, "explain", "", "say what differs from the launch file, and why")
    return parser


def _selection(options: argparse.Namespace) -> inputs.Selection:
    return inputs.select(
        options.input, options.model, options.train_file, options.validation_file, options.seed
    )


def _setup(python: str) -> None:
    """Make the environment and the source tree where they are not current; the caller holds the lock."""
    started = time.monotonic()
    made = environment.ensure(python)
    if not sources.is_ready():
        print("setup: unpacking and patching nncf and transformers", file=sys.stderr, flush=True)
    if sources.ensure() or made:
        print(f"setup: done in {duration(time.monotonic() - started)}", file=sys.stderr, flush=True)


def _locked_setup(python: str) -> int:
    if python or not (environment.is_ready() and sources.is_ready()):
        with exclusive(pipeline.LOCK, pipeline.LOCKED):
            _setup(python)
    else:
        print("setup: up to date", file=sys.stderr)
    return 0


def _trees(options: argparse.Namespace, chosen: Sequence[variants.Variant]) -> int:
    selection, launch_file = _selection(options), files.typed(options.launch, "LAUNCH")
    print(f"source  {sources.describe()}", file=sys.stderr, flush=True)
    tree_jobs = [jobs.load_tree(launch_file, variant, selection) for variant in chosen]
    out = files.typed(options.out, "OUT")
    outcomes = pipeline.Build(tree_jobs, out, lambda: _setup(options.python)).run()
    print(pipeline.table(outcomes))
    return 0


def _job(options: argparse.Namespace, name: str) -> jobs.Job:
    launch_file = files.typed(options.launch, "LAUNCH")
    return jobs.load(launch_file, name, _selection(options), variants.VARIANTS.get(name))


def _configs(options: argparse.Namespace) -> int:
    job = _job(options, "configs")
    environ = job.invocation.environment(os.environ)
    return subprocess.run(job.invocation.argv(), env=environ, cwd=job.invocation.cwd, check=False).returncode


def _command(options: argparse.Namespace) -> int:
    job = _job(options, options.v)
    print(job.explain() if options.explain else job.invocation.shell())
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    print(pipeline.evaluate(_job(options, "evaluate"), lambda: _setup(options.python)))
    return 0


def _clean(environment_too: bool) -> int:
    """Empty the build folder, but for the lock that is held meanwhile."""
    with exclusive(pipeline.LOCK, pipeline.LOCKED):
        for entry in paths.BUILD.iterdir():
            if entry != pipeline.LOCK:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        if environment_too and paths.VENV.exists():
            shutil.rmtree(paths.VENV)
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command; return the exit status.

    :raises KitError: the user's input is at fault.
    """
    words: List[str] = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(words)
    handlers: Dict[str, Callable[[], int]] = {
        "setup": lambda: _locked_setup(options.python),
        "all": lambda: _trees(options, list(variants.VARIANTS.values())),
        "variant": lambda: _trees(options, [variants.get(options.v)]),
        "configs": lambda: _configs(options),
        "command": lambda: _command(options),
        "evaluate": lambda: _evaluate(options),
        "clean": lambda: _clean(environment_too=False),
        "distclean": lambda: _clean(environment_too=True),
    }
    if options.command in handlers:
        return handlers[options.command]()
    print(help.text())
    return 0


if __name__ == "__main__":
    exit_with_message(main)
