"""What each command does.  Their names, options and help are in :mod:`launch.commands`.

What one command alone needs is imported when it runs: `make command` answers without it.
"""

import argparse
import dataclasses
import os
import sys
from typing import Callable, Dict, Sequence

from . import (
    files,
    hub,
    inputs,
    jobs,
    optimizers,
    other_jobs,
    paths,
    place,
    sources,
    startable,
    surroundings,
    third_party,
    upkeep,
    variants,
)
from .commands import COMMANDS
from .errors import KitError
from .locks import LOCK, LOCKED, exclusive
from .options import is_yes
from .separate import Separate
from .source import Source


def _selection(options: argparse.Namespace) -> inputs.Selection:
    def given(name: str) -> str:
        return getattr(options, name, "")  # not every command takes every option

    chosen = inputs.select(
        options.input,
        options.model,
        given("train_file"),
        given("validation_file"),
        given("seed"),
        given("weights"),
        options.hub,
        lambda: upkeep.ready_environment(options.python),
    )
    return dataclasses.replace(chosen, threads=surroundings.number(given("threads")))


def _choose(options: argparse.Namespace) -> Source:
    return sources.choose(options.source, is_yes(options.fast, "fast"))


def _source(options: argparse.Namespace) -> Source:
    """Return the chosen source, and say which it is before anything else is said."""
    return _told(_choose(options))


def _told(source: Source) -> Source:
    print(f"source  {source.describe()}", file=sys.stderr, flush=True)
    upkeep.unpack(source)
    return source


def _trees(options: argparse.Namespace, chosen: Sequence[variants.Variant]) -> int:
    from . import pipeline
    from .outcome import table

    source, selection = _source(options), _selection(options)
    optimizer = optimizers.get(options.mo)
    tree_jobs = [jobs.load_tree(options.launch, variant, selection, source) for variant in chosen]
    out = files.typed(options.out, "OUT")
    outcomes = pipeline.Build(
        tree_jobs, out, lambda: upkeep.set_up(options.python, source, _own(optimizer)), optimizer
    ).run()
    print(table(outcomes))
    return 0


def _job(options: argparse.Namespace, name: str, source: Source) -> jobs.Job:
    return jobs.load(options.launch, name, _selection(options), source)


def _configs(options: argparse.Namespace) -> int:
    source = _source(options)
    return other_jobs.configs(
        _job(options, "configs", source),
        lambda: upkeep.set_up(options.python, source),
        lambda: upkeep.ready_environment(options.python),
    )


def _command(options: argparse.Namespace) -> int:
    explain = is_yes(options.explain, "explain")
    source = _choose(options)
    upkeep.unpack(source)
    found = jobs.run_of(options.launch, options.v, _selection(options), source)
    text = found.explain() if explain else found.invocation.shell()
    note = startable.missing(found)
    if note:
        print(note, file=sys.stderr, flush=True)
    try:
        # A path that is not UTF-8 has to reach the shell that this is pasted into as it is.
        line = os.fsencode(text + "\n")
    except UnicodeEncodeError:
        print(text)
    else:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    return 0


def _score(options: argparse.Namespace) -> int:
    for name in ("input", "hub", "model", "train_file", "seed", "threads", "weights", "launch", "fast"):
        if getattr(options, name) != COMMANDS["evaluate"].option(name).default:
            raise KitError(
                f"{name.upper()} has no meaning with PREDICTIONS: no model answers.",
                where=f"{name.upper()}={getattr(options, name)}",
                hint=f"Leave {name.upper()} out, or PREDICTIONS.",
            )
    if not options.validation_file:
        raise KitError(
            "PREDICTIONS needs the questions that were answered.",
            where="VALIDATION_FILE is empty",
            hint="Give VALIDATION_FILE=<questions in SQuAD's JSON, nested or flat>.",
        )
    files_given = [
        files.typed(getattr(options, name), name.upper()) for name in ("predictions", "validation_file")
    ]
    print(other_jobs.score(*files_given))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    if options.predictions:
        return _score(options)
    source = _source(options)
    job = _job(options, "evaluate", source)
    print(other_jobs.evaluate(job, lambda: upkeep.set_up(options.python, source)))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from . import compare

    a, b = compare.check(options.a, options.b, options.level)
    return upkeep.in_environment(options.python, "compare", [str(a), str(b), options.level])


def _verify(options: argparse.Namespace) -> int:
    from .verify import tree as verification

    name = variants.get(options.v).name if options.v else ""
    out = files.typed(options.out, "OUT")
    verification.chosen(out, name)
    return upkeep.in_environment(options.python, "verify", [str(out), name])


def _report(options: argparse.Namespace) -> int:
    from .report import command as report

    return upkeep.in_environment(
        options.python, "report", list(map(str, report.check(options.out, options.to)))
    )


def _package(options: argparse.Namespace) -> int:
    from . import package

    checked = package.check(options.v, options.out, options.to, options.format)
    return upkeep.in_environment(options.python, "package", list(map(str, checked)))


def _bench(options: argparse.Namespace) -> int:
    from .bench import command as bench

    source = sources.choose(options.source)
    to = files.typed(options.to, "TO")
    return bench.run(
        source, options.size, options.v, options.repeat, to, lambda: upkeep.set_up(options.python, source)
    )


def _third_party(options: argparse.Namespace) -> int:
    mirror = files.typed(options.mirror, "MIRROR") if options.mirror else None
    with exclusive(LOCK, LOCKED):
        third_party.fetch(mirror)
    return 0


def _patches_check() -> int:
    from . import patch_check

    print("\n".join(patch_check.check()))
    return 0


def _patch_edit(options: argparse.Namespace) -> int:
    from . import patch_work

    fork = third_party.get(options.p)
    with exclusive(LOCK, LOCKED):
        clone = paths.shown(patch_work.edit(fork))
    print(f"{clone} is the pinned commit with each patch as one commit on top.")
    print(f"Change them with git there; then: make patch-export P={options.p}")
    return 0


def _patch_export(options: argparse.Namespace) -> int:
    from . import patch_work

    fork = third_party.get(options.p)
    with exclusive(LOCK, LOCKED):
        written = patch_work.export(fork)
    for path in written:
        print(paths.shown(path))
    return 0


def _own(optimizer: optimizers.Optimizer) -> Sequence[Separate]:
    """Return the environment that an optimizer has to itself, if it has one."""
    return [optimizer.separate] if optimizer.separate else []


def _set_up(python: str, source: Source, separate: Sequence[Separate] = ()) -> int:
    place.check()
    upkeep.set_up_alone(python, _told(source), separate)
    return 0


def _setup(options: argparse.Namespace) -> int:
    if options.input:
        inputs.check_kind(options.input)
    separate = [*_own(optimizers.get(options.mo)), *([hub.ENVIRONMENT] if options.input == "hub" else [])]
    return _set_up(options.python, _choose(options), separate)


def _tests(options: argparse.Namespace, command: str) -> int:
    forks = command == "test-forks"
    source = sources.choose(upkeep.SOURCE)
    _set_up(options.python, source, [hub.ENVIRONMENT] if forks else upkeep.SEPARATE)
    if forks:
        _third_party(options)
    upkeep.pytest(command, options.words)


def _in_kit(options: argparse.Namespace, check: Callable[[], int]) -> int:
    upkeep.ready_environment(options.python)
    return check()


def _clean(environment_too: bool) -> int:
    upkeep.clean(environment_too)
    return 0


def run(command: str, options: argparse.Namespace) -> int:
    """Run one command; return the exit status.

    :raises KitError: the user's input is at fault.
    """
    return _handlers(command, options)[command]()


def _handlers(command: str, options: argparse.Namespace) -> Dict[str, Callable[[], int]]:
    return {
        "setup": lambda: _setup(options),
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
        "lint": lambda: _in_kit(options, upkeep.lint),
        "lock": lambda: _in_kit(options, upkeep.lock),
    }
