"""``make evaluate V=…``: exact match and F1 of published trees, of the ONNX file and the IR themselves."""

import contextlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..artifact import evaluation, provenance, sums, trees
from ..artifact.trees import Content
from ..core import child, files, machine, paths
from ..core.errors import KitError
from ..core.files import hold_lock
from ..core.progress import Progress, align_columns, format_size
from ..model import model_folder, squad, variants
from ..model.variants import Spec
from ..verify.tree import require_published
from . import preflight, rules

TRAINED = paths.REPOSITORY / "trained"
"""Where ``make train`` leaves checkpoints, each in a folder with the variant's name."""

_STRIDE = 128
"""``--doc_stride`` of a tree whose provenance has none."""

_MEMORY = (0.7 * preflight.GB, 1.9, 2.5)
"""Peak bytes: a constant, for each byte of the tree's ONNX file, and for each of a checkpoint.

The first two are fitted to the runtime's memory for the smallest and the largest of the five, and rounded up;
the third is an estimate: the tensors, the model, and its activations.
"""


@dataclass(frozen=True)
class Inputs:
    """What trees are evaluated with.

    :param model: the folder of the tokenizer; None: the sample's or the checkpoint's, whichever fits.
    :param checkpoint: a model folder with the weights that the trees were made from; None: that in
        :data:`TRAINED`, if it is theirs.
    """

    questions: Path
    model: Optional[Path]
    checkpoint: Optional[Path]
    threads: int


def evaluate_trees(found: Sequence[Path], inputs: Inputs, python_path: Sequence[Path]) -> List[Content]:
    """Evaluate trees in turn, write what was found beside each, and return it; what is current stays.

    :param python_path: selects transformers.
    :raises KitError: a tree, the tokenizer, the checkpoint or a question is at fault, or a file is not run.
    """
    squad.check_scorable(squad.read_questions(inputs.questions, "VALIDATION_FILE"))
    jobs = [_Job(tree, inputs) for tree in found]
    for tree in found:
        trees.check_writable(tree.parent)
    records = []
    with hold_lock() as lock:
        for number, job in enumerate(jobs, 1):
            with Progress(f"[{number}/{len(jobs)}] {job.tree.name} evaluate", None) as progress:
                record = job.find_current()
                if record is None:
                    record, usage = job.run(python_path, progress, lock)
                    where = paths.show_path(evaluation.find_path(job.tree))
                    progress.done(f"{where}, peak memory {format_size(usage.peak_bytes)}")
                else:
                    progress.done(f"{paths.show_path(evaluation.find_path(job.tree))}  up to date")
            records.append(record)
    return records


def format_table(records: Sequence[Content]) -> str:
    """Return the figures of evaluations as a table."""
    lines = [["variant", "file", "exact match", "F1", "questions", "features", "seconds", "runtime"]]
    for record in records:
        counts = [str(record[name]) for name in ("questions", "features")]
        for name, label in evaluation.LABELS.items():
            if name in record["results"]:
                result = record["results"][name]
                figures = [f"{result[one]:.2f}" for one in ("exact_match", "f1")]
                end = [f"{result['seconds']:.1f}", result["runtime"]]
                lines.append([record["variant"], label, *figures, *counts, *end])
    same = [
        f"{record['variant']}: ONNX and IR give the same answer to {record['same_answers']} of"
        f" {record['questions']} questions; weights: {record['weights']}"
        for record in records
    ]
    return "\n".join([*align_columns(lines, range(2, 7)), *same])


class _Job:
    """The evaluation of one tree; a KitError where it cannot be made."""

    def __init__(self, tree: Path, inputs: Inputs) -> None:
        self.tree, self.inputs = tree, inputs
        self.provenance, self.entries = provenance.read_provenance(tree), sums.read_sums(tree)
        self.variant = variants.find_variant(tree.name)
        self.spec = Spec.from_model(tree.name, self.provenance["model"])
        self.checkpoint = self._find_checkpoint()
        self.tokenizer = self._find_tokenizer()
        model_folder.check_tokenizer(self.tokenizer, self.spec, self.spec.sequence_length)
        size = (tree / f"{self.variant.stem}.onnx").stat().st_size
        weights = sum(map(_measure, model_folder.list_checkpoint(self.checkpoint))) if self.checkpoint else 0
        peak = sum(each * count for each, count in zip(_MEMORY, (1, size, weights)))
        need = preflight.Estimate(int(peak), 0, 0, 0, 0)
        preflight.check_memory(f"The evaluation of {tree.name}", need)
        names = (name for name in model_folder.TOKENIZER if (self.tokenizer / name).is_file())
        self.key = {
            "files": {name: self.entries[name] for name in evaluation.list_files(self.variant.stem).values()},
            "questions": {"name": inputs.questions.name, "sha256": files.digest_file(inputs.questions)},
            "tokenizer": {name: files.digest_file(self.tokenizer / name) for name in names},
            "sequence_length": self.spec.sequence_length,
            "doc_stride": self.provenance["onnx_key"]["arguments"].get("doc_stride", _STRIDE),
            "checkpoint": self.checkpoint and model_folder.digest_checkpoint(self.checkpoint),
            "program": files.digest_files((paths.PACKAGE / "qa").glob("*.py"), paths.PACKAGE),
        }

    def _find_tokenizer(self) -> Path:
        """Return the folder of the tokenizer that the tree was made with.

        It is known by the digest of its files but weights; a downloaded one by its tokenizer's files, too.
        """
        recorded = self.provenance["inputs"]
        wanted = recorded.get("tokenizer_name", recorded.get("model_name_or_path", ""))
        named = self.inputs.model
        candidates: List[Optional[Path]] = [named] if named else [paths.SAMPLE / "model", self.checkpoint]
        for folder in filter(None, candidates):
            if folder.is_dir() and self._is_tokenizer(folder, wanted):
                return folder
        if named is None:
            raise KitError(
                f"{self.tree.name} was made with another tokenizer than the sample's.",
                where=f"{paths.show_path(self.tree / trees.PROVENANCE)}: inputs",
                hint="Name the folder that it was made with: MODEL=<folder>"
                + (", or INPUT=hub, if it is the listed one." if "hub" in self.provenance else "."),
            )
        what = f"MODEL is not the folder that {self.tree.name} was made with, so its tokens may be others."
        raise KitError(
            what if named.is_dir() else "The folder of the tokenizer does not exist.",
            where=f"MODEL={named}",
            hint=f"Name the folder as it was: {trees.PROVENANCE} has the digest of its files but weights.",
        )

    def _is_tokenizer(self, folder: Path, wanted: str) -> bool:
        if wanted == "folder:" + files.digest_model_folder(folder):
            return True
        downloaded = self.provenance.get("hub", {}).get("files", {})
        there = [name for name in model_folder.TOKENIZER if name in downloaded and (folder / name).is_file()]
        return bool({"vocab.txt", "tokenizer.json"} & {*there}) and all(
            files.digest_file(folder / name) == downloaded[name] for name in there
        )

    def _find_checkpoint(self) -> Optional[Path]:
        """Return the folder of the checkpoint that the tree was made from, if it is named, or is there."""
        folder, weights = self.inputs.checkpoint, self.provenance["weights"]
        if folder is None:
            there = TRAINED / self.variant.base
            with contextlib.suppress(KitError, OSError):
                return there if weights.get("sha256") == model_folder.digest_checkpoint(there) else None
            return None
        model_folder.find_checkpoint(folder)
        if weights["kind"] == model_folder.RANDOM:
            raise KitError(
                f"The weights of {self.tree.name} are random: no checkpoint belongs to it.",
                where=f"WEIGHTS={folder}",
                hint="Leave WEIGHTS out.",
            )
        if weights.get("sha256") != model_folder.digest_checkpoint(folder):
            raise KitError(
                f"{self.tree.name} was made from another checkpoint.",
                where=f"WEIGHTS={folder}",
                hint="Name the folder that it was made from, or leave WEIGHTS out:"
                f" {trees.PROVENANCE} has the sha256 of its weights.",
            )
        return folder

    def find_current(self) -> Optional[Content]:
        """Return the evaluation that is there, if it is of this job; another checkpoint's is none."""
        try:
            found = evaluation.read_evaluation(self.tree)
        except KitError:
            return None
        return found if found and found["key"] == self.key else None

    def run(self, python_path: Sequence[Path], progress: Progress, lock: int) -> Tuple[Content, child.Usage]:
        """Check the tree's bytes, evaluate its files, write and return the record, and what that took."""
        require_published(self.tree, self.provenance, self.entries, progress.tick)
        stem, (first, *_, last) = self.variant.stem, self.provenance["verification"]["onnx"]["outputs"]
        names = evaluation.list_files(stem)
        log = paths.BUILD / "log" / f"{self.tree.name}-evaluate.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        with tempfile.TemporaryDirectory(prefix="evaluate-") as scratch:
            request, result = Path(scratch) / "request.json", Path(scratch) / "result.json"
            content = {
                "files": {name: str(self.tree / names[name]) for name in ("onnx", "ir")},
                "outputs": [first["name"], last["name"]],
                "checkpoint": self.checkpoint and str(self.checkpoint),
                "tokenizer": str(self.tokenizer),
                "questions": str(self.inputs.questions),
                "max_seq_length": self.key["sequence_length"],
                "doc_stride": self.key["doc_stride"],
                "vocab_size": self.spec.vocab_size,
                "threads": self.inputs.threads,
                "result": str(result),
            }
            request.write_text(json.dumps(content), encoding="utf-8")
            usage = child.run_child(
                [str(paths.VENV_PYTHON), "-m", "launch.qa.evaluate_files", str(request)],
                env=_environment(python_path, self.inputs.threads),
                cwd=paths.REPOSITORY,
                log=log,
                what="evaluation",
                tick=progress.tick,
                inherit=(lock,),
            )
            measured: Dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        record = {
            "format": evaluation.FORMAT,
            "variant": self.tree.name,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "weights": self.provenance["weights"]["kind"],
            "host": {"cores": len(os.sched_getaffinity(0)), "processor": machine.read_processor()},
            "key": self.key,
            **measured,
        }
        text = json.dumps(record, indent=2, sort_keys=True) + "\n"
        try:
            files.write_text(evaluation.find_path(self.tree), text)
        except OSError as error:
            raise KitError(
                f"The evaluation cannot be written: {error.strerror}.",
                where=paths.show_path(evaluation.find_path(self.tree)),
                hint="Free disk space, or make the folder writable.",
            ) from None
        return record, usage


def _measure(path: Path) -> int:
    return path.stat().st_size


def _environment(python_path: Sequence[Path], threads: int) -> Dict[str, str]:
    return {
        **machine.inherit_variables(os.environ),
        "PYTHONPATH": os.pathsep.join(map(str, python_path)),
        "CUDA_VISIBLE_DEVICES": "",
        "GLIBC_TUNABLES": rules.ALLOCATOR,
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        **dict.fromkeys(machine.THREADS, str(threads)),
    }
