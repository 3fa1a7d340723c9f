"""An ONNX file in the runtime, its weights in 8 bits as its IR has them.

What the runtime makes of the 32-bit weights of a file of a gigabyte takes it long, and it keeps them three
times meanwhile.  So it is given the graph alone, and in the place of each quantized matrix the IR's int8
constant, which :class:`launch.verify.ir_weights.Weights` compares with the matrix, value by value.
"""

from typing import Any, Dict, Iterable, Mapping, NamedTuple, Tuple

from ..model.onnx_model import QUANTIZER, Model, constant_value
from .runtime import Network


class Quantized(NamedTuple):
    """A weight matrix of an ONNX file and its quantizer.

    :param values: float32, a view of the file.
    :param ends: of the ranges: low, high, output low, output high.
    :param transposed: whether it is transposed on its way into its product.
    """

    values: Any
    ends: Tuple[Any, ...]
    levels: int
    transposed: bool


def quantized(model: Model, names: Iterable[str]) -> Dict[str, Quantized]:
    """Return those of the named constants that are quantized in the plain way, by name.

    :raises KitError: a constant has not the values that its type and shape need.
    """
    import numpy

    transposed = {node.input[0] for node in model.nodes if node.op_type == "Transpose"}
    found = {}
    for name in names:
        quantizer = model.matrices[name]
        given = [model.array(model.tensors[one]) for one in quantizer.input if one in model.tensors]
        levels = next((one.i for one in quantizer.attribute if one.name == "levels"), 0)
        if len(given) < len(quantizer.input) or any(one.dtype != numpy.float32 for one in given):
            continue
        values, *ends = given
        try:
            fits = numpy.broadcast(*ends, numpy.empty(values.shape, "b")).shape == values.shape
        except ValueError:
            continue
        if levels >= 2 and values.ndim == 2 and fits:
            found[name] = Quantized(values, tuple(ends), levels, quantizer.output[0] in transposed)
    return found


def network(model: Model, nodes: Mapping[str, str], operations: Mapping[str, Any]) -> Network:
    """Return an ONNX file in the runtime; of ``model`` nothing else can be had afterwards.

    :param nodes: as of :class:`launch.verify.runtime.Network`.
    :param operations: of the runtime, by the constant in whose quantizer's place each is put.
    :raises KitError: the runtime does not take the file.
    """
    from onnx import TensorProto, helper

    graph = model.proto.graph
    for name, tensor in model.constants:
        if name not in operations:
            model.restore(tensor)
    kept, filled = [], {}
    for node in graph.node:
        if node.op_type == QUANTIZER and node.input[0] in operations:
            output, shape = node.output[0], list(model.tensors[node.input[0]].dims)
            filled[output] = operations[node.input[0]]
            graph.input.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))
        elif constant_value(node) is None or node.output[0] not in operations:
            kept.append(node)
    # Made anew: protobuf moves what is kept up one by one where nodes are taken out.
    del graph.node[:]
    graph.node.extend(kept)
    found = Network(model.path, nodes, model.proto.SerializeToString())
    found.fill_in(filled)
    return found
