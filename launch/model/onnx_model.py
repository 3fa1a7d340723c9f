"""An ONNX file: its graph, its constants, and names by which a person finds them; weights stay in the file.

``onnx.load`` takes twice the file's size in memory.  Here all but the weights is read, 0.3 of 1338 MB.
Raw data that is left out is marked as ONNX marks values in other files (``external_data`` in ``onnx.proto``).
The wire format: https://protobuf.dev/programming-guides/encoding/.
"""

import mmap
import secrets
from collections import deque
from pathlib import Path
from typing import Any, Deque, Dict, Iterator, List, Optional, Set, Tuple

from ..core import paths
from ..core.errors import KitError

AT_ONCE = 1 << 16
"""Elements of a large constant that are computed at once: they stay in a core's cache."""

_MODULE_PREFIX = "nncf_module."

QUANTIZER = "FakeQuantize"

_RANGE_ENDS = ("low", "high", "output low", "output high")
"""A quantizer's inputs after the first."""

_INPUTS = {QUANTIZER: 1 + len(_RANGE_ENDS), "Gather": 2}
"""Numbers of inputs of the operators whose inputs are read by position."""

_VARINT, _BYTES = 0, 2
"""Wire types; groups (3, 4) are not in ONNX, 6 and 7 are undefined."""

_WIDTHS = {1: 8, 5: 4}
"""Bytes by wire type of fixed width."""

_SMALL = 256
"""Bytes up to which a field is kept whole: parsing all of them would take most of the time."""

_HERE = secrets.token_hex(16)
"""The ``location`` in ``external_data`` that stands for the file itself."""

_Fields = Dict[int, Optional[Dict[int, Any]]]
"""By number, the fields that lead to raw data and those within them; None for raw data itself."""


class Graph:
    """Producers and consumers of every tensor in an ONNX graph."""

    def __init__(self, graph: Any) -> None:
        self.inputs = [value.name for value in graph.input]
        self.initializers = {tensor.name for tensor in graph.initializer}
        self.producer: Dict[str, Any] = {name: node for node in graph.node for name in node.output}
        self.consumers: Dict[str, List[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)

    def layer_name(self, reader: Any) -> str:
        """Return the parameter that a node of :attr:`Model.matrices` reads; empty if the graph is unknown."""
        # The exporter keeps the names of biases alone: the bias that is added to the product tells.
        quantizes = reader.op_type == QUANTIZER
        for node in self.consumers.get(reader.output[0], []) if quantizes else [reader]:
            if node.op_type == "Gather":
                return self._embedding(node.input[1])
            product = node
            if node.op_type == "Transpose":
                product = next(iter(self.consumers.get(node.output[0], [])), None)
            if product is None or product.op_type not in ("MatMul", "Gemm"):
                continue
            for follower in self.consumers.get(product.output[0], []):
                for name in follower.input:
                    if name in self.initializers and name.endswith(".bias"):
                        return str(name)[len(_MODULE_PREFIX) : -len("bias")] + "weight"
        return ""

    def _embedding(self, index: str) -> str:
        # Inputs in the order of BertModel.forward: input_ids, attention_mask, token_type_ids.  The indices
        # of positions are no input but a slice of a constant.
        table = {0: "word", 2: "token_type"}
        kind = table.get(self.inputs.index(index), "") if index in self.inputs else "position"
        return f"bert.embeddings.{kind}_embeddings.weight" if kind else ""


class Model:
    """The graph of an ONNX file with its constants.

    :raises KitError: see :func:`read_outline`; or the graph is not complete, or a name in it is not UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        proto, self._data = read_outline(path)
        if not proto.opset_import or not proto.graph.node or not all(map(_is_complete, proto.graph.node)):
            raise make_damaged_error(path, "its graph is not complete")
        if not all(isinstance(text, str) for text in _texts(proto)):
            raise make_damaged_error(path, "a name in it is not UTF-8")
        for node in proto.graph.node:
            for attribute in node.attribute:
                if node.op_type != "Constant" or attribute.name != "value":
                    self.restore(attribute.t)
        self.proto = proto
        self.nodes = proto.graph.node
        self.graph = Graph(proto.graph)
        # In lists, so that of two constants with one name none hides the other.
        self.initializers: List[Tuple[str, Any]] = sorted(
            ((tensor.name, tensor) for tensor in proto.graph.initializer), key=lambda pair: pair[0]
        )
        embedded = [(node.output[0], read_node_constant(node)) for node in self.nodes]
        self.constants: List[Tuple[str, Any]] = [pair for pair in embedded if pair[1] is not None]
        self.constants += self.initializers
        self.tensors: Dict[str, Any] = dict(self.constants)
        quantizers = [node for node in self.nodes if node.op_type == QUANTIZER]
        self.activations = [node for node in quantizers if node.input[0] not in self.tensors]
        self.quantized = bool(quantizers)
        self.matrices = {node.input[0]: node for node in quantizers if node.input[0] in self.tensors}
        """By name, what reads each weight matrix: its quantizer; in a file without any, MatMul or Gather."""
        if not self.quantized:
            self.matrices = {
                _read_weight(node): node for node in self.nodes if self._is_matrix(_read_weight(node))
            }

    def range_names(self) -> Set[str]:
        """Return the constants that are ends of activation quantizers' ranges and nothing else."""
        activations = {node.output[0] for node in self.activations}
        others = {output.name for output in self.proto.graph.output}
        for node in self.nodes:
            others.update(node.input[:1] if node.output[0] in activations else node.input)
        return {name for node in self.activations for name in node.input[1:]} - others

    def _is_matrix(self, name: str) -> bool:
        return name in self.tensors and len(self.tensors[name].dims) == 2

    def matrix(self, name: str) -> Any:
        """Return a weight matrix as :meth:`array` does, in the parameter's rows and columns."""
        values = self.array(self.tensors[name])
        # The exporter turns what it can where nothing is quantized.
        return values.T if self.matrices[name].op_type == "MatMul" else values

    def array(self, tensor: Any) -> Any:
        """Return a constant's values, a view of the file where they are many.

        :raises KitError: they do not fit its type and shape, or are no numbers.
        """
        import numpy
        from onnx import mapping, numpy_helper

        place = _left_out(tensor)
        try:
            if place is None:
                values = numpy_helper.to_array(tensor)
            else:
                kind = numpy.dtype(mapping.TENSOR_TYPE_TO_NP_TYPE[tensor.data_type]).newbyteorder("<")
                values = numpy.frombuffer(memoryview(self._data)[place], kind).reshape(tensor.dims)
        except (ValueError, TypeError, KeyError):
            problem = "a constant has not the values that its type and shape need"
            raise make_damaged_error(self.path, problem) from None
        if values.dtype.kind not in "biuf":
            problem = f"a constant holds no numbers but {name_type(tensor.data_type)}"
            raise make_damaged_error(self.path, problem)
        return values

    def content(self, tensor: Any) -> Any:
        """Return a constant's values as bytes (uint8)."""
        import numpy

        place = _left_out(tensor)
        if place is None and not tensor.HasField("raw_data"):
            return numpy.ravel(self.array(tensor)).view("u1")
        return numpy.frombuffer(tensor.raw_data if place is None else memoryview(self._data)[place], "u1")

    def restore(self, tensor: Any) -> None:
        """Put the values that were left in the file into a constant."""
        place = _left_out(tensor)
        if place is not None:
            tensor.raw_data = self._data[place]
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")

    def node_label(self, node: Any) -> str:
        """Return a node's name and the nearest module with a name."""
        module = self._module(node)
        own = node.name or node.output[0]
        return f"{own} (near {module})" if module else own

    def constant_label(self, name: str) -> str:
        """Return the parameter that a constant is, or is a range's end of; else the label of its node."""
        if name in self.matrices:
            return self.graph.layer_name(self.matrices[name]) or self.node_label(self.matrices[name])
        for user in self.graph.consumers.get(name, []):
            layer = self._weight(user)
            if layer:
                return f"{layer}, {_RANGE_ENDS[list(user.input).index(name) - 1]} end of its range"
        if name in self.graph.initializers:
            return strip_prefix(name)
        return self.node_label(self.graph.producer[name])

    def _weight(self, node: Any) -> str:
        return self.graph.layer_name(node) if _read_weight(node) in self.matrices else ""

    def _module(self, node: Any) -> str:
        """Return the module of the nearest parameter before a node; empty for none."""
        # A constant has nothing before it; it belongs to what uses it.
        users = self.graph.consumers.get(node.output[0], [])
        queue: Deque[Any] = deque([users[0] if users and not node.input else node])
        seen: Set[str] = set()
        while queue:
            near = queue.popleft()
            named = [self._weight(near)]
            named += [strip_prefix(name) for name in near.input if name in self.graph.initializers]
            for parameter in named:
                if "." in parameter:  # a constant that the exporter folded has a number for a name
                    return parameter.rpartition(".")[0]
            for name in near.input:
                if name in self.graph.producer and name not in seen:
                    seen.add(name)
                    queue.append(self.graph.producer[name])
        return ""


def _read_weight(node: Any) -> str:
    """Return the input of a node that is a weight matrix, if any is; empty for other nodes."""
    place = {QUANTIZER: 0, "Gather": 0, "MatMul": 1}.get(node.op_type, len(node.input))
    return str(node.input[place]) if place < len(node.input) else ""


def _is_complete(node: Any) -> bool:
    return len(node.output) > 0 and len(node.input) == _INPUTS.get(node.op_type, len(node.input))


def _texts(proto: Any) -> Iterator[Any]:
    for entry in proto.opset_import:
        yield entry.domain
    for named in (*proto.graph.initializer, *proto.graph.input, *proto.graph.output):
        yield named.name
    for node in proto.graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def read_node_constant(node: Any) -> Optional[Any]:
    """Return the tensor of a Constant node; None for other nodes."""
    if node.op_type != "Constant":
        return None
    return next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)


def strip_prefix(name: str) -> str:
    """Return a parameter's name in the model."""
    return name[len(_MODULE_PREFIX) :] if name.startswith(_MODULE_PREFIX) else name


def name_type(number: int) -> str:
    """Return the name of an ONNX element type (``float``)."""
    from onnx import TensorProto

    try:
        return str(TensorProto.DataType.Name(number)).lower()
    except ValueError:
        return f"type {number}"


def make_damaged_error(path: Path, reason: str) -> KitError:
    """Return the error for a file that is not a whole ONNX file."""
    return KitError(
        f"This is no ONNX file, or it is damaged: {reason}.",
        where=paths.show_path(path),
        hint="Name a whole ONNX file; if this one was copied or was being written, make it again.",
    )


def read_outline(path: Path) -> Tuple[Any, mmap.mmap]:
    """Return the ``onnx.ModelProto`` in a file, without the raw data of large tensors, and the mapped file.

    :raises KitError: the file is no ONNX file, is damaged, or keeps values in other files.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.stat().st_size:  # what is empty cannot be mapped
        raise make_damaged_error(path, "it is empty")
    with path.open("rb") as handle:
        data = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    data.madvise(mmap.MADV_RANDOM)  # or the weights would be read ahead from the disk
    try:
        model = onnx.ModelProto.FromString(_outline(data, 0, len(data), _ways()))
    except (ValueError, IndexError, DecodeError):
        raise make_damaged_error(path, "its bytes cannot be read as ONNX") from None
    data.madvise(mmap.MADV_NORMAL)
    if any(map(_is_elsewhere, _tensors(model))):
        raise KitError(
            "The ONNX file keeps its values in other files.",
            where=paths.show_path(path),
            hint="Save it as one file: onnx.save_model(onnx.load(OLD), NEW)",
        )
    return model, data


def _left_out(tensor: Any) -> Optional[slice]:
    """Return where a tensor's raw data is in the file; None where the tensor has it."""
    place = {entry.key: entry.value for entry in tensor.external_data}
    if place.get("location") != _HERE:
        return None
    return slice(int(place["offset"]), int(place["offset"]) + int(place["length"]))


def _tensors(message: Any) -> Iterator[Any]:
    if message.DESCRIPTOR.full_name == "onnx.TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.label == field.LABEL_REPEATED else (value,):
                yield from _tensors(inner)


def _is_elsewhere(tensor: Any) -> bool:
    """Return whether a tensor's values are in another file or its ``external_data`` is malformed."""
    if not tensor.external_data:
        return bool(tensor.data_location == tensor.EXTERNAL)
    return len(tensor.external_data) != 3 or _left_out(tensor) is None  # the entries of _place


def _ways() -> _Fields:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

    tensor: _Fields = {TensorProto.RAW_DATA_FIELD_NUMBER: None}
    node: _Fields = {NodeProto.ATTRIBUTE_FIELD_NUMBER: {AttributeProto.T_FIELD_NUMBER: tensor}}
    graph: _Fields = {GraphProto.NODE_FIELD_NUMBER: node, GraphProto.INITIALIZER_FIELD_NUMBER: tensor}
    return {ModelProto.GRAPH_FIELD_NUMBER: graph}


def _outline(data: mmap.mmap, start: int, end: int, ways: _Fields) -> bytes:
    """Return the message between two places without large raw data, to which the fields ``ways`` lead.

    :raises ValueError: the bytes are no message; or IndexError, or protobuf's DecodeError.
    """
    from google.protobuf.internal.decoder import _DecodeVarint as read_number
    from google.protobuf.internal.encoder import _VarintBytes as write_number

    kept: List[bytes] = []
    position = start
    while position < end:
        field = position
        tag, position = read_number(data, position)
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, position = read_number(data, position)
        elif wire_type == _BYTES:
            length, position = read_number(data, position)
            if length > _SMALL and tag >> 3 in ways and length <= end - position:
                kept.append(data[start:field])
                inner = ways[tag >> 3]
                if inner is None:
                    kept.append(_place(position, length))
                else:
                    content = _outline(data, position, position + length, inner)
                    kept += [write_number(tag), write_number(len(content)), content]
                start = position + length
            position += length
        else:
            position += _WIDTHS.get(wire_type, len(data))
        if tag < 8 or position > end:  # the field with the number 0, at which protobuf would stop
            raise ValueError
    kept.append(data[start:end])
    return b"".join(kept)


def _place(offset: int, length: int) -> bytes:
    from onnx import TensorProto

    tensor = TensorProto(data_location=TensorProto.EXTERNAL)
    for key, value in (("location", _HERE), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return bytes(tensor.SerializeToString())
