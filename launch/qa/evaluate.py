"""Evaluation: a model answers questions, and SQuAD's exact match and F1 say how well.

What upstream's run_qa.py does with ``--do_eval``.  The loop runs on Hugging Face's ``accelerate``, so the
same command spreads over processes: ``python -m torch.distributed.run --nproc_per_node 2
launch/qa/run_qa.py …`` (``accelerate launch --cpu`` starts a single one).  However many there are, the
batches are the same and of one size, and logits go into place by the number of their feature, so that
neither the division of the work nor what batches are filled up with reaches the answers.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any, Sequence, Tuple

from ..core import files, status
from ..core.errors import KitError
from ..model import metric, squad
from .answers import best_spans
from .arguments import Arguments
from .features import MODEL_INPUTS
from .model import load

RESULTS = "eval_results.json"
PREDICTIONS = "eval_predictions.json"

_PROGRESS_SECONDS = 5.0


def _unwritable(path: Path, error: OSError) -> KitError:
    return KitError(
        f"The results cannot be written: {error.strerror or error}.",
        where=str(path),
        hint="Make the folder writable, or name another with --output_dir in the launch file.",
    )


def _prepare_folder(folder: Path) -> None:
    """Make ``folder`` and try it, before minutes are spent on results that cannot be kept.

    :raises KitError: a file cannot be made in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=str(folder)):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from None


def _write(path: Path, content: Any, sort_keys: bool) -> None:
    """Write ``content`` to ``path`` as JSON; the file appears under its name only when it is whole.

    :raises KitError: it cannot be written.
    """
    try:
        files.write(path, json.dumps(content, indent=4, sort_keys=sort_keys) + "\n")
    except OSError as error:
        raise _unwritable(path, error) from None


def _gpu_works() -> bool:
    """Tell whether this torch can compute on the GPU it sees: it knows only GPUs older than itself."""
    import torch

    if not torch.cuda.is_available():
        return False
    try:
        return bool((torch.ones(1, device="cuda") + 1).item() == 2)
    except RuntimeError:
        return False


def _loader(features: Any, batch_size: int, processes: int) -> Any:
    """Return the loader of (feature number, *:data:`MODEL_INPUTS`) batches, all of the same size.

    The last batches are filled up with the first features again.  Matrix products of another size may round
    otherwise, and accelerate would fill up only where there are several processes.
    """
    import torch
    from torch.utils.data import DataLoader, Subset, TensorDataset

    count = len(features)
    size = min(batch_size, count)
    rounds = -(-count // (size * processes))
    columns = [torch.tensor(features[name]) for name in MODEL_INPUTS]
    order = [row % count for row in range(rounds * size * processes)]
    return DataLoader(Subset(TensorDataset(torch.arange(count), *columns), order), batch_size=size)


def _logits(accelerator: Any, model: Any, features: Any, batch_size: int) -> Tuple[Any, Any]:
    """Return the start and the end logits of all features, two float32 arrays (features, tokens).

    Each process gets them all, in the order of ``features``.
    """
    import numpy as np
    import torch

    count, tokens = len(features), len(features[0]["input_ids"])
    starts, ends = (np.empty((count, tokens), dtype=np.float32) for _ in range(2))
    # For evaluation only: accelerate need not compare or average the processes' weights.
    model = accelerator.prepare_model(model, evaluation_mode=True)
    loader = accelerator.prepare_data_loader(_loader(features, batch_size, accelerator.num_processes))
    done, said = 0, time.monotonic()
    with torch.no_grad():
        for rows, *inputs in loader:
            output = model(**dict(zip(MODEL_INPUTS, inputs)))
            gathered = accelerator.gather((rows, output.start_logits.float(), output.end_logits.float()))
            rows, start, end = (tensor.cpu().numpy() for tensor in gathered)
            starts[rows], ends[rows] = start, end
            done = min(done + len(rows), count)
            if accelerator.is_main_process and time.monotonic() - said >= _PROGRESS_SECONDS and done < count:
                said = time.monotonic()
                status.step(f"evaluating {done} of {count} features")
    return starts, ends


def evaluate(args: Arguments, config: Any, examples: Sequence[squad.Example], features: Any) -> None:
    """Answer the questions, score the answers, and write both to ``output_dir``.

    ``eval_results.json`` has upstream's keys ``eval_exact_match``, ``eval_f1`` (percent) and ``eval_samples``
    (features, not questions), and ``eval_questions``, ``seed`` and ``weights`` besides;
    ``eval_predictions.json`` maps questions' ids to answers.  Of several processes, the main one writes.

    :param config: transformers' config of the model.
    :param features: the examples' features, from :func:`launch.qa.features.tokenize`.
    :raises KitError: questions cannot be scored, the checkpoint cannot be loaded, results cannot be written.
    """
    squad.check_scorable(examples)
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=not _gpu_works())
    main = accelerator.is_main_process

    def say(text: str) -> None:
        if main:
            status.step(text)

    folder = Path(args.output_dir)
    if main:
        _prepare_folder(folder)
    model, weights = load(args, config, say)
    model.eval()
    say(f"evaluating {len(features)} features on {accelerator.device}")
    starts, ends = _logits(accelerator, model, features, args.per_device_eval_batch_size)
    if not main:
        return
    _check_finite(args, starts, ends)
    say("choosing and scoring answers")
    windows = features.remove_columns(list(MODEL_INPUTS))
    answers = best_spans(examples, windows, starts, ends, args.n_best_size, args.max_answer_length)
    scores = metric.score({example.id: example.gold for example in examples}, answers)
    results = {f"eval_{name}": value for name, value in scores.items()}
    _write(folder / PREDICTIONS, answers, sort_keys=False)
    _write(
        folder / RESULTS,
        {
            **results,
            "eval_samples": len(features),
            "eval_questions": len(examples),
            "seed": args.seed,
            "weights": weights,
        },
        sort_keys=True,
    )
    print(
        f"exact match {scores['exact_match']:.2f}, F1 {scores['f1']:.2f} on {len(examples)} questions "
        f"({len(features)} features); weights: {weights}; {folder / RESULTS}"
    )


def _check_finite(args: Arguments, *logits: Any) -> None:
    """Check that the model computed numbers.

    :raises KitError: a logit is infinite or not a number.
    """
    import numpy as np

    if not all(np.isfinite(values).all() for values in logits):
        raise KitError(
            "The model's scores are not all finite numbers, so no answer is the best one.",
            where=f"--model_name_or_path={args.model_name_or_path}",
            hint="The checkpoint's weights are infinite or no numbers: give another.",
        )
