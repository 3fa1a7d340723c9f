"""What both scripts do with their arguments."""

import os
import sys
from pathlib import Path
from typing import Any, List, Sequence, Tuple

from ..core import status
from ..model import bert_config, model_folder, sparsity
from . import extension
from .arguments import Arguments, parse
from .model import load_config


def generate_configs(args: Arguments) -> int:
    """Write the hybrid configs below ``output_dir`` (upstream wrote them into its own folder)."""
    for path in bert_config.write_hybrids(Path(args.model_name_or_path), Path(args.output_dir)):
        print(path)
    return 0


def read_model(args: Arguments) -> Tuple[Any, bert_config.BertShape, Any]:
    """Return the config of the model that ``args`` name, its dimensions and its tokenizer.

    :raises KitError: one of them is at fault, or a feature is too long for it.
    """
    from .features import load_tokenizer

    config, shape = load_config(args)
    bert_config.check_length(shape, args.max_seq_length, args.config_source)
    folder = Path(args.tokenizer_source)
    if folder.is_dir():
        model_folder.check(folder, shape, args.max_seq_length)
    return config, shape, load_tokenizer(args, shape.vocab_size)


def run(args: Arguments) -> int:
    """Make an ONNX file, or evaluate; return the exit status.

    :raises KitError: an input is at fault.
    """
    status.step("loading libraries")
    if args.to_onnx:
        extension.load()
    from transformers import set_seed

    from .features import load_examples, tokenize

    set_seed(args.seed)
    config, shape, tokenizer = read_model(args)
    onnx_path = args.onnx_path
    if onnx_path is not None:
        from .compress import make_onnx

        status.step("tokenizing calibration questions")
        features = tokenize(load_examples(args, "train"), tokenizer, args, args.max_train_samples)
        make_onnx(args, shape, config, features, onnx_path)
        status.step("counting zeros")
        sparsity.write_report(onnx_path)
    else:
        from .evaluate import evaluate

        status.step("tokenizing evaluation questions")
        examples = load_examples(args, "validation")[: args.max_eval_samples]
        features = tokenize(examples, tokenizer, args, args.max_eval_samples)
        evaluate(args, config, examples, features)
    return 0


def main(prog: str, argv: Sequence[str]) -> int:
    """Run the script ``prog`` with the arguments ``argv``; return the exit status."""
    args = parse(prog, list(argv))
    # The data loader forks; without this the tokenizers library warns of it at every batch.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if args.gen_sparse_cfg:
        return generate_configs(args)
    return run(args)


def start(prog: str) -> None:
    """Run the script ``prog`` on the process's own arguments and leave with its status."""
    arguments: List[str] = sys.argv[1:]
    sys.exit(status.run(main, prog, arguments))
