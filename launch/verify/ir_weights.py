"""The int8 weights and the activation ranges of an IR beside those of the ONNX file that it was made from."""

import hashlib
import math
from typing import Any, Dict, Iterable, List, Mapping, Set, Tuple

from .. import status
from ..spec import BITS, Spec
from .checks import Check, from_faults
from .ir_run import SATURATED
from .runtime import Network, constant, consumer, is_constant

RANGE_TOLERANCE = 1e-5
"""By how much an end of a range may differ between ONNX file and IR, in widths of the range.

Model Optimizer 2022.1 keeps them bit for bit; 2021.4 computes some anew.
"""

VANISHED = 0.25
"""Share of a matrix's nonzero weights that are zero in int8 from which on its range counts as too wide.

Measured on the five: at most 0.07, in the embeddings, whose weights are normally distributed.
"""

STEP_TOLERANCE = 0.01
"""How far, in steps of 8 bits, an int8 weight may be from half a step beside the ONNX file's weight.

Rounding moves a weight by half a step at most; the rest is the arithmetic of 32 bits.
"""


class Weights:
    """The int8 weights of an IR beside the quantized weights of the ONNX file."""

    def __init__(self, network: Network, ir: Network, parameters: Mapping[str, str]) -> None:
        quantizers = {
            network.tensor_name(quantizer.input_value(0).get_node()): quantizer
            for quantizer in network.quantizers()
            if is_constant(quantizer.input_value(0))
        }
        self.count = 0
        self.zeros: Dict[str, int] = {}
        self.beyond: Dict[str, float] = {}
        self.faults: List[str] = []
        self.strangers: List[str] = []
        self.missing = set(parameters.values())
        for number, operation in enumerate(ir.int8_constants(), start=1):
            if number % 40 == 0:
                status.step(f"compared {number} of {len(parameters)} weight matrices")
            self.count += 1
            name = ir.tensor_name(operation)
            if name not in parameters or name not in quantizers:
                self.strangers.append(str(operation.get_friendly_name()))
                continue
            parameter = parameters[name]
            self.missing.discard(parameter)
            self._compare(parameter, operation, quantizers[name])

    def _compare(self, parameter: str, operation: Any, quantizer: Any) -> None:
        import numpy

        values, scaled, transposed = _dequantized(operation)
        if not scaled:
            self.faults.append(f"{parameter} is not dequantized by a scale")
            return
        self.zeros[parameter] = int(values.size - numpy.count_nonzero(values))
        self.beyond[parameter] = _beyond(quantizer)
        wanted, low, size = steps(quantizer)
        if transposed != _is_transposed(quantizer):
            wanted, low, size = wanted.T, low.T, size.T
        if values.shape != wanted.shape:
            self.faults.append(f"{parameter} is {values.shape} in the IR and {wanted.shape} in the ONNX file")
            return
        with numpy.errstate(all="ignore"):
            values -= low
            values /= size
            values -= wanted
            numpy.abs(values, out=values)
        # What is no number is at no step.
        count = values.size - int(numpy.count_nonzero(values <= 0.5 + STEP_TOLERANCE))
        if count:
            self.faults.append(f"{parameter}: {count:,} of {values.size:,} values differ")

    def check_count(self, spec: Spec) -> Check:
        """Check that each quantized matrix is one int8 constant."""
        faults = [f"{name} is not stored in int8" for name in sorted(self.missing)]
        faults += [f"int8 constant {name} is none of the ONNX file's matrices" for name in self.strangers]
        wanted = len(spec.matrices())
        if self.count != wanted:
            faults.insert(0, f"{self.count} int8 constants, not {wanted}")
        return from_faults("IR: int8 weights", faults, f"{self.count} constants of {BITS} bits")

    def check_values(self) -> Check:
        """Check that the constants are the ONNX file's quantized weights."""
        return from_faults(
            "IR: made of this ONNX file", self.faults, "int8 weights equal the ONNX file's quantized weights"
        )

    def signs(self, matrices: Iterable[Mapping[str, Any]]) -> List[str]:
        """Return which weight ranges are too narrow or too wide for their weights.

        :param matrices: ``matrices`` of a provenance's verification.
        """
        found = [
            f"{share:.0%} of the weights of {name} are beyond their range"
            for name, share in self.beyond.items()
            if share > SATURATED
        ]
        for row in matrices:
            left = math.prod(row["shape"]) - row["zeros"]
            gone = self.zeros.get(row["parameter"], 0) - row["zeros"]
            if gone > VANISHED * left:
                found.append(f"{gone / left:.0%} of the weights of {row['parameter']} vanish in its range")
        return found

    def check_zeros(self, zeros: Mapping[str, int]) -> Check:
        """Check that no matrix has fewer zeros than in the ONNX file; rounding may add some."""
        faults = [
            f"{name}: {self.zeros[name]:,} zeros, {count:,} in the ONNX file"
            for name, count in zeros.items()
            if name in self.zeros and self.zeros[name] < count
        ]
        known = [name for name in zeros if name in self.zeros]
        total, before = sum(self.zeros[name] for name in known), sum(zeros[name] for name in known)
        return from_faults(
            "IR: zeros",
            faults,
            f"{total:,} in {len(known)} matrices, {before:,} in the ONNX file; in none fewer",
        )


def steps(quantizer: Any) -> Tuple[Any, Any, Any]:
    """Return where a FakeQuantize of a constant puts each value, before it rounds, and the way back.

    The formula is that of the operator's specification (OpenVINO's opset1): values are clipped to the input
    range, which is divided into ``levels`` − 1 steps; rounded, a step stands for a value of the output range.

    :return: steps from the low end, float32 of the matrix's shape; the value at the low end; one step's size.
    """
    import numpy

    values, low, high, out_low, out_high = (constant(quantizer.input_value(index)) for index in range(5))
    count = quantizer.get_attributes()["levels"] - 1
    with numpy.errstate(all="ignore"):
        position = numpy.clip(values, low, high)
        position -= low
        position /= high - low
        position *= count
        return position, out_low, (out_high - out_low) / count


def _beyond(quantizer: Any) -> float:
    """Return the share of a matrix's nonzero weights that are beyond its range."""
    import numpy

    values, low, high = (constant(quantizer.input_value(index)) for index in range(3))
    with numpy.errstate(all="ignore"):
        margin = (high - low) * RANGE_TOLERANCE
        outside = int(numpy.count_nonzero(~((values >= low - margin) & (values <= high + margin))))
    return outside / max(1, int(numpy.count_nonzero(values)))


def vectors(ir: Network) -> Set[str]:
    """Return the 32-bit constants of more than one value in an IR, by :func:`vector_key`."""
    constants = (operation.get_data() for operation in ir.float_constants())
    return {vector_key(values) for values in constants if values.size > 1}


def vector_key(values: Any) -> str:
    """Return what tells one array of 32-bit numbers from another: a digest of its bytes."""
    return hashlib.sha256(values.tobytes()).hexdigest()


def check_vectors(onnx: Mapping[str, str], neutral: Iterable[str], ir: Set[str]) -> Check:
    """Check that the ONNX file's biases and norms are in the IR, bit for bit.

    :param onnx: the ONNX file's vectors by parameter, as :func:`vector_key`.
    :param neutral: those that Model Optimizer may leave out: factors of one, terms of zero.
    """
    faults = [f"{name} is not in the IR" for name in sorted(set(onnx) - set(neutral)) if onnx[name] not in ir]
    return from_faults("IR: biases and norms", faults, f"{len(onnx)} vectors of the ONNX file, bit for bit")


def store_in_int8(network: Network) -> None:
    """Put int8 constants in the place of quantized 32-bit ones, as an IR has them.

    For an ONNX file of a gigabyte: the runtime keeps what it was given beside what it makes of it.
    """
    import numpy
    from openvino.runtime import opset8

    for quantizer in list(network.quantizers()):
        if not is_constant(quantizer.input_value(0)):
            continue
        position, low, size = steps(quantizer)
        # numpy's way to round is the operator's: halves go to the even step.
        middle = 2 ** (BITS - 1)
        stored = opset8.constant((numpy.rint(position) - middle).astype(numpy.int8))
        values = opset8.multiply(opset8.convert(stored, "f32"), opset8.constant(size))
        offset = low + middle * size
        if (numpy.abs(offset) > STEP_TOLERANCE * size).any():
            values = opset8.add(values, opset8.constant(offset))
        for user in list(quantizer.output(0).get_target_inputs()):
            user.get_node().set_argument(user.get_index(), values.output(0))


def _dequantized(operation: Any) -> Tuple[Any, bool, bool]:
    """Return the values of an int8 constant, whether a scale was found, and whether they are transposed.

    None is found where the constant goes another way than Convert, perhaps Subtract, Multiply.
    """
    import numpy

    values = numpy.array(operation.get_data(), dtype=numpy.float32)
    user = consumer(operation)
    if user is None or user.get_type_name() != "Convert":
        return values, False, False
    user = consumer(user)
    if user is not None and user.get_type_name() == "Subtract" and is_constant(user.input_value(1)):
        values -= constant(user.input_value(1))
        user = consumer(user)
    if user is None or user.get_type_name() != "Multiply" or not is_constant(user.input_value(1)):
        return values, False, False
    values *= constant(user.input_value(1))
    return values, True, _is_transposed(user)


def _is_transposed(operation: Any) -> bool:
    """Return whether a matrix is transposed on its way from ``operation`` into its product."""
    user = consumer(operation)
    if user is not None and user.get_type_name() == "Transpose":
        return True
    is_product = user is not None and user.get_type_name() == "MatMul"
    return bool(is_product and user.get_attributes().get("transpose_b"))


Ranges = Dict[str, Tuple[int, List[Any]]]
"""Levels and the four ends of the ranges, by quantizer."""


def ranges(network: Network) -> Ranges:
    """Return the ranges of the activation quantizers of a model."""
    found: Ranges = {}
    for quantizer in network.quantizers():
        ends = [quantizer.input_value(index) for index in range(1, 5)]
        if not is_constant(quantizer.input_value(0)) and all(map(is_constant, ends)):
            levels = quantizer.get_attributes()["levels"]
            found[network.tensor_name(quantizer)] = (levels, [constant(end).copy() for end in ends])
    return found


def collapsed(found: Ranges) -> List[str]:
    """Return which ranges are none: without width, upside down or not finite."""
    import numpy

    return [
        f"quantizer {name} has the range {_bounds(ends)}"
        for name, (_, ends) in found.items()
        if not all(numpy.isfinite(end).all() for end in ends) or not (ends[1] - ends[0] > 0).all()
    ]


def check_ranges(onnx: Ranges, ir: Ranges) -> Check:
    """Check that an IR's quantizers of activations have levels and ranges of the ONNX file."""
    import numpy

    faults = [f"quantizer {name} is not in the IR" for name in sorted(set(onnx) - set(ir))]
    faults += [f"quantizer {name} is in the IR only" for name in sorted(set(ir) - set(onnx))]
    for name, (levels, ends) in onnx.items():
        other_levels, others = ir.get(name, (levels, ends))
        if levels != other_levels:
            faults.append(f"quantizer {name} has {other_levels} levels, {levels} in the ONNX file")
        # Of one element each, in shapes of one kind or another.
        apart = [
            abs(one.ravel() - other.ravel()).max(initial=0) if one.size == other.size else numpy.inf
            for one, other in zip(ends, others)
        ]
        width = float(numpy.abs(ends[1] - ends[0]).max(initial=0))
        if not max(apart) <= RANGE_TOLERANCE * width:
            faults.append(f"quantizer {name} has the range {_bounds(others)}, not {_bounds(ends)}")
    return from_faults("IR: activation ranges", faults, f"those of the ONNX file, in {len(onnx)} quantizers")


def _bounds(ends: List[Any]) -> str:
    return f"{float(ends[0].min()):.6g} to {float(ends[1].max()):.6g}"
