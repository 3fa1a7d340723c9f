"""Run a model in a runtime: ``python worker.py <request.json>``, in whichever environment has the runtime.

The standard library, numpy and the runtime are all that it needs, so that it runs in environments that know
nothing of the kit.  A request has

* ``model``: an ONNX file or an IR's XML; ``runtime``: ``onnxruntime`` or ``openvino``;
* ``threads``: how many it may use, 0 for its own choice; ``memory``: bytes of data that it may hold;
* ``feeds``: an npz file with the inputs of runs 0, 1, …, each under ``<run>:<name>``;
* ``outputs``: the npz file for their outputs, under the same form of names;
* ``result``: the JSON file for the ``error`` of a runtime that does not take the model, empty for others;
* ``shape``: of the inputs, empty for the model's own; OpenVINO alone takes another one;
* ``timing``: what is timed, see :func:`measure`; empty if nothing is.
"""

import json
import os
import resource
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

import numpy

Feed = Mapping[str, Any]
Request = Mapping[str, Any]

FAR = 1e9
"""The difference of outputs that cannot be compared."""


class Loaded(NamedTuple):
    """A model in a runtime.

    :param feed: sets the inputs of all requests.
    :param calls: one for each request that may run at the same time; a call runs it once.
    :param read: returns the outputs of the first request's last run, by name.
    :param kernels: how many matrix products each kernel computes, where the runtime says so.
    """

    feed: Callable[[Feed], None]
    calls: Sequence[Callable[[], None]]
    read: Callable[[], Dict[str, Any]]
    kernels: Dict[str, int]


def load_onnxruntime(request: Request, mode: str) -> Loaded:
    """Return a model in ONNX Runtime, on the processor.

    For throughput each of as many callers as there are threads runs the one session on its own thread.
    """
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    callers = request["threads"] if mode == "throughput" else 1
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1 if callers > 1 else request["threads"]
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    given: Dict[str, Any] = {}
    found: List[Any] = []

    def call() -> None:
        found[:] = session.run(names, given)

    return Loaded(given.update, [call] * callers, lambda: dict(zip(names, found)), {})


def load_openvino(request: Request, mode: str) -> Loaded:
    """Return a model in OpenVINO's CPU plugin; ``openvino.Core`` was ``openvino.runtime.Core`` until 2022.

    For throughput there are as many requests as the compiled model calls optimal.
    """
    try:
        from openvino import Core, PartialShape
    except ImportError:
        from openvino.runtime import Core, PartialShape

    core = Core()
    network = core.read_model(request["model"])
    inputs = [one.get_friendly_name() for one in network.get_parameters()]
    if request["shape"] not in ([], list(network.inputs[0].get_shape())):
        network.reshape({place: PartialShape(request["shape"]) for place in range(len(inputs))})
    settings = dict(request["timing"].get("settings", {}))
    if request["threads"]:
        settings["INFERENCE_NUM_THREADS"] = str(request["threads"])
    if mode:
        settings["PERFORMANCE_HINT"] = mode.upper()
    compiled = core.compile_model(network, "CPU", settings)
    count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") if mode == "throughput" else 1
    requests = [compiled.create_infer_request() for _ in range(int(count))]
    names = [sorted(output.get_names())[0] for output in network.outputs]

    def feed(given: Feed) -> None:
        for one in requests:
            for place, name in enumerate(inputs):
                one.get_input_tensor(place).data[:] = given[name]

    def read() -> Dict[str, Any]:
        return {
            name: numpy.array(requests[0].get_output_tensor(place).data) for place, name in enumerate(names)
        }

    def make_call(one: Any) -> Callable[[], None]:
        def call() -> None:
            one.start_async()
            one.wait()

        return call

    return Loaded(feed, [make_call(one) for one in requests], read, _count_kernels(compiled))


def _count_kernels(compiled: Any) -> Dict[str, int]:
    found: Dict[str, int] = Counter()
    for operation in compiled.get_runtime_model().get_ordered_ops():
        known = operation.get_rt_info()
        if _text(known, "layerType") in ("FullyConnected", "MatMul"):
            found[_text(known, "primitiveType")] += 1
    return dict(found)


def _text(known: Any, name: str) -> str:
    try:
        value = known[name]
    except (KeyError, RuntimeError):
        return ""
    return str(getattr(value, "value", value))


LOADERS = {"onnxruntime": load_onnxruntime, "openvino": load_openvino}


def flood(model: Loaded, count: int) -> float:
    """Run each request ``count`` times, all at the same time; return the seconds that it took."""

    def repeat(call: Callable[[], None]) -> None:
        for _ in range(count):
            call()

    with ThreadPoolExecutor(len(model.calls)) as pool:
        started = time.perf_counter()
        list(pool.map(repeat, model.calls))
        return time.perf_counter() - started


def run(model: Loaded, feeds: Sequence[Feed]) -> List[Dict[str, Any]]:
    """Return the outputs of each run."""
    outputs = []
    for one in feeds:
        model.feed(one)
        flood(model, 1)
        outputs.append(model.read())
    return outputs


def measure_difference(one: Sequence[Feed], other: Sequence[Feed]) -> float:
    """Return the largest root mean square of a difference of outputs, in standard deviations of ``one``'s:
    what :func:`launch.verify.ir.measure_difference` does.
    """
    largest = 0.0
    for left, right in zip(one, other):
        for name, values in left.items():
            if name not in right or right[name].shape != values.shape:
                return FAR
            apart = float(numpy.sqrt(numpy.mean(numpy.square(right[name] - values, dtype="float64"))))
            scale = float(values.std(dtype="float64"))
            ratio = apart / scale if scale else (FAR if apart else 0.0)
            largest = max(largest, ratio if numpy.isfinite(ratio) else FAR)
    return largest


def measure(request: Request, outputs: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Load a model, run it, append its outputs to ``outputs``, and return what was then measured.

    ``timing`` has the ``mode``: ``latency``, one request at a time, or ``throughput``, all processors at
    work; the ``seconds`` that it takes, of latency in each turn; and ``settings`` of OpenVINO.  With a
    ``reference``, an npz file of outputs, and a ``tolerance``, it is timed only where the outputs are these.
    Latency is measured in turn with other models: ``turns`` are descriptors to read a byte from for each
    turn, until there is none, and to write one to when the model is loaded, and after each turn.

    :return: seconds to ``load`` it and of the ``first`` run; the ``difference`` from the reference;
        ``turns``, seconds of each run in each turn, or ``rate``, runs in a second; ``requests`` at the same
        time; ``kernels``; ``memory``, the process's most bytes.
    """
    timing = request["timing"]
    started = time.perf_counter()
    model = LOADERS[request["runtime"]](request, timing["mode"])
    found: Dict[str, Any] = {"load": time.perf_counter() - started, "difference": None}
    started = time.perf_counter()
    outputs += run(model, split_feeds(request["feeds"]))
    found["first"] = time.perf_counter() - started
    if timing["reference"]:
        found["difference"] = measure_difference(split_feeds(timing["reference"]), outputs)
        if not found["difference"] <= timing["tolerance"]:
            apart = f"{found['difference']:.3g} of a standard deviation from the reference's"
            raise RuntimeError(f"its outputs are {apart}, at most {timing['tolerance']} is tolerated")
    # The first run is the warm-up of one that takes longer than it is to be timed.
    once = found["first"] if found["first"] > timing["seconds"] else flood(model, 1)
    count = max(1, round(timing["seconds"] / once))
    if timing["mode"] == "latency":
        found["turns"] = [_take_turn(model, count) for _ in _wait(*timing["turns"])]
    else:
        found["rate"] = count * len(model.calls) / flood(model, count)
    return {**found, "requests": len(model.calls), "kernels": model.kernels, "memory": read_peak_memory()}


def _wait(receive: int, send: int) -> Iterator[None]:
    """Yield for each turn."""
    os.write(send, b".")
    while os.read(receive, 1):
        yield
        os.write(send, b".")


def _take_turn(model: Loaded, count: int) -> List[float]:
    """Return the seconds of some runs, after one that finds the caches as other models have left them."""
    times = []
    for _ in range(1 + count):
        started = time.perf_counter()
        model.calls[0]()
        times.append(round(time.perf_counter() - started, 7))
    return times[1:]


def read_peak_memory() -> int:
    """Return the most bytes that this process has held; ``ru_maxrss`` counts what its parent held, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def split_feeds(path: str) -> List[Dict[str, Any]]:
    """Return the arrays of each run."""
    feeds: Dict[int, Dict[str, Any]] = {}
    with numpy.load(path) as given:
        for key in given.files:
            number, _, name = key.partition(":")
            feeds.setdefault(int(number), {})[name] = given[key]
    return [feeds[number] for number in sorted(feeds)]


def answer(request: Request) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return the result and the outputs of a request."""
    result: Dict[str, Any] = {"error": ""}
    outputs: List[Dict[str, Any]] = []
    try:
        if request["timing"]:
            result.update(measure(request, outputs))
        else:
            outputs += run(LOADERS[request["runtime"]](request, ""), split_feeds(request["feeds"]))
    except Exception as error:  # whatever a runtime raises says that it does not take the model
        result["error"] = " ".join(str(error).split()) or type(error).__name__
    return result, {f"{number}:{name}": out[name] for number, out in enumerate(outputs) for name in out}


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
