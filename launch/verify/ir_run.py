"""An IR and its ONNX file run on the same inputs: whether outputs agree, and what they tell of the model."""

from typing import Any, Dict, List, Optional, Tuple

from ..core import paths, status
from ..core.errors import KitError
from ..model.spec import INPUTS, Spec
from .checks import Check, make_check
from .runtime import Network, is_constant, read_constant

AS_RUN_TOLERANCE = 0.25
"""By how much the outputs of ONNX file and IR may differ in 8 bits, in standard deviations of the output.

Measured where the runtime computes the two in other ways: 0.08 to 0.12; unrelated outputs are 1.4 apart.
"""

WITHOUT_ROUNDING_TOLERANCE = 0.005
"""The same with :data:`launch.verify.runtime.NO_ROUNDING_LEVELS`.  Measured: at most 0.0006.

Outputs that are as near with rounding need no run without it: no rounding has fallen otherwise.
"""

RANGE_TOLERANCE = 1e-5
"""By how much an end of a range may differ, in widths of the range: Model Optimizer 2021.4 computes some."""

SATURATED = 0.05
"""Share of values beyond a range from which on it counts as saturated; measured on the five: up to 0.007."""

Facts = Dict[str, Any]


def make_feeds(spec: Spec) -> List[Dict[str, Any]]:
    """Return the fixed inputs: int64 arrays of 1 × sequence length by the input's name."""
    import numpy

    drawn = []
    # numpy's legacy generator: its numbers are the same in every release and on every machine.
    generator = numpy.random.RandomState(0)
    length = spec.sequence_length
    for padding in (0, 84 * length // 384):
        tokens = generator.randint(0, spec.vocab_size, (1, length)).astype("int64")
        mask, types = numpy.ones((1, length), "int64"), numpy.zeros((1, length), "int64")
        mask[0, length - padding :] = 0
        types[0, length // 4 :] = 1
        drawn.append(dict(zip(INPUTS, (tokens * mask, mask, types))))
    return drawn


def run_as_is(network: Network, spec: Spec) -> List[Facts]:
    """Run a model, in 8 bits, on each of :func:`make_feeds`; errors as :meth:`.Network.run`."""
    status.report_step(f"running {network.path.name}")
    return network.run(make_feeds(spec))


def run_without_rounding(network: Network, spec: Spec) -> List[Facts]:
    """Run a model on the last of the feeds with quantizers that do not round, and leave it with them."""
    status.report_step(f"running {network.path.name} without rounding")
    network.disable_rounding()
    return network.run(make_feeds(spec)[-1:])


def measure_beyond(network: Network, spec: Spec) -> Dict[str, float]:
    """Run a model on the last of the feeds; return the share of values beyond a range, by quantizer."""
    import numpy

    status.report_step(f"measuring the ranges of {network.path.name}")
    quantizers = {
        network.tensor_name(one): [one.input_value(index) for index in range(3)]
        for one in network.quantizers()
    }
    for name, (_, *ends) in quantizers.items():
        if not all(map(is_constant, ends)):
            raise KitError(
                f"The range of quantizer {name} is not constant.", where=paths.show_path(network.path)
            )
    # The values themselves: for the runtime to count them, each takes two operations more to compile.
    (outputs,) = network.run(make_feeds(spec)[-1:], {name: value for name, (value, *_) in quantizers.items()})
    shares = {}
    for name, (_, *ends) in quantizers.items():
        low, high = map(read_constant, ends)
        margin = (high - low) * RANGE_TOLERANCE
        inside = outputs[name] >= low - margin
        inside &= outputs[name] <= high + margin
        shares[name] = 1 - numpy.count_nonzero(inside) / max(1, inside.size)
    return shares


def check_agreement(as_run: float, exact: Optional[float]) -> Tuple[Facts, Check]:
    """Return ``outputs`` of a provenance's verification, and whether all are within their tolerances.

    :param as_run: :func:`measure_difference` of ONNX file and IR in 8 bits.
    :param exact: without rounding; None where the first is within that tolerance, too.
    """
    parts = [("as_run", "in 8 bits", as_run, AS_RUN_TOLERANCE)]
    if exact is not None:
        parts.append(("without_rounding", "without rounding", exact, WITHOUT_ROUNDING_TOLERANCE))
    outputs = {name: {"difference": apart, "tolerance": most} for name, _, apart, most in parts}
    text = ", ".join(
        f"{how} {apart:.2g} of a standard deviation apart (at most {most})" for _, how, apart, most in parts
    )
    return outputs, Check("outputs: agreement", all(apart <= most for *_, apart, most in parts), text)


def check_finite(onnx: List[Facts], ir: List[Facts], spec: Spec) -> Check:
    """Check that all outputs are there and all their values finite."""
    import numpy

    faults = []
    for file, runs in (("ONNX file", onnx), ("IR", ir)):
        for run in runs:
            if sorted(run) != sorted(spec.outputs):
                faults.append(f"the {file} has outputs {', '.join(sorted(run))}")
            others = {name: int((~numpy.isfinite(values)).sum()) for name, values in run.items()}
            faults += [
                f"output {name} of the {file} has {count:,} others" for name, count in others.items() if count
            ]
    count = sum(values.size for values in ir[-1].values())
    return make_check("outputs: finite", faults, f"{len(onnx) + len(ir)} runs of {count:,} values")


def measure_difference(one: List[Facts], other: List[Facts]) -> float:
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


def find_constant(runs: List[Facts]) -> List[str]:
    """Return the outputs that are the same at every token, or for every input."""
    found = []
    for name, values in runs[0].items():
        if float(values.max() - values.min()) <= 1e-6 * max(1.0, float(abs(values).max())):
            found.append(f"output {name} is {float(values.flat[0]):.6g} at every token")
        elif all((run[name] == values).all() for run in runs[1:]):
            found.append(f"output {name} is the same for other inputs")
    return found
