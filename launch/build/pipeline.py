"""One variant, from its launch configuration to its published tree: stages onnx, ir, verify, publish."""

import json
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Optional, Sequence

from ..artifact import trees
from ..artifact.trees import Content
from ..core import child, files, git, hidden, machine, paths
from ..core.errors import KitError
from ..core.files import Stamp, hold_lock
from ..core.progress import Progress, align_columns, format_duration, format_size
from ..model import bert_config, model_folder, squad, trained_quantizers
from ..model.variants import Spec, Variant
from ..setup import requirements
from ..sources.source import Source
from . import convert, preflight, program
from .jobs import TreeJob, make_onnx_key

EPOCH = "SOURCE_DATE_EPOCH"
"""The variable with a tree's time, in seconds since 1970, in place of the clock's."""

_LATEST = 253402300799  # the last second of the year 9999

_MARK = ".kit-work"
"""In every folder that the kit may empty; it never touches others."""

_OF_THE_PROGRAM = ("structure", "zeros", "matrices")
"""What a provenance's ``weights`` has from the program that read the checkpoint."""

_UNSOUND = (
    "Do not use these files. Run the same command again; if it ends here again, this is a defect of the"
    " kit or an input that it does not know: what stands above says where to look."
)


@dataclass(frozen=True)
class Outcome:
    """A published tree, as the final table shows it; ``built``: whether this run made it."""

    variant: Variant
    tree: Path
    provenance: Content
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

    :param folder: emptied before it runs; nothing else is in it.
    :param files: what it makes, relative to the work folder.
    :param result: for the terminal, a format of the first file's size and the peak memory.
    """

    name: str
    title: str
    key: Content
    folder: Path
    files: List[str]
    seconds: float
    run: Callable[[Progress], child.Usage]
    result: str


@dataclass
class Build:
    """The trees of one command, published in ``out``.

    :param prepare: sets up the environment and the sources; called once, and only if something is made.
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
        with hold_lock() as lock:
            # From here on nothing is looked up anew: what is edited during the run belongs to the next one.
            keys = [make_onnx_key(job) for job in self.jobs]
            if self.out.is_dir():
                for job in self.jobs:
                    trees.recover_tree(self.out, job.variant)
            outcomes = [self._current(job, key) for job, key in zip(self.jobs, keys)]
            todo = [job for job, outcome in zip(self.jobs, outcomes) if outcome is None]
            if todo:
                self._preflight(todo)
                facts = collect_facts(todo[0].source, self.optimizer)
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

    def _current(self, job: TreeJob, key: Content) -> Optional[Outcome]:
        """Return the job's tree if it is published and current."""
        tree, stem = self.out / job.variant.name, job.variant.stem
        found = trees.read_provenance(tree)
        if found is None or found.get("onnx_key") != record_key(key):
            return None
        if set(found["files"]) != set(trees.list_files(stem)) or not trees.is_as_listed(tree, found):
            return None
        ir_key = convert.make_ir_key(found["files"][f"{stem}.onnx"]["sha256"], self.optimizer)
        if found.get("ir_key") != record_key(ir_key):
            return None
        return Outcome(job.variant, tree, found, built=False)

    def _estimate(self, job: TreeJob) -> preflight.Estimate:
        shape, size, cut = job.shape(), 0, False
        if job.checkpoint:
            size = sum(path.stat().st_size for path in model_folder.list_checkpoint(job.checkpoint))
            if bert_config.find_config(job.checkpoint).is_file():
                own = bert_config.read_config(job.checkpoint, "WEIGHTS")
                cut = own["intermediate_size"] == shape.intermediate_size
        return preflight.estimate_need(
            shape,
            checkpoint=size,
            cut=cut,
            quantized=job.variant.quantized,
            fast=job.source.fast,
            upstreams_script=job.upstreams_script,
            old_optimizer=self.optimizer.separate is not None,
        )

    def _preflight(self, todo: Sequence[TreeJob]) -> None:
        machine.check_place()
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
            preflight.check_memory(job.variant.name, needs[-1])
        trees.check_writable(self.out)
        machine.check_disk(f"Making {len(todo)} of the trees", self.out, sum(need.disk for need in needs))
        machine.check_disk("Building", todo[0].work, max(need.disk for need in needs))
        if self.optimizer.separate is not None:
            seconds = sum(need.ir_seconds for need in needs)
            _say(
                f"Model Optimizer {self.optimizer.name} takes minutes where {convert.DEFAULT.name} takes"
                f" seconds: about {format_duration(seconds)} for the IR of {len(todo)}"
            )

    def _make(self, job: TreeJob, key: Content, label: str, lock: int, facts: Content) -> Outcome:
        """Run the stages and publish."""
        variant, work, need, spec = job.variant, job.work, self._estimate(job), job.spec()
        onnx_files, ir_files = trees.list_onnx_files(variant.stem), trees.list_ir_files(variant.stem)
        python, env = Path(job.invocation.python), dict(os.environ)
        run_program = partial(program.run_job, job, f"{variant.name}-onnx", "weights and ONNX", lock=lock)

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
        weights = _describe_weights(job, onnx.get("weights", {}))
        if job.checkpoint:
            spec = replace(spec, trained=weights)
            done = f"structure: {weights['structure']}; zeros: {weights['zeros']}"
            _say(f"{label} weights of {weights['source']}; {done}")
        stage = _Stage("ir", title, ir_key, work / "ir", ir_files, need.ir_seconds, run_optimizer, result)
        ir = self._run_stage(job, stage)
        # Imported where something is measured: a look at what is current does without.
        from ..verify.tree import measure_files, require_passed

        with Progress(f"{label} verification", need.verify_seconds) as progress:
            found = measure_files(work, spec, python, env, progress.tick, (lock,))
        passed = len(found.checks) - len(found.failed)
        progress.done(f"{passed} of {len(found.checks)} checks passed, {len(found.findings)} findings")
        verify = {"seconds": round(found.seconds, 1), "peak_bytes": found.peak_bytes}
        stages = {"onnx": onnx, "ir": ir, "verify": verify}
        made = {
            **facts,
            **_describe_job(job, spec, key),
            "weights": weights,
            "ir_key": record_key(ir_key),
            "files": {**onnx["files"], **ir["files"]},
            "seconds": {name: stage["seconds"] for name, stage in stages.items()},
            "peak_bytes": {name: stage["peak_bytes"] for name, stage in stages.items()},
            "verification": require_passed(found, f"{paths.show_path(work)} (not published)", _UNSOUND),
        }
        tree = trees.publish_tree(work, self.out, variant, made)
        shutil.rmtree(work, ignore_errors=True)
        _say(f"{label} published  {paths.show_path(tree)}")
        for finding in found.findings:
            _say(f"{label} warning: {finding.kind}: {finding.text} ({finding.reason})")
        return Outcome(variant, tree, made, built=True)

    def _run_stage(self, job: TreeJob, stage: _Stage) -> Content:
        """Run a stage if not done; return ``files`` (bytes, sha256 by name), ``seconds``, ``peak_bytes``."""
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
            if stage.name == "onnx" and job.checkpoint and job.variant.quantized and job.upstreams_script:
                progress.note("refining the quantizers")  # the kit's own program does it itself
                trained_quantizers.refine_quantizers(work / stage.files[0])
            files = trees.describe_files(work, stage.files)
            made = {"files": files, "seconds": round(usage.seconds, 1), "peak_bytes": usage.peak_bytes}
            if stage.name == "onnx" and job.checkpoint:
                made["weights"] = json.loads((work / model_folder.TRAINED).read_text(encoding="utf-8"))
            size = format_size(files[stage.files[0]]["bytes"])
            progress.done(stage.result.format(size, format_size(usage.peak_bytes)))
        Stamp(stage.key, made).write(path)
        return made

    def _take_published(self, job: TreeJob, stage: _Stage) -> Optional[Content]:
        """Link a stage's files from the published tree where they are current."""
        tree = self.out / job.variant.name
        found = trees.read_some_provenance(tree)
        if found.get(f"{stage.name}_key") != record_key(stage.key):
            return None
        try:
            files = {
                name: {part: found["files"][name][part] for part in ("bytes", "sha256")}
                for name in stage.files
            }
            seconds, peak = float(found["seconds"][stage.name]), int(found["peak_bytes"][stage.name])
            weights = {}
            if stage.name == "onnx" and job.checkpoint:
                weights = {"weights": {part: found["weights"][part] for part in _OF_THE_PROGRAM}}
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        if not trees.is_intact(tree, files, by_hash=True):
            return None
        for name in stage.files:
            trees.link_file(tree / name, job.work / name)
        return {"files": files, "seconds": round(seconds, 1), "peak_bytes": peak, **weights}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _is_ours(work: Path) -> bool:
    return (work / _MARK).is_file()


def _check_work(job: TreeJob, out: Path) -> None:
    """Raise a KitError where the kit may not empty the folder that a tree is built in."""
    work = job.work.resolve()
    own = _is_ours(work) or paths.BUILD / "work" in work.parents
    if work == (out / job.variant.name).resolve():
        problem = "The tree would be built where it is published."
    elif not own and work.is_dir() and any(work.iterdir()):
        problem = "The folder in which the tree would be built holds files that are not the kit's."
    else:
        return
    raise KitError(
        problem,
        where=f"{work} (--output_dir and --to_onnx of {job.variant.name} in the launch file)",
        hint="Point them to another folder; the kit's own launch file uses ${workspaceFolder}/build/work.",
    )


# --- what a provenance records ---------------------------------------------------------------------------


def collect_facts(source: Source, optimizer: convert.Optimizer) -> Content:
    """Return what the provenances of a run on ``source`` have in common.

    :raises KitError: a patch or a lock cannot be read, or ``SOURCE_DATE_EPOCH`` is no time.
    """
    read_epoch()
    own, package = requirements.read_pins(optimizer.lock), "openvino-dev"  # has Model Optimizer in it
    return {
        "kit": read_checkout(),
        "source": {
            "name": source.name,
            "digest": source.key(),
            "packages": source.packages(),
            "patches": [
                {"name": f"{fork}/{patch.path.name}", "sha256": files.digest_file(patch.path)}
                for fork, found in source.series().items()
                for patch in found
            ],
        },
        "model_optimizer": optimizer.name,
        "versions": {**requirements.read_pins("runtime.lock"), package: own[package]},
    }


def read_epoch() -> Optional[int]:
    """Return the seconds in ``SOURCE_DATE_EPOCH``, None if it is not set; a KitError if it is no time."""
    text = os.environ.get(EPOCH, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= _LATEST):
        raise KitError(
            "This is no time in seconds since 1970.",
            where=f"{EPOCH}={text[:60]}",
            hint=f"Correct {EPOCH}, or unset it to have the clock's time recorded.",
        )
    return int(text)


def read_checkout() -> Content:
    """Return the commit, and whether tracked files, but submodules, differ; both None if git cannot say."""
    # Without the locks, for the sake of which git would write to the index.
    words = ["--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        state = git.ask_git([*words, "--ignore-submodules=all"], paths.REPOSITORY)
    except (KitError, OSError):
        state = ""
    commit = re.search("^# branch.oid ([0-9a-f]+)$", state, re.M)  # (initial) before the first commit
    # 1 XY <sub> …: <sub> begins with S for a submodule, with N for anything else.
    changed = re.search("^[12u] .. N", state, re.M) is not None
    return {"commit": commit.group(1), "changed": changed} if commit else {"commit": None, "changed": None}


def record_key(key: Any) -> Any:
    """Return a key for a provenance, with each path of this machine as its end and a digest."""
    if isinstance(key, dict):
        return {name: record_key(value) for name, value in key.items()}
    if isinstance(key, list):
        return [record_key(value) for value in key]
    if isinstance(key, str) and hidden.shows_path(key):
        return f"{hidden.remove_paths(key)} ({files.digest_value(key)[:12]})"
    return key


def _describe_job(job: TreeJob, spec: Spec, onnx_key: Content) -> Content:
    """Return what a provenance has of a job, with the time of this call."""
    key, invocation = record_key(onnx_key), job.invocation
    environment = {name: value for name, value in invocation.env.items() if value is not None}
    return {
        "format": trees.FORMAT,
        "variant": job.variant.name,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(read_epoch())),
        "model": spec.model(),
        "command": {
            "argv": [_shown(word) for word in invocation.argv()],
            "environment": {name: _shown(value) for name, value in environment.items()},
            "launch": hidden.remove_paths(job.origin),
            "working_directory": _shown(invocation.cwd),
        },
        # What counts and is text names something, but for the revision that the program does not ask for.
        "inputs": {
            name: value
            for name, value in key["arguments"].items()
            if isinstance(value, str) and name not in ("model_revision", "heads")
        },
        **({"hub": dict(job.downloaded)} if job.downloaded else {}),
        "host": machine.describe_host(invocation.python),
        "onnx_key": key,
    }


def _describe_weights(job: TreeJob, found: Content) -> Content:
    """Return ``weights`` of a provenance; ``found`` is what the program says of a checkpoint."""
    threads = int(job.invocation.env[machine.THREADS[0]] or 0)  # as the rules have set it
    drawn = {"kind": "random", "seed": job.arguments.seed, "threads": threads}
    if job.checkpoint is None:
        return drawn
    sha256 = model_folder.digest_checkpoint(job.checkpoint)
    # Not its config's _name_or_path, which names what it was trained from.
    return {**drawn, "kind": "trained", "source": job.checkpoint.name, "sha256": sha256, **found}


def _shown(word: str) -> str:
    return hidden.remove_paths(hidden.show_word(word))
