"""What both scripts do with their arguments.

As a program, with the arguments of upstream's script that has failed, it checks model folder and questions.
"""

import gc
import os
import sys
import traceback
from pathlib import Path
from typing import Any, List, Tuple

from ..core import child
from ..core.errors import KitError
from ..model import bert_config, model_folder, sparsity
from ..model.variants import BertShape
from .arguments import Arguments, parse_arguments
from .features import load_examples, load_tokenizer, tokenize_examples
from .model import load_config


def read_model(args: Arguments) -> Tuple[Any, BertShape, Any]:
    """Return the config of the model that ``args`` name, its dimensions and its tokenizer.

    :raises KitError: one of them is at fault, or a feature is too long for it.
    """
    config, shape = load_config(args)
    bert_config.check_length(shape, args.max_seq_length, args.config_source)
    folder = Path(args.tokenizer_source)
    if folder.is_dir():
        model_folder.check_tokenizer(folder, shape, args.max_seq_length)
    return config, shape, load_tokenizer(args, shape.vocab_size)


def _run(args: Arguments) -> None:
    child.report_step("loading libraries")
    gc.disable()  # nothing of what is loaded is garbage: to look for it takes over a second
    if args.to_onnx:
        import nncf.torch  # noqa: F401  (it wraps torch's functions, before others take hold of them)
    from transformers import set_seed

    set_seed(args.seed)
    config, shape, tokenizer = read_model(args)
    gc.freeze()
    gc.enable()
    if args.to_onnx is not None:
        from .compress import make_onnx, name_precision, read_nncf_config, read_sparsity
        from .weights import prepare_weights

        nncf_config = read_nncf_config(args)
        share, precision = read_sparsity(nncf_config), name_precision(nncf_config)
        trained = prepare_weights(args, config, shape, tokenizer, share, precision)
        child.report_step("tokenizing calibration questions")
        features = tokenize_examples(load_examples(args, "train"), tokenizer, args, args.max_train_samples)
        onnx_path = make_onnx(args, nncf_config, shape, config, features, trained)
        child.report_step("counting zeros")
        sparsity.write_report(onnx_path)
    else:
        from .evaluate import evaluate_model

        child.report_step("tokenizing evaluation questions")
        examples = load_examples(args, "validation")[: args.max_eval_samples]
        features = tokenize_examples(examples, tokenizer, args, args.max_eval_samples)
        evaluate_model(args, config, examples, features)


def _main(prog: str, argv: List[str]) -> None:
    args = parse_arguments(prog, argv)
    # The data loader forks; without this the tokenizers library warns of it at every batch.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not args.gen_sparse_cfg:
        _run(args)
        return
    # Upstream wrote the hybrid configs into its own folder.
    for path in bert_config.write_hybrids(Path(args.model_name_or_path), Path(args.output_dir)):
        print(path)


def start_program(prog: str) -> None:
    """Run the script ``prog`` on the process's own arguments and leave with its status."""
    sys.exit(child.run_body(_main, prog, sys.argv[1:]))


def _check_inputs(argv: List[str]) -> None:
    try:
        args = parse_arguments("upstream's script", argv)
        _, _, tokenizer = read_model(args)
        for split, limit in (("train", args.max_train_samples), ("validation", args.max_eval_samples)):
            if getattr(args, f"{split}_file"):
                tokenize_examples(load_examples(args, split), tokenizer, args, limit)
    except KitError:
        raise
    except Exception:
        traceback.print_exc()  # no fault of the inputs: for the log


if __name__ == "__main__":
    sys.exit(child.run_body(_check_inputs, sys.argv[1:]))
