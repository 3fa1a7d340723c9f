"""What is wrong with the inputs of a run of upstream's script that has failed.

``python -m launch.qa.check <the script's arguments>`` reads the model folder and the questions as the kit's
program does, on whichever transformers is there, and raises its error for the first thing that is at fault.
"""

import sys
import traceback
from typing import Sequence

from ..core import status
from ..core.errors import KitError
from .arguments import parse_arguments
from .features import load_examples, tokenize_examples
from .program import read_model


def check_inputs(argv: Sequence[str]) -> int:
    """Check the inputs that ``argv`` names; an error that is no fault of theirs goes to the log.

    :raises KitError: one of them is at fault.
    """
    try:
        args = parse_arguments("upstream's script", argv)
        _, _, tokenizer = read_model(args)
        for split, limit in (("train", args.max_train_samples), ("validation", args.max_eval_samples)):
            if getattr(args, f"{split}_file"):
                tokenize_examples(load_examples(args, split), tokenizer, args, limit)
    except KitError:
        raise
    except Exception:
        traceback.print_exc()
    return 0


if __name__ == "__main__":
    sys.exit(status.run_body(check_inputs, sys.argv[1:]))
