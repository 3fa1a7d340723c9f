"""The floor: the calibration's forward passes alone, ``python -m tests.bench.floor RESULT ARGUMENT...``.

The ranges of activations are those of the dense model's, so identical bytes need these passes, whatever else
a run leaves out.  The arguments are those of the program that makes the variant, and the products are those
of the tree that it runs on: torch's own, or the set ``fast``'s.
"""

import itertools
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict

from launch.qa.arguments import Arguments, parse_arguments


def measure(args: Arguments) -> Dict[str, float]:
    """Return what the passes take, as ``seconds`` and ``cpu_seconds``, on a model of drawn weights.

    :raises KitError: an input is at fault.
    """
    import torch

    from launch.qa.compress import (
        draw_model,
        make_calibration_loader,
        read_calibration_samples,
        read_nncf_config,
    )
    from launch.qa.features import load_examples, load_tokenizer, tokenize_examples
    from launch.qa.model import load_config

    config, shape = load_config(args)
    questions = load_examples(args, "train")
    features = tokenize_examples(
        questions, load_tokenizer(args, shape.vocab_size), args, args.max_train_samples
    )
    needed = read_calibration_samples(read_nncf_config(args))
    loader = make_calibration_loader(features, needed, args)
    batches = list(itertools.islice(loader, math.ceil(needed / args.per_device_train_batch_size)))
    model = draw_model(args, config).eval()
    _multiply_as_the_tree_does()
    wall, processor = time.perf_counter(), time.process_time()
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}


def _multiply_as_the_tree_does() -> None:
    """Let torch's products be computed as within NNCF, where the patch ``fast_products`` is applied."""
    import torch

    try:
        from nncf.torch.dynamic_graph import ordered_products
    except ImportError:
        return

    def chosen(operator: Callable[..., Any], name: str) -> Callable[..., Any]:
        def product(*args: Any, **kwargs: Any) -> Any:
            return ordered_products.choose(operator, name, args, kwargs)(*args, **kwargs)

        return product

    torch.nn.functional.linear = chosen(torch.nn.functional.linear, "linear")
    torch.matmul = chosen(torch.matmul, "matmul")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    Path(sys.argv[1]).write_text(json.dumps(measure(parse_arguments("floor", sys.argv[2:]))))
