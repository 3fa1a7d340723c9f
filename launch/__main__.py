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

from . import (
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
from .progress import duration
from .report import command as report
from .source import Source
from .verify import tree as verification

OUT = "gen_hybrid_sparse"
"""Where trees are published unless ``OUT=`` says otherwise; the name that the origin gives the folder."""


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
    _option(setup, "source", sources.AUTO, "auto, fork or registry")
    _option(setup, "fast", "1", "with the patches of the set fast: 1 or 0")
    _option(setup, "mo", optimizers.DEFAULT.name, "Model Optimizer: " + " or ".join(optimizers.OPTIMIZERS))
    comparing = commands.add_parser("compare", help="whether two trees, or folders of trees, are the same")
    _option(comparing, "a", "", "an ONNX file, a tree or a folder of trees")
    _option(comparing, "b", "", "what to compare it with")
    _option(comparing, "level", "bytes", "what must be the same: bytes, weights or structure")
    _option(comparing, "python", "", "a Python 3.8 for the environment")
    for name, what in (
        ("verify", "measure the trees' files: whether each is what it must be"),
        ("report", "one page on the trees that are there"),
        ("package", "a tree with report, model card and checksums, ready to upload"),
    ):
        command = commands.add_parser(name, help=what)
        _option(command, "out", OUT, "the folder that the trees are in")
        _option(command, "python", "", "a Python 3.8 for the environment")
        if name in ("verify", "package"):
            _option(command, "v", "", "the variant" + ("; all that are there" if name == "verify" else ""))
        if name == "report":
            _option(command, "to", "", f"the page; {report.NAME} beside the trees")
        if name == "package":
            _option(command, "to", str(paths.BUILD / "package"), "the folder that the package appears in")
            _option(command, "format", package.FORMATS[0], " or ".join(package.FORMATS))
    benching = commands.add_parser("bench-pipeline", help="the recipe by hand and the kit in turn, measured")
    _option(benching, "size", "full", "full, or small: a two-layer model")
    _option(benching, "v", "", "the variant; else all five")
    _option(benching, "repeat", "1", "runs of each")
    _option(benching, "to", str(paths.BUILD / "bench"), "the folder that the results appear in")
    _option(benching, "source", sources.AUTO, "auto, fork or registry")
    _option(benching, "python", "", "a Python 3.8 for the environment")
    third = commands.add_parser("third_party", help="check the forks' submodules out at their pins")
    _option(third, "mirror", "", "folder with git directories nncf and transformers to take them from")
    commands.add_parser("patches-check", help="check that the patch series is sound")
    for name, what in (
        ("patch-edit", "make a scratch clone of a fork with each patch as a commit"),
        ("patch-export", "write the scratch clone's commits back as patches"),
    ):
        _option(commands.add_parser(name, help=what), "p", "", "the fork: nncf or transformers")
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
        _option(command, "launch", str(paths.LAUNCH_FILE), "the launch file, or upstream")
        _option(command, "source", sources.AUTO, "auto, fork or registry")
        _option(command, "fast", "1", "with the patches of the set fast: 1 or 0")
        _option(command, "python", "", "a Python 3.8 for the environment")
        if name in ("all", "variant"):
            _option(command, "out", OUT, "where trees are published")
            _option(
                command,
                "mo",
                optimizers.DEFAULT.name,
                "Model Optimizer: " + " or ".join(optimizers.OPTIMIZERS),
            )
        if name in ("variant", "command"):
            _option(command, "v", "", "the variant; for command, any configuration's name")
        if name == "command":
            _option(command, "explain", "", "say what differs from the launch file, and why")
    return parser


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


def _locked_setup(options: argparse.Namespace) -> int:
    source, optimizer = _source(options), optimizers.get(options.mo)
    ready = environment.is_ready() and optimizers.is_ready(optimizer) and source.is_ready()
    if options.python or not ready:
        with exclusive(pipeline.LOCK, pipeline.LOCKED):
            _setup(options.python, source, optimizer)
    else:
        print("setup: up to date", file=sys.stderr)
    return 0


def _choose(options: argparse.Namespace) -> Source:
    return sources.choose(options.source, sources.with_fast(options.fast))


def _source(options: argparse.Namespace) -> Source:
    """Return the chosen source, and say which it is before anything else is said."""
    source = _choose(options)
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
    return jobs.load(options.launch, name, _selection(options), source, variants.VARIANTS.get(name))


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
    source = _choose(options)
    _unpack(source)
    job = _job(options, options.v, source)
    print(job.explain() if options.explain else job.invocation.shell())
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
    words: List[str] = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(words)
    handlers: Dict[str, Callable[[], int]] = {
        "setup": lambda: _locked_setup(options),
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
    }
    if options.command in handlers:
        return handlers[options.command]()
    print(help.text())
    return 0


if __name__ == "__main__":
    exit_with_message(main)
