"""Running a job's program, with the kit's own steps around upstream's scripts."""

import contextlib
import functools
import os
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

from . import child, paths, source_rules
from .jobs import Job
from .progress import Progress
from .warm import Warm

_EXTENSION = "looking after NNCF's extension"

_DRAWINGS = ("original_graph.dot", "compressed_graph.dot")
"""What NNCF draws beside the tree when upstream's script calls it."""


class _Step(NamedTuple):
    """A process of a job, with its name on the terminal."""

    name: str
    argv: List[str]
    env: Dict[str, str]


class Runner:
    """Runs the programs of one command's jobs, one after the other; they share what they can.

    :param lock: a descriptor that every process inherits.
    :param jobs: how many there may be.  Of several, the kit's and upstream's programs start with their
        libraries imported (:mod:`launch.warm`); what another program wants first, nobody knows.
    """

    def __init__(self, lock: int, jobs: int = 1) -> None:
        self.lock = lock
        self._warm = Warm() if jobs > 1 else None
        self._extensions: List[_Step] = []

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        if self._warm is not None:
            self._warm.close()

    def run(self, job: Job, log_name: str, what: str, progress: Progress) -> child.Usage:
        """Run a job's program with its chatter in ``build/log/<log_name>.log``.

        Upstream's scripts have the kit's own steps around them: before, NNCF's extension is compiled under a
        lock that a killed compiler does not leave behind, unless that was done for an earlier job with the
        same interpreter and environment, which select the derived tree; after, an ONNX file's report is
        written in the kit's form.

        :raises KitError: see :func:`launch.child.run`.
        """
        log = paths.BUILD / "log" / f"{log_name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        progress.note(f"log: {paths.shown(log)}")
        usages = []
        with progress:
            for step in _steps(job):
                if step in self._extensions:
                    continue
                _tick(progress, step.name, None)
                usages.append(
                    child.run(
                        step.argv,
                        env=step.env,
                        cwd=Path(job.invocation.cwd),
                        log=log,
                        what=what,
                        tick=functools.partial(_tick, progress, step.name),
                        inherit=(self.lock,),
                        start=self._start(job, step),
                    )
                )
                if step.name == _EXTENSION:
                    self._extensions.append(step)
        if job.upstreams_script:
            for drawing in _DRAWINGS:
                with contextlib.suppress(FileNotFoundError):
                    (job.local(job.arguments.output_dir) / drawing).unlink()
        return child.together(usages)

    def _start(self, job: Job, step: _Step) -> Optional[child.Start]:
        """Return the other way to start a step, if there is one."""
        if self._warm is None or step.argv != job.invocation.argv():
            return None
        if not source_rules.is_program(job.invocation, job.source):
            return None
        return functools.partial(self._warm.start, job.source.imports)


def _steps(job: Job) -> List[_Step]:
    own = job.invocation.environment(os.environ)
    if not job.upstreams_script:
        return [_Step("", job.invocation.argv(), own)]
    kits = {**own, "PYTHONPATH": os.pathsep.join([own.get("PYTHONPATH", ""), str(paths.REPOSITORY)])}
    python = [job.invocation.python, "-m"]
    steps = [
        _Step(_EXTENSION, [*python, f"{__package__}.qa.extension"], kits),
        _Step("upstream's script", job.invocation.argv(), own),
    ]
    made = job.arguments.onnx_path
    if made is not None:
        argv = [*python, f"{__package__}.sparsity", str(job.local(str(made)))]
        steps.append(_Step("counting zeros", argv, kits))
    return steps


def _tick(progress: Progress, command: str, step: Optional[str]) -> None:
    """Show the step that a command has stated, or which command it is."""
    progress.tick(step or command or None)
