"""Running a job's program, with the kit's own steps around upstream's scripts."""

import contextlib
import os
from pathlib import Path
from typing import Dict, List, NamedTuple

from ..core import child, machine, paths
from ..core.errors import KitError
from ..core.progress import Progress
from .jobs import Job

_DRAWINGS = ("original_graph.dot", "compressed_graph.dot")  # NNCF's, beside the tree, for upstream's script

_NAMED = ("model_name_or_path", "train_file", "validation_file")  # arguments that a program's errors name

_SCRIPT, _CAUSE = "upstream's script", "looking for the cause"


class Step(NamedTuple):
    """A process of a job, and what the terminal calls it."""

    name: str
    argv: List[str]
    env: Dict[str, str]


def run_job(job: Job, log_name: str, what: str, progress: Progress, lock: int) -> child.Usage:
    """Run a job's program with its log in ``build/log/<log_name>.log``; return what its processes took.

    :param lock: a descriptor that every process inherits; ``what``: the stage, for errors.
    :raises KitError: see :func:`launch.core.child.run_child`.
    """
    log = paths.BUILD / "log" / f"{log_name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    progress.note(f"log: {paths.show_path(log)}")
    if job.source.fast and job.arguments.onnx_path and not _multiplies_fast(job):
        progress.note("no C++ compiler (CXX, c++, g++): with one, products can take a third of the time")

    def run(step: Step) -> child.Usage:
        progress.tick(step.name or None)
        try:
            return child.run_child(
                step.argv,
                env=step.env,
                cwd=Path(job.invocation.cwd),
                log=log,
                what=what,
                tick=lambda stated: progress.tick(stated or step.name or None),
                inherit=(lock,),
            )
        except KitError as error:
            for name in _NAMED:  # a program knows its command line alone
                error.where = error.where.replace(f"--{name}=", f"{job.named(name)}=")
            raise

    usages = []
    with progress:
        for step in _steps(job):
            try:
                usages.append(run(step))
            except KitError as error:
                if step.name == _SCRIPT and not isinstance(error, child.KilledError):
                    # Upstream's script says nothing of a user's error but a traceback.
                    run(cause_step(job))
                raise
    if job.upstreams_script:
        for drawing in _DRAWINGS:
            with contextlib.suppress(FileNotFoundError):
                (job.local(job.arguments.output_dir) / drawing).unlink()
    return child.sum_usages(usages)


def _multiplies_fast(job: Job) -> bool:
    """Return whether torch's products are fast, or ``fast_products.patch`` can have its own compiled."""
    return "Intel" in machine.read_processor() or machine.has_compiler(job.invocation.environment(os.environ))


def _steps(job: Job) -> List[Step]:
    own = job.invocation.environment(os.environ)
    if not job.upstreams_script:
        return [Step("", job.invocation.argv(), own)]
    steps = []
    if job.arguments.evaluates and job.arguments.weights is None:
        steps.append(_kits(job, "looking at the checkpoint", "qa.model", *job.invocation.args))
    steps.append(Step(_SCRIPT, job.invocation.argv(), own))
    made = job.arguments.onnx_path
    if made is not None:
        steps.append(_kits(job, "counting zeros", "model.sparsity", str(job.local(str(made)))))
    return steps


def _kits(job: Job, name: str, module: str, *arguments: str) -> Step:
    """Return the step that runs one of the kit's modules as a job's program runs."""
    argv = [job.invocation.python, "-m", f"launch.{module}", *arguments]
    return Step(name, argv, job.invocation.environment(os.environ))


def cause_step(job: Job) -> Step:
    """Return the step that looks for what is wrong with the inputs of a script that failed."""
    words = [job.flattened.get(word, word) for word in job.invocation.args]
    return _kits(job, _CAUSE, "qa.check", *words)
