"""The training program: checks, teacher, structure, pruning with distillation, evaluation, publishing.

The work folder has a folder for each teacher and each variant, named after all that they depend on; a run
that was killed goes on from what it finds there.  The output folder appears whole, after its evaluation.
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
from typing import Any, Callable, Dict, List

from ..core import child, files
from ..core.errors import EXIT_USER_ERROR, KitError
from ..model import squad
from ..model.variants import find_variant
from ..qa import arguments as qa
from .arguments import Arguments, Request, parse_arguments
from .model import DenseModel, make_folder

REPORT = "training.json"

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
        if args.output.exists() and not (args.output.is_dir() and not any(args.output.iterdir())):
            raise KitError(
                "The output folder exists, and nothing is overwritten.",
                where=f"--output_dir={args.output_dir}",
                hint="Name another folder, or remove it.",
            )
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
        child.report_step("loading libraries")
        from .loop import Trainer
        from .questions import Windows

        self.accelerator = _make_accelerator(args)
        self.trainer = Trainer(self.accelerator, args, self.given)
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
        self.key = {
            "teacher": self.teacher_key,
            "variant": self.variant.base,
            "validation": files.digest_file(Path(args.validation_file)),
            "arguments": [args.threshold, args.eval_steps, args.max_eval_samples],
            "hyperparameters": self.given,
        }

    def _teacher_key(self) -> Dict[str, Any]:
        """Return what the teacher depends on, and a saved state."""
        args, accelerator = self.args, self.accelerator
        names = ("seed", "max_seq_length", "doc_stride", "max_train_samples", "max_steps")
        return {
            "model": self.dense.digest(),
            "train": files.digest_file(Path(args.train_file)),
            "arguments": {name: getattr(args, name) for name in names},
            "hyperparameters": {name: self.given[name] for name in _OF_TEACHER},
            "precision": accelerator.mixed_precision,
            "parts": [accelerator.num_processes, self.trainer.rounds, accelerator.device.type],
            "versions": _list_versions(),
        }

    def execute(self) -> None:
        """Train, evaluate and publish; with a lock on the work folder.

        :raises KitError: the training diverges, memory is too small, or something cannot be written.
        """
        main = self.accelerator.is_main_process
        lock = self.args.work / "lock"
        with files.hold_lock(lock, str(lock.parent)) if main else contextlib.nullcontext():
            try:
                self._execute()
            except RuntimeError as error:
                if "memory" not in str(error):  # torch: "out of memory", "can't allocate memory"
                    raise
                raise KitError(
                    f"The memory is too small: {' '.join(str(error).split())[:200]}",
                    where=f"batch_size {self.given['batch_size']}, {self.trainer.parts} parts",
                    hint="Raise --gradient_accumulation_steps, add --gradient_checkpointing, or lower"
                    " --max_seq_length.",
                ) from None

    def _execute(self) -> None:
        from .loop import Phase
        from .pruning import Schedule, apply_pruned, block_weights, choose_pruned, count_zeros

        folder = self.args.work / f"{self.variant.base}-{files.digest_value(self.key)[:16]}"
        teacher = self._make_teacher().to(self.accelerator.device).eval()
        scores = {"teacher": self._evaluate(teacher, "teacher")}
        student = self.dense.build(self.args.seed)  # a copy would call what accelerate has wrapped
        student.load_state_dict(teacher.state_dict())
        student.to(self.accelerator.device)
        if self.variant.hybrid:
            self._cut(student, folder / "structure.json")
            scores["cut"] = self._evaluate(student, "cut, before training")
        logits = self._answer(teacher) if self.given["hardness"] else None
        if not self.given["hidden_weight"]:
            teacher = None  # its memory is free
        zeros, steps = count_zeros(self.dense.shape), self._count_steps(self.given["epochs"])
        weights = block_weights(student)
        kept = {name: weight.detach().clone() for name, weight in weights.items()}
        apply_pruned(weights, choose_pruned(weights, zeros, self.args.threshold))
        scores["pruned"] = self._evaluate(student, "pruned at once, before training")
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
        if not self.accelerator.is_main_process:
            return
        progress = self.trainer.progress
        found = {name: int((weight == 0).sum()) for name, weight in block_weights(student).items()}
        report = {
            "scores": scores,
            "zeros": {"wanted": zeros, "found": sum(found.values()), "matrices": found},
            "steps": {"all": steps, "pruning_begins": schedule.begin, "mask_fixed": schedule.end},
            "curve": progress.curve,
            "evaluations": progress.scores,
            "seconds": progress.seconds,
            **self._describe(),
        }
        with make_folder(self.args.output) as part:
            self.dense.write_variant(student, part)
            text = json.dumps(report, indent=2, sort_keys=True)
            files.write_text(part / REPORT, text + "\n")
        shutil.rmtree(str(folder), ignore_errors=True)
        print(f"{_format_scores(scores['result'])}; {self.args.output}")

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

    def _answer(self, teacher: Any) -> Any:
        """Return the teacher's logits of all training windows, which are computed once for all variants."""
        import numpy as np

        path = self._teacher_folder() / "logits.npy"
        if not path.exists():
            made = self._compute_logits(teacher, self.windows, "computing the teacher's answers")
            if self.accelerator.is_main_process:
                path.parent.mkdir(parents=True, exist_ok=True)
                with files.replace_file(path) as part, part.open("wb") as file:
                    np.save(file, made)
            self.accelerator.wait_for_everyone()
        return np.load(str(path), mmap_mode="r")

    def _teacher_folder(self) -> Path:
        return self.args.work / f"teacher-{files.digest_value(self.teacher_key)[:16]}"

    def _make_teacher(self) -> Any:
        """Return the dense model, fine-tuned if it is to be; what was fine-tuned once is read again."""
        from ..qa.checkpoint import read_checkpoint
        from .loop import Phase

        model = self.dense.build(self.args.seed)
        steps = self._count_steps(self.given["teacher_epochs"])
        if not steps:
            return model
        folder = self._teacher_folder()
        made = folder / "model"
        if made.is_dir():
            self.trainer.say("reading the teacher, which was fine-tuned before")
            model.load_state_dict(read_checkpoint(made), strict=False)
            return model
        rate = self.given["teacher_learning_rate"]
        self.trainer.train(model, Phase("fine-tuning the teacher", folder, self.windows, steps, rate))
        if self.accelerator.is_main_process:
            with make_folder(made) as part:
                self.dense.write_teacher(model, part)
            for state in folder.glob("step-*"):
                shutil.rmtree(str(state))
        self.accelerator.wait_for_everyone()
        return model

    def _cut(self, model: Any, path: Path) -> None:
        """Cut a model to the variant's structure, which one process chooses and the file keeps."""
        from ..qa.cut import Structure, choose_structure, cut_model, score_structure
        from .questions import permute

        heads, rows = self.variant.heads, self.variant.intermediate_size
        assert heads is not None
        assert rows is not None
        if self.accelerator.is_main_process and not path.exists():
            self.trainer.say("scoring heads and neurons")
            count, size = len(self.windows), self.args.eval_batch_size
            drawn = permute(count, self.args.seed)[: int(self.given["importance_windows"])]
            parts = [drawn[first : first + size] for first in range(0, len(drawn), size)]
            batches = (self.windows.batch(part, self.accelerator.device) for part in parts)
            kept = choose_structure(score_structure(model, batches), heads, rows)
            files.write_text(path, json.dumps(kept._asdict()) + "\n")
        self.accelerator.wait_for_everyone()
        found = json.loads(path.read_text(encoding="utf-8"))
        cut_model(model, Structure(*(tuple(map(tuple, found[name])) for name in Structure._fields)))

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
                "validation": {"count": len(self.validation.examples), "sha256": self.key["validation"]},
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


def _format_scores(scores: Dict[str, float]) -> str:
    return f"exact match {scores['exact_match']:.2f}, F1 {scores['f1']:.2f}"


def _list_versions() -> Dict[str, str]:
    import accelerate
    import torch
    import transformers

    found = {one.__name__: str(one.__version__) for one in (torch, transformers, accelerate)}
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
    return made


def _main(argv: List[str]) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("TRANSFORMERS_OFFLINE", "HF_HUB_OFFLINE"):
        os.environ.setdefault(name, "1")
    try:
        Run(parse_arguments(argv)).execute()
    except KitError:
        if int(os.environ.get("RANK", "0")):  # all processes find it, and the first one tells
            return EXIT_USER_ERROR
        raise
    return 0


def start_program() -> None:
    """Run the program on the process's own arguments and leave with its status."""
    sys.exit(child.run_body(_main, sys.argv[1:]))
