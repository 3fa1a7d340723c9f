"""One variant, from its launch configuration to its published tree.

Stages: *onnx* (weights, pruning, quantization, export, sparsity report), *ir* (Model Optimizer), *verify*
(what is in the files), *publish*.  Each of the first two leaves a stamp, written last, with its key and the
sha256 of what it made.  A killed run resumes after its last stamp; a key that differs makes the stage again.
What does not pass the third is not published.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from ..artifact import trees
from ..core import child, paths, place
from ..core.errors import KitError
from ..core.locks import LOCK, LOCKED, hold_lock
from ..core.progress import Progress, align_columns, format_duration, format_size
from ..core.stamp import Stamp
from ..model import squad
from ..model.variants import Variant
from . import convert, preflight, program, record, resources
from .jobs import TreeJob, make_onnx_key

_MARK = ".kit-work"
"""In every folder that the kit may empty; others it never touches."""

_WORK = paths.BUILD / "work"

_UNSOUND = (
    "Do not use these files. Run the same command again; if it ends here again, this is a defect of the"
    " kit or an input that it does not know: what stands above says where to look."
)

Key = Dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """A published tree, as the final table shows it.

    :param built: whether this run made it.
    """

    variant: Variant
    tree: Path
    provenance: Dict[str, Any]
    built: bool


def format_table(outcomes: Sequence[Outcome]) -> str:
    """Return the final table: variant, sizes, block sparsity, time, peak memory, path."""
    lines = [["variant", "ONNX", "IR .bin", "block sparsity", "time", "peak memory", "path"]]
    for outcome in outcomes:
        made, stem = outcome.provenance, outcome.variant.stem
        lines.append(
            [
                outcome.variant.name,
                format_size(made["files"][f"{stem}.onnx"]["bytes"]),
                format_size(made["files"][f"ir/{stem}.bin"]["bytes"]),
                f"{made['verification']['block_sparsity']:.6f}",
                format_duration(sum(made["seconds"].values())) + ("" if outcome.built else " (up to date)"),
                format_size(max(made["peak_bytes"].values())),
                paths.show_path(outcome.tree),
            ]
        )
    return "\n".join(align_columns(lines))


class _Stage(NamedTuple):
    """A command that makes files of a tree.

    :param name: what a provenance calls it; ``title`` what the terminal does.
    :param key: what the files depend on.
    :param folder: emptied before it runs; nothing else is in it.
    :param files: what it makes, relative to the work folder.
    :param run: runs the command.
    :param result: what the terminal says in the end, of the first file's size and of the peak memory.
    """

    name: str
    title: str
    key: Key
    folder: Path
    files: List[str]
    seconds: float
    run: Callable[[Progress], child.Usage]
    result: str


@dataclass
class Build:
    """The trees of one command.

    :param jobs: what to make, in order.
    :param out: where trees are published.
    :param prepare: sets up the environment and the sources; called once, and only if something is made.
    :param optimizer: makes the IR.
    """

    jobs: Sequence[TreeJob]
    out: Path
    prepare: Callable[[], None]
    optimizer: convert.Optimizer = convert.DEFAULT

    def run(self) -> List[Outcome]:
        """Make what is not current, in order, and return every tree.

        :raises KitError: an input is at fault or a stage fails; trees made before stay.
        """
        found = [self._current(job, make_onnx_key(job)) for job in self.jobs]
        leftovers = any(trees.has_leftovers(self.out, job.variant) or _is_ours(job.work) for job in self.jobs)
        if all(found) and not leftovers:
            return [outcome for outcome in found if outcome]
        with hold_lock(LOCK, LOCKED) as lock:
            # From here on nothing is looked up anew: what is edited during the run belongs to the next one.
            keys = [make_onnx_key(job) for job in self.jobs]
            if self.out.is_dir():
                for job in self.jobs:
                    trees.recover_tree(self.out, job.variant)
            outcomes = [self._current(job, key) for job, key in zip(self.jobs, keys)]
            todo = [job for job, outcome in zip(self.jobs, outcomes) if outcome is None]
            if todo:
                self._preflight(todo)
                facts = record.collect_facts(todo[0].source, self.optimizer)
                self.prepare()
            results = []
            for job, key, outcome in zip(self.jobs, keys, outcomes):
                if outcome is None:
                    label = f"[{todo.index(job) + 1}/{len(todo)}]"
                    outcome = self._make(job, key, label, lock, facts)
                elif _is_ours(job.work):
                    shutil.rmtree(job.work, ignore_errors=True)
                results.append(outcome)
            return results

    def _current(self, job: TreeJob, key: Key) -> Optional[Outcome]:
        """Return the job's tree if it is published and current."""
        tree = self.out / job.variant.name
        found = trees.read_provenance(tree)
        if found is None or found.get("onnx_key") != record.record_key(key):
            return None
        whole = set(found["files"]) == set(trees.list_files(job.variant.stem))
        if not whole or not trees.is_as_listed(tree, found):
            return None
        onnx = found["files"].get(f"{job.variant.stem}.onnx", {}).get("sha256", "")
        if found.get("ir_key") != record.record_key(convert.make_ir_key(onnx, self.optimizer)):
            return None
        return Outcome(job.variant, tree, found, built=False)

    def _estimate(self, job: TreeJob) -> resources.Estimate:
        return resources.estimate_need(
            job.shape(),
            fast=job.source.fast,
            upstreams_script=job.upstreams_script,
            old_optimizer=self.optimizer.separate is not None,
        )

    def _preflight(self, todo: Sequence[TreeJob]) -> None:
        """Check everything that can be checked before the first long stage.

        :raises KitError: a check fails.
        """
        place.check_place()
        questions = set()
        needs = []
        for job in todo:
            preflight.check_job(job)
            for name in ("train_file", "validation_file"):
                path = job.questions(name)
                if path is not None and path not in questions:
                    questions.add(path)
                    squad.read_questions(path, job.named(name))
            _check_work(job, self.out)
            job.check_model()
            reason = job.spec().contradiction()
            if reason:
                raise KitError(
                    f"This model does not make {job.variant.name}: {reason}.",
                    where=job.arguments.config_source,
                    hint="Correct the config, or make another variant.",
                )
            needs.append(self._estimate(job))
            resources.check_memory(job.variant.name, needs[-1])
        trees.check_writable(self.out)
        place.check_disk(f"Making {len(todo)} of the trees", self.out, sum(need.disk for need in needs))
        place.check_disk("Building", todo[0].work, max(need.disk for need in needs))
        if self.optimizer.separate is not None:
            seconds = sum(need.ir_seconds for need in needs)
            _say(
                f"Model Optimizer {self.optimizer.name} takes minutes where {convert.DEFAULT.name} takes"
                f" seconds: about {format_duration(seconds)} for the IR of {len(todo)}"
            )

    def _make(self, job: TreeJob, key: Key, label: str, lock: int, facts: record.Facts) -> Outcome:
        """Run the stages and publish."""
        # What measures is imported where something is: a check of what is current does without.
        from ..verify.tree import measure_files, require_passed

        variant, work, need, spec = job.variant, job.work, self._estimate(job), job.spec()
        onnx_files, ir_files = trees.list_onnx_files(variant.stem), trees.list_ir_files(variant.stem)
        python, env = Path(job.invocation.python), dict(os.environ)

        def run_program(progress: Progress) -> child.Usage:
            return program.run_job(job, f"{variant.name}-onnx", "weights and ONNX", progress, lock)

        def run_optimizer(progress: Progress) -> child.Usage:
            progress.note(f"log: {paths.show_path(work / 'ir' / trees.MO_LOG)}")
            with progress:
                return convert.convert_to_ir(
                    python, job.onnx_path, env, progress.tick, (lock,), self.optimizer
                )

        _say(f"{label} {variant.name}  about {format_duration(need.seconds)}")
        title, result = f"{label} weights and ONNX", "{}, peak memory {}"
        stage = _Stage("onnx", title, key, work, onnx_files, need.onnx_seconds, run_program, result)
        onnx = self._run_stage(job, stage)
        ir_key = convert.make_ir_key(onnx["files"][onnx_files[0]]["sha256"], self.optimizer)
        title, result = f"{label} IR", "{} of weights"
        stage = _Stage("ir", title, ir_key, work / "ir", ir_files, need.ir_seconds, run_optimizer, result)
        ir = self._run_stage(job, stage)
        with Progress(f"{label} verification", need.verify_seconds) as progress:
            found = measure_files(work, spec, python, env, progress.tick, (lock,))
        passed = len(found.checks) - len(found.failed)
        progress.done(f"{passed} of {len(found.checks)} checks passed, {len(found.findings)} findings")
        verify = {"seconds": round(found.seconds, 1), "peak_bytes": found.peak_bytes}
        made = record.make_provenance(
            facts,
            job,
            spec,
            onnx_key=key,
            ir_key=ir_key,
            files={**onnx["files"], **ir["files"]},
            stages={"onnx": onnx, "ir": ir, "verify": verify},
            verification=require_passed(found, f"{paths.show_path(work)} (not published)", _UNSOUND),
        )
        tree = trees.publish_tree(work, self.out, variant, made)
        shutil.rmtree(work, ignore_errors=True)
        _say(f"{label} published  {paths.show_path(tree)}")
        for finding in found.findings:
            _say(f"{label} warning: {finding.kind}: {finding.text} ({finding.reason})")
        return Outcome(variant, tree, made, built=True)

    def _run_stage(self, job: TreeJob, stage: _Stage) -> Dict[str, Any]:
        """Run a stage, unless an earlier run or the published tree has its files.

        :returns: ``files`` by name (size and sha256), ``seconds`` and ``peak_bytes``.
        """
        progress, work = Progress(stage.title, stage.seconds), job.work
        path = work / f".{stage.name}-stage.json"
        stamp = Stamp.read(path)
        if (
            stamp
            and stamp.key == stage.key
            and set(stamp.made["files"]) == set(stage.files)
            and trees.is_intact(work, stamp.made["files"], by_hash=True)
        ):
            progress.done("done by an earlier run")
            return dict(stamp.made)
        if path.exists():
            path.unlink()
        if stage.folder.exists():  # _check_work has seen that nothing else is in it
            shutil.rmtree(stage.folder)
        stage.folder.mkdir(parents=True)
        (work / _MARK).touch()
        made = self._take_published(job, stage)
        if made:
            progress.done("unchanged, taken from the published tree")
        else:
            usage = stage.run(progress)
            files = trees.describe_files(work, stage.files)
            made = {"files": files, "seconds": round(usage.seconds, 1), "peak_bytes": usage.peak_bytes}
            progress.done(
                stage.result.format(
                    format_size(files[stage.files[0]]["bytes"]), format_size(usage.peak_bytes)
                )
            )
        Stamp(stage.key, made).write(path)
        return made

    def _take_published(self, job: TreeJob, stage: _Stage) -> Optional[Dict[str, Any]]:
        """Link a stage's files from the published tree where they are current: only the IR may be stale."""
        tree = self.out / job.variant.name
        found = trees.read_some_provenance(tree)
        if found.get(f"{stage.name}_key") != record.record_key(stage.key):
            return None
        try:
            files = {
                name: {part: found["files"][name][part] for part in ("bytes", "sha256")}
                for name in stage.files
            }
            seconds, peak = float(found["seconds"][stage.name]), int(found["peak_bytes"][stage.name])
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        if not trees.is_intact(tree, files, by_hash=True):
            return None
        for name in stage.files:
            trees.link_file(tree / name, job.work / name)
        return {"files": files, "seconds": round(seconds, 1), "peak_bytes": peak}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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
