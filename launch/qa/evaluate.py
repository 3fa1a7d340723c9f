"""Evaluation: a model answers questions, and SQuAD's exact match and F1 say how well.

As upstream's run_qa.py with ``--do_eval``.  On several processes answers are the same:
``python -m torch.distributed.run --nproc_per_node 2 launch/qa/run_qa.py …``.
"""

import json
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, Mapping, Sequence, Tuple

from ..core import child, files
from ..core.errors import KitError
from ..model import metric, squad
from .arguments import Arguments
from .features import MODEL_INPUTS
from .model import load_model

RESULTS = "eval_results.json"
PREDICTIONS = "eval_predictions.json"

NO_ANSWER = "empty"
"""Upstream's answer to a question for which only an empty text is found."""

_PROGRESS_SECONDS = 5.0


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KitError(
            f"The results cannot be written: {error.strerror or error}.",
            where=str(path),
            hint="Make the folder writable, or name another with --output_dir in the launch file.",
        ) from None


def _write(path: Path, content: Any, sort_keys: bool) -> None:
    with _writing(path):
        files.write_text(path, json.dumps(content, indent=4, sort_keys=sort_keys) + "\n")


def gpu_works() -> bool:
    """Return whether torch can compute on this process's GPU: it knows none that is newer than itself."""
    import torch

    if not torch.cuda.is_available():
        return False
    own = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()  # as accelerate shares them
    try:
        return bool((torch.ones(1, device=f"cuda:{own}") + 1).item() == 2)
    except RuntimeError:
        return False


def _loader(features: Any, batch_size: int, processes: int) -> Any:
    """Return the loader of (feature number, *:data:`MODEL_INPUTS`) batches of one size."""
    import torch
    from torch.utils.data import DataLoader, Subset, TensorDataset

    count = len(features)
    size = min(batch_size, count)
    rounds = -(-count // (size * processes))
    columns = [torch.tensor(features[name]) for name in MODEL_INPUTS]
    # Filled up with the first features again: products of another size may round otherwise.
    order = [row % count for row in range(rounds * size * processes)]
    return DataLoader(Subset(TensorDataset(torch.arange(count), *columns), order), batch_size=size)


def _logits(accelerator: Any, model: Any, features: Any, batch_size: int) -> Tuple[Any, Any]:
    """Return, in each process, the start and end logits: float32 arrays (features, tokens)."""
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
                child.report_step(f"evaluating {done} of {count} features")
    return starts, ends


def find_best_spans(
    examples: Sequence[squad.Example],
    windows: Iterable[Mapping[str, Any]],
    start_logits: Any,
    end_logits: Any,
    n_best_size: int,
    max_answer_length: int,
) -> Dict[str, str]:
    """Return each question's answer by its id, in the order of ``examples``.

    A candidate begins and ends in the context, is 1 … ``max_answer_length`` tokens long, lies in one window,
    and scores the sum of its two logits.  Of equal scores the earlier window wins, then the higher first
    logit, then the higher last one.  transformers 4.9.1's question-answering example gives the same texts.

    :param windows: ``example_id`` and ``offset_mapping`` of each feature: a pair of character positions a
        token, empty (or None) outside the context.
    :param start_logits: finite float array (windows, tokens), as ``end_logits`` is.
    :param n_best_size: how many first and how many last tokens of a window are combined.
    """
    import numpy as np

    # Numpy's own sort decides among equal logits, as it does upstream; a stable one would decide otherwise.
    first_tokens, last_tokens = (
        np.argsort(logits, axis=-1)[:, ::-1][:, :n_best_size] for logits in (start_logits, end_logits)
    )
    best = {example.id: (-np.inf, 0, 0) for example in examples}  # score, and first and last + 1 character
    candidates = dict.fromkeys(best, 0)
    for row, window in enumerate(windows):
        offsets, question = window["offset_mapping"], window["example_id"]
        in_context = np.zeros(start_logits.shape[1], dtype=bool)
        in_context[: len(offsets)] = [bool(pair) for pair in offsets]
        firsts, lasts = first_tokens[row], last_tokens[row]
        firsts, lasts = firsts[in_context[firsts]], lasts[in_context[lasts]]
        lengths = lasts[np.newaxis, :] - firsts[:, np.newaxis] + 1
        allowed = (lengths >= 1) & (lengths <= max_answer_length)
        if not allowed.any():
            continue
        scores = start_logits[row, firsts][:, np.newaxis] + end_logits[row, lasts][np.newaxis, :]
        # argmax takes the first of equals: rows and columns run from the highest logit down.
        place = np.argmax(np.where(allowed, scores, -np.inf))
        i, j = np.unravel_index(place, scores.shape)
        candidates[question] += int(allowed.sum())
        if scores[i, j] > best[question][0]:
            best[question] = scores[i, j], offsets[firsts[i]][0], offsets[lasts[j]][1]
    answers = {}
    for example in examples:
        _, first, last = best[example.id]
        text = example.context[first:last]
        # Upstream keeps the n_best_size best of all candidates, and distrusts one that is alone and empty.
        alone = min(candidates[example.id], n_best_size) <= 1
        answers[example.id] = NO_ANSWER if alone and not text else text
    return answers


def evaluate_model(args: Arguments, config: Any, examples: Sequence[squad.Example], features: Any) -> None:
    """Answer the questions, score the answers, and write both to ``output_dir``.

    ``eval_results.json`` has upstream's keys ``eval_exact_match``, ``eval_f1`` (percent) and ``eval_samples``
    (features), and ``eval_questions``, ``seed`` and ``weights``; ``eval_predictions.json`` answers by id.

    :raises KitError: a question cannot be scored, the checkpoint cannot be loaded, logits are not finite, or
        results cannot be written.
    """
    squad.check_scorable(examples)
    import numpy as np
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=not gpu_works())
    main = accelerator.is_main_process

    def say(text: str) -> None:
        if main:
            child.report_step(text)

    folder = Path(args.output_dir)
    if main:
        with _writing(folder):  # before minutes are spent on results that cannot be kept
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=str(folder)).close()
    model, weights = load_model(args, config, say)
    model.eval()
    say(f"evaluating {len(features)} features on {accelerator.device}")
    starts, ends = _logits(accelerator, model, features, args.per_device_eval_batch_size)
    if not main:
        return
    if not (np.isfinite(starts).all() and np.isfinite(ends).all()):
        raise KitError(
            "The model's scores are not all finite numbers, so no answer is the best one.",
            where=f"--model_name_or_path={args.model_name_or_path}",
            hint="The checkpoint's weights are infinite or no numbers: give another.",
        )
    say("choosing and scoring answers")
    windows = features.remove_columns(list(MODEL_INPUTS))
    answers = find_best_spans(examples, windows, starts, ends, args.n_best_size, args.max_answer_length)
    scores = metric.score_answers({example.id: example.gold for example in examples}, answers)
    results = {
        **{f"eval_{name}": value for name, value in scores.items()},
        "eval_samples": len(features),
        "eval_questions": len(examples),
        "seed": args.seed,
        "weights": weights,
    }
    _write(folder / PREDICTIONS, answers, sort_keys=False)
    _write(folder / RESULTS, results, sort_keys=True)
    print(
        f"exact match {scores['exact_match']:.2f}, F1 {scores['f1']:.2f} on {len(examples)} questions "
        f"({len(features)} features); weights: {weights}; {folder / RESULTS}"
    )
