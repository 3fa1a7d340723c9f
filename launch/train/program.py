"""The training program: checks, teacher, structure, pruning with distillation, evaluation, publishing.

The work folder has a folder for each teacher and each variant, named after all that they depend on; a run
that was killed goes on from what it finds there.  The output folder appears whole, after its evaluation.
"""

import contextlib
import copy
import json
import os
import platform
import resource
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

from ..core import child, files
from ..core.errors import EXIT_USER_ERROR, KitError
from ..model import bert_config, model_folder, squad
from ..model.variants import Variant, find_variant
from ..qa import arguments as qa
from .arguments import Arguments, Request, parse_arguments

REPORT = "training.json"

_HEAD = "qa_outputs."
_TOKENIZER = (
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_TEACHERS = (
    *("teacher_epochs", "teacher_learning_rate", "batch_size", "warmup"),
    *("final_learning_rate", "weight_decay", "clip"),
)
"""Hyperparameters that the teacher depends on."""


class Model:
    """The dense model that was given, and the variant's config and dimensions.

    :raises KitError: config or tokenizer is at fault, or the variant cannot be cut from the model.
    """

    def __init__(self, args: Arguments, variant: Variant) -> None:
        self.folder = Path(args.model_name_or_path)
        where = str(bert_config.find_config(self.folder))
        self.config = bert_config.read_config(self.folder, "--model_name_or_path")
        bert_config.check_graph(self.config, where)
        self.dense = bert_config.read_shape(self.config, where)
        if self.dense.pruned or self.config.get("pruned_heads"):
            raise KitError(
                "The model to train from is not dense: structure has been removed from it.",
                where=f"{where}: pruned_heads, intermediate_size",
                hint="Give the dense model: the variant's heads and neurons are chosen from all.",
            )
        bert_config.check_length(self.dense, args.max_seq_length, where)
        model_folder.check_tokenizer(self.folder, self.dense, args.max_seq_length)
        self.variant_config = self.config
        if variant.hybrid:
            self.variant_config = bert_config.make_hybrid(self.config, variant, where)
        self.shape = replace(
            bert_config.read_shape(self.variant_config, where), overall_sparsity=variant.overall_sparsity
        )

    def build(self, state: Dict[str, Any], seed: int) -> Any:
        """Return the dense model with these tensors; what they lack of the head is drawn."""
        from transformers import BertConfig, BertForQuestionAnswering, set_seed

        set_seed(seed)
        config = BertConfig.from_dict({**self.config, "gradient_checkpointing": False})
        model = BertForQuestionAnswering(config)
        model.load_state_dict(state, strict=False)  # fit_checkpoint has compared the names
        return model


def _digest_checkpoint(folder: Path) -> str:
    path = model_folder.find_checkpoint(folder)
    parts = sorted(folder.glob("*.safetensors" if "safetensors" in path.name else "*.bin"))
    return files.digest_files(parts, folder)


def _key_of(request: Request, model: Model, accelerator: Any) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return what the teacher depends on, and what the variant does."""
    import accelerate
    import torch
    import transformers

    args, given = request.arguments, request.hyperparameters
    teacher = {
        "model": [files.digest_model_folder(model.folder), _digest_checkpoint(model.folder)],
        "train": files.digest_file(Path(args.train_file)),
        "arguments": {
            name: getattr(args, name)
            for name in ("seed", "max_seq_length", "doc_stride", "max_train_samples", "max_steps")
        },
        "hyperparameters": {name: given[name] for name in _TEACHERS},
        "precision": accelerator.mixed_precision,
        "parts": [accelerator.num_processes, args.gradient_accumulation_steps, accelerator.device.type],
        "versions": [torch.__version__, transformers.__version__, accelerate.__version__],
    }
    variant = {
        "teacher": teacher,
        "variant": args.variant,
        "validation": files.digest_file(Path(args.validation_file)),
        "arguments": [args.threshold, args.eval_steps, args.max_eval_samples],
        "hyperparameters": given,
    }
    return teacher, variant


class Run:
    """One run of the program."""

    def __init__(self, request: Request) -> None:
        self.request, self.args = request, request.arguments
        self.given = dict(request.hyperparameters)
        self.variant = find_variant(self.args.variant)
        self.model = Model(self.args, self.variant)
        self._check_output()
        self.qa = qa.Arguments(
            model_name_or_path=self.args.model_name_or_path,
            output_dir=self.args.output_dir,
            train_file=self.args.train_file,
            validation_file=self.args.validation_file,
            max_seq_length=self.args.max_seq_length,
            doc_stride=self.args.doc_stride,
            n_best_size=self.args.n_best_size,
            max_answer_length=self.args.max_answer_length,
        )

    def _check_output(self) -> None:
        output = self.args.output
        if output.exists() and not (output.is_dir() and not any(output.iterdir())):
            raise KitError(
                "The output folder exists, and nothing is overwritten.",
                where=f"--output_dir={self.args.output_dir}",
                hint="Name another folder, or remove it.",
            )
        for folder in (output.parent, self.args.work):
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

    def execute(self) -> None:
        """Train, evaluate and publish."""
        from ..qa.checkpoint import fit_checkpoint, read_checkpoint
        from ..qa.features import load_examples, load_tokenizer

        args = self.args
        train = load_examples(self.qa, "train")[: args.max_train_samples]
        squad.check_trainable(train)
        validation = load_examples(self.qa, "validation")[: args.max_eval_samples]
        squad.check_scorable(validation)
        state = read_checkpoint(self.model.folder)
        fit_checkpoint(state, self.model.dense, str(self.model.folder), head_may_lack=True)
        has_head = f"{_HEAD}weight" in state
        if has_head and "teacher_epochs" not in self.request.changed:
            self.given["teacher_epochs"] = 0.0
        child.report_step("loading libraries")
        from .loop import Trainer
        from .questions import Windows

        self.accelerator = _make_accelerator(args)
        self.trainer = Trainer(self.accelerator, args, self.given)
        say = self.trainer.say
        tokenizer = load_tokenizer(self.qa, self.model.dense.vocab_size)
        say("tokenizing questions")
        self.windows = Windows(train, tokenizer, self.qa, labelled=True)
        self.validation = Windows(validation, tokenizer, self.qa, labelled=False)
        if len(self.windows) < self.given["batch_size"]:
            raise KitError(
                f"{len(self.windows)} training windows are fewer than a batch of {self.given['batch_size']}.",
                where=f"--train_file={args.train_file}",
                hint="Give more questions, or a smaller batch_size.",
            )
        request = replace(self.request, hyperparameters=self.given)
        self.keys = _key_of(request, self.model, self.accelerator)
        with self._locked():
            self._train(state, has_head)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if not self.accelerator.is_main_process:
            yield
            return
        with files.hold_lock(self.args.work / "lock", f"{self.args.work}"):
            yield

    def _train(self, state: Dict[str, Any], has_head: bool) -> None:
        started = time.monotonic()
        teacher = self._make_teacher(state, has_head).to(self.accelerator.device)
        folder = self.args.work / f"{self.variant.base}-{files.digest_value(self.keys[1])[:16]}"
        scores = {"teacher": self._evaluate(teacher, "teacher")}
        student = self._cut(teacher, folder / "structure.json")
        if self.variant.hybrid:
            scores["cut"] = self._evaluate(student, "cut, not trained")
        from .loop import Phase
        from .pruning import Schedule, block_weights, count_zeros

        total, steps = count_zeros(self.model.shape), self._count_steps(self.given["epochs"])
        epochs = max(self.given["epochs"], 1e-9)
        schedule = Schedule(
            initial=int(self.given["initial_sparsity"] * self.model.shape.kept_weights),
            final=total,
            begin=round(steps * self.given["dense_epochs"] / epochs),
            end=round(steps * (1 - self.given["fixed_epochs"] / epochs)),
            every=int(self.given["prune_every"]),
        )
        phase = Phase(
            name="training",
            folder=folder,
            windows=self.windows,
            steps=steps,
            learning_rate=self.given["learning_rate"],
            teacher=teacher,
            schedule=schedule,
            evaluate=lambda model: self._evaluate(model, "on the way"),
            eval_steps=self.args.eval_steps or self._count_steps(1),
        )
        self.trainer.train(student, phase)
        scores["result"] = self._evaluate(student, "result")
        if not self.accelerator.is_main_process:
            return
        zeros = {name: int((one == 0).sum()) for name, one in block_weights(student).items()}
        report = {
            "scores": scores,
            "structure": json.loads((folder / "structure.json").read_text()) if self.variant.hybrid else None,
            "zeros": {"wanted": total, "found": sum(zeros.values()), "matrices": zeros},
            "steps": {"all": steps, "pruning_begins": schedule.begin, "mask_fixed": schedule.end},
            "curve": self.trainer.progress.curve,
            "evaluations": self.trainer.progress.scores,
            "seconds": {"training": self.trainer.progress.seconds, "this_run": time.monotonic() - started},
            **self._facts(),
        }
        self._publish(student, report)
        shutil.rmtree(str(folder), ignore_errors=True)

    def _count_steps(self, epochs: float) -> int:
        most = self.args.max_steps
        steps = int(-(-epochs * len(self.windows) // self.given["batch_size"]))
        return steps if most is None else min(steps, most)

    def _evaluate(self, model: Any, what: str) -> Dict[str, float]:
        from .questions import evaluate

        child_said = [time.monotonic()]

        def say(text: Callable[[], str]) -> None:
            if time.monotonic() - child_said[0] > 5:
                child_said[0] = time.monotonic()
                self.trainer.say(f"evaluating ({what}): {text()}")

        self.trainer.say(f"evaluating ({what})")
        scores = evaluate(self.accelerator, model, self.validation, self.args.eval_batch_size, self.qa, say)
        self.trainer.say(f"{what}: exact match {scores['exact_match']:.2f}, F1 {scores['f1']:.2f}")
        return scores

    def _make_teacher(self, state: Dict[str, Any], has_head: bool) -> Any:
        """Return the dense model, fine-tuned if it is to be; what was fine-tuned once is read again."""
        from ..qa.checkpoint import read_checkpoint
        from .loop import Phase

        model = self.model.build(state, self.args.seed)
        steps = self._count_steps(self.given["teacher_epochs"])
        if not steps:
            return model
        folder = self.args.work / f"teacher-{files.digest_value(self.keys[0])[:16]}"
        if (folder / "model").is_dir():
            self.trainer.say("reading the teacher, which was fine-tuned before")
            model.load_state_dict(read_checkpoint(folder / "model"), strict=False)
            return model
        phase = Phase("teacher", folder, self.windows, steps, self.given["teacher_learning_rate"])
        self._seed()
        self.trainer.train(model, phase)
        if self.accelerator.is_main_process:
            with _publishing(folder / "model") as part:
                self._write_model(model, self.model.config, part)
            for state_folder in folder.glob("step-*"):
                shutil.rmtree(str(state_folder))
        self.accelerator.wait_for_everyone()
        return model

    def _seed(self) -> None:
        from accelerate.utils import set_seed

        set_seed(self.args.seed, device_specific=True)  # dropout is to differ between processes

    def _cut(self, teacher: Any, path: Path) -> Any:
        """Return a copy of the teacher, cut to the variant's structure, which the file keeps."""
        from ..qa.cut import Structure, choose_structure, cut_model, score_structure
        from .questions import Order

        student = copy.deepcopy(teacher)
        variant = self.variant
        if variant.heads is None or variant.intermediate_size is None:
            self._seed()
            return student
        if self.accelerator.is_main_process and not path.exists():
            self.trainer.say("scoring heads and neurons")
            size = self.args.eval_batch_size
            count = min(int(self.given["importance_windows"]), len(self.windows))
            rows = Order(len(self.windows), self.args.seed).take(0, count)
            parts = [rows[first : first + size] for first in range(0, count, size)]
            batches = (self.windows.batch(part, part, self.accelerator.device) for part in parts)
            kept = choose_structure(
                score_structure(student, batches), variant.heads, variant.intermediate_size
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(path, json.dumps(kept._asdict()) + "\n")
        self.accelerator.wait_for_everyone()
        found = json.loads(path.read_text(encoding="utf-8"))
        structure = Structure(*(tuple(map(tuple, found[name])) for name in Structure._fields))
        cut_model(student, structure)
        self._seed()
        return student

    def _facts(self) -> Dict[str, Any]:
        """Return what the result was made from, of and on, for the report."""
        import accelerate
        import torch
        import transformers

        device = self.accelerator.device
        cuda = device.type == "cuda"
        return {
            "variant": self.variant.base,
            "threshold": self.args.threshold,
            "seed": self.args.seed,
            "hyperparameters": self.given,
            "lengths": {"max_seq_length": self.args.max_seq_length, "doc_stride": self.args.doc_stride},
            "model": {
                "name": self.model.folder.resolve().name,
                "checkpoint_sha256": self.keys[0]["model"][1],
            },
            "questions": {
                "train": len(self.windows.examples),
                "train_windows": len(self.windows),
                "train_sha256": self.keys[0]["train"],
                "validation": len(self.validation.examples),
                "validation_sha256": self.keys[1]["validation"],
            },
            "processes": self.accelerator.num_processes,
            "gradient_accumulation_steps": self.args.gradient_accumulation_steps,
            "gradient_checkpointing": self.args.gradient_checkpointing,
            "mixed_precision": self.accelerator.mixed_precision,
            "device": torch.cuda.get_device_name(device) if cuda else "cpu",
            "peak_bytes": {
                "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "device": torch.cuda.max_memory_allocated(device) if cuda else 0,
            },
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "accelerate": accelerate.__version__,
            },
        }

    def _publish(self, model: Any, report: Dict[str, Any]) -> None:
        config = dict(self.model.variant_config)
        if self.variant.hybrid:
            config["pruned_heads"] = {str(layer): gone for layer, gone in model.config.pruned_heads.items()}
        try:
            with _publishing(self.args.output) as part:
                self._write_model(model, config, part)
                for name in _TOKENIZER:
                    if (self.model.folder / name).is_file():
                        shutil.copyfile(str(self.model.folder / name), str(part / name))
                text = json.dumps(report, indent=2, sort_keys=True)
                (part / REPORT).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise KitError(
                f"The result cannot be written: {error.strerror or error}.",
                where=f"--output_dir={self.args.output_dir}",
                hint="Free disk space, and run the same command again: it resumes.",
            ) from None
        score = report["scores"]["result"]
        print(f"exact match {score['exact_match']:.2f}, F1 {score['f1']:.2f}; {self.args.output}")

    def _write_model(self, model: Any, config: Dict[str, Any], folder: Path) -> None:
        from safetensors.numpy import save_file

        named = {name: one for name, one in model.state_dict().items() if not name.endswith("position_ids")}
        tensors = {name: one.detach().cpu().float().contiguous().numpy() for name, one in named.items()}
        save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
        kept = {key: value for key, value in config.items() if not key.startswith("_")}
        kept["architectures"] = ["BertForQuestionAnswering"]
        files.write_text(folder / "config.json", bert_config.format_config(kept))


@contextlib.contextmanager
def _publishing(folder: Path) -> Iterator[Path]:
    """Yield a new folder, which becomes ``folder`` by a rename once the block succeeds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{os.urandom(8).hex()}.part")
    part.mkdir()
    try:
        yield part
        files.flush_tree(part)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(str(part), ignore_errors=True)
        raise


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


def _main(argv: List[str]) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("TRANSFORMERS_OFFLINE", "HF_HUB_OFFLINE"):
        os.environ.setdefault(name, "1")
    Run(parse_arguments(argv)).execute()


def _run(argv: List[str]) -> int:
    """Let one of several processes alone tell of a user's error, which all of them find."""
    try:
        _main(argv)
    except KitError:
        if int(os.environ.get("RANK", "0")) == 0:
            raise
        return EXIT_USER_ERROR
    return 0


def start_program() -> None:
    """Run the program on the process's own arguments and leave with its status."""
    sys.exit(child.run_body(_run, sys.argv[1:]))
