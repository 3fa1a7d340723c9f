"""One variant, from its launch configuration to its published tree.

Stages: *onnx* (weights, pruning, quantization, export, sparsity report), *ir* (Model Optimizer), *publish*.
Each of the first two leaves a stamp, written last, with the key of what it was made from and the sha256 of
what it made.  A killed run resumes after its last stamp; a key that differs makes the stage again.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from . import (
    bert_config,
    child,
    convert,
    digests,
    environment,
    inputs,
    paths,
    resources,
    sources,
    sparsity,
    squad,
    trees,
    vscode,
)
from .errors import KitError
from .locks import exclusive
from .progress import Progress, duration, size
from .qa.arguments import Arguments, parse
from .variants import Variant

_ONNX_STAMP = ".onnx-stage.json"
_IR_STAMP = ".ir-stage.json"

_PLACES = ("--output_dir", "--to_onnx")
"""Options that say where a product goes and not what it is."""

_UNREAD = (
    "--validation_file",
    "--per_device_eval_batch_size",
    "--overwrite_output_dir",
    "--max_eval_samples",
)
"""Options that a run which exports does not act on."""

_UNKEYED_VARIABLES = ("PATH", "PYTHONPATH", "TORCH_EXTENSIONS_DIR")
"""Variables that hold paths of this machine; what they lead to has keys of its own."""

_PROGRAM = ("qa", "bert_config.py", "json_file.py", "sparsity.py", "squad.py", "variants.py")
"""The kit's own code that the first stage runs, relative to the package."""

_EVALUATION = ("evaluate.py", "answers.py")
"""Modules of the program that an export does not run."""


_EVALUATION_SECONDS = 150.0
"""Expected time of an evaluation of BERT-large on the sample with 2 cores; all of SQuAD takes hours."""


@dataclass(frozen=True)
class Job:
    """One configuration of the launch file, ready to run.

    :param variant: the variant it makes; None where it makes none.
    :param arguments: the program's command line, parsed.
    :param changes: what was changed of the launch file, and by which rule.
    """

    variant: Optional[Variant]
    invocation: vscode.Invocation
    arguments: Arguments
    changes: Sequence[inputs.Change]

    @property
    def onnx_path(self) -> Path:
        """Where the program puts its ONNX file."""
        path = self.arguments.onnx_path
        assert path is not None
        return Path(self.invocation.cwd) / path

    @property
    def work(self) -> Path:
        """The folder in which the tree is built."""
        return self.onnx_path.parent

    def local(self, path: str) -> Path:
        """Return a path of the command line, relative ones taken from the working directory."""
        return Path(self.invocation.cwd) / path


def load_job(launch_file: Path, name: str, selection: inputs.Selection, variant: Optional[Variant]) -> Job:
    """Return the job that the configuration ``name`` of ``launch_file`` describes.

    :raises KitError: the launch file or an input is at fault.
    """
    configuration = vscode.find(vscode.load(launch_file), name)
    resolved = vscode.resolve(
        configuration, workspace=paths.REPOSITORY, env=os.environ, default_python=sys.executable
    )
    invocation, changes = inputs.apply(resolved, selection, variant)
    arguments = parse(Path(invocation.target[-1]).name, invocation.args)
    job = Job(variant, invocation, arguments, changes)
    if variant is not None:
        made = arguments.onnx_path
        if made is None or made.name != f"{variant.stem}.onnx":
            raise KitError(
                f"The configuration {name!r} does not make {variant.stem}.onnx"
                + (f" but {made.name}." if made else "."),
                where=f"{launch_file}: {name}",
                hint="Correct --to_onnx, or the folder of --config_name, in the launch file.",
            )
    return job


def onnx_key(job: Job) -> Dict[str, Any]:
    """Return what the ONNX file of a job depends on, as JSON.

    Files count by their content, folders of this machine not at all; so a moved checkout keeps its trees.

    :raises KitError: a file that the command line names cannot be read.
    """
    arguments: List[str] = []
    skip = False
    for word, following in zip(job.invocation.args, (*job.invocation.args[1:], "")):
        if skip:
            skip = False
        elif word in _PLACES or word in _UNREAD:
            skip = not following.startswith("--")
        else:
            arguments.append(_content(job.local(word), word))
    env = {n: v for n, v in job.invocation.env.items() if n not in _UNKEYED_VARIABLES}
    program = [
        path
        for entry in _PROGRAM
        for path in (
            [paths.PACKAGE / entry] if entry.endswith(".py") else (paths.PACKAGE / entry).glob("*.py")
        )
        if path.name not in _EVALUATION
    ]
    return {
        "arguments": arguments,
        "environment": env,
        "lock": environment.lock_digest("runtime.lock"),
        "program": digests.of_files(program, paths.PACKAGE),
        "source": sources.key(),
    }


def _content(path: Path, word: str) -> str:
    if word.startswith("--") or os.sep not in word:
        return word
    try:
        if path.is_dir():
            return "folder:" + digests.of_model_folder(path)
        return "file:" + digests.of_file(path)
    except OSError as error:
        raise KitError(
            f"A file that the launch configuration names cannot be read: {error.strerror}.",
            where=word,
            hint="Correct it in the launch file; `make configs` makes the model configs.",
        ) from None


def ir_key(onnx_sha256: str) -> Dict[str, Any]:
    """Return what the IR of an ONNX file depends on, as JSON."""
    return {
        "command": convert.command(Path("python"), Path("model.onnx"))[1:],
        "lock": environment.lock_digest("runtime.lock"),
        "onnx": onnx_sha256,
        "program": digests.of_file(Path(convert.__file__)),
    }


@dataclass(frozen=True)
class Outcome:
    """A published tree, as the final table shows it."""

    variant: Variant
    tree: Path
    provenance: Dict[str, Any]
    built: bool


class Build:
    """The trees of one command.

    :param out: where trees are published.
    """

    def __init__(self, jobs: Sequence[Job], out: Path) -> None:
        self.jobs = jobs
        self.out = out

    def run(self) -> List[Outcome]:
        """Make what is not current, in order, and return every tree.

        :raises KitError: an input is at fault or a stage fails; trees made before stay.
        """
        current = {id(job): self._current(job) for job in self.jobs}
        if all(current.values()):
            return [outcome for outcome in current.values() if outcome]
        with exclusive(paths.BUILD / "build.lock", "artifact trees in this checkout") as lock:
            todo = [job for job in self.jobs if not self._current(job)]
            if todo:  # a run that was waited for may have made all of them
                self._preflight(todo)
            outcomes = []
            for job in self.jobs:
                outcome = self._current(job)
                if outcome is None:
                    outcome = self._build(job, f"[{todo.index(job) + 1}/{len(todo)}]", lock)
                outcomes.append(outcome)
            return outcomes

    def _current(self, job: Job) -> Optional[Outcome]:
        """Return the job's tree if it is published and current."""
        assert job.variant is not None
        tree = self.out / job.variant.name
        provenance = trees.read_provenance(tree)
        if provenance is None or provenance.get("onnx_key") != onnx_key(job):
            return None
        files = provenance.get("files", {})
        onnx = files.get(f"{job.variant.stem}.onnx", {}).get("sha256", "")
        if provenance.get("ir_key") != ir_key(onnx) or not trees.intact(tree, files, by_hash=False):
            return None
        return Outcome(job.variant, tree, provenance, built=False)

    def _preflight(self, todo: Sequence[Job]) -> None:
        """Check everything that can be checked before the first long stage."""
        trees.check_writable(self.out)
        checked = set()
        disk = 0
        for job in todo:
            assert job.variant is not None
            trees.recover(self.out, job.variant)
            for name, path in (
                ("TRAIN_FILE", job.arguments.train_file),
                ("VALIDATION_FILE", job.arguments.validation_file),
            ):
                if path is not None and path not in checked:
                    checked.add(path)
                    squad.read(job.local(path), name)
            need = resources.estimate(_shape(job))
            resources.check_memory(job.variant.name, need)
            disk += need.disk
        resources.check_disk(f"Making {len(todo)} of the trees", self.out, disk)
        resources.check_disk(
            "Building", paths.BUILD, max(resources.estimate(_shape(job)).disk for job in todo)
        )

    def _build(self, job: Job, number: str, lock: int) -> Outcome:
        assert job.variant is not None
        need = resources.estimate(_shape(job))
        print(f"{number} {job.variant.name}  about {duration(need.seconds)}", file=sys.stderr, flush=True)
        onnx = self._onnx_stage(job, f"{number} weights and ONNX", need, lock)
        ir = self._ir_stage(job, onnx, f"{number} IR", need, lock)
        shape = _shape(job)
        report = sparsity.read_report(sparsity.report_paths(job.onnx_path)[0])
        provenance = {
            "variant": job.variant.name,
            "source": sources.describe(),
            "onnx_key": onnx["key"],
            "ir_key": ir["key"],
            "files": {**onnx["files"], **ir["files"]},
            "block_sparsity": sparsity.block_sparsity(report, shape.dense_weights),
            "seconds": {"onnx": onnx["seconds"], "ir": ir["seconds"]},
            "peak_bytes": {"onnx": onnx["peak_bytes"], "ir": ir["peak_bytes"]},
        }
        tree = trees.publish(job.work, self.out, job.variant, provenance)
        shutil.rmtree(job.work, ignore_errors=True)
        print(f"{number} published  {paths.shown(tree)}", file=sys.stderr, flush=True)
        return Outcome(job.variant, tree, provenance, built=True)

    def _stage(
        self, job: Job, stamp: Path, key: Dict[str, Any], progress: Progress
    ) -> Optional[Dict[str, Any]]:
        """Return the stamp of a stage that an earlier run finished; None where the stage has to run."""
        found = trees.read_stamp(stamp)
        if found and found.get("key") == key and trees.intact(job.work, found.get("files", {}), by_hash=True):
            progress.done("done by an earlier run")
            return found
        if stamp.exists():
            stamp.unlink()
        return None

    def _finish(
        self, job: Job, stamp: Path, key: Dict[str, Any], names: List[str], usage: child.Usage
    ) -> Dict[str, Any]:
        content = {
            "key": key,
            "files": trees.describe_files(job.work, names),
            "seconds": round(usage.seconds, 1),
            "peak_bytes": usage.peak_bytes,
        }
        trees.write_stamp(stamp, content)
        return content

    def _onnx_stage(self, job: Job, label: str, need: resources.Estimate, lock: int) -> Dict[str, Any]:
        assert job.variant is not None
        key, names = onnx_key(job), trees.onnx_files(job.variant.stem)
        stamp = job.work / _ONNX_STAMP
        progress = Progress(label, need.onnx_seconds)
        found = self._stage(job, stamp, key, progress) or self._reuse(job, key, names, progress)
        if found:
            return found
        shutil.rmtree(job.work, ignore_errors=True)
        job.work.mkdir(parents=True)
        usage = _run(job, f"{job.variant.name}-onnx", "weights and ONNX", progress, (lock,))
        content = self._finish(job, stamp, key, names, usage)
        progress.done(f"{size(content['files'][names[0]]['bytes'])}, peak memory {size(usage.peak_bytes)}")
        return content

    def _reuse(
        self, job: Job, key: Dict[str, Any], names: List[str], progress: Progress
    ) -> Optional[Dict[str, Any]]:
        """Take the ONNX file of the published tree where only the IR is stale."""
        assert job.variant is not None
        tree = self.out / job.variant.name
        provenance = trees.read_provenance(tree)
        if provenance is None or provenance.get("onnx_key") != key:
            return None
        files = {name: entry for name, entry in provenance.get("files", {}).items() if name in names}
        if len(files) != len(names) or not trees.intact(tree, files, by_hash=True):
            return None
        shutil.rmtree(job.work, ignore_errors=True)
        job.work.mkdir(parents=True)
        for name in names:
            trees.link(tree / name, job.work / name)
        content = {
            "key": key,
            "files": files,
            "seconds": provenance["seconds"]["onnx"],
            "peak_bytes": provenance["peak_bytes"]["onnx"],
        }
        trees.write_stamp(job.work / _ONNX_STAMP, content)
        progress.done("unchanged, taken from the published tree")
        return content

    def _ir_stage(
        self, job: Job, onnx: Dict[str, Any], label: str, need: resources.Estimate, lock: int
    ) -> Dict[str, Any]:
        assert job.variant is not None
        key = ir_key(onnx["files"][f"{job.variant.stem}.onnx"]["sha256"])
        names = convert.files(job.variant.stem)
        stamp = job.work / _IR_STAMP
        progress = Progress(label, need.ir_seconds)
        found = self._stage(job, stamp, key, progress)
        if found:
            return found
        shutil.rmtree(job.work / "ir", ignore_errors=True)
        with progress:
            usage = convert.convert(
                Path(job.invocation.python), job.onnx_path, dict(os.environ), progress.tick, inherit=(lock,)
            )
        content = self._finish(job, stamp, key, names, usage)
        progress.done(f"{size(content['files'][names[0]]['bytes'])} of weights")
        return content


def _shape(job: Job) -> bert_config.BertShape:
    """Return the dimensions of the model that a job makes; those of BERT-large for a hub's name."""
    source = job.local(job.arguments.config_source)
    if not source.exists() and job.arguments.dataset_name:
        source = paths.SAMPLE / "model"
    config = bert_config.read(source, "the model config")
    return bert_config.shape(config, str(bert_config.config_file(source)))


def _run(job: Job, log_name: str, what: str, progress: Progress, inherit: Sequence[int] = ()) -> child.Usage:
    """Run a job's program with its chatter in ``build/log/<log_name>.log``.

    :raises KitError: see :func:`launch.child.run`.
    """
    log = paths.BUILD / "log" / f"{log_name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    progress.note(f"log: {paths.shown(log)}")
    with progress:
        return child.run(
            job.invocation.argv(),
            env=job.invocation.environment(os.environ),
            cwd=Path(job.invocation.cwd),
            log=log,
            what=what,
            tick=progress.tick,
            inherit=inherit,
        )


def explain(job: Job) -> str:
    """Return what differs between the launch file and the run, one difference a line, with its rule."""
    if not job.changes:
        return "Runs as the launch file says."
    return "\n".join(
        f"{change.rule}: {change.before or '(absent)'} -> {change.after or '(removed)'}"
        for change in job.changes
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the final table: variant, sizes, block sparsity, time, path."""
    head = ("variant", "ONNX", "IR .bin", "block sparsity", "time", "peak memory", "path")
    lines: List[Tuple[str, ...]] = [head]
    for outcome in outcomes:
        files, stem = outcome.provenance["files"], outcome.variant.stem
        seconds, peak = outcome.provenance["seconds"], outcome.provenance["peak_bytes"]
        lines.append(
            (
                outcome.variant.name,
                size(files[f"{stem}.onnx"]["bytes"]),
                size(files[f"ir/{stem}.bin"]["bytes"]),
                f"{outcome.provenance['block_sparsity']:.6f}",
                duration(sum(seconds.values())) if outcome.built else "up to date",
                size(max(peak.values())),
                paths.shown(outcome.tree),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines
    )


def evaluate(job: Job) -> str:
    """Run an evaluation job and return its result as text.

    :raises KitError: an input is at fault, or the evaluation fails.
    """
    if job.arguments.validation_file is not None:
        squad.read(job.local(job.arguments.validation_file), "VALIDATION_FILE")
    progress = Progress("evaluate", _EVALUATION_SECONDS)
    _run(job, "evaluate", "evaluation", progress)
    results = job.local(job.arguments.output_dir) / "eval_results.json"
    progress.done(paths.shown(results))
    return json.dumps(json.loads(results.read_text(encoding="utf-8")), indent=2)
