"""Running a plan: one process at a time, the sides in turn, and what each took."""

import datetime
import json
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

from launch.artifact import trees
from launch.build import convert
from launch.build.jobs import TreeJob
from launch.build.program import run_job
from launch.core import child, files, paths
from launch.core.machine import describe_host
from launch.core.progress import Progress
from launch.model.variants import Spec, Variant
from launch.verify import tree as verification

from . import plan as planning
from . import sides
from .figures import FLOOR, IR, ONNX, VERIFICATION, Figure, Run, as_json, rows
from .plan import Plan
from .sides import Side
from .stopwatch import Stopwatch
from .table import markdown

FORMAT = 1
"""Of the JSON file."""


@contextmanager
def workplace(plan: Plan, lock: int) -> Iterator[None]:
    """Make what the runs read and is not counted: trees, an extension, a model folder; remove it afterwards.

    The trees and the extension stay for the next benchmark, everything larger goes.
    """
    shutil.rmtree(str(sides.WORK), ignore_errors=True)
    sides.WORK.mkdir(parents=True)
    try:
        planning.write_model(plan)
        for side in plan.sides:
            side.source.ensure(_say)
        if plan.by_hand:
            _extension(sides.job(plan.base, plan.variants[0]), plan.base, lock)
            _weights(plan.kit, lock)
        yield
    finally:
        shutil.rmtree(str(sides.WORK), ignore_errors=True)


def _say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)


def _kits_environment(side: Side, job: TreeJob) -> Dict[str, str]:
    own = job.invocation.environment(os.environ)
    return {**own, "PYTHONPATH": os.pathsep.join(map(str, side.source.python_path))}


def _extension(job: TreeJob, side: Side, lock: int) -> None:
    """Compile NNCF's extension, once for all runs of all variants, as a person has it after the first."""
    for stale in side.source.extensions.glob("*/lock"):  # what a killed compiler left, torch waits for
        stale.unlink()
    argv = [job.invocation.python, "-c", "import nncf.torch"]
    _prepare("bench: NNCF's extension", argv, job.invocation.environment(os.environ), lock)


def _weights(side: Side, lock: int) -> None:
    """Write the checkpoint that the recipe by hand reads."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, side.source.python_path))}
    argv = [str(paths.VENV_PYTHON), "-m", "tests.bench.weights", str(sides.MODEL)]
    _prepare("bench: a checkpoint of random weights", argv, env, lock)


def _prepare(what: str, argv: List[str], env: Dict[str, str], lock: int) -> None:
    log = paths.BUILD / "log" / "bench.log"
    with Progress(what, expected=None) as progress:
        child.run_child(
            argv, env=env, cwd=sides.WORK, log=log, what=what, tick=progress.tick, inherit=(lock,)
        )
    progress.done("not counted")


def run(plan: Plan, lock: int) -> List[Run]:
    """Run the plan, write the results after each variant, and return what was measured.

    :param lock: a descriptor that every process inherits.
    :raises KitError: a run fails.
    """
    done: List[Run] = []
    count = len(plan.variants) * plan.repeat * 2
    with workplace(plan, lock):
        for variant in plan.variants:
            for repeat in range(plan.repeat):
                for side in plan.turns(repeat):
                    label = f"[{len(done) + 1}/{count}] {variant.name} {side.name}"
                    done.append(_one(plan, side, variant, label, lock))
            write(plan, done)
    return done


def _one(plan: Plan, side: Side, variant: Variant, label: str, lock: int) -> Run:
    """Run one variant on one side; what it made is hashed and removed."""
    shutil.rmtree(str(side.folder), ignore_errors=True)
    job = sides.job(side, variant)
    need = planning.need(plan, side, variant)
    job.work.mkdir(parents=True)
    stages: Dict[str, Figure] = {}
    steps: Dict[str, Dict[str, float]] = {}

    watch = Stopwatch(f"{label}  {ONNX}", need.onnx_seconds if side.kits else None)
    log_name = f"bench-{side.folder.name}-{variant.name}"
    usage = run_job(job, log_name, ONNX, watch, lock) if side.kits else _by_hand(job, log_name, watch, lock)
    steps[ONNX] = watch.steps()
    stages[ONNX] = _booked(watch, usage)

    watch = Stopwatch(f"{label}  {IR}", need.ir_seconds)
    with watch:
        usage = convert.convert_to_ir(
            Path(job.invocation.python), job.onnx_path, dict(os.environ), watch.tick, (lock,)
        )
    stages[IR] = _booked(watch, usage)
    stages[FLOOR] = _floor(side, job, f"{label}  {FLOOR}", lock)
    if side.kits:
        stages[VERIFICATION] = _verify(job, f"{label}  {VERIFICATION}", need.verify_seconds, lock)
    made = [job.onnx_path, *(job.work / "ir" / f"{variant.stem}{suffix}" for suffix in trees.IR_SUFFIXES)]
    outputs = {path.name: files.digest_file(path) for path in made}
    shutil.rmtree(str(side.folder))
    return Run(
        variant.name, side.name, stages, {name: found for name, found in steps.items() if found}, outputs
    )


def _booked(watch: Stopwatch, usage: child.Usage) -> Figure:
    figure = Figure(usage.seconds, usage.cpu_seconds, usage.peak_bytes)
    watch.done(f"CPU {figure.cpu_seconds:.1f} s, peak memory {figure.peak_bytes / 1e9:.2f} GB")
    return figure


def _floor(side: Side, job: TreeJob, label: str, lock: int) -> Figure:
    """Run the calibration's forward passes alone, with what the program is given."""
    result = job.work / "floor.json"
    watch = Stopwatch(label, None)
    log = paths.BUILD / "log" / "bench.log"
    invocation = job.invocation
    argv = [invocation.python, "-m", "tests.bench.floor", str(result), *invocation.args]
    with watch:
        usage = child.run_child(
            argv,
            env=_kits_environment(side, job),
            cwd=Path(invocation.cwd),
            log=log,
            what=FLOOR,
            tick=watch.tick,
            inherit=(lock,),
        )
    found = json.loads(result.read_text(encoding="utf-8"))
    return _booked(watch, child.Usage(found["seconds"], usage.peak_bytes, found["cpu_seconds"]))


def _by_hand(job: TreeJob, log_name: str, watch: Stopwatch, lock: int) -> child.Usage:
    """Run the program alone, with none of the kit's steps around it."""
    log = paths.BUILD / "log" / f"{log_name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    watch.note(f"log: {paths.show_path(log)}")
    invocation = job.invocation
    with watch:
        return child.run_child(
            invocation.argv(),
            env=invocation.environment(os.environ),
            cwd=Path(invocation.cwd),
            log=log,
            what=ONNX,
            tick=watch.tick,
            inherit=(lock,),
        )


_UNSOUND = "The benchmark cannot be taken as it is: make the variant, which says more (make variant V=…)."


def _verify(job: TreeJob, label: str, expected: float, lock: int) -> Figure:
    watch = Stopwatch(label, expected)
    spec = Spec.of(job.variant, job.shape(), job.arguments.max_seq_length)
    with watch:
        found = verification.measure_files(
            job.work, spec, Path(job.invocation.python), dict(os.environ), watch.tick, (lock,)
        )
        verification.require_passed(found, f"{paths.show_path(job.work)} (removed)", _UNSOUND)
    return _booked(watch, child.Usage(found.seconds, found.peak_bytes, found.cpu_seconds))


def write(plan: Plan, done: List[Run]) -> List[Path]:
    """Write the results as JSON and as a Markdown table, and return the files."""
    base, kit = plan.base.name, plan.kit.name
    machine = describe_host(str(paths.VENV_PYTHON))
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    described = {side.name: side.source.describe() for side in plan.sides}
    content: Dict[str, Any] = {
        "format": FORMAT,
        "size": plan.size,
        "repeat": plan.repeat,
        "finished": now,
        "host": machine,
        "sides": described,
        "planned": [variant.name for variant in plan.variants],
        "runs": [
            {
                "variant": run.variant,
                "side": run.side,
                "stages": {name: vars(figure) for name, figure in run.stages.items()},
                "steps": run.steps,
                "outputs": run.outputs,
            }
            for run in done
        ],
        "rows": as_json(rows(done, (base, kit)), base, kit),
    }
    title = [
        f"{base}: {described[base]}  ",
        f"{kit}: {described[kit]}  ",
        f"SIZE={plan.size}, {machine['processor']}, {machine['cores']} cores, {now}",
    ]
    measured = len({run.variant for run in done})
    if measured < len(plan.variants):
        title[-1] += f"; {measured} of {len(plan.variants)} variants, the others are yet to come"
    made = [plan.to / f"{plan.stem}.json", plan.to / f"{plan.stem}.md"]
    files.write_text(made[0], json.dumps(content, indent=2) + "\n")
    files.write_text(made[1], "\n".join(title) + "\n\n" + markdown(done, base, kit))
    return made
