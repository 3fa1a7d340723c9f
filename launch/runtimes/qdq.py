"""A tree's model with standard operators only, for runtimes without ``FakeQuantize``.

``QuantizeLinear`` and ``DequantizeLinear`` of opset 13 (https://onnx.ai/onnx/operators/) stand for OpenVINO's
operator.  In this form, called QDQ, a weight matrix is stored as int8 with a scale for each output channel,
and an activation goes to uint8 and back.

``FakeQuantize`` of 256 levels from ``low`` to ``high`` is ``round((x - low) / s) * s + low`` with
``s = (high - low) / 255``.  NNCF chooses the ends so that 0 is a level: ``z = -low / s`` is whole.  Then that
is ``(round(x / s) + z - z) * s``, which the two operators compute.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ..core import paths
from ..core.errors import KitError
from ..model.onnx_model import AT_ONCE, QUANTIZER, Model

OPSET = 13
"""The first in which ``DequantizeLinear`` has a scale for each channel."""

_IR_VERSION = 7  # that of opset 13, see onnx.helper.OP_SET_ID_VERSION_MAP

FLOAT = 1
"""The type of 32 bits, see ``onnx.TensorProto``."""

LEVELS = 256

WHOLE = 2.0**-15
"""How far from a whole number a zero point may be, in levels: both ends of a range are rounded to 32 bits, by
2⁻²⁴ of themselves, and 255 × 2⁻²³ is this."""

_AXES_ARE_INPUTS = {"Squeeze": "axes", "Unsqueeze": "axes", "Split": "split"}
"""Attributes that opset 13 made inputs, by operator."""


class Range(NamedTuple):
    """The ranges of a quantizer, one or more: steps (float32), and the level that is 0 (whole, float64)."""

    scale: Any
    zero: Any


def read_range(model: Model, quantizer: Any) -> Range:
    """:raises KitError: a quantizer has not 256 levels, 0 is none of them, or its two ranges differ."""
    import numpy

    levels = next((one.i for one in quantizer.attribute if one.name == "levels"), 0)
    low, high, *output = (model.array(model.tensors[name]).astype("f8") for name in quantizer.input[1:])
    with numpy.errstate(all="ignore"):
        scale = ((high - low) / (LEVELS - 1)).astype("f4")
        zero = (LEVELS - 1) * (0 - low) / (high - low)
        whole = numpy.rint(zero)
        fits = (scale > 0) & (abs(zero - whole) <= WHOLE) & (whole >= 0) & (whole < LEVELS)
    same = numpy.array_equal(low, output[0]) and numpy.array_equal(high, output[1])
    if levels != LEVELS or not same or not fits.all():
        raise KitError(
            f"A quantizer cannot be written as QuantizeLinear: it has not {LEVELS} levels, 0 among them, and"
            " one range.",
            where=f"{paths.show_path(model.path)}, {model.node_label(quantizer)}",
            hint="Name a tree that the kit has made.",
        )
    return Range(scale, whole)


def slice_rows(shape: Tuple[int, ...]) -> Iterator[slice]:
    """Yield slices of a matrix's rows that stay in a core's cache."""
    count = max(1, AT_ONCE // max(1, shape[-1]))
    return (slice(start, start + count) for start in range(0, shape[0], count))


def pick_rows(values: Any, rows: slice) -> Any:
    """Return ``values[rows]``; all of ``values`` if they are the same for each row."""
    return values[rows] if values.ndim > 1 and len(values) > 1 else values


def find_levels(values: Any, low: Any, high: Any) -> Any:
    """Return the levels (float32, from 0) that ``FakeQuantize`` takes, in its order of operations."""
    import numpy

    return numpy.rint((numpy.clip(values, low, high) - low) / (high - low) * numpy.float32(LEVELS - 1))


def _quantize(model: Model, quantizer: Any) -> Tuple[Any, Any]:
    """Return a weight matrix as int8, and its scales: one, or one for each row."""
    import numpy

    scale, zero = read_range(model, quantizer)
    if not (zero == LEVELS // 2).all():
        raise KitError(
            f"The range of a weight matrix is not that of int8: 0 is level {float(zero.flat[0]):g}.",
            where=f"{paths.show_path(model.path)}, {model.constant_label(quantizer.input[0])}",
            hint="Name a tree that the kit has made.",
        )
    values, low, high = (model.array(model.tensors[name]) for name in quantizer.input[:3])
    found = numpy.empty(values.shape, "i1")
    for rows in slice_rows(values.shape):
        ends = (pick_rows(end, rows) for end in (low, high))
        found[rows] = find_levels(values[rows], *ends) - numpy.float32(LEVELS // 2)
    return found, scale.ravel()


class _Graph:
    """The new graph as it grows; equal constants are stored once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.nodes: List[Any] = []
        self.initializers: List[Any] = []
        self._names = {name for node in model.nodes if node.op_type != "Constant" for name in node.output}
        self._names.update(model.graph.inputs)
        self._known: Dict[Tuple[Any, ...], str] = {}

    def name(self, wish: str) -> str:
        """Return a name that no tensor has, made of ``wish``."""
        name, number = wish, 1
        while name in self._names:
            name, number = f"{wish}_{number}", number + 1
        self._names.add(name)
        return name

    def constant(self, wish: str, values: Any) -> str:
        """Return the name of a constant, which is added if there is none of these values."""
        from onnx import numpy_helper

        key = (values.dtype.str, values.shape, values.tobytes() if values.size <= AT_ONCE else wish)
        if key not in self._known:
            self._known[key] = self.name(wish)
            self.initializers.append(numpy_helper.from_array(values, self._known[key]))
        return self._known[key]

    def node(self, kind: str, inputs: List[str], output: str, **attributes: Any) -> str:
        """Add a node and return its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}_{kind}", **attributes))
        return output

    def dequantize(self, source: str, scale: Any, zero: Any, output: str, label: str, **axis: int) -> str:
        """Add a ``DequantizeLinear`` of a scale and a zero point, which may be vectors; return its output."""
        ends = [self.constant(f"{label}_scale", scale), self.constant(f"{label}_zero_point", zero)]
        return self.node("DequantizeLinear", [source, *ends], output, **axis)


def convert_to_qdq(model: Model) -> Any:
    """Return an ``onnx.ModelProto`` with standard operators that computes what ``model`` does.

    Inputs, outputs and what is not quantized keep their names.

    :raises KitError: a quantizer is none of NNCF's with 8 bits, or there is none.
    """
    from onnx import helper

    if not model.matrices:
        raise KitError(
            "The model has no quantized weights: its operators are standard ones already.",
            where=paths.show_path(model.path),
            hint="Take the ONNX file as it is, or name a tree of 8 bits.",
        )
    graph = _Graph(model)
    weights = {node.output[0]: node for node in model.matrices.values()}
    # numpy lets go of the interpreter while it computes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        levels = dict(zip(weights, pool.map(lambda node: _quantize(model, node), weights.values())))
    for node in model.nodes:
        if node.op_type == "Constant" or node.output[0] in weights:
            continue  # with its user
        if node.input and node.input[0] in weights:
            _add_weights(graph, node, weights[node.input[0]], *levels.pop(node.input[0]))
        elif node.op_type == QUANTIZER:
            _add_activation(graph, node)
        else:
            graph.nodes.append(_modernize(graph, node))
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            f"{model.path.stem}-qdq",
            [value for value in model.proto.graph.input if value.name not in model.graph.initializers],
            model.proto.graph.output,
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="gen-hybrid-sparse",
    )
    made.ir_version = _IR_VERSION
    return made


def remove_rounding(proto: Any) -> None:
    """Let the quantizers of a QDQ model, an ``onnx.ModelProto``, clip to their ranges and not round."""
    import numpy
    from onnx import numpy_helper

    nodes, constants = proto.graph.node, {one.name: one for one in proto.graph.initializer}
    back = {node.input[0]: node for node in nodes if node.op_type == "DequantizeLinear"}
    for node in [one for one in nodes if one.op_type == "QuantizeLinear"]:
        scale, zero = (numpy_helper.to_array(constants[name]).astype("f4") for name in node.input[1:])
        for place, level in enumerate((0, LEVELS - 1), start=1):
            end = numpy_helper.from_array(numpy.array((level - zero) * scale, "f4"), f"{node.name}_{place}")
            proto.graph.initializer.append(end)
            node.input[place] = end.name
        follower = back[node.output[0]]
        node.op_type, node.output[0] = "Clip", follower.output[0]
        nodes.remove(follower)


def _add_weights(graph: _Graph, user: Any, quantizer: Any, levels: Any, scale: Any) -> None:
    """Add a weight matrix for the node that uses it: transposed for a product, or a table of embeddings."""
    import numpy

    label = graph.model.constant_label(quantizer.input[0])
    zero, output, axis = numpy.zeros(scale.shape, "i1"), user.output[0], {"axis": 0}
    if user.op_type == "Transpose":
        levels, axis = numpy.ascontiguousarray(levels.T), {"axis": 1}
    if scale.size == 1:
        scale, zero, axis = scale.reshape(()), zero.reshape(()), {}
    if user.op_type not in ("Transpose", "Gather"):
        raise KitError(
            f"A weight matrix is used in a way that is not known: by {user.op_type}.",
            where=f"{paths.show_path(graph.model.path)}, {label}",
            hint="Name a tree that the kit has made.",
        )
    table = graph.constant(f"{label}_int8", levels)
    if user.op_type == "Transpose":
        graph.dequantize(table, scale, zero, output, label, **axis)
    elif user.input[1] in graph.model.graph.inputs:
        # Before they are dequantized: ONNX Runtime would dequantize the whole table each time.
        rows = graph.node("Gather", [table, user.input[1]], graph.name(f"{output}_int8"))
        if axis:  # DequantizeLinear has no scale for each row that was picked
            scales = graph.constant(f"{label}_scale", scale.reshape(-1, 1))
            picked = graph.node("Gather", [scales, user.input[1]], graph.name(f"{output}_scale"))
            values = graph.node("Cast", [rows], graph.name(f"{output}_level"), to=FLOAT)
            graph.node("Mul", [values, picked], output)
        else:
            graph.dequantize(rows, scale, zero, output, label)
    else:
        # Of rows that are always the same OpenVINO 2022.1 makes an int8 constant, and adds it wrongly.
        rows = graph.dequantize(table, scale, zero, graph.name(f"{output}_table"), label, **axis)
        graph.node("Gather", [rows, user.input[1]], output)


def _add_activation(graph: _Graph, quantizer: Any) -> None:
    """Add a quantizer of an activation: to uint8 and back."""
    scale, zero = read_range(graph.model, quantizer)
    output = quantizer.output[0]
    if scale.size > 1:
        raise KitError(
            "An activation is quantized by channel, which the kit's models have not.",
            where=f"{paths.show_path(graph.model.path)}, {graph.model.node_label(quantizer)}",
            hint="Name a tree that the kit has made.",
        )
    ends = scale.reshape(()), zero.reshape(()).astype("u1")
    names = graph.constant(f"{output}_scale", ends[0]), graph.constant(f"{output}_zero_point", ends[1])
    quantized = graph.node("QuantizeLinear", [quantizer.input[0], *names], graph.name(f"{output}_uint8"))
    graph.dequantize(quantized, *ends, output, output)


def _modernize(graph: _Graph, node: Any) -> Any:
    """Return a node of the tree's opset as one of :data:`OPSET`."""
    import numpy

    model, new = graph.model, type(node)()
    new.CopyFrom(node)
    lifted = _is_last_sum(model, node)
    for place, name in enumerate(node.input):
        if name in model.tensors:
            values = model.array(model.tensors[name])
            three = lifted and values.ndim == 1
            new.input[place] = graph.constant(name, values.reshape(1, 1, -1) if three else values)
    wanted = _AXES_ARE_INPUTS.get(node.op_type)
    for attribute in node.attribute:
        if attribute.name == wanted:
            new.attribute.remove(attribute)
            new.input.append(graph.constant(f"{node.output[0]}_{wanted}", numpy.array(attribute.ints, "i8")))
    return new


def _is_last_sum(model: Model, node: Any) -> bool:
    """Return whether a node adds the bias to a product, and no quantizer follows.

    Such a bias gets three dimensions.  With one, ONNX Runtime takes product and bias for a Gemm, and computes
    that in 32 bits where no quantizer follows, with weights that it dequantizes each time.
    """
    users = model.graph.consumers.get(node.output[0], [])
    return (
        node.op_type == "Add"
        and any(_kind(model, name) == "MatMul" for name in node.input)
        and not any(user.op_type == QUANTIZER for user in users)
    )


def _kind(model: Model, name: str) -> Optional[str]:
    producer = model.graph.producer.get(name)
    return None if producer is None else str(producer.op_type)
