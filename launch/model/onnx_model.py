"""An ONNX file as a comparison sees it: its graph, its constants, and names by which a person finds them."""

import mmap
from collections import deque
from pathlib import Path
from typing import Any, Deque, Dict, Iterator, List, Optional, Set, Tuple

from . import onnx_outline, sparsity
from .onnx_outline import damaged as damaged  # for those who read a Model, too

AT_ONCE = 1 << 16
"""Elements of a large constant that are counted or computed at once: they stay in a core's cache."""

QUANTIZER = "FakeQuantize"

RANGE_ENDS = ("low", "high", "output low", "output high")
"""A quantizer's inputs after the first."""

_INPUTS = {QUANTIZER: 1 + len(RANGE_ENDS), "Gather": 2}
"""Operators whose inputs are looked at by their place, and how many they have."""


class Model:
    """The graph of an ONNX file, its constants, and names by which a person finds them.

    Weights stay in the file, where :meth:`array` finds them.

    :raises KitError: see :func:`launch.model.onnx_outline.read`; or the graph is not complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        proto = onnx_outline.read(path)
        self._data = mapped(path)
        if not proto.opset_import or not proto.graph.node or not all(map(_is_complete, proto.graph.node)):
            raise damaged(path, "its graph is not complete")
        if not all(isinstance(text, str) for text in _texts(proto)):
            raise damaged(path, "a name in it is not UTF-8")
        for node in proto.graph.node:
            for attribute in node.attribute:
                if node.op_type != "Constant" or attribute.name != "value":
                    onnx_outline.restore(attribute.t, self._data)
        self.proto = proto
        self.nodes = proto.graph.node
        self.graph = sparsity.Graph(proto.graph)
        # In lists, so that of two constants with one name none hides the other.
        self.initializers: List[Tuple[str, Any]] = sorted(
            ((tensor.name, tensor) for tensor in proto.graph.initializer), key=lambda pair: pair[0]
        )
        embedded = [(node.output[0], constant_value(node)) for node in self.nodes]
        self.constants: List[Tuple[str, Any]] = [pair for pair in embedded if pair[1] is not None]
        self.constants += self.initializers
        self.tensors: Dict[str, Any] = dict(self.constants)
        quantizers = [node for node in self.nodes if node.op_type == QUANTIZER]
        self.activations = [node for node in quantizers if node.input[0] not in self.tensors]
        self.matrices: Dict[str, Any] = {
            node.input[0]: node for node in quantizers if node.input[0] in self.tensors
        }
        """The quantizer of each weight matrix."""

    def range_names(self) -> Set[str]:
        """Return the constants that are ends of activation quantizers' ranges and nothing else."""
        activations = {node.output[0] for node in self.activations}

        def only_a_range(name: str) -> bool:
            return all(
                user.output[0] in activations and user.input[0] != name for user in self.graph.consumers[name]
            )

        named = {name for node in self.activations for name in node.input[1:]}
        return {name for name in named if only_a_range(name)} - {
            output.name for output in self.proto.graph.output
        }

    def array(self, tensor: Any) -> Any:
        """Return a constant's values, where they are many a view of the file."""
        values = onnx_outline.values(self.path, tensor, self._data)
        if values.dtype.kind not in "biuf":
            raise damaged(self.path, f"a constant holds no numbers but {type_name(tensor.data_type)}")
        return values

    def content(self, tensor: Any) -> Any:
        """Return a constant's values as bytes (uint8), whether they are raw data or in a typed field."""
        import numpy

        raw = onnx_outline.raw_data(tensor, self._data)
        return numpy.ravel(self.array(tensor)).view("u1") if raw is None else numpy.frombuffer(raw, "u1")

    def restore(self, tensor: Any) -> None:
        """Put the values of a constant that stays in the file into it."""
        onnx_outline.restore(tensor, self._data)

    def node_label(self, node: Any) -> str:
        """Return a node's name and the nearest module that the file names."""
        module = self._module(node)
        own = node.name or node.output[0]
        return f"{own} (near {module})" if module else own

    def constant_label(self, name: str) -> str:
        """Return the parameter that a constant is, or belongs to; else the node it is in, and where."""
        if name in self.matrices:
            return self.graph.layer_name(self.matrices[name]) or self.node_label(self.matrices[name])
        for user in self.graph.consumers.get(name, []):
            layer = self._weight(user)
            if layer:
                return f"{layer}, {RANGE_ENDS[list(user.input).index(name) - 1]} end of its range"
        if name in self.graph.initializers:
            return bare(name)
        return self.node_label(self.graph.producer[name])

    def _weight(self, node: Any) -> str:
        """Return the parameter that ``node`` quantizes; empty where it quantizes none."""
        if node.op_type == QUANTIZER and node.input[0] in self.matrices:
            return self.graph.layer_name(node)
        return ""

    def _module(self, node: Any) -> str:
        """Return the module of the parameter that is nearest against the edges' direction; empty for none."""
        # A constant has nothing before it; it belongs to what uses it.
        users = self.graph.consumers.get(node.output[0], [])
        queue: Deque[Any] = deque([users[0] if users and not node.input else node])
        seen: Set[str] = set()
        while queue:
            near = queue.popleft()
            named = [self._weight(near)]
            named += [bare(name) for name in near.input if name in self.graph.initializers]
            for parameter in named:
                if "." in parameter:  # a constant that the exporter folded has a number for a name
                    return parameter.rpartition(".")[0]
            for name in near.input:
                if name in self.graph.producer and name not in seen:
                    seen.add(name)
                    queue.append(self.graph.producer[name])
        return ""


def mapped(path: Path) -> mmap.mmap:
    """Return a file that is not empty as memory, to be read only."""
    with path.open("rb") as handle:
        return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)


def _is_complete(node: Any) -> bool:
    """Return whether ``node`` has the inputs and outputs that are looked at."""
    return len(node.output) > 0 and len(node.input) == _INPUTS.get(node.op_type, len(node.input))


def _texts(proto: Any) -> Iterator[Any]:
    """Yield the names in a model; protobuf gives bytes for what is not UTF-8."""
    for entry in proto.opset_import:
        yield entry.domain
    for named in (*proto.graph.initializer, *proto.graph.input, *proto.graph.output):
        yield named.name
    for node in proto.graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def constant_value(node: Any) -> Optional[Any]:
    """Return the tensor of a Constant node; None for any other node."""
    if node.op_type != "Constant":
        return None
    return next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)


def bare(name: str) -> str:
    """Return a parameter's name in the model."""
    prefix = sparsity.MODULE_PREFIX
    return name[len(prefix) :] if name.startswith(prefix) else name


def type_name(number: int) -> str:
    """Return the name of an ONNX element type, as ``float``."""
    from onnx import TensorProto

    try:
        return str(TensorProto.DataType.Name(number)).lower()
    except ValueError:
        return f"type {number}"
