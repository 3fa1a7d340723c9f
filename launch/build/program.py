"""Running a job's program, with the kit's own steps around upstream's scripts."""

import contextlib
import os
from pathlib import Path
from typing import List, Tuple

from ..core import child, machine, paths
from ..core.errors import KitError
from ..core.progress import Progress
from .jobs import Job

_DRAWINGS = ("original_graph.dot", "compressed_graph.dot")  # NNCF's, beside the tree, for upstream's script

_NAMED = (
    "model_name_or_path",
    "train_file",
    "validation_file",
    "weights",
)  # arguments that a program's errors name

_SCRIPT = "upstream's script"


Step = Tuple[str, List[str]]
"""A process of a job: what the terminal calls it, and its command line."""


def run_job(job: Job, log_name: str, what: str, progress: Progress, lock: int) -> child.Usage:
    """Run a job's program with its log in ``build/log/<log_name>.log``; return what its processes took.

    :param lock: a descriptor that every process inherits; ``what``: the stage, for errors.
    :raises KitError: see :func:`launch.core.child.run_child`.
    """
    log = paths.BUILD / "log" / f"{log_name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    progress.note(f"log: {paths.show_path(log)}")
    environment = job.invocation.environment(os.environ)
    # Torch's own products are fast on Intel's processors; for others fast_products.patch compiles some.
    fast = "Intel" in machine.read_processor() or machine.has_compiler(environment)
    if job.source.fast and job.made and not fast:
        progress.note("no C++ compiler (CXX, c++, g++): with one, products can take a third of the time")

    def run(name: str, argv: List[str]) -> child.Usage:
        progress.tick(name or None)
        try:
            return child.run_child(
                argv,
                env=environment,
                cwd=Path(job.invocation.cwd),
                log=log,
                what=what,
                tick=lambda stated: progress.tick(stated or name or None),
                inherit=(lock,),
            )
        except KitError as error:
            for option in _NAMED:  # a program knows its command line alone
                error.where = error.where.replace(f"--{option}=", f"{job.named(option)}=")
            raise

    usages = []
    with progress:
        for step in _steps(job):
            try:
                usages.append(run(*step))
            except KitError as error:
                if step[0] == _SCRIPT and not isinstance(error, child.KilledError):
                    # Upstream's script says nothing of a user's error but a traceback.
                    run(*cause_step(job))
                raise
    if job.upstreams_script:
        for drawing in _DRAWINGS:
            with contextlib.suppress(FileNotFoundError):
                (job.local(job.arguments.output_dir) / drawing).unlink()
    return child.sum_usages(usages)


def _steps(job: Job) -> List[Step]:
    if not job.upstreams_script:
        return [("", job.invocation.argv())]
    steps, made = [], job.made
    if made is None and not job.arguments.gen_sparse_cfg and job.arguments.weights is None:
        steps.append(_kits(job, "looking at the checkpoint", "qa.model", *job.invocation.args))
    if job.preparation is not None:
        steps.append(("reading the checkpoint", job.preparation.argv()))
    steps.append((_SCRIPT, job.invocation.argv()))
    if made is not None:
        steps.append(_kits(job, "counting zeros", "model.sparsity", str(job.local(str(made)))))
    return steps


def _kits(job: Job, name: str, module: str, *arguments: str) -> Step:
    """Return the step that runs one of the kit's modules as a job's program runs."""
    return name, [job.invocation.python, "-m", f"launch.{module}", *arguments]


def cause_step(job: Job) -> Step:
    """Return the step that looks for what is wrong with the inputs of a script that failed."""
    words = [job.originals.get(word, word) for word in job.invocation.args]
    return _kits(job, "looking for the cause", "qa.program", *words)
