"""The floor: the calibration's forward passes alone, ``python -m launch.bench.floor RESULT ARGUMENT...``.

The ranges of activations are those of the dense model's, so identical bytes need these passes, whatever else
a run leaves out.  The arguments are those of the program that makes the variant.
"""

import itertools
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Dict

from ..qa.arguments import Arguments, parse


def measure(args: Arguments) -> Dict[str, float]:
    """Return what the passes take, as ``seconds`` and ``cpu_seconds``, on a model of drawn weights.

    :raises KitError: an input is at fault.
    """
    import torch

    from ..qa.compress import calibration_loader, calibration_samples, draw_model, read_nncf_config
    from ..qa.features import load_examples, load_tokenizer, tokenize
    from ..qa.program import load_config

    config, shape = load_config(args)
    questions = load_examples(args, "train")
    features = tokenize(questions, load_tokenizer(args, shape.vocab_size), args, args.max_train_samples)
    needed = calibration_samples(read_nncf_config(args))
    loader = calibration_loader(features, needed, args)
    batches = list(itertools.islice(loader, math.ceil(needed / args.per_device_train_batch_size)))
    model = draw_model(args, config).eval()
    wall, processor = time.perf_counter(), time.process_time()
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    Path(sys.argv[1]).write_text(json.dumps(measure(parse("floor", sys.argv[2:]))))
