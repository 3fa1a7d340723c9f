"""One variant, from its launch configuration to its published tree.

Stages: *onnx* (weights, pruning, quantization, export, sparsity report), *ir* (Model Optimizer), *verify*
(what is in the files), *publish*.  Each of the first two leaves a stamp, written last, with the key of what
it was made from and the sha256 of what it made.  A killed run resumes after its last stamp; a key that
differs makes the stage again.  What does not pass the third is not published.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence

from ..artifact import trees
from . import convert, program, record, resources, startable
from ..core import paths, place
from ..model import bert_config, squad
from ..core.errors import KitError
from .jobs import TreeJob, ir_key, onnx_key
from ..core.locks import LOCK, LOCKED, exclusive
from .optimizers import DEFAULT, Optimizer
from .outcome import Outcome
from ..core.progress import Progress, duration, size
from ..model.spec import Spec

if TYPE_CHECKING:
    from ..verify.tree import Result
from ..core.stamp import Stamp

_ONNX_STAMP = ".onnx-stage.json"
_IR_STAMP = ".ir-stage.json"
_MARK = ".kit-work"
"""In every folder that the kit may empty; others it never touches."""

_WORK = paths.BUILD / "work"

_UNSOUND = (
    "Do not use these files. Run the same command again; if it ends here again, this is a defect of the"
    " kit or an input that it does not know: what stands above says where to look."
)
"""What to do about files that are not what they must be."""

Key = Dict[str, Any]


class Build:
    """The trees of one command.

    :param jobs: what to make, in order.
    :param out: where trees are published.
    :param prepare: sets up the environment and the sources; called once, and only if something is made.
    :param optimizer: makes the IR.
    """

    def __init__(
        self,
        jobs: Sequence[TreeJob],
        out: Path,
        prepare: Callable[[], None],
        optimizer: Optimizer = DEFAULT,
    ) -> None:
        self.jobs = jobs
        self.out = out
        self.prepare = prepare
        self.optimizer = optimizer

    def run(self) -> List[Outcome]:
        """Make what is not current, in order, and return every tree.

        :raises KitError: an input is at fault or a stage fails; trees made before stay.
        """
        found = [self._current(job, onnx_key(job)) for job in self.jobs]
        if all(found) and not any(self._leftovers(job) for job in self.jobs):
            return [outcome for outcome in found if outcome]
        with exclusive(LOCK, LOCKED) as lock:
            # From here on nothing is looked up anew: what is edited during the run belongs to the next one.
            keys = [onnx_key(job) for job in self.jobs]
            if self.out.is_dir():
                for job in self.jobs:
                    trees.recover(self.out, job.variant)
            outcomes = [self._current(job, key) for job, key in zip(self.jobs, keys)]
            todo = [job for job, outcome in zip(self.jobs, outcomes) if outcome is None]
            if todo:
                self._preflight(todo)
                self._warn_of_a_slow_optimizer(todo)
                facts = record.facts(todo[0].source, self.optimizer)
                self.prepare()
            results = []
            for job, key, outcome in zip(self.jobs, keys, outcomes):
                if outcome is None:
                    label = f"[{todo.index(job) + 1}/{len(todo)}]"
                    outcome = _Tree(job, key, self.out, label, lock, self.optimizer, facts).build()
                elif _is_ours(job.work):
                    shutil.rmtree(job.work, ignore_errors=True)
                results.append(outcome)
            return results

    def _current(self, job: TreeJob, key: Key) -> Optional[Outcome]:
        """Return the job's tree if it is published and current."""
        tree = self.out / job.variant.name
        found = trees.read_provenance(tree)
        if found is None or found.get("onnx_key") != record.recorded(key):
            return None
        whole = set(found["files"]) == set(trees.all_files(job.variant.stem))
        if not whole or not trees.as_listed(tree, found):
            return None
        onnx = found["files"].get(f"{job.variant.stem}.onnx", {}).get("sha256", "")
        if found.get("ir_key") != record.recorded(ir_key(onnx, self.optimizer)):
            return None
        return Outcome(job.variant, tree, found, built=False)

    def _warn_of_a_slow_optimizer(self, todo: Sequence[TreeJob]) -> None:
        if self.optimizer.separate is None:
            return
        seconds = [_estimate(job, self.optimizer).ir_seconds for job in todo]
        print(
            f"Model Optimizer {self.optimizer.name} takes minutes where {DEFAULT.name} takes seconds:"
            f" about {duration(sum(seconds))} for the IR of {len(todo)}",
            file=sys.stderr,
            flush=True,
        )

    def _leftovers(self, job: TreeJob) -> bool:
        return trees.leftovers(self.out, job.variant) or _is_ours(job.work)

    def _preflight(self, todo: Sequence[TreeJob]) -> None:
        """Check everything that can be checked before the first long stage."""
        place.check()
        checked = set()
        needs = []
        for job in todo:
            startable.check(job)
            for name in ("train_file", "validation_file"):
                path = job.questions(name)
                if path is not None and path not in checked:
                    checked.add(path)
                    squad.read(path, job.named(name))
            _check_work(job, self.out)
            shape = job.shape()
            job.check_model()
            _check_spec(job, shape)
            needs.append(_estimate(job, self.optimizer))
            resources.check_memory(job.variant.name, needs[-1])
        trees.check_writable(self.out)
        place.check_disk(f"Making {len(todo)} of the trees", self.out, sum(need.disk for need in needs))
        place.check_disk("Building", todo[0].work, max(need.disk for need in needs))


def _is_ours(work: Path) -> bool:
    return (work / _MARK).is_file()


def _check_work(job: TreeJob, out: Path) -> None:
    """Check that the kit may empty the folder that a tree is built in.

    :raises KitError: it is where the tree is published, or holds what the kit did not put there.
    """
    work = job.work.resolve()
    if work == (out / job.variant.name).resolve():
        problem = "The tree would be built where it is published."
    elif work.is_dir() and any(work.iterdir()) and not _is_ours(work) and _WORK not in work.parents:
        problem = "The folder in which the tree would be built holds files that are not the kit's."
    else:
        return
    raise KitError(
        problem,
        where=f"{work} (--output_dir and --to_onnx of {job.variant.name} in the launch file)",
        hint="Point them to another folder; the kit's own launch file uses ${workspaceFolder}/build/work.",
    )


def _check_spec(job: TreeJob, shape: bert_config.BertShape) -> None:
    """Check that what is to be made is what the variant's name says.

    :raises KitError: it is not, and would not be published.
    """
    reason = Spec.of(job.variant, shape, job.arguments.max_seq_length).contradiction()
    if reason:
        raise KitError(
            f"This model does not make {job.variant.name}: {reason}.",
            where=job.arguments.config_source,
            hint="Correct the config, or make another variant.",
        )


def _estimate(job: TreeJob, optimizer: Optimizer) -> resources.Estimate:
    """Return what a job is expected to take."""
    return resources.estimate(
        job.shape(),
        fast=job.source.fast,
        upstreams_script=job.upstreams_script,
        old_optimizer=optimizer.separate is not None,
    )


class _Tree:
    """One tree on its way: the state that its stages share."""

    def __init__(
        self,
        job: TreeJob,
        key: Key,
        out: Path,
        label: str,
        lock: int,
        optimizer: Optimizer,
        facts: record.Facts,
    ) -> None:
        self.job = job
        self.key = key
        self.out = out
        self.label = label
        self.lock = lock
        self.optimizer = optimizer
        self.facts = facts
        self.work = job.work
        self.shape = job.shape()
        self.need = _estimate(job, optimizer)

    def build(self) -> Outcome:
        """Run the stages and publish."""
        # What measures is imported where something is: a check of what is current does without.
        from ..verify.tree import require

        variant = self.job.variant
        self._say(f"{variant.name}  about {duration(self.need.seconds)}")
        onnx = self._onnx_stage()
        ir = self._ir_stage(onnx.made["files"][f"{variant.stem}.onnx"]["sha256"])
        found = self._verify()
        third = {"seconds": round(found.seconds, 1), "peak_bytes": found.peak_bytes}
        stages = {"onnx": onnx.made, "ir": ir.made, "verify": third}
        made = record.build(
            self.facts,
            self.job,
            self.shape,
            onnx_key=self.key,
            ir_key=ir.key,
            files={**onnx.made["files"], **ir.made["files"]},
            seconds={name: made["seconds"] for name, made in stages.items()},
            peak_bytes={name: made["peak_bytes"] for name, made in stages.items()},
            verification=require(found, f"{paths.shown(self.work)} (not published)", _UNSOUND),
        )
        tree = trees.publish(self.work, self.out, variant, made)
        shutil.rmtree(self.work, ignore_errors=True)
        self._say(f"published  {paths.shown(tree)}")
        for finding in found.findings:
            self._say(f"warning: {finding.kind}: {finding.text} ({finding.reason})")
        return Outcome(variant, tree, made, built=True)

    def _verify(self) -> "Result":
        """Measure what is in the files; nothing of an earlier run is taken over."""
        from ..verify.tree import measure

        progress = Progress(f"{self.label} verification", self.need.verify_seconds)
        job = self.job
        spec = Spec.of(job.variant, self.shape, job.arguments.max_seq_length)
        with progress:
            found = measure(
                self.work, spec, Path(job.invocation.python), dict(os.environ), progress.tick, (self.lock,)
            )
        passed = len(found.checks) - len(found.failed)
        progress.done(f"{passed} of {len(found.checks)} checks passed, {len(found.findings)} findings")
        return found

    def _say(self, text: str) -> None:
        print(f"{self.label} {text}", file=sys.stderr, flush=True)

    def _done_before(self, stamp: str, key: Key, names: Sequence[str]) -> Optional[Stamp]:
        """Return the stamp of a stage that an earlier run finished; None where the stage has to run."""
        path = self.work / stamp
        found = Stamp.read(path)
        if (
            found
            and found.key == key
            and set(found.made["files"]) == set(names)
            and trees.intact(self.work, found.made["files"], by_hash=True)
        ):
            return found
        if path.exists():
            path.unlink()
        return None

    def _finish(self, stamp: str, key: Key, files: Dict[str, Any], seconds: float, peak: int) -> Stamp:
        made = Stamp(key, {"files": files, "seconds": round(seconds, 1), "peak_bytes": peak})
        made.write(self.work / stamp)
        return made

    def _empty(self) -> None:
        """Make the work folder anew; nothing is emptied that :func:`_check_work` has not seen."""
        if self.work.exists():
            shutil.rmtree(self.work)
        self.work.mkdir(parents=True)
        (self.work / _MARK).touch()

    def _onnx_stage(self) -> Stamp:
        names = trees.onnx_files(self.job.variant.stem)
        progress = Progress(f"{self.label} weights and ONNX", self.need.onnx_seconds)
        found = self._done_before(_ONNX_STAMP, self.key, names)
        if found:
            progress.done("done by an earlier run")
            return found
        self._empty()
        found = self._reuse("onnx", _ONNX_STAMP, self.key, names)
        if found:
            progress.done("unchanged, taken from the published tree")
            return found
        log, what = f"{self.job.variant.name}-onnx", "weights and ONNX"
        usage = program.run_job(self.job, log, what, progress, self.lock)
        files = trees.describe_files(self.work, names)
        progress.done(f"{size(files[names[0]]['bytes'])}, peak memory {size(usage.peak_bytes)}")
        return self._finish(_ONNX_STAMP, self.key, files, usage.seconds, usage.peak_bytes)

    def _reuse(self, stage: str, stamp: str, key: Key, names: List[str]) -> Optional[Stamp]:
        """Take a stage's files from the published tree, an earlier kit's too, where they are still current.

        So it is where only the IR is stale, or nothing but the form of the provenance.
        """
        tree = self.out / self.job.variant.name
        found = trees.read_some_provenance(tree)
        if found.get(f"{stage}_key") != record.recorded(key):
            return None
        try:
            files = {
                name: {part: found["files"][name][part] for part in ("bytes", "sha256")} for name in names
            }
            seconds, peak = float(found["seconds"][stage]), int(found["peak_bytes"][stage])
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        if not trees.intact(tree, files, by_hash=True):
            return None
        for name in names:
            trees.link(tree / name, self.work / name)
        return self._finish(stamp, key, files, seconds, peak)

    def _ir_stage(self, onnx_sha256: str) -> Stamp:
        key, names = ir_key(onnx_sha256, self.optimizer), trees.ir_files(self.job.variant.stem)
        progress = Progress(f"{self.label} IR", self.need.ir_seconds)
        found = self._done_before(_IR_STAMP, key, names)
        if found:
            progress.done("done by an earlier run")
            return found
        shutil.rmtree(self.work / "ir", ignore_errors=True)
        (self.work / "ir").mkdir()
        found = self._reuse("ir", _IR_STAMP, key, names)
        if found:
            progress.done("unchanged, taken from the published tree")
            return found
        progress.note(f"log: {paths.shown(self.work / 'ir' / trees.MO_LOG)}")
        with progress:
            usage = convert.convert(
                Path(self.job.invocation.python),
                self.job.onnx_path,
                dict(os.environ),
                progress.tick,
                inherit=(self.lock,),
                optimizer=self.optimizer,
            )
        files = trees.describe_files(self.work, names)
        progress.done(f"{size(files[names[0]]['bytes'])} of weights")
        return self._finish(_IR_STAMP, key, files, usage.seconds, usage.peak_bytes)
