"""An ONNX file's graph, with the weights left where they are.

``onnx.load`` takes twice the file's size in memory, and more time to have it from the system than anything
that is done with it afterwards.  Here everything but the weights is read, 0.3 of 1338 MB.  A tensor whose raw
data was left out says where that is in the form that ONNX has for values in another file (``external_data``
in ``onnx.proto``); the file is the same one, under a name that no file can say.

This is for files that were just made: of one that nobody knows, :func:`launch.onnx_limits.check` says first
whether it may be read.
"""

import math
import mmap
import secrets
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

from .onnx_limits import damaged
from .onnx_wire import BYTES, MOST_BYTES, TAG_BYTES, VARINT, WIDTHS, Broken, varint

_SMALL = 256
"""Bytes up to which a field is taken as it is: looking into all of them would take most of the time."""

_CHUNK = 1 << 18
"""Bytes that are counted at once: they stay in the processor's cache meanwhile."""

_HERE = secrets.token_hex(16)
"""The name of the file that is read."""

_Fields = Dict[int, Optional[Dict[int, Any]]]
"""By number, the fields that lead to raw data and those within them; None for raw data itself."""


def read(path: Path) -> Any:
    """Return the ``onnx.ModelProto`` in a file, without the raw data of large tensors.

    :raises KitError: the file is no ONNX file, or is damaged.
    :raises OSError: it cannot be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.stat().st_size:  # what is empty cannot be mapped
        raise damaged(path, "it is empty")
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if hasattr(data, "madvise"):  # or the weights would be read ahead from the disk
            data.madvise(mmap.MADV_RANDOM)
        try:
            return onnx.ModelProto.FromString(_outline(data, 0, len(data), _ways()))
        except (Broken, DecodeError):
            raise damaged(path, "its bytes cannot be read as ONNX") from None


def nonzero(path: Path, tensor: Any) -> int:
    """Return how many values of a tensor of :func:`read` are not zero; a negative zero is zero.

    :raises KitError: the tensor has not the values that its type and shape need.
    :raises OSError: the file cannot be read.
    """
    import numpy
    from onnx import mapping, numpy_helper

    place = _left_out(tensor)
    if place is None:
        return int(numpy.count_nonzero(numpy_helper.to_array(tensor)))
    kind = numpy.dtype(mapping.TENSOR_TYPE_TO_NP_TYPE.get(tensor.data_type, numpy.void)).newbyteorder("<")
    left = place.stop - place.start
    if left != math.prod(tensor.dims) * kind.itemsize:
        raise damaged(path, "a constant has not the values that its type and shape need")
    # Into the same memory each time: to have new pages for each matrix would take longer than all the rest.
    # And compared first: numpy counts what is true many times faster than what is a number.
    values = numpy.empty(_CHUNK // kind.itemsize, kind)
    differ = numpy.empty(len(values), bool)
    count = 0
    with path.open("rb", buffering=0) as handle:
        handle.seek(place.start)
        while left:
            wanted = memoryview(values).cast("B")[:left]
            left -= len(wanted)
            if not _fill(wanted, handle):
                raise damaged(path, "it has become shorter while it was read")
            whole = len(wanted) // kind.itemsize
            numpy.not_equal(values[:whole], 0, out=differ[:whole])
            count += int(numpy.count_nonzero(differ[:whole]))
    return count


def values(path: Path, tensor: Any, data: mmap.mmap) -> Any:
    """Return the values of a tensor of :func:`read`, those that were left out as a view of the file.

    :param data: the file at ``path``.
    :raises KitError: the tensor has not the values that its type and shape need.
    """
    import numpy
    from onnx import mapping, numpy_helper

    place = _left_out(tensor)
    try:
        if place is None:
            return numpy_helper.to_array(tensor)
        kind = numpy.dtype(mapping.TENSOR_TYPE_TO_NP_TYPE[tensor.data_type]).newbyteorder("<")
        return numpy.frombuffer(memoryview(data)[place], kind).reshape(tensor.dims)
    except (ValueError, TypeError, KeyError):
        raise damaged(path, "a constant has not the values that its type and shape need") from None


def restore(tensor: Any, data: Union[bytes, mmap.mmap]) -> None:
    """Put raw data that :func:`read` left out of a tensor back into it.

    :param data: the file.
    """
    place = _left_out(tensor)
    if place is not None:
        tensor.raw_data = data[place]
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _left_out(tensor: Any) -> Optional[slice]:
    """Return where in the file the raw data of a tensor is; None where it is in the tensor."""
    place = {entry.key: entry.value for entry in tensor.external_data}
    if place.get("location") != _HERE:
        return None
    return slice(int(place["offset"]), int(place["offset"]) + int(place["length"]))


def _fill(room: memoryview, handle: Any) -> bool:
    """Read on until ``room`` is full; return False where the file ends before.

    Some file systems (NFS, FUSE) give less at a time than was asked for.
    """
    while room:
        found = handle.readinto(room)
        if not found:
            return False
        room = room[found:]
    return True


def _ways() -> _Fields:
    """Return the fields of a model that lead to the raw data of tensors of its graph."""
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

    tensor: _Fields = {TensorProto.RAW_DATA_FIELD_NUMBER: None}
    attribute: _Fields = {AttributeProto.T_FIELD_NUMBER: tensor}
    node: _Fields = {NodeProto.ATTRIBUTE_FIELD_NUMBER: attribute}
    graph: _Fields = {GraphProto.NODE_FIELD_NUMBER: node, GraphProto.INITIALIZER_FIELD_NUMBER: tensor}
    return {ModelProto.GRAPH_FIELD_NUMBER: graph}


def _outline(data: mmap.mmap, start: int, end: int, ways: _Fields) -> bytes:
    """Return the message between two places without the large raw data in it.

    :param ways: the fields of the message that lead there.
    """
    kept: List[bytes] = []
    position = start
    while position < end:
        field = position
        tag, position = varint(data, position, end, TAG_BYTES)
        wire_type = tag & 7
        if wire_type == VARINT:
            _, position = varint(data, position, end, MOST_BYTES[VARINT])
        elif wire_type == BYTES:
            length, position = varint(data, position, end, MOST_BYTES[BYTES])
            if length > end - position:
                raise Broken
            if length > _SMALL and tag >> 3 in ways:
                kept.append(data[start:field])
                inner = ways[tag >> 3]
                if inner is None:
                    kept.append(_place(position, length))
                else:
                    content = _outline(data, position, position + length, inner)
                    kept += [_number(tag), _number(len(content)), content]
                start = position + length
            position += length
        elif wire_type in WIDTHS:
            position += WIDTHS[wire_type]
        else:
            raise Broken
    if position != end:
        raise Broken
    kept.append(data[start:end])
    return b"".join(kept)


def _place(offset: int, length: int) -> bytes:
    """Return the fields of a tensor that say where its values are."""
    from onnx import TensorProto

    tensor = TensorProto(data_location=TensorProto.EXTERNAL)
    for key, value in (("location", _HERE), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return bytes(tensor.SerializeToString())


def _number(number: int) -> bytes:
    """Return a number as varint."""
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)
