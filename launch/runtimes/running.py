"""The runtimes that a model is tried in, and running it in one, as a process of its own."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

from ..core import child, machine, paths
from ..core.errors import KitError
from ..setup import requirements
from ..setup.environment import KIT, Venv
from ..verify.measuring import MAX_BYTES

NEWEST = Venv(
    paths.ENVIRONMENTS / "runtimes",
    "the newest runtimes",
    ("runtimes.lock",),
    0.31e9,
    0.105e9,
    "import numpy, onnxruntime, openvino",
    versions=("3.14", "3.13", "3.12", "3.11"),  # those that each of them has wheels for
)
"""ONNX Runtime and OpenVINO of today, which need another Python than the kit."""

WORKER = Path(__file__).with_name("worker.py")


_PRODUCTS = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}


class Runtime(NamedTuple):
    """A runtime: the module that is imported, and the environment that it is in."""

    module: str
    environment: Venv

    @property
    def label(self) -> str:
        """What it is called, with its locked version."""
        pins = [requirements.read_pins(lock) for lock in self.environment.locks]
        return f"{_PRODUCTS[self.module]} {next(one[self.module] for one in pins if self.module in one)}"


RUNTIMES = tuple(Runtime(module, environment) for environment in (KIT, NEWEST) for module in _PRODUCTS)
"""The first is the one that trees are verified in."""

BENCHED = dict(zip(("openvino-2022.1", "", "openvino", "onnxruntime"), RUNTIMES))
"""Those that ``make bench`` measures, as RUNTIMES= names them."""
del BENCHED[""]  # ONNX Runtime of the kit's environment, the oldest that reads the models

Arrays = Dict[str, Any]


class Answer(NamedTuple):
    """What a runtime gave for a model: its outputs by name for each run, or its error.

    :param measured: what the worker's ``measure`` returns; empty where nothing was to be timed, or an error.
    """

    outputs: List[Arrays]
    error: str
    measured: Dict[str, Any]


def run_model(
    runtime: Runtime,
    model: Path,
    feeds: Sequence[Mapping[str, Any]],
    tick: Callable[[Optional[str]], None],
    threads: int = 0,
    shape: Sequence[int] = (),
    timing: Optional[Mapping[str, Any]] = None,
    reference: Sequence[Mapping[str, Any]] = (),
    inherit: Sequence[int] = (),
) -> Answer:
    """Run a model on inputs, arrays by name for each run.

    :param threads: how many it may use, 0 for the runtime's choice.
    :param shape: of the inputs, if OpenVINO is to give them another than the model's.
    :param timing: how it is timed, for the worker's ``measure``.
    :param reference: outputs that it must have before it is timed.
    :param inherit: file descriptors that ``timing`` names.
    :raises KitError: the process ended before it answered.
    """
    import numpy

    doing = f"running {model.name} in {runtime.label}"
    with tempfile.TemporaryDirectory(prefix="runtime-") as name:
        scratch = Path(name)
        files = {key: str(scratch / file) for key, file in _FILES.items()}
        request = {
            "model": str(model),
            "runtime": runtime.module,
            "threads": threads,
            "memory": MAX_BYTES,
            "shape": list(shape),
            "timing": {**timing, "reference": files["reference"] if reference else ""} if timing else {},
        }
        (scratch / "request.json").write_text(json.dumps({**request, **files}), encoding="utf-8")
        numpy.savez(files["feeds"], **_flatten(feeds))
        numpy.savez(files["reference"], **_flatten(reference))
        child.run_child(
            [str(runtime.environment.python), "-I", str(WORKER), str(scratch / "request.json")],
            env=machine.inherit_variables(os.environ),
            cwd=scratch,
            log=scratch / "log",
            what=doing,
            tick=lambda _: tick(doing),
            inherit=inherit,
        )
        result = json.loads((scratch / _FILES["result"]).read_text(encoding="utf-8"))
        with numpy.load(files["outputs"]) as found:
            outputs: List[Arrays] = [{} for _ in feeds]
            for key in found.files:
                number, _, output = key.partition(":")
                outputs[int(number)][output] = found[key]
    return Answer(outputs, result.pop("error"), result)


_FILES = {
    "feeds": "feeds.npz",
    "reference": "reference.npz",
    "outputs": "outputs.npz",
    "result": "result.json",
}


def _flatten(feeds: Sequence[Mapping[str, Any]]) -> Arrays:
    return {f"{number}:{name}": values for number, feed in enumerate(feeds) for name, values in feed.items()}


def require_answer(answer: Answer, runtime: Runtime, model: Path) -> List[Arrays]:
    """Return an answer's outputs.

    :raises KitError: the runtime did not take the model.
    """
    if answer.error:
        raise KitError(
            f"{runtime.label} does not run the model: {answer.error[:400]}",
            where=paths.show_path(model),
            hint="Make the tree again, or copy it again from where it came.",
        )
    return answer.outputs
