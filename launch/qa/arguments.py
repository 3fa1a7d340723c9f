"""The command line of upstream's two scripts, as far as launch configurations use it."""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, List, NoReturn, Optional, Sequence

from ..core.errors import KitError
from ..model import model_folder

HEADS = (IMPORTANCE, FIRST) = ("importance", "first")
"""What heads and feed-forward rows stay of a dense checkpoint: what counts most, or as upstream's configs."""


@dataclass(frozen=True)
class Arguments:
    """Upstream's arguments under upstream's names; defaults are those of transformers 4.9.1.

    :param model_name_or_path: folder of the tokenizer and, unless ``config_name`` is given, of the config.
    :param gen_sparse_cfg: write the hybrid configs and end.
    :param dataset_name: is refused: a run asks no hub.
    :param max_seq_length: tokens of a feature, padding included.
    :param doc_stride: tokens that two windows over one long context share.
    :param weights: a tree's: the folder of a trained checkpoint; ``random``, in an evaluation, too: drawn.
    :param heads: what stays of a dense checkpoint: ``importance`` (the default) or ``first``.
    :param to_onnx: the ONNX file; that of a hybrid has a name of its own (:meth:`name_onnx`).
    """

    model_name_or_path: str
    output_dir: str
    config_name: Optional[str] = None
    tokenizer_name: Optional[str] = None
    cache_dir: Optional[str] = None
    model_revision: str = "main"
    gen_sparse_cfg: bool = False
    gen_hybrid_sparse_model: bool = False
    dataset_name: Optional[str] = None
    dataset_config_name: Optional[str] = None
    train_file: Optional[str] = None
    validation_file: Optional[str] = None
    max_seq_length: int = 384
    doc_stride: int = 128
    max_train_samples: Optional[int] = None
    max_eval_samples: Optional[int] = None
    n_best_size: int = 20
    max_answer_length: int = 30
    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 8
    seed: int = 42
    do_eval: bool = False
    overwrite_output_dir: bool = False
    weights: Optional[str] = None
    heads: Optional[str] = None
    nncf_config: Optional[str] = None
    to_onnx: Optional[str] = None

    @property
    def config_source(self) -> str:
        """Folder or file of the model config."""
        return self.config_name or self.model_name_or_path

    @property
    def tokenizer_source(self) -> str:
        """Folder of the tokenizer."""
        return self.tokenizer_name or self.model_name_or_path

    @property
    def checkpoint(self) -> Optional[Path]:
        """Folder of a tree's trained weights; None where they are drawn."""
        drawn = self.to_onnx is None or self.weights in (None, model_folder.RANDOM)
        return None if drawn else Path(str(self.weights))

    def name_onnx(self, precision: str) -> Optional[Path]:
        """Return the ONNX file that the run makes, or None.

        A hybrid's is named by the folder of ``config_name`` and by what the NNCF config says of precision.
        """
        if self.to_onnx is None or self.gen_sparse_cfg:
            return None
        if self.gen_hybrid_sparse_model and self.config_name is not None:
            config = Path(self.config_name)
            name = config.parent.name if config.suffix == ".json" else config.name
            return Path(self.output_dir) / name / f"{name}-{precision}.onnx"
        return Path(self.to_onnx)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise KitError(
            f"The command line of the question-answering program is wrong: {message}.",
            where=f"args of {self.prog}",
            hint="Correct the args of this configuration in the launch file.",
        )


def _boolean(text: str) -> bool:
    # HfArgumentParser takes both `--do_eval` and `--do_eval true`.
    yes = text.lower() in ("true", "t", "yes", "y", "1")
    if yes or text.lower() in ("false", "f", "no", "n", "0"):
        return yes
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _seed(text: str) -> int:
    # Both torch and numpy take these.
    if not text.isdigit() or not 0 <= int(text) < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 4294967295")
    return int(text)


def _make_parser(prog: str) -> argparse.ArgumentParser:
    made = _Parser(prog=prog, allow_abbrev=False, description="See Arguments in launch/qa/arguments.py.")
    for field in fields(Arguments):
        option = f"--{field.name}"
        kind: Any = field.type
        if kind is bool:
            made.add_argument(option, type=_boolean, nargs="?", const=True, default=False)
        elif field.name == "seed":
            made.add_argument(option, type=_seed, default=field.default)
        elif field.name == "heads":
            made.add_argument(option, choices=HEADS, default=None)
        elif kind in (int, Optional[int]):
            made.add_argument(option, type=_positive, default=field.default)
        else:
            required = field.name in ("model_name_or_path", "output_dir")
            made.add_argument(option, required=required, default=None if required else field.default)
    return made


def parse_arguments(prog: str, argv: Sequence[str]) -> Arguments:
    """:raises KitError: an option is unknown, missing or malformed, or options contradict each other."""
    args = Arguments(**vars(_make_parser(prog).parse_args(list(argv))))
    problems: List[str] = []
    if args.gen_hybrid_sparse_model and not (args.config_name and args.to_onnx):
        problems.append("--gen_hybrid_sparse_model needs --config_name and --to_onnx")
    if args.to_onnx and not args.nncf_config:
        problems.append("--to_onnx needs --nncf_config")
    if args.weights not in (None, model_folder.RANDOM) and not args.to_onnx:
        problems.append("--weights <folder> is for --to_onnx; an evaluation reads the model folder's")
    if args.heads and not args.checkpoint:
        problems.append("--heads says how a checkpoint is cut, and --weights names none")
    if args.doc_stride >= args.max_seq_length:
        problems.append(
            f"--doc_stride {args.doc_stride} is not less than --max_seq_length {args.max_seq_length}"
        )
    if not args.gen_sparse_cfg:
        if not (args.do_eval or args.to_onnx):
            problems.append("neither --do_eval nor --to_onnx is given, so there is nothing to do")
        if args.dataset_name:
            problems.append("--dataset_name names questions on a hub, which INPUT=hub replaces by files")
        elif not (args.train_file or args.validation_file):
            problems.append("neither --train_file nor --validation_file is given")
    if problems:
        raise KitError(
            "The arguments contradict each other: " + "; ".join(problems) + ".",
            where=f"args of {prog}",
            hint="Correct the args of this configuration in the launch file.",
        )
    return args
