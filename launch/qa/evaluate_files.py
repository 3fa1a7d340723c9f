"""Evaluation of finished files: an ONNX file and its IR in OpenVINO, a checkpoint in torch.

All get the same features.

``python -m launch.qa.evaluate_files <request.json>``; a request has

* ``files``: ``onnx`` and ``ir``, the paths; ``outputs``: the ONNX graph's names of start and end logits;
* ``checkpoint``: a model folder with weights, or null; ``tokenizer``: a model folder;
* ``questions``: the file; ``max_seq_length`` and ``doc_stride`` of the features; ``vocab_size``;
* ``threads``; ``result``: the JSON file for what was found.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

from ..core import child, files
from ..core.errors import KitError
from ..core.progress import format_duration
from ..model import bert_config, metric, squad
from ..model.variants import INPUTS
from .arguments import Arguments
from .checkpoint import fit_checkpoint, read_checkpoint
from .evaluate import find_best_spans
from .features import MODEL_INPUTS, load_tokenizer, tokenize_examples
from .model import build_model, load_config

Logits = Tuple[Any, Any]
"""Start and end logits: float32 arrays (features, tokens)."""

N_BEST, LONGEST = 20, 30
"""``n_best_size`` and ``max_answer_length``, as transformers' example has them."""

_BATCH = 8  # features that torch takes at once
_PROGRESS_SECONDS = 2.0


class _Counter:
    """Says how many of ``count`` features are done, and how long the others take."""

    def __init__(self, label: str, count: int) -> None:
        self.label, self.count = label, count
        self.started = self.said = time.monotonic()
        child.report_step(f"{label}: {count:,} features")

    def show(self, done: int) -> None:
        now = time.monotonic()
        elapsed = now - self.started
        if done and now - self.said >= max(_PROGRESS_SECONDS, elapsed / 50):  # a log has a line for each
            self.said = now
            left = format_duration(elapsed * (self.count - done) / done)
            child.report_step(f"{self.label}: {done:,} of {self.count:,} features, {left} left")

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.started, 1)


def run_in_openvino(
    path: Path, onnx: Path, outputs: Sequence[str], inputs: Sequence[Any], threads: int
) -> Tuple[Logits, float]:
    """Return the logits of an ONNX file or IR, and the seconds that the features took.

    Each core has a stream of its own and one feature at a time: batches are no faster (tests/README.md).

    :param inputs: int64 arrays (features, tokens), in the order of :data:`.INPUTS`.
    :raises KitError: the runtime does not take the file.
    """
    import numpy
    from openvino.runtime import AsyncInferQueue, Core

    child.report_step(f"loading {path.name}")
    count, tokens = inputs[0].shape
    found = tuple(numpy.empty((count, tokens), numpy.float32) for _ in outputs)
    try:
        core = Core()
        model = core.read_model(str(path))
        places = _find_outputs(model, onnx, outputs)
        kinds = {"i32": "int32", "i64": "int64"}
        parameters = [
            (one.get_friendly_name(), kinds[one.get_element_type().get_type_name()])
            for one in model.get_parameters()
        ]
        settings = {"NUM_STREAMS": str(threads), "INFERENCE_NUM_THREADS": str(threads)}
        queue = AsyncInferQueue(core.compile_model(model, "CPU", settings))
        del model
        columns = [dict(zip(INPUTS, inputs))[name].astype(kind) for name, kind in parameters]
        done = 0

        def keep(request: Any, row: int) -> None:
            nonlocal done
            for logits, place in zip(found, places):
                logits[row] = request.get_output_tensor(place).data[0]
            done += 1

        queue.set_callback(keep)
        counter = _Counter(f"running {path.name}", count)
        for row in range(count):
            queue.start_async({place: column[row : row + 1] for place, column in enumerate(columns)}, row)
            counter.show(done)
        queue.wait_all()
    except (RuntimeError, KeyError) as error:
        lines = str(error).strip().splitlines() or [""]
        raise KitError(
            f"OpenVINO cannot run the file: {lines[-1].strip()}",
            where=str(path),
            hint="Make the tree again, or copy it again from where it came.",
        ) from None
    return (found[0], found[1]), counter.seconds


def _find_outputs(model: Any, onnx: Path, names: Sequence[str]) -> List[int]:
    """Return the places of the named outputs; Model Optimizer 2021.4 may call one by its ONNX node."""
    places: Dict[str, int] = {}
    for place, output in enumerate(model.outputs):
        places[output.get_node().input_value(0).get_node().get_friendly_name()] = place
        places.update(dict.fromkeys(output.get_names(), place))
    if not all(name in places for name in names):
        from ..model.onnx_model import Model

        producers = Model(onnx).graph.producer
        places.update({name: places[producers[name].name] for name in names if name not in places})
    return [places[name] for name in names]


def run_in_torch(folder: Path, inputs: Sequence[Any]) -> Tuple[Logits, float]:
    """Return the logits of the checkpoint in a model folder, and the seconds that the features took.

    :param inputs: int64 arrays (features, tokens), in the order of :data:`.MODEL_INPUTS`.
    :raises KitError: there is no checkpoint, or not one of the folder's config.
    """
    import numpy
    import torch

    child.report_step("loading the checkpoint")
    config, shape = load_config(Arguments(str(folder), ""))
    bert_config.check_length(shape, inputs[0].shape[1], str(folder))
    state = read_checkpoint(folder)
    fit_checkpoint(state, shape, str(folder))
    model = build_model(config, str(folder))
    model.load_state_dict(state, strict=False)  # whose buffers are the model's own
    model.eval()
    starts, ends = (numpy.empty(inputs[0].shape, numpy.float32) for _ in range(2))
    counter = _Counter("running the checkpoint", len(starts))
    with torch.no_grad():
        for rows in _batches(len(starts)):
            batch = {name: torch.from_numpy(column[rows]) for name, column in zip(MODEL_INPUTS, inputs)}
            output = model(**batch)
            starts[rows], ends[rows] = output.start_logits.numpy(), output.end_logits.numpy()
            counter.show(rows.stop)
    return (starts, ends), counter.seconds


def _batches(count: int) -> Iterator[slice]:
    return (slice(first, min(first + _BATCH, count)) for first in range(0, count, _BATCH))


def _evaluate(request: Mapping[str, Any]) -> Dict[str, Any]:
    import numpy

    child.report_step("loading libraries")
    from openvino.runtime import get_version

    args = Arguments(
        request["tokenizer"],
        "",
        max_seq_length=request["max_seq_length"],
        doc_stride=request["doc_stride"],
    )
    tokenizer = load_tokenizer(args, request["vocab_size"])
    child.report_step("tokenizing questions")
    examples = squad.read_questions(Path(request["questions"]), "VALIDATION_FILE")
    features = tokenize_examples(examples, tokenizer, args, None)
    inputs = [numpy.array(features[name], dtype=numpy.int64) for name in MODEL_INPUTS]
    windows = features.remove_columns(list(MODEL_INPUTS))
    gold = {example.id: example.gold for example in examples}
    results, answers = {}, {}

    def add(name: str, logits: Logits, seconds: float, runtime: str) -> None:
        if not all(numpy.isfinite(part).all() for part in logits):
            raise KitError(
                "The model's scores are not all finite numbers, so no answer is the best one.",
                where=request["checkpoint"] if name == "checkpoint" else request["files"][name],
                hint="Make it again of weights that are finite.",
            )
        answers[name] = find_best_spans(examples, windows, *logits, N_BEST, LONGEST)
        results[name] = {**metric.score_answers(gold, answers[name]), "seconds": seconds, "runtime": runtime}

    version = "OpenVINO " + get_version().split("-")[0]
    onnx = Path(request["files"]["onnx"])
    for name, path in request["files"].items():
        found = run_in_openvino(Path(path), onnx, request["outputs"], inputs, request["threads"])
        add(name, *found, version)
    if request["checkpoint"]:
        import torch

        torch.set_num_threads(request["threads"])
        add("checkpoint", *run_in_torch(Path(request["checkpoint"]), inputs), f"torch {torch.__version__}")
    return {
        "questions": len(examples),
        "features": len(features),
        "results": results,
        "same_answers": sum(answers["onnx"][one] == answers["ir"][one] for one in gold),
    }


def _main(path: str) -> None:
    # Without it the tokenizers library warns of forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    files.write_text(Path(request["result"]), json.dumps(_evaluate(request)))


if __name__ == "__main__":
    sys.exit(child.run_body(_main, *sys.argv[1:]))
