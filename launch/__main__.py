"""What each command does.  Their names, options and help are in :mod:`launch.commands`."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from typing import Callable, Dict, Optional, Sequence

from . import (
    checks,
    compare,
    environment,
    files,
    help,
    inputs,
    jobs,
    optimizers,
    package,
    patch_work,
    paths,
    pipeline,
    source_rules,
    sources,
    third_party,
    variants,
)
from .bench import command as bench
from .errors import exit_with_message
from .locks import exclusive
from .options import is_yes, parse
from .progress import duration
from .report import command as report
from .source import Source
from .verify import tree as verification


def _selection(options: argparse.Namespace) -> inputs.Selection:
    return inputs.select(
        options.input, options.model, options.train_file, options.validation_file, options.seed
    )


def _setup(python: str, source: Source, optimizer: optimizers.Optimizer = optimizers.DEFAULT) -> None:
    """Make what a run needs and is not current; the caller holds the lock.

    That is the kit's environment, the optimizer's where it has one to itself, and the source tree.
    """
    started = time.monotonic()
    made = [environment.ensure(python), optimizers.ensure(optimizer), source.ensure(_say)]
    if any(made):
        _say(f"done in {duration(time.monotonic() - started)}")


def _say(what: str) -> None:
    print(f"setup: {what}", file=sys.stderr, flush=True)


def _locked_setup(python: str, chosen: Source, optimizer: optimizers.Optimizer) -> int:
    source = _told(chosen)
    ready = environment.is_ready() and optimizers.is_ready(optimizer) and source.is_ready()
    if python or not ready:
        with exclusive(pipeline.LOCK, pipeline.LOCKED):
            _setup(python, source, optimizer)
    else:
        print("setup: up to date", file=sys.stderr)
    return 0


def _choose(options: argparse.Namespace) -> Source:
    return sources.choose(options.source, is_yes(options.fast, "fast"))


def _source(options: argparse.Namespace) -> Source:
    """Return the chosen source, and say which it is before anything else is said."""
    return _told(_choose(options))


def _told(source: Source) -> Source:
    print(f"source  {source.describe()}", file=sys.stderr, flush=True)
    _unpack(source)
    return source


def _unpack(source: Source) -> None:
    """Derive the tree of a source that holds what a launch configuration may name.

    The forks' scripts, configs and launch file refer to each other; the releases hold packages only.
    """
    if source_rules.is_upstreams(source) and not source.is_ready():
        with exclusive(pipeline.LOCK, pipeline.LOCKED):
            source.ensure(_say)


def _trees(options: argparse.Namespace, chosen: Sequence[variants.Variant]) -> int:
    source, selection = _source(options), _selection(options)
    optimizer = optimizers.get(options.mo)
    tree_jobs = [jobs.load_tree(options.launch, variant, selection, source) for variant in chosen]
    out = files.typed(options.out, "OUT")
    outcomes = pipeline.Build(
        tree_jobs, out, lambda: _setup(options.python, source, optimizer), optimizer
    ).run()
    print(pipeline.table(outcomes))
    return 0


def _job(options: argparse.Namespace, name: str, source: Source) -> jobs.Job:
    return jobs.load(options.launch, name, _selection(options), source)


def _configs(options: argparse.Namespace) -> int:
    source = _source(options)
    job = _job(options, "configs", source)
    if job.upstreams_script:
        for path in pipeline.configs(job, lambda: _setup(options.python, source)):
            print(path)
        return 0
    if job.invocation.python == str(paths.VENV_PYTHON):
        _ready_environment(options.python)
    environ = job.invocation.environment(os.environ)
    return subprocess.run(job.invocation.argv(), env=environ, cwd=job.invocation.cwd, check=False).returncode


def _command(options: argparse.Namespace) -> int:
    explain = is_yes(options.explain, "explain")
    source = _choose(options)
    _unpack(source)
    found = jobs.run_of(options.launch, options.v, _selection(options), source)
    text = found.explain() if explain else found.invocation.shell()
    try:
        # A path that is not UTF-8 has to reach the shell that this is pasted into as it is.
        line = os.fsencode(text + "\n")
    except UnicodeEncodeError:
        print(text)
    else:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    source = _source(options)
    job = _job(options, "evaluate", source)
    print(pipeline.evaluate(job, lambda: _setup(options.python, source)))
    return 0


def _compare(options: argparse.Namespace) -> int:
    a, b = compare.check(options.a, options.b, options.level)
    return _in_environment(options, "compare", [str(a), str(b), options.level])


def _verify(options: argparse.Namespace) -> int:
    name = variants.get(options.v).name if options.v else ""
    out = files.typed(options.out, "OUT")
    verification.chosen(out, name)
    return _in_environment(options, "verify", [str(out), name])


def _report(options: argparse.Namespace) -> int:
    return _in_environment(options, "report", list(map(str, report.check(options.out, options.to))))


def _package(options: argparse.Namespace) -> int:
    checked = package.check(options.v, options.out, options.to, options.format)
    return _in_environment(options, "package", list(map(str, checked)))


def _in_environment(options: argparse.Namespace, module: str, words: Sequence[str]) -> int:
    """Run a module of the kit in the environment's interpreter, which has what it imports."""
    _ready_environment(options.python)
    argv = [str(paths.VENV_PYTHON), "-m", f"{__package__}.{module}", *words]
    return subprocess.run(argv, cwd=str(paths.REPOSITORY), check=False).returncode


def _ready_environment(python: str) -> None:
    if not environment.is_ready():
        with exclusive(pipeline.LOCK, pipeline.LOCKED):
            environment.ensure(python)


def _help() -> int:
    print(help.text())
    return 0


def _bench(options: argparse.Namespace) -> int:
    source = sources.choose(options.source)
    to = files.typed(options.to, "TO")
    return bench.run(
        source, options.size, options.v, options.repeat, to, lambda: _setup(options.python, source)
    )


def _third_party(options: argparse.Namespace) -> int:
    mirror = files.typed(options.mirror, "MIRROR") if options.mirror else None
    with exclusive(pipeline.LOCK, pipeline.LOCKED):
        third_party.fetch(mirror)
    return 0


def _patches_check() -> int:
    print("\n".join(patch_work.check()))
    return 0


def _patch_edit(options: argparse.Namespace) -> int:
    fork = third_party.get(options.p)
    with exclusive(pipeline.LOCK, pipeline.LOCKED):
        clone = paths.shown(patch_work.edit(fork))
    print(f"{clone} is the pinned commit with each patch as one commit on top.")
    print(f"Change them with git there; then: make patch-export P={options.p}")
    return 0


def _patch_export(options: argparse.Namespace) -> int:
    fork = third_party.get(options.p)
    with exclusive(pipeline.LOCK, pipeline.LOCKED):
        written = patch_work.export(fork)
    for path in written:
        print(paths.shown(path))
    return 0


def _tests(options: argparse.Namespace, command: str) -> int:
    forks = command == "test-forks"
    source = sources.choose(checks.SOURCE)
    _locked_setup(options.python, source, optimizers.DEFAULT if forks else checks.OPTIMIZER)
    if forks:
        _third_party(options)
    checks.pytest(command, options.words)


def _in_kit(options: argparse.Namespace, check: Callable[[], int]) -> int:
    _ready_environment(options.python)
    return check()


def _clean(environment_too: bool) -> int:
    """Empty the build folder, but for the lock that is held meanwhile.

    :raises KitError: patches are being worked on in it.
    """
    with exclusive(pipeline.LOCK, pipeline.LOCKED):
        for fork in third_party.forks():
            patch_work.check_exported(fork)
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
    command, options = parse(sys.argv[1:] if argv is None else argv)
    return 0 if options is None else _handlers(command, options)[command]()


def _handlers(command: str, options: argparse.Namespace) -> Dict[str, Callable[[], int]]:
    return {
        "setup": lambda: _locked_setup(options.python, _choose(options), optimizers.get(options.mo)),
        "compare": lambda: _compare(options),
        "verify": lambda: _verify(options),
        "report": lambda: _report(options),
        "package": lambda: _package(options),
        "bench-pipeline": lambda: _bench(options),
        "third_party": lambda: _third_party(options),
        "patches-check": _patches_check,
        "patch-edit": lambda: _patch_edit(options),
        "patch-export": lambda: _patch_export(options),
        "all": lambda: _trees(options, list(variants.VARIANTS.values())),
        "variant": lambda: _trees(options, [variants.get(options.v)]),
        "configs": lambda: _configs(options),
        "command": lambda: _command(options),
        "evaluate": lambda: _evaluate(options),
        "clean": lambda: _clean(environment_too=False),
        "distclean": lambda: _clean(environment_too=True),
        "test": lambda: _tests(options, command),
        "test-fast": lambda: _tests(options, command),
        "test-forks": lambda: _tests(options, command),
        "lint": lambda: _in_kit(options, checks.lint),
        "lock": lambda: _in_kit(options, checks.lock),
        "help": _help,
    }


if __name__ == "__main__":
    exit_with_message(main)
