"""Checks of a QDQ file against the ONNX file that it was made from, from the bytes of both."""

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ..core import child
from ..core.errors import KitError
from ..model.onnx_model import Model, name_type
from ..verify.checks import Check, make_check, shorten_error
from .qdq import FLOAT, LEVELS, OPSET, find_levels, pick_rows, slice_rows

SLACK = 1_500_000
"""Bytes that a file may have beside its int8 weights, and the biases and norms that it has from the tree."""

ROUNDING = 2.0**-21
"""By how much of its range a dequantized weight may differ from ``FakeQuantize``'s, both in 32 bits.

``FakeQuantize`` computes ``level / 255 * R + low`` with ``R = high - low``: it rounds R, quotient and product
by up to 2⁻²⁴ R each, the sum by half of that; ``integer * scale`` rounds twice, numbers of R / 2 at most.
Together that is 4.5 × 2⁻²⁴ R, and :data:`.WHOLE` adds 2.01.  This is 8 × 2⁻²⁴ R, a step's 8,000th part.
"""

RANGE_TOLERANCE = 1e-4
"""Steps by which an end of an activation's range may differ: its scale's rounding and :data:`.WHOLE`."""

Facts = Dict[str, Any]


class _Stored(NamedTuple):
    """A dequantized constant: integers, scale and zero point, and the numbers of the rows that are picked."""

    levels: Any
    scale: Any
    zero: Any
    axis: int
    picked: Optional[str]


def check_file(source: Model, path: Path) -> Tuple[List[Check], Facts]:
    """Return the checks of the QDQ file at ``path``, made from ``source``, and what was measured on it."""
    try:
        file = Model(path)
    except KitError as error:
        return [Check("readable", False, shorten_error(error.what))], {}
    opsets = {entry.domain or "ai.onnx": int(entry.version) for entry in file.proto.opset_import}
    child.report_step("comparing weights")
    weights = _Weights(source, file)
    size = path.stat().st_size
    facts = {
        "opset": opsets.get("ai.onnx", 0),
        "nodes": len(file.nodes),
        "operators": dict(sorted(Counter(node.op_type for node in file.nodes).items())),
        "bytes": size,
        "weights": weights.facts,
        "activations": len(source.activations),
    }
    vectors = sum({_digest(source, one): one.dims[0] * 4 for one in _vectors(source).values()}.values())
    least = weights.facts["elements"] + vectors
    too_large = [f"{size:,} bytes, more than {least + SLACK:,}"] if size > least + SLACK else []
    text = f"{size:,} bytes: int8 weights, biases and norms, and {size - least:,} more, of {SLACK:,}"
    checks = [
        Check("readable", True, f"{len(file.nodes):,} nodes"),
        _check_operators(file, opsets),
        make_check("inputs and outputs", _interface_faults(source, file), "those of the tree's ONNX file"),
        make_check("weights", weights.faults, weights.describe()),
        make_check("zeros", weights.lost, weights.describe_zeros()),
        make_check("ranges", _range_faults(source, file), f"uint8, in {len(source.activations)} quantizers"),
        make_check("biases and norms", _missing_vectors(source, file), "bit for bit"),
        make_check("size", too_large, text),
    ]
    child.report_step("onnx.checker")
    checks.append(_check_with_onnx(path))
    return checks, facts


def _check_with_onnx(path: Path) -> Check:
    """Check a file with ``onnx.checker``, shapes and types included."""
    import onnx

    try:
        onnx.checker.check_model(path.read_bytes(), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError) as error:
        return Check("onnx.checker", False, shorten_error(str(error)))
    return Check("onnx.checker", True, f"onnx {onnx.__version__}, with shapes and types")


def _check_operators(file: Model, opsets: Dict[str, int]) -> Check:
    from onnx import defs

    found = opsets.get("ai.onnx", 0)
    faults = [f"operators of {domain}" for domain in opsets if domain != "ai.onnx"]
    if found < OPSET:
        faults.append(f"opset {found}, not {OPSET} or later")
    for kind, domain in sorted({(node.op_type, node.domain) for node in file.nodes}):
        if domain not in ("", "ai.onnx") or not defs.has(kind):
            faults.append(f"{kind} is no operator of ONNX")
    return make_check("standard operators", faults, f"opset {found}")


def _interface_faults(source: Model, file: Model) -> Iterator[str]:
    for kind in ("input", "output"):
        wanted, found = (
            [_describe_value(value) for value in getattr(model.proto.graph, kind) if value.name not in inner]
            for model, inner in ((source, source.graph.initializers), (file, file.graph.initializers))
        )
        if found != wanted:
            yield f"{kind}s {', '.join(found)}, not {', '.join(wanted)}"


def _describe_value(value: Any) -> str:
    kind = value.type.tensor_type
    shape = " × ".join(str(dim.dim_value or dim.dim_param) for dim in kind.shape.dim)
    return f"{value.name} {name_type(kind.elem_type)} {shape}"


def _missing_vectors(source: Model, file: Model) -> Iterator[str]:
    """Yield the vectors of the source that are not in the file; a bias may have other dimensions."""
    there = {_digest(file, tensor) for _, tensor in file.constants if len(tensor.dims)}
    for name, tensor in _vectors(source).items():
        if _digest(source, tensor) not in there:
            yield f"{source.constant_label(name)} is not in the file"


def _vectors(source: Model) -> Dict[str, Any]:
    """Return the biases and norms by name."""
    quantized = {name for node in source.matrices.values() for name in node.input}
    return {
        name: tensor
        for name, tensor in source.initializers
        if name not in quantized and len(tensor.dims) == 1
    }


def _digest(model: Model, tensor: Any) -> Tuple[int, str]:
    return tensor.data_type, hashlib.sha256(model.content(tensor)).hexdigest()


def _range_faults(source: Model, file: Model) -> Iterator[str]:
    """Yield the activation quantizers that are not there, to uint8 and back, with the same range."""
    import numpy

    for quantizer in source.activations:
        label = source.node_label(quantizer)
        back = file.graph.producer.get(quantizer.output[0])
        there = None if back is None else file.graph.producer.get(back.input[0])
        kinds = [node.op_type for node in (there, back) if node is not None]
        if there is None or back is None or kinds != ["QuantizeLinear", "DequantizeLinear"]:
            yield f"{label} is not there"
            continue
        low, high = (source.array(source.tensors[name]).astype("f8").ravel() for name in quantizer.input[1:3])
        step = (high - low) / (LEVELS - 1)
        for node in (there, back):
            ends = [file.array(file.tensors[name]) for name in node.input[1:] if name in file.tensors]
            if len(ends) != 2 or ends[1].dtype != numpy.uint8 or ends[0].size != 1:
                yield f"{label} is not one of uint8"
                break
            scale, zero = (end.astype("f8").ravel() for end in ends)
            ends = [-zero * scale, (LEVELS - 1 - zero) * scale]
            if not all(
                (abs(one - end) <= RANGE_TOLERANCE * step).all() for one, end in zip(ends, (low, high))
            ):
                there = f"{float(ends[0]):.6g} to {float(ends[1]):.6g}"
                yield f"{label} has the range {there}, not {float(low):.6g} to {float(high):.6g}"
                break


class _Weights:
    """The weights of a file compared with what the source's quantizers give."""

    def __init__(self, source: Model, file: Model) -> None:
        self.faults: List[str] = []
        self.lost: List[str] = []
        self.facts: Facts = {
            "matrices": 0,
            "elements": 0,
            "zeros": 0,
            "float_zeros": 0,
            "equal": 0,
            "apart": 0.0,
        }
        # numpy lets go of the interpreter while it computes.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for found in pool.map(lambda node: _compare(source, file, node), source.matrices.values()):
                self._add(*found)

    def _add(self, label: str, facts: Facts, fault: str) -> None:
        if fault:
            self.faults.append(f"{label} {fault}")
        if facts.get("lost"):
            self.lost.append(f"{label}: {facts['lost']:,} zeros are no longer zero")
        for name in self.facts:
            value = facts.get(name, 0)
            self.facts[name] = max(self.facts[name], value) if name == "apart" else self.facts[name] + value

    def describe(self) -> str:
        """Return what was measured, in words."""
        facts = self.facts
        return (
            f"{facts['elements']:,} in {facts['matrices']} matrices, {facts['equal']:,} of them"
            f" FakeQuantize's bit for bit, the others within {facts['apart']:.2g} of a step"
            f" (at most {ROUNDING * (LEVELS - 1):.2g})"
        )

    def describe_zeros(self) -> str:
        """Return the numbers of zeros, in words."""
        return f"{self.facts['zeros']:,}, {self.facts['float_zeros']:,} in 32 bits; none is lost"


def _find_stored(file: Model, output: str) -> Optional[_Stored]:
    """Return the constant that is dequantized to ``output``, rows perhaps picked before or after."""
    from onnx import helper

    product = file.graph.producer.get(output)
    if product is not None and product.op_type == "Mul":
        return _find_scaled_rows(file, product)
    found, picked, name = None, None, output
    while name in file.graph.producer:
        node = file.graph.producer[name]
        if node.op_type == "DequantizeLinear" and found is None:
            found = node
        elif node.op_type == "Gather" and picked is None:
            picked = node.input[1]
        else:
            return None
        name = node.input[0]
    if (
        found is None
        or len(found.input) != 3
        or any(one not in file.tensors for one in (name, *found.input[1:]))
    ):
        return None
    axis = next((helper.get_attribute_value(one) for one in found.attribute if one.name == "axis"), 1)
    levels, scale, zero = (file.array(file.tensors[one]) for one in (name, *found.input[1:]))
    return _Stored(levels, scale, zero, axis, picked)


def _find_scaled_rows(file: Model, product: Any) -> Optional[_Stored]:
    """Return the constant of which rows are picked and multiplied with theirs of a constant of scales."""
    import numpy

    inputs = [file.graph.producer[name] for name in product.input if name in file.graph.producer]
    if [node.op_type for node in inputs] != ["Cast", "Gather"]:
        return None
    cast, scales = inputs
    rows = file.graph.producer.get(cast.input[0])
    if rows is None or rows.op_type != "Gather" or rows.input[1] != scales.input[1]:
        return None
    if any(name not in file.tensors for name in (rows.input[0], scales.input[0])):
        return None
    levels, scale = (file.array(file.tensors[node.input[0]]) for node in (rows, scales))
    kinds = [one.i for one in cast.attribute if one.name == "to"]
    axes = [one.i for node in (rows, scales) for one in node.attribute if one.name == "axis"]
    if kinds != [FLOAT] or any(axes) or scale.shape != (len(levels), 1):
        return None
    return _Stored(levels, scale, numpy.zeros(1, "i1"), 0, rows.input[1])


def _compare(source: Model, file: Model, quantizer: Any) -> Tuple[str, Facts, str]:
    """Return a matrix's name, what was measured on it, and what is wrong; empty if nothing is."""
    import numpy

    label = source.constant_label(quantizer.input[0])
    users = source.graph.consumers.get(quantizer.output[0], [])
    stored = _find_stored(file, users[0].output[0]) if users else None
    values, low, high = (source.array(source.tensors[name]) for name in quantizer.input[:3])
    if stored is None or stored.levels.dtype != numpy.int8:
        return label, {}, "is not dequantized from int8"
    transposed = users[0].op_type == "Transpose"
    levels = stored.levels.T if transposed else stored.levels
    if levels.shape != values.shape:
        return label, {}, f"is {' × '.join(map(str, levels.shape))}, not {' × '.join(map(str, values.shape))}"
    if stored.picked != (None if transposed else users[0].input[1]):
        return label, {}, "has not the rows that the tree picks"
    if stored.zero.dtype != numpy.int8 or stored.zero.any():
        return label, {}, "has a zero point other than 0"
    if stored.scale.size != low.size or (low.size > 1 and stored.axis != (1 if transposed else 0)):
        return label, {}, "has not a scale for each channel"
    scale = stored.scale.reshape(-1, 1)
    facts = {
        "matrices": 1,
        "elements": levels.size,
        "zeros": 0,
        "float_zeros": 0,
        "lost": 0,
        "equal": 0,
        "apart": 0.0,
    }
    beyond = 0
    for rows in slice_rows(values.shape):
        wide = [pick_rows(part, rows) for part in (low, high, scale)]
        block, own = values[rows], levels[rows] * wide[2]
        width = wide[1] - wide[0]
        fake = find_levels(block, *wide[:2]) / numpy.float32(LEVELS - 1) * width + wide[0]
        apart = abs(own - fake)
        beyond += int(numpy.count_nonzero(~(apart <= ROUNDING * width)))
        facts["apart"] = max(facts["apart"], float((apart / width).max(initial=0) * (LEVELS - 1)))
        facts["equal"] += int(numpy.count_nonzero(own == fake))
        zero = block == 0
        facts["zeros"] += int(levels[rows].size - numpy.count_nonzero(levels[rows]))
        facts["float_zeros"] += int(numpy.count_nonzero(zero))
        facts["lost"] += int(numpy.count_nonzero(zero & (levels[rows] != 0)))
    return label, facts, f"differs in {beyond:,} of {levels.size:,} weights" if beyond else ""
