"""An ONNX file in the runtime, its weights in 8 bits as an IR has them.

What the runtime makes of the 32-bit weights of a file of a gigabyte takes it long, and it keeps them three
times meanwhile.  So it is given the graph alone, and for the matrices constants of what their quantizers make
of them.  Those are measured in the file, where they are.
"""

from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Set, Tuple

from .. import onnx_outline
from ..onnx_model import AT_ONCE, QUANTIZER, constant_value, mapped
from ..spec import BITS
from .runtime import Network, constant, room

MIDDLE = 2 ** (BITS - 1)
"""Steps of an unsigned number of 8 bits that are below zero in a signed one."""


def blocks(shape: Sequence[int]) -> Iterator[slice]:
    """Yield the rows of a matrix, some at a time."""
    count = max(1, AT_ONCE // max(1, shape[-1]))
    for start in range(0, shape[0], count):
        yield slice(start, min(start + count, shape[0]))


def rows_of(values: Any, rows: slice) -> Any:
    """Return rows of what is a matrix, or is the same in each row."""
    return values[rows] if values.ndim > 1 and values.shape[0] > 1 else values


class Quantized:
    """A weight matrix of an ONNX file and its quantizer.

    :param values: float32, a view of the file.
    :param ends: of the ranges: low, high, output low, output high.
    :param transposed: whether it is transposed on its way into its product.
    """

    def __init__(self, values: Any, ends: Tuple[Any, ...], levels: int, transposed: bool) -> None:
        self.values = values
        self.ends = ends
        self.levels = levels
        self.transposed = transposed
        self.codes: Any = None
        """The constant of what it is in int8, once :meth:`steps` has gone through all of it."""

    def steps(self) -> Iterator[Tuple[slice, Any, Any]]:
        """Yield, for some rows at a time, where FakeQuantize puts each value before it rounds.

        The formula is that of the operator's specification (OpenVINO's opset1): values are clipped to the
        input range, which is divided into ``levels`` - 1 steps; rounded, a step stands for a value of the
        output range.

        :return: the rows, their values, and steps from the low end.
        """
        import numpy

        stored = room("i8", self.values.shape)
        codes = constant(stored.output(0))
        low, high = self.ends[:2]
        with numpy.errstate(all="ignore"):
            width = high - low
            for rows in blocks(self.values.shape):
                values = self.values[rows]
                position = numpy.clip(values, rows_of(low, rows), rows_of(high, rows))
                position -= rows_of(low, rows)
                position /= rows_of(width, rows)
                position *= self.levels - 1
                # numpy's way to round is the operator's: halves go to the even step.
                codes[rows] = numpy.rint(position) - MIDDLE
                yield rows, values, position
        self.codes = stored

    def operation(self) -> Any:
        """Return the runtime's operation that gives the quantized values."""
        from openvino.runtime import opset8

        if self.codes is None:
            for _ in self.steps():
                pass
        _, _, low, high = self.ends
        size = (high - low) / (self.levels - 1)
        values = opset8.multiply(opset8.convert(self.codes, "f32"), opset8.constant(size))
        offset = low + MIDDLE * size
        # The ends of a symmetric range are whole steps, but for the arithmetic of 32 bits.
        if (abs(offset) > 0.01 * size).any():
            values = opset8.add(values, opset8.constant(offset))
        return values


class OnnxFile:
    """An ONNX file whose weights stay where they are.

    :param names: the constants that are quantized weight matrices.
    :raises KitError: it is no ONNX file, or holds too much.
    """

    def __init__(self, path: Path, names: Mapping[str, str]) -> None:
        from onnx import TensorProto, helper

        self.path = path
        self._proto = onnx_outline.read(path)
        self._data = mapped(path)
        graph = self._proto.graph
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            tensor = constant_value(node)
            if tensor is not None:
                tensors[node.output[0]] = tensor
        for name, tensor in tensors.items():
            if name not in names:
                onnx_outline.restore(tensor, self._data)
        transposed = {node.input[0] for node in graph.node if node.op_type == "Transpose"}
        self.matrices: Dict[str, Quantized] = {}
        self._inputs: Dict[str, Quantized] = {}
        kept = []
        for node in graph.node:
            matrix = self._matrix(node, tensors, names, transposed) if node.op_type == QUANTIZER else None
            if matrix is not None:
                output = node.output[0]
                self.matrices[node.input[0]] = self._inputs[output] = matrix
                graph.input.append(
                    helper.make_tensor_value_info(output, TensorProto.FLOAT, matrix.values.shape)
                )
            else:
                kept.append(node)
        # What is quantized in no way that is understood is left to the runtime.
        for name in set(names) - set(self.matrices):
            if name in tensors:
                onnx_outline.restore(tensors[name], self._data)
        kept = [node for node in kept if constant_value(node) is None or node.output[0] not in self.matrices]
        del graph.node[:]
        graph.node.extend(kept)

    def _matrix(
        self, quantizer: Any, tensors: Mapping[str, Any], names: Mapping[str, str], transposed: Set[str]
    ) -> Optional[Quantized]:
        """Return what ``quantizer`` quantizes; None where it is none of the matrices, or no plain one."""
        import numpy
        from onnx import TensorProto, numpy_helper

        given = [tensors[name] for name in quantizer.input if name in tensors]
        if quantizer.input[0] not in names or len(given) < len(quantizer.input):
            return None
        if any(one.data_type != TensorProto.FLOAT for one in given):
            return None
        values = onnx_outline.values(self.path, given[0], self._data)
        ends = tuple(numpy_helper.to_array(one) for one in given[1:])
        levels = next((one.i for one in quantizer.attribute if one.name == "levels"), 0)
        try:
            fits = numpy.broadcast(*ends, numpy.empty(values.shape, "b")).shape == values.shape
        except ValueError:
            fits = False
        if levels < 2 or values.ndim != 2 or not fits:
            return None
        return Quantized(values, ends, levels, quantizer.output[0] in transposed)

    def network(self, nodes: Mapping[str, str]) -> Network:
        """Return the file in the runtime, with int8 constants for its matrices.

        :param nodes: as of :class:`launch.verify.runtime.Network`.
        :raises KitError: the runtime does not take it.
        """
        network = Network(self.path, nodes, self._proto.SerializeToString())
        network.fill_in({name: matrix.operation() for name, matrix in self._inputs.items()})
        return network
