"""The weights and activation ranges of an IR compared with the ONNX file's."""

import hashlib
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Set, Tuple

from ..core import child
from ..model.onnx_model import AT_ONCE
from ..model.variants import BITS, Spec
from .checks import Check, make_check
from .runtime import Network, Quantized, find_consumer, is_constant, read_constant

RANGE_TOLERANCE = 1e-5
"""Largest difference of a range's end, in widths of the range: Model Optimizer 2021.4 computes some ends."""

SATURATED = 0.05
"""Share of values beyond a range from which it counts as saturated; measured on the five: up to 0.007."""

VANISHED = 0.25
"""Largest share of nonzero weights that may be zero in int8; on the five: at most 0.07, in embeddings.

Of trained weights more may, where one is far larger than the others: then the range ends with it."""

WIDE = 2.1
"""How often the largest weight a range's end may be: NNCF uses half a range, lest sums overflow 16 bits."""

STEP_TOLERANCE = 0.01
"""Steps of 8 bits by which an int8 weight may be beyond the half step of rounding."""


class Stored:
    """A matrix of an IR: an int8 constant that Convert, perhaps Subtract, and Multiply dequantize."""

    def __init__(self, network: Network, operation: Any) -> None:
        self.name = network.tensor_name(operation)
        self.friendly_name = str(operation.get_friendly_name())
        self.values = read_constant(operation.output(0))
        self.zero: Any = None
        self.scale: Any = None  # and stays so where the constant goes another way
        self.dequantized: Any = None  # the operation that gives the values in 32 bits
        self.transposed = False  # on its way into its product
        user = find_consumer(operation)
        if user is None or user.get_type_name() != "Convert":
            return
        user = find_consumer(user)
        if user is not None and user.get_type_name() == "Subtract" and is_constant(user.input_value(1)):
            self.zero = read_constant(user.input_value(1)).copy()
            user = find_consumer(user)
        if user is None or user.get_type_name() != "Multiply" or not is_constant(user.input_value(1)):
            return
        self.scale = read_constant(user.input_value(1)).copy()
        self.dequantized = user
        after = find_consumer(user)
        kind = "" if after is None else after.get_type_name()
        self.transposed = kind == "Transpose" or bool(
            kind == "MatMul" and after.get_attributes().get("transpose_b")
        )


class Weights:
    """The int8 weights of an IR compared with the ONNX file's; ``parameters`` is by constant."""

    def __init__(
        self, onnx: Mapping[str, Quantized], ir: List[Stored], parameters: Mapping[str, str]
    ) -> None:
        self.count = len(ir)
        self.zeros: Dict[str, int] = {}
        self.lost: Dict[str, int] = {}
        self.beyond: Dict[str, int] = {}
        self.vanished: Dict[str, int] = {}
        self.faults: List[str] = []
        self.strangers: List[str] = []
        self.missing = set(parameters.values())
        pairs = []
        for matrix in ir:
            if matrix.name not in parameters or matrix.name not in onnx:
                self.strangers.append(matrix.friendly_name)
                continue
            self.missing.discard(parameters[matrix.name])
            pairs.append((parameters[matrix.name], matrix, onnx[matrix.name]))
        # numpy lets go of the interpreter while it computes.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compared = pool.map(lambda pair: _compare(*pair), pairs)
            for number, (parameter, zeros, lost, beyond, vanished, fault) in enumerate(compared, start=1):
                if number % 40 == 0:
                    child.report_step(f"compared {number} of {len(parameters)} weight matrices")
                if zeros is not None:
                    self.zeros[parameter] = zeros
                self.lost[parameter] = lost
                self.beyond[parameter], self.vanished[parameter] = beyond, vanished
                self.faults += [fault] if fault else []

    def check_count(self, spec: Spec) -> Check:
        """Check that each quantized matrix is one int8 constant."""
        faults = [f"{name} is not stored in int8" for name in sorted(self.missing)]
        faults += [f"int8 constant {name} is none of the ONNX file's matrices" for name in self.strangers]
        wanted = len(spec.matrices())
        if self.count != wanted:
            faults.insert(0, f"{self.count} int8 constants, not {wanted}")
        return make_check("IR: int8 weights", faults, f"{self.count} constants of {BITS} bits")

    def check_values(self) -> Check:
        """Check that the constants are the ONNX file's quantized weights."""
        text = "int8 weights equal the ONNX file's quantized weights"
        return make_check("IR: made of this ONNX file", self.faults, text)

    def find_misfits(self, matrices: Iterable[Mapping[str, Any]]) -> List[str]:
        """Return the weight ranges that are too narrow or too wide; ``matrices`` are the ONNX file's."""
        found = []
        for row in matrices:
            name, left = row["parameter"], math.prod(row["shape"]) - row["zeros"]
            beyond, gone = self.beyond.get(name, 0), self.vanished.get(name, 0)
            if beyond > SATURATED * left:
                found.append(f"{beyond / max(1, left):.0%} of the weights of {name} are beyond their range")
            if gone:
                found.append(f"{gone / left:.0%} of the weights of {name} vanish in its range")
        return found

    def check_zeros(self, zeros: Mapping[str, int]) -> Check:
        """Check that what is zero in the ONNX file is zero; small weights become zero, too."""
        known = [(name, self.zeros[name], count) for name, count in zeros.items() if name in self.zeros]
        faults = [
            f"{name}: {found:,} zeros, {self.lost[name]:,} of {count:,} in the ONNX file are none"
            for name, found, count in known
            if self.lost[name]
        ]
        total, before = sum(found for _, found, _ in known), sum(count for *_, count in known)
        text = f"{total:,} in {len(known)} matrices, with all {before:,} of the ONNX file"
        return make_check("IR: zeros", faults, text)


def find_operation(matrix: Stored, quantized: Quantized) -> Any:
    """Return the operation that gives a matrix in the ONNX file's form; None if the shape differs."""
    from openvino.runtime import opset8

    turned = matrix.transposed != quantized.transposed
    shape = matrix.values.shape[::-1] if turned else matrix.values.shape
    if matrix.scale is None or shape != quantized.values.shape:
        return None
    return opset8.transpose(matrix.dequantized, [1, 0]) if turned else matrix.dequantized


def _compare(
    parameter: str, matrix: Stored, quantized: Quantized
) -> Tuple[str, Optional[int], int, int, int, Optional[str]]:
    """Return parameter, zeros in the IR or None, the ONNX file's that are none there, how many weights are
    beyond the range, how many are zero because it is too wide, and the fault.

    The IR's values must be the ONNX file's, clipped to the input range and moved to the output range as its
    quantizer does (FakeQuantize of OpenVINO's opset1), up to rounding.
    """
    import numpy

    if matrix.scale is None:
        return parameter, None, 0, 0, 0, f"{parameter} is not dequantized by a scale"
    # As the ONNX file has them.
    stored, zero, scale = (
        part if part is None or matrix.transposed == quantized.transposed else part.T
        for part in (matrix.values, matrix.zero, matrix.scale)
    )
    if stored.shape != quantized.values.shape:
        shapes = f"{stored.shape} in the IR and {quantized.values.shape} in the ONNX file"
        return parameter, None, 0, 0, 0, f"{parameter} is {shapes}"
    there = before = lost = beyond = differ = 0
    low, high, out_low, out_high = quantized.ends
    with numpy.errstate(all="ignore"):
        gain = (out_high - out_low) / (high - low)
        offset = out_low - low * gain
        moved = bool((gain != 1).any() or (offset != 0).any())
        allowed = abs(out_high - out_low) / (quantized.levels - 1) * (0.5 + STEP_TOLERANCE)
        margin = abs(allowed / gain)
        for rows in _blocks(quantized.values.shape):
            values = quantized.values[rows]
            numbers = stored[rows].astype(numpy.float32)
            if zero is not None:
                numbers -= _rows(zero, rows)
            numbers *= _rows(scale, rows)
            other, zeros = numbers != 0, values == 0
            there += int(numpy.count_nonzero(other))
            before += int(numpy.count_nonzero(zeros))
            other &= zeros
            lost += int(numpy.count_nonzero(other))

            def apart(wanted: Any, numbers: Any = numbers, rows: slice = rows) -> int:
                if moved:
                    wanted = wanted * _rows(gain, rows) + _rows(offset, rows)
                distance = numpy.subtract(numbers, wanted)
                # Two comparisons take half the time of numpy.abs.  What is no number is near to none.
                near = distance <= _rows(allowed, rows)
                near &= distance >= _rows(-allowed, rows)
                return int(near.size - numpy.count_nonzero(near))

            # Where all are near to the values as they are, clipping changes nothing.
            if apart(values):
                inside = values >= _rows(low - margin, rows)
                inside &= values <= _rows(high + margin, rows)
                beyond += int(inside.size - numpy.count_nonzero(inside))
                differ += apart(numpy.clip(values, _rows(low, rows), _rows(high, rows)))
    fault = f"{parameter}: {differ:,} of {stored.size:,} values differ" if differ else None
    vanished = stored.size - there - before
    if vanished <= VANISHED * (stored.size - before) or not _is_wide(quantized.values, high):
        vanished = 0
    return parameter, int(stored.size - there), lost, beyond, int(vanished), fault


def _is_wide(values: Any, high: Any) -> bool:
    """Return whether a range, of all rows or of any, ends far beyond the largest weight that it is for."""
    largest = abs(values).max(axis=1, keepdims=True)
    largest = largest.max(keepdims=True) if high.size == 1 else largest
    if high.size != largest.size:
        return True
    return bool((high.reshape(largest.shape) > WIDE * largest)[largest > 0].any())


def _blocks(shape: Tuple[int, ...]) -> Iterator[slice]:
    count = max(1, AT_ONCE // max(1, shape[-1]))
    for start in range(0, shape[0], count):
        yield slice(start, start + count)


def _rows(values: Any, rows: slice) -> Any:
    """Return ``values[rows]``; all of ``values`` if they are the same for each row."""
    return values[rows] if values.ndim > 1 and values.shape[0] > 1 else values


def read_vectors(ir: Network) -> Set[str]:
    """Return the digests of an IR's 32-bit constants of more than one value."""
    constants = (read_constant(operation.output(0)) for operation in ir.constants("f32"))
    return {digest_vector(values) for values in constants if values.size > 1}


def digest_vector(values: Any) -> str:
    """Return the sha256 of an array's bytes."""
    return hashlib.sha256(values.tobytes()).hexdigest()


def check_plain(onnx: Mapping[str, str], ir: Set[str], int8: int) -> Check:
    """Check by digest that an IR has the ONNX file's 32-bit matrices, and none of 8 bits."""
    faults = [f"{name} is not in the IR" for name, digest in onnx.items() if digest not in ir]
    faults += [f"{int8} int8 constants, not 0"] if int8 else []
    return make_check("IR: 32-bit weights", faults, f"{len(onnx)} matrices of the ONNX file, bit for bit")


def check_vectors(onnx: Mapping[str, str], neutral: Iterable[str], ir: Set[str]) -> Check:
    """Check by digest that an IR has the ONNX file's biases and norms; ``neutral`` ones may be missing."""
    faults = [f"{name} is not in the IR" for name in sorted(set(onnx) - set(neutral)) if onnx[name] not in ir]
    return make_check("IR: biases and norms", faults, f"{len(onnx)} vectors of the ONNX file, bit for bit")


Ranges = Dict[str, Tuple[int, List[Any]]]
"""Levels and the four ends of the ranges, by activation quantizer."""


def read_ranges(network: Network) -> Ranges:
    """Return the constant ranges of a model's activation quantizers."""
    found: Ranges = {}
    for quantizer in network.quantizers():
        ends = [quantizer.input_value(index) for index in range(1, 5)]
        if all(map(is_constant, ends)):
            levels = quantizer.get_attributes()["levels"]
            found[network.tensor_name(quantizer)] = (levels, [read_constant(end).copy() for end in ends])
    return found


def find_collapsed(found: Ranges) -> List[str]:
    """Return the ranges that have no positive width or are not finite."""
    import numpy

    return [
        f"quantizer {name} has the range {_bounds(ends)}"
        for name, (_, ends) in found.items()
        if not all(numpy.isfinite(end).all() for end in ends) or not (ends[1] - ends[0] > 0).all()
    ]


def check_ranges(onnx: Ranges, ir: Ranges) -> Check:
    """Check that an IR's activation quantizers have the ONNX file's levels and ranges."""
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
    return make_check("IR: activation ranges", faults, f"those of the ONNX file, in {len(onnx)} quantizers")


def _bounds(ends: List[Any]) -> str:
    return f"{float(ends[0].min()):.6g} to {float(ends[1].max()):.6g}"
