"""An IR and its ONNX file run on the same inputs: whether outputs agree, and what they tell of the model."""

from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Tuple

from .. import status
from ..spec import INPUTS, Spec
from .checks import Check, from_faults
from .runtime import Network, is_constant

AS_RUN_TOLERANCE = 0.25
"""By how much the outputs of ONNX file and IR may differ as they run, in standard deviations of the output.

Both run in 8 bits, fused in other ways; each rounding that falls otherwise moves all that follows.  Measured
on the five at full size: 0.08 to 0.12; outputs that have nothing to do with each other are 1.4 apart.
"""

WITHOUT_ROUNDING_TOLERANCE = 0.005
"""The same with :data:`launch.verify.runtime.NO_ROUNDING_LEVELS`.  Measured: at most 0.0006."""

SATURATED = 0.05
"""Share of values beyond a quantizer's range from which on the range counts as saturated.

Measured on the five: at most 0.007, on inputs that calibration has not seen.
"""

_SEED = 0
_PADDING = (0, 84)
"""Tokens of padding at the end of each feed of 384 tokens."""

Facts = Dict[str, Any]


def feeds(spec: Spec) -> List[Dict[str, Any]]:
    """Return the fixed inputs: int64 arrays of 1 × sequence length by the input's name.

    Tokens are drawn by numpy's legacy generator, whose numbers are the same in every release and on every
    machine.
    """
    import numpy

    drawn = []
    generator = numpy.random.RandomState(_SEED)
    length = spec.sequence_length
    for padding in _PADDING:
        tokens = generator.randint(0, spec.vocab_size, (1, length)).astype("int64")
        mask, types = numpy.ones((1, length), "int64"), numpy.zeros((1, length), "int64")
        mask[0, length - padding * length // 384 :] = 0
        types[0, length // 4 :] = 1
        drawn.append(dict(zip(INPUTS, (tokens * mask, mask, types))))
    return drawn


@dataclass(frozen=True)
class Runs:
    """What a model gave on the fixed inputs, by output.

    :param as_run: in 8 bits, for each of :func:`feeds`.
    :param exact: without rounding, for the last of them.
    """

    as_run: List[Facts]
    exact: Facts


def as_it_is(network: Network, spec: Spec) -> List[Facts]:
    """Run a model on each of :func:`feeds`.

    :raises KitError: the runtime does not run it.
    """
    status.step(f"running {network.path.name}")
    return network.run(feeds(spec))


def without_rounding(network: Network, spec: Spec, *, shares: bool = False) -> Tuple[Facts, Dict[str, float]]:
    """Run a model on the last of :func:`feeds` with quantizers that do not round, and leave it with them.

    :param shares: whether to measure the share of values beyond a range, by quantizer.
    :raises KitError: the runtime does not run it.
    """
    status.step(f"running {network.path.name} without rounding")
    extra = dict(_shares_beyond(network)) if shares else {}
    network.disable_rounding()
    (outputs,) = network.run(feeds(spec)[-1:], extra)
    return outputs, {name: float(outputs.pop(name)) for name in extra}


def agreement(onnx: Runs, ir: Runs) -> Tuple[Facts, Check]:
    """Return ``outputs`` of a provenance's verification, and whether both are within their tolerances."""
    outputs = {
        "as_run": {"difference": _difference(onnx.as_run, ir.as_run), "tolerance": AS_RUN_TOLERANCE},
        "without_rounding": {
            "difference": _difference([onnx.exact], [ir.exact]),
            "tolerance": WITHOUT_ROUNDING_TOLERANCE,
        },
    }
    text = ", ".join(
        f"{words} {values['difference']:.2g} of a standard deviation apart (at most {values['tolerance']})"
        for words, values in (
            ("in 8 bits", outputs["as_run"]),
            ("without rounding", outputs["without_rounding"]),
        )
    )
    agree = all(values["difference"] <= values["tolerance"] for values in outputs.values())
    return outputs, Check("outputs: agreement", agree, text)


def signs(ir: Runs, beyond: Dict[str, float]) -> Facts:
    """Return what the runs of an IR tell of the model: ``saturated`` and ``constant``.

    :param beyond: share of values beyond a range, by quantizer.
    """
    return {
        "saturated": {name: share for name, share in beyond.items() if not share < SATURATED},
        "constant": _constant_outputs(ir.as_run),
    }


def check_finite(onnx: Runs, ir: Runs, spec: Spec) -> Check:
    """Check that all outputs are there and all their values finite."""
    import numpy

    faults = []
    for file, runs in (("ONNX file", onnx), ("IR", ir)):
        for run in (*runs.as_run, runs.exact):
            if sorted(run) != sorted(spec.outputs):
                faults.append(f"the {file} has outputs {', '.join(sorted(run))}")
            faults += [
                f"output {name} of the {file} has {int((~numpy.isfinite(values)).sum()):,} others"
                for name, values in run.items()
                if not numpy.isfinite(values).all()
            ]
    count = sum(values.size for values in ir.exact.values())
    return from_faults("outputs: finite", faults, f"{2 * (len(ir.as_run) + 1)} runs of {count:,} values")


def _shares_beyond(network: Network) -> Iterator[Tuple[str, Any]]:
    """Yield for each activation quantizer an operation that gives the share of values beyond its range."""
    from openvino.runtime import opset8

    for quantizer in list(network.quantizers()):
        values, low, high = (quantizer.input_value(index) for index in range(3))
        if is_constant(values):
            continue
        beyond = opset8.convert(
            opset8.logical_or(opset8.less(values, low), opset8.greater(values, high)), "f32"
        )
        axes = list(range(len(values.get_shape())))
        yield network.tensor_name(quantizer), opset8.reduce_mean(beyond, axes, False)


def _difference(one: List[Facts], other: List[Facts]) -> float:
    """Return the largest difference between the outputs of two models.

    The root mean square of the difference over the standard deviation of ``one``'s output; 1e9 where that
    says nothing: other outputs, values that are not finite, an output without deviation that differs.
    """
    import numpy

    largest = 0.0
    for left, right in zip(one, other):
        for name, values in left.items():
            if name not in right or right[name].shape != values.shape:
                return 1e9
            apart = float(numpy.sqrt(numpy.mean(numpy.square(right[name] - values, dtype="float64"))))
            scale = float(values.std(dtype="float64"))
            ratio = apart / scale if scale else (1e9 if apart else 0.0)
            largest = max(largest, ratio if numpy.isfinite(ratio) else 1e9)
    return largest


def _constant_outputs(runs: List[Facts]) -> List[str]:
    """Return the outputs that are the same at every token, or for every input."""
    found = []
    for name, values in runs[0].items():
        if float(values.max() - values.min()) <= 1e-6 * max(1.0, float(abs(values).max())):
            found.append(f"output {name} is {float(values.flat[0]):.6g} at every token")
        elif all((run[name] == values).all() for run in runs[1:]):
            found.append(f"output {name} is the same for other inputs")
    return found
