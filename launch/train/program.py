"""The training program: checks, teacher, structure, pruning with distillation, evaluation, publishing.

The work folder has a folder for each teacher and each variant, named after all that they depend on, with a
lock for each: two variants may train at once.  A run that was killed goes on from what it finds there.  The
output folder appears whole, after its evaluation.
"""

import contextlib
import json
import math
import os
import platform
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from ..core import child, files
from ..core.errors import EXIT_USER_ERROR, KitError
from ..model import model_folder, squad
from ..model.variants import find_variant
from ..qa import arguments as qa
from .arguments import Arguments, Request, parse_arguments
from .errors import OwnError, explain_memory, explain_writing
from .model import DenseModel, describe_work, make_folder

_SAY_SECONDS = 5.0

_OF_TEACHER = (
    *("teacher_epochs", "teacher_learning_rate", "batch_size", "warmup"),
    *("final_learning_rate", "weight_decay", "clip"),
)
"""Hyperparameters that the teacher depends on."""


class Run:
    """One run of the program: what was given, read and checked.

    :raises KitError: an input is at fault, or a folder cannot be written to.
    """

    def __init__(self, request: Request) -> None:
        from ..qa.features import load_examples, load_tokenizer

        args = self.args = request.arguments
        self.given = dict(request.hyperparameters)
        self.variant = find_variant(args.variant)
        for folder in (args.output.parent, args.work):
            _check_writable(folder)
        args.check_output()
        self.qa = qa.Arguments(**{name: value for name, value in vars(args).items() if name in _SHARED})
        examples = []
        for split, check, limit in (
            ("train", squad.check_trainable, args.max_train_samples),
            ("validation", squad.check_scorable, args.max_eval_samples),
        ):
            examples.append(load_examples(self.qa, split)[:limit])
            check(examples[-1])
        self.dense = DenseModel(Path(args.model_name_or_path), self.variant, args.max_seq_length)
        if self.dense.has_head and "teacher_epochs" not in request.changed:
            self.given["teacher_epochs"] = 0.0
        untrained = not self.dense.has_head and not self.given["teacher_epochs"]
        if untrained and self.given["epochs"]:
            raise KitError(
                "The model has no question-answering head, and a teacher without one has nothing to teach.",
                where=f"--model_name_or_path={args.model_name_or_path}: teacher_epochs 0",
                hint="Set teacher_epochs above 0, or give a model that answers questions.",
            )
        child.report_step("loading libraries")
        from .loop import Trainer
        from .questions import Windows

        self.accelerator = _make_accelerator(args)
        self.trainer = Trainer(self.accelerator, args, self.given)
        if untrained:
            self.trainer.say("nothing is trained, the question-answering head neither: it is drawn")
        tokenizer = load_tokenizer(self.qa, self.dense.dense.vocab_size)
        self.trainer.say("tokenizing questions")
        self.windows = Windows(examples[0], tokenizer, self.qa, labelled=True)
        self.validation = Windows(examples[1], tokenizer, self.qa, labelled=False)
        if len(self.windows) < self.given["batch_size"]:
            raise KitError(
                f"{len(self.windows)} training windows are fewer than a batch of {self.given['batch_size']}.",
                where=f"--train_file={args.train_file}",
                hint="Give more questions, or a smaller batch_size.",
            )
        self.teacher_key = self._teacher_key()
        self.scoring = {
            "validation": files.digest_file(Path(args.validation_file)),
            "arguments": [args.max_eval_samples, args.n_best_size, args.max_answer_length],
        }
        self.key = {
            "teacher": self.teacher_key,
            "variant": self.variant.base,
            "scoring": self.scoring,
            "arguments": [args.threshold, args.eval_steps],
            "hyperparameters": self.given,
        }

    def _teacher_key(self) -> Dict[str, Any]:
        """Return what the teacher depends on, and a saved state."""
        args, accelerator = self.args, self.accelerator
        names = ("seed", "max_seq_length", "doc_stride", "max_train_samples", "max_steps")
        return {
            "model": self.dense.digest(),
            "train": files.digest_file(Path(args.train_file)),
            "windows": self.windows.digest(),
            "arguments": {name: getattr(args, name) for name in names},
            "hyperparameters": {name: self.given[name] for name in _OF_TEACHER},
            "precision": accelerator.mixed_precision,
            "parts": [accelerator.num_processes, self.trainer.rounds, accelerator.device.type],
            "versions": _list_versions(),
        }

    def execute(self) -> None:
        """Train, evaluate and publish, with a lock on the folder of the variant's states.

        :raises KitError: the training diverges, memory is too small, or something cannot be written.
        """
        folder = self.args.work / f"{self.variant.base}-{files.digest_value(self.key)[:16]}"
        with self._hold(folder):
            self.trainer.decide(self.args.check_output)  # who held the lock may have made it
            self._execute(folder)

    @contextlib.contextmanager
    def _hold(self, folder: Path) -> Iterator[None]:
        """Hold a folder's lock, which the main process takes for all."""
        lock = files.hold_lock(folder / "lock", str(folder))
        with lock if self.accelerator.is_main_process else contextlib.nullcontext():
            self.accelerator.wait_for_everyone()
            yield

    def _execute(self, folder: Path) -> None:
        from .loop import Phase
        from .pruning import Schedule, apply_pruned, block_weights, count_zeros

        teacher, score, logits = self._make_teacher()
        scores = {"teacher": score}
        student = self.dense.build(self.args.seed)  # a copy would call what accelerate has wrapped
        student.load_state_dict(teacher.state_dict())
        student.to(self.accelerator.device)
        if self.variant.hybrid:
            self._cut(student)
            scores["cut"] = self._score(student, "cut, before training", folder / "cut.json")
        if not self.given["hidden_weight"]:
            teacher = None  # its memory is free
        zeros, steps = count_zeros(self.dense.shape), self._count_steps(self.given["epochs"])
        found = sum(_count_zeros(student).values())
        if found > zeros:
            raise KitError(
                f"The dense model has more zeros than the variant: {found:,} of the block weights that are"
                f" kept are zero, and {zeros:,} are wanted.",
                where=f"--model_name_or_path={self.args.model_name_or_path}, --variant={self.args.variant}",
                hint="Give a dense checkpoint, or name a variant of a higher sparsity.",
            )
        weights = block_weights(student)
        kept = {name: weight.detach().clone() for name, weight in weights.items()}
        apply_pruned(weights, self.trainer.choose(weights, zeros))
        scores["pruned"] = self._score(student, "pruned at once, before training", folder / "pruned.json")
        student.load_state_dict(kept, strict=False)
        del kept
        share = steps / self.given["epochs"] if steps else 0.0
        schedule = Schedule(
            initial=int(self.given["initial_sparsity"] * self.dense.shape.kept_weights),
            final=zeros,
            begin=round(share * self.given["dense_epochs"]),
            end=steps - round(share * self.given["fixed_epochs"]),
            every=int(self.given["prune_every"]),
        )
        phase = Phase(
            name="training",
            folder=folder,
            windows=self.windows,
            steps=steps,
            learning_rate=self.given["learning_rate"],
            logits=logits,
            teacher=teacher,
            schedule=schedule,
            evaluate=lambda model: self._evaluate(model, "on the way"),
            eval_steps=self.args.eval_steps or self._count_steps(1),
        )
        self.trainer.train(student, phase)
        scores["result"] = self._evaluate(student, "result")
        progress = self.trainer.progress
        matrices = _count_zeros(student)
        report = {
            "scores": scores,
            "zeros": {"wanted": zeros, "found": sum(matrices.values()), "matrices": matrices},
            "steps": {"all": steps, "pruning_begins": schedule.begin, "mask_fixed": schedule.end},
            "curve": progress.curve,
            "evaluations": progress.scores,
            "seconds": progress.seconds,
            **self._describe(),
        }
        self.trainer.decide(lambda: self._publish(student, report))
        if self.accelerator.is_main_process:
            shutil.rmtree(str(folder), ignore_errors=True)
            print(f"{_format_scores(scores['result'])}; {self.args.output}")
            print(describe_work(self.args.work))

    def _publish(self, model: Any, report: Dict[str, Any]) -> None:
        with make_folder(self.args.output) as part:
            self.dense.write_variant(model, part)
            text = json.dumps(report, indent=2, sort_keys=True)
            files.write_text(part / model_folder.TRAINING, text + "\n")

    def _count_steps(self, epochs: float) -> int:
        steps = math.ceil(epochs * (len(self.windows) // self.given["batch_size"]))
        return steps if self.args.max_steps is None else min(steps, self.args.max_steps)

    def _evaluate(self, model: Any, what: str) -> Dict[str, float]:
        from .questions import score_logits

        logits = self._compute_logits(model, self.validation, f"evaluating ({what})")
        scores = score_logits(self.validation, logits, self.qa)
        self.trainer.say(f"{what}: {_format_scores(scores)}")
        return scores

    def _compute_logits(self, model: Any, windows: Any, what: str) -> Any:
        from .questions import compute_logits

        said = time.monotonic()

        def say(text: Callable[[], str]) -> None:
            nonlocal said
            if time.monotonic() - said > _SAY_SECONDS:
                said = time.monotonic()
                self.trainer.say(f"{what}: {text()}")

        self.trainer.say(what)
        return compute_logits(self.accelerator, model, windows, self.args.eval_batch_size, say)

    def _score(self, model: Any, what: str, path: Path) -> Dict[str, float]:
        """Return a model's scores on the validation questions, computed once: the file keeps them."""
        kept: Optional[Dict[str, float]]
        kept = self.trainer.decide(lambda: files.read_json(path) if path.exists() else None)
        if kept is not None:
            self.trainer.say(f"{what}, evaluated before: {_format_scores(kept)}")
            return kept
        scores = self._evaluate(model, what)
        self.trainer.decide(lambda: _write_json(path, scores))
        return scores

    def _make_teacher(self) -> Tuple[Any, Dict[str, float], Any]:
        """Return the teacher, its scores, and its logits of all training windows; None if none are wanted.

        Its folder keeps them for all variants, and is locked while they are made.
        """
        import numpy as np

        folder = self._teacher_folder()
        path = folder / "logits.npy"
        with self._hold(folder):
            model = self._tune(folder).to(self.accelerator.device).eval()
            name = f"scores-{files.digest_value(self.scoring)[:16]}.json"
            scores = self._score(model, "teacher", folder / name)
            if not self.given["hardness"]:
                return model, scores, None
            if self.trainer.decide(path.exists):
                self.trainer.say("reading the teacher's answers, which were computed before")
            else:
                made = self._compute_logits(model, self.windows, "computing the teacher's answers")
                self.trainer.decide(lambda: _save_array(path, made))
        return model, scores, np.load(str(path), mmap_mode="r")

    def _tune(self, folder: Path) -> Any:
        """Return the dense model, fine-tuned if it is to be; what was fine-tuned once is read again."""
        from ..qa.checkpoint import read_checkpoint
        from .loop import Phase

        model = self.dense.build(self.args.seed)
        steps = self._count_steps(self.given["teacher_epochs"])
        if not steps:
            return model
        made = folder / "model"
        if self.trainer.decide(made.is_dir):
            self.trainer.say("reading the teacher, which was fine-tuned before")
            model.load_state_dict(read_checkpoint(made), strict=False)
            return model
        rate = self.given["teacher_learning_rate"]
        self.trainer.train(model, Phase("fine-tuning the teacher", folder, self.windows, steps, rate))

        def publish() -> None:
            with make_folder(made) as part:
                self.dense.write_teacher(model, part)
            for state in folder.glob("step-*"):
                shutil.rmtree(str(state))

        self.trainer.decide(publish)
        return model

    def _cut(self, model: Any) -> None:
        """Cut a model to the variant's structure, by scores that are computed once, for all variants."""
        import numpy as np
        import torch

        from ..qa.cut import Scores, choose_structure, cut_model, score_structure
        from .questions import permute

        heads, rows = self.variant.heads, self.variant.intermediate_size
        assert heads is not None
        assert rows is not None
        count = min(int(self.given["importance_windows"]), len(self.windows))
        path = self._teacher_folder() / f"importance-{count}.json"

        def score() -> Any:
            if path.exists():
                return files.read_json(path)
            self.trainer.say("scoring heads and neurons")
            # Gradients take as much memory here as in a step.
            size = min(self.args.eval_batch_size, int(self.given["batch_size"]) // self.trainer.parts)
            drawn = permute(len(self.windows), self.args.seed)[:count]
            drawn = drawn[np.argsort(-self.windows.lengths()[drawn], kind="stable")]  # little is padding
            parts = [drawn[first : first + size] for first in range(0, count, size)]
            batches = (self.windows.batch(part, self.accelerator.device) for part in parts)
            with self.accelerator.autocast():
                found = score_structure(model, batches)
            made = {name: one.tolist() for name, one in found._asdict().items()}
            _write_json(path, made)
            return made

        found = self.trainer.decide(score)
        scores = Scores(*(torch.tensor(found[name], dtype=torch.float64) for name in Scores._fields))
        cut_model(model, choose_structure(scores, heads, rows))

    def _teacher_folder(self) -> Path:
        return self.args.work / f"teacher-{files.digest_value(self.teacher_key)[:16]}"

    def _describe(self) -> Dict[str, Any]:
        """Return what the result was made from and on, for the report: no path of this machine."""
        import torch

        args, accelerator = self.args, self.accelerator
        cuda = accelerator.device.type == "cuda"
        recorded = ("threshold", "seed", "max_seq_length", "doc_stride", "gradient_checkpointing")
        digests = self.teacher_key
        return {
            "variant": self.variant.base,
            **{name: getattr(args, name) for name in recorded},
            "gradient_accumulation_steps": self.trainer.rounds,
            "hyperparameters": self.given,
            "model": {"name": self.dense.folder.resolve().name, **digests["model"]},
            "questions": {
                "train": {"count": len(self.windows.examples), "sha256": digests["train"]},
                "validation": {"count": len(self.validation.examples), "sha256": self.scoring["validation"]},
            },
            "windows": len(self.windows),
            "processes": accelerator.num_processes,
            "mixed_precision": accelerator.mixed_precision,
            "device": torch.cuda.get_device_name(accelerator.device) if cuda else "cpu",
            "peak_bytes": {
                "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "device": torch.cuda.max_memory_allocated(accelerator.device) if cuda else 0,
            },
            "versions": _list_versions(),
        }


_SHARED = (
    *("model_name_or_path", "output_dir", "train_file", "validation_file", "max_seq_length"),
    *("doc_stride", "n_best_size", "max_answer_length"),
)
"""Arguments that the question-answering program has, too."""


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise KitError(
            f"The folder cannot be written to: {error.strerror}.",
            where=str(folder),
            hint="Make it writable, or name another (--output_dir, --work_dir).",
        ) from None


def _write_json(path: Path, content: Any) -> None:
    with explain_writing(path):
        files.write_text(path, json.dumps(content) + "\n")


def _save_array(path: Path, values: Any) -> None:
    import numpy as np

    with explain_writing(path), files.replace_file(path) as part, part.open("wb") as file:
        np.save(file, values)


def _count_zeros(model: Any) -> Dict[str, int]:
    """Return the zeros of each block matrix."""
    from .pruning import block_weights

    return {name: int((weight == 0).sum()) for name, weight in block_weights(model).items()}


def _format_scores(scores: Dict[str, float]) -> str:
    return f"exact match {scores['exact_match']:.2f}, F1 {scores['f1']:.2f}"


def _list_versions() -> Dict[str, str]:
    import accelerate
    import tokenizers
    import torch
    import transformers

    packages = (torch, transformers, tokenizers, accelerate)
    found = {one.__name__: str(one.__version__) for one in packages}
    return {"python": platform.python_version(), **found}


def _make_accelerator(args: Arguments) -> Any:
    from accelerate import Accelerator

    from ..qa.evaluate import gpu_works

    try:
        made = Accelerator(
            cpu=not gpu_works(),
            mixed_precision=args.mixed_precision,
            gradient_accumulation_steps=args.gradient_accumulation_steps,
        )
    except (ValueError, RuntimeError, ImportError) as error:
        raise KitError(
            f"accelerate cannot be started: {' '.join(str(error).split())[:300]}.",
            where=f"--mixed_precision {args.mixed_precision}, or accelerate's config",
            hint="Correct it; `accelerate config` and `accelerate env` show what the machine has.",
        ) from None
    kind = str(made.distributed_type).rpartition(".")[2]
    if kind not in ("NO", "MULTI_CPU", "MULTI_GPU"):
        raise KitError(
            f"accelerate is set up for {kind}, which may spread one model's weights.",
            where="accelerate's config: distributed_type",
            hint="Take one process, MULTI_GPU or MULTI_CPU: pruning compares the weights of the whole model.",
        )
    backend = str(getattr(made.state.dynamo_plugin.backend, "value", "NO"))
    if backend.upper() != "NO":
        raise KitError(
            f"accelerate is set up to compile the model ({backend.lower()}), whose weights get other names.",
            where="accelerate's config: dynamo_backend",
            hint="Take dynamo_backend no: pruning and checkpoints name the weights as the model does.",
        )
    return made


def _main(argv: List[str]) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("TRANSFORMERS_OFFLINE", "HF_HUB_OFFLINE"):
        os.environ.setdefault(name, "1")
    try:
        request = parse_arguments(argv)
        with explain_memory(request):
            Run(request).execute()
    except KitError as error:
        # What all processes find, the first one of each machine tells.
        if int(os.environ.get("LOCAL_RANK", "0")) and not isinstance(error, OwnError):
            return EXIT_USER_ERROR
        raise
    return 0


def start_program() -> None:
    """Run the program on the process's own arguments and leave with its status."""
    sys.exit(child.run_body(_main, sys.argv[1:]))
