"""Run a model in a runtime: ``python worker.py <request.json>``, in whichever environment has the runtime.

The standard library, numpy and the runtime are all that it needs, so that it runs in environments that know
nothing of the kit.  A request has

* ``model``: an ONNX file or an IR's XML; ``runtime``: ``onnxruntime`` or ``openvino``;
* ``threads``: how many it may use, 0 for its own choice; ``memory``: bytes of data that it may hold;
* ``feeds``: an npz file with the inputs of runs 0, 1, …, each under ``<run>:<name>``;
* ``outputs``: the npz file for their outputs, under the same form of names;
* ``result``: the JSON file for the ``error`` of a runtime that does not take the model, empty for others.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Tuple

import numpy

Run = Callable[[Mapping[str, Any]], Dict[str, Any]]
"""Takes inputs, and returns outputs, by name."""


def load_onnxruntime(model: str, threads: int) -> Run:
    """Return a model in ONNX Runtime, on the processor."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(names, dict(feed))))


def load_openvino(model: str, threads: int) -> Run:
    """Return a model in OpenVINO's CPU plugin; ``openvino.Core`` was ``openvino.runtime.Core`` until 2022."""
    try:
        from openvino import Core
    except ImportError:
        from openvino.runtime import Core

    core = Core()
    network = core.read_model(model)
    settings = {"INFERENCE_NUM_THREADS": str(threads)} if threads else {}
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    inputs = [
        (one.get_friendly_name(), {"i32": "int32", "i64": "int64"}[one.get_element_type().get_type_name()])
        for one in network.get_parameters()
    ]
    names = [sorted(output.get_names())[0] for output in network.outputs]

    def run(feed: Mapping[str, Any]) -> Dict[str, Any]:
        request.infer({place: feed[name].astype(kind) for place, (name, kind) in enumerate(inputs)})
        return {name: numpy.array(request.get_output_tensor(place).data) for place, name in enumerate(names)}

    return run


LOADERS = {"onnxruntime": load_onnxruntime, "openvino": load_openvino}


def split_feeds(path: str) -> List[Dict[str, Any]]:
    """Return the inputs of each run."""
    feeds: Dict[int, Dict[str, Any]] = {}
    with numpy.load(path) as given:
        for key in given.files:
            run, _, name = key.partition(":")
            feeds.setdefault(int(run), {})[name] = given[key]
    return [feeds[run] for run in sorted(feeds)]


def answer(request: Mapping[str, Any]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return the result and the outputs of a request."""
    result: Dict[str, Any] = {"error": ""}
    outputs: Dict[str, Any] = {}
    try:
        run = LOADERS[request["runtime"]](request["model"], request["threads"])
        for number, feed in enumerate(split_feeds(request["feeds"])):
            outputs.update({f"{number}:{name}": values for name, values in run(feed).items()})
    except Exception as error:  # whatever a runtime raises says that it does not take the model
        result["error"] = " ".join(str(error).split()) or type(error).__name__
    return result, outputs


def main(path: str) -> int:
    """Answer the request in a file; return the exit status."""
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = request["memory"] if hard == resource.RLIM_INFINITY else min(request["memory"], hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    result, outputs = answer(request)
    with Path(request["outputs"]).open("wb") as handle:
        numpy.savez(handle, **outputs)
    Path(request["result"]).write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
