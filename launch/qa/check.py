"""Checks of model folder and questions, run after upstream's script has failed, with its arguments."""

import sys
import traceback
from typing import Sequence

from ..core import child
from ..core.errors import KitError
from .arguments import parse_arguments
from .features import load_examples, tokenize_examples
from .program import read_model


def _main(argv: Sequence[str]) -> None:
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
    sys.exit(child.run_body(_main, sys.argv[1:]))
