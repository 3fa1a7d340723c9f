"""The command line of the training program."""

import argparse
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Dict, NoReturn, Optional, Sequence

from ..core.errors import KitError
from .hyperparameters import (
    HYPERPARAMETERS,
    check_value,
    complete_hyperparameters,
    read_hyperparameters,
)

PROGRAM = "train_qa.py"

THRESHOLDS = ("global", "layer")
"""One threshold over |w| / ‖W‖ for all block matrices, as the compression has it, or one for each."""

_CHOICES = {"threshold": THRESHOLDS, "mixed_precision": ("no", "fp16", "bf16")}


@dataclass(frozen=True)
class Arguments:
    """What the program is given; each is an option of that name.

    :param variant: name of the variant to train.
    :param model_name_or_path: folder of the dense model: config, tokenizer, checkpoint.
    :param output_dir: the folder to make, with the variant's checkpoint.
    :param hyperparameters: a JSON file that changes some of :data:`.HYPERPARAMETERS`; each is an option, too.
    :param max_seq_length: most tokens of a window.
    :param doc_stride: tokens that two windows over one long context share.
    :param max_train_samples: take the first so many questions; ``max_eval_samples`` likewise.
    :param max_steps: end the variant's training after so many steps, and the teacher's, phases in proportion.
    :param save_steps: steps between two saved states, from which a killed run goes on; by default an epoch's.
    :param eval_steps: steps between two evaluations of the variant; by default an epoch's.
    :param work_dir: folder of teachers and states; by default ``.work`` beside ``output_dir``, where variants
        side by side find one teacher.
    :param mixed_precision: by default what accelerate's config says.
    :param gradient_accumulation_steps: parts in which each process computes its share of a step.
    :param eval_batch_size: windows of a process that are evaluated together.
    """

    variant: str
    model_name_or_path: str
    train_file: str
    validation_file: str
    output_dir: str
    threshold: str = THRESHOLDS[0]
    seed: int = 42
    hyperparameters: Optional[str] = None
    max_seq_length: int = 384
    doc_stride: int = 128
    max_train_samples: Optional[int] = None
    max_eval_samples: Optional[int] = None
    max_steps: Optional[int] = None
    save_steps: Optional[int] = None
    eval_steps: Optional[int] = None
    work_dir: Optional[str] = None
    mixed_precision: Optional[str] = None
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    eval_batch_size: int = 16
    n_best_size: int = 20
    max_answer_length: int = 30

    @property
    def output(self) -> Path:
        """The folder to make, absolute."""
        return Path(self.output_dir).absolute()

    @property
    def work(self) -> Path:
        """The folder of teachers and states, absolute."""
        return Path(self.work_dir).absolute() if self.work_dir else self.output.with_name(".work")

    def check_output(self) -> None:
        """:raises KitError: the folder to make is there already, and not empty."""
        if self.output.exists() and not (self.output.is_dir() and not any(self.output.iterdir())):
            raise KitError(
                "The output folder exists, and nothing is overwritten.",
                where=f"--output_dir={self.output_dir}",
                hint="Name another folder, or remove it.",
            )


@dataclass(frozen=True)
class Request:
    """The command line as a whole; ``changed`` are the hyperparameters that are not the defaults."""

    arguments: Arguments
    changed: Dict[str, float]
    hyperparameters: Dict[str, float]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise KitError(
            f"The command line of the training program is wrong: {message}.",
            where=f"args of {PROGRAM}",
            hint="Correct it; --help lists the options.",
        )


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return float(text)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all options."""
    made = _Parser(prog=PROGRAM, allow_abbrev=False, description="Train a variant of a dense BERT.")
    for field in fields(Arguments):
        option, kind = f"--{field.name}", field.type
        required = field.default is MISSING
        options: Dict[str, Any] = {"required": True} if required else {"default": field.default}
        if kind is bool:
            options["action"] = "store_true"
        elif field.name in _CHOICES:
            options["choices"] = _CHOICES[field.name]
        else:
            options["type"] = int if kind in (int, Optional[int]) else str
        made.add_argument(option, **options)
    for name, one in HYPERPARAMETERS.items():
        made.add_argument(
            f"--{name}",
            type=_number,
            help=f"{one.meaning} ({one.default:g}; {one.source})".replace("%", "%%"),
        )
    return made


def parse_arguments(argv: Sequence[str]) -> Request:
    """:raises KitError: an option is unknown, missing or wrong, or options contradict each other."""
    found = vars(make_parser().parse_args(list(argv)))
    given = {name: found.pop(name) for name in HYPERPARAMETERS}
    args = Arguments(**found)
    changed: Dict[str, float] = {}
    if args.hyperparameters is not None:
        changed = read_hyperparameters(Path(args.hyperparameters), "--hyperparameters")
    changed.update(
        {name: check_value(name, value, f"--{name}") for name, value in given.items() if value is not None}
    )
    numbers = [
        (field.name, getattr(args, field.name))
        for field in fields(Arguments)
        if field.type in (int, Optional[int]) and field.name != "seed"
    ]
    problems = [
        f"--{name} {value} is less than 1" for name, value in numbers if value is not None and value < 1
    ]
    if not 0 <= args.seed < 2**32:
        problems.append(f"--seed {args.seed} is not from 0 to 4294967295")
    if args.doc_stride >= args.max_seq_length:
        problems.append(
            f"--doc_stride {args.doc_stride} is not less than --max_seq_length {args.max_seq_length}"
        )
    if problems:
        make_parser().error("; ".join(problems))
    where = f"--hyperparameters={args.hyperparameters}" if args.hyperparameters else f"args of {PROGRAM}"
    return Request(args, changed, complete_hyperparameters(changed, where))
