"""Running a job's program, with the kit's own steps around upstream's scripts."""

import contextlib
import os
from pathlib import Path
from typing import Dict, List, NamedTuple

from ..core import child, digests, paths
from ..core.errors import KitError
from ..core.progress import Progress
from ..qa import extension
from ..setup import requirements
from .jobs import Job

_DRAWINGS = ("original_graph.dot", "compressed_graph.dot")  # NNCF's, beside the tree, for upstream's script

_COMPILES = ("PYTHONPATH", "CUDA_VISIBLE_DEVICES", "CXX")
"""Variables that decide what is compiled: which sources, whether for a GPU too, and by which compiler.

For a processor torch 1.9.1 asks nothing besides (``torch/utils/cpp_extension.py``).
"""

_NAMED = ("model_name_or_path", "train_file", "validation_file")  # arguments that a program's errors name

_SCRIPT, _CAUSE = "upstream's script", "looking for the cause"


class Step(NamedTuple):
    """A process of a job, with its name on the terminal."""

    name: str
    argv: List[str]
    env: Dict[str, str]


def run_job(job: Job, log_name: str, what: str, progress: Progress, lock: int) -> child.Usage:
    """Run a job's program with its chatter in ``build/log/<log_name>.log``.

    Upstream's scripts have the kit's own steps around them: before, NNCF's extension is compiled if it is not
    current; after, an ONNX file's report is written; should the script fail, its inputs are looked through.

    :param what: the stage, for errors.
    :param lock: a descriptor that every process inherits.
    :raises KitError: see :func:`launch.core.child.run_child`.
    """
    log = paths.BUILD / "log" / f"{log_name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    progress.note(f"log: {paths.show_path(log)}")

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


def _steps(job: Job) -> List[Step]:
    """Return what a job runs, one after the other."""
    own = job.invocation.environment(os.environ)
    if not job.upstreams_script:
        return [Step("", job.invocation.argv(), own)]
    steps = []
    folder = own.get(extension.FOLDER)
    if folder is None or not extension.is_current(Path(folder), _extension_key(job)):
        steps.append(make_extension_step(job))
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
    """Return the step that looks for what is wrong with what the person gave a script that failed."""
    words = [job.flattened.get(word, word) for word in job.invocation.args]
    return _kits(job, _CAUSE, "qa.check", *words)


def make_extension_step(job: Job) -> Step:
    """Return the step that has NNCF's extension compiled for a job where it is not."""
    return _kits(job, "looking after NNCF's extension", "qa.extension", _extension_key(job))


def _extension_key(job: Job) -> str:
    """Return what decides whether there is something to compile for a job, as a sha256.

    Should it say too little, torch compiles in upstream's script.

    :raises KitError: the lock cannot be read.
    """
    env = job.invocation.environment(os.environ)
    return digests.digest_value(
        {
            "python": job.invocation.python,
            "lock": requirements.digest_lock("runtime.lock"),
            "source": job.source.derived(),
            "environment": {name: env.get(name) for name in _COMPILES},
        }
    )
