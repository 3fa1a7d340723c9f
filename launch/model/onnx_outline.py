"""An ONNX file's graph, with the weights left where they are.

``onnx.load`` takes twice the file's size in memory, and more time to have it from the system than anything
that is done with it afterwards.  Here everything but the weights is read, 0.3 of 1338 MB.  A tensor whose raw
data was left out says where that is in the form that ONNX has for values in another file (``external_data``
in ``onnx.proto``); the file is the same one, under a name that no file can say.

The wire format is protobuf's: https://protobuf.dev/programming-guides/encoding/.  A file that nobody knows is
read in a process with a limit on its memory (:mod:`launch.verify.measuring`).
"""

import math
import mmap
import secrets
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from ..core import paths
from ..core.errors import KitError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types; 3 and 4 are groups, which ONNX has none of, 6 and 7 are nothing."""

_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
"""Bytes of what is not preceded by its length."""

_TAG_BYTES = 5
_MOST_BYTES = {_VARINT: 10, _BYTES: 5}
"""Bytes that a tag, and a number or length, takes at most."""

_MOST = 64 * 10**6
"""Bytes on end that are taken from a file: the kit's have 0.3 million beside their weights."""

_SMALL = 256
"""Bytes up to which a field is taken as it is: looking into all of them would take most of the time."""

_CHUNK = 1 << 18
"""Bytes that are counted at once: they stay in the processor's cache meanwhile."""

_HERE = secrets.token_hex(16)
"""The name of the file that is read."""

_PLACE_KEYS = 3
"""Entries that say where in the file values are."""

_Fields = Dict[int, Optional[Dict[int, Any]]]
"""By number, the fields that lead to raw data and those within them; None for raw data itself."""


class _Broken(Exception):
    """The bytes are no message."""


class _TooMuch(Exception):
    """There is too much beside the weights."""


def damaged(path: Path, reason: str) -> KitError:
    """Return the error for a file that is no whole ONNX file."""
    return KitError(
        f"This is no ONNX file, or it is damaged: {reason}.",
        where=paths.shown(path),
        hint="Name a whole ONNX file; if this one was copied or was being written, make it again.",
    )


def read(path: Path) -> Any:
    """Return the ``onnx.ModelProto`` in a file, without the raw data of large tensors.

    :raises KitError: the file is no ONNX file, is damaged, or keeps values in other files.
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
            model = onnx.ModelProto.FromString(_outline(data, 0, len(data), _ways()))
        except (_Broken, DecodeError):
            raise damaged(path, "its bytes cannot be read as ONNX") from None
        except _TooMuch:
            raise KitError(
                f"The ONNX file has more than {_MOST:,} bytes beside its weights.",
                where=paths.shown(path),
                hint="Keep the weights as raw data; if this is one of the kit's files, make it again.",
            ) from None
    if any(map(_is_elsewhere, _tensors(model))):
        raise KitError(
            "The ONNX file keeps its values in other files.",
            where=paths.shown(path),
            hint="Save it as one file: onnx.save_model(onnx.load(OLD), NEW)",
        )
    return model


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


def raw_data(tensor: Any, data: mmap.mmap) -> Optional[memoryview]:
    """Return the raw data of a tensor of :func:`read`; None where its values are in a typed field."""
    place = _left_out(tensor)
    if place is not None:
        return memoryview(data)[place]
    return memoryview(tensor.raw_data) if tensor.HasField("raw_data") else None


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


def _tensors(message: Any) -> Iterator[Any]:
    """Yield the tensors in a message, wherever they are in it."""
    if message.DESCRIPTOR.full_name == "onnx.TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.label == field.LABEL_REPEATED else (value,):
                yield from _tensors(inner)


def _is_elsewhere(tensor: Any) -> bool:
    """Return whether the values of a tensor are in another file, or it does not say plainly where."""
    if not tensor.external_data:
        return bool(tensor.data_location == tensor.EXTERNAL)
    return len(tensor.external_data) != _PLACE_KEYS or _left_out(tensor) is None


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
        tag, position = _varint(data, position, end, _TAG_BYTES)
        if tag < 8:  # the field with the number 0, at which protobuf would stop
            raise _Broken
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, position = _varint(data, position, end, _MOST_BYTES[_VARINT])
        elif wire_type == _BYTES:
            length, position = _varint(data, position, end, _MOST_BYTES[_BYTES])
            if length > end - position:
                raise _Broken
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
        elif wire_type in _WIDTHS:
            position += _WIDTHS[wire_type]
        else:
            raise _Broken
        if position - start > _MOST:
            raise _TooMuch
    if position != end:
        raise _Broken
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


def _varint(data: mmap.mmap, position: int, end: int, most_bytes: int) -> Tuple[int, int]:
    """Return the number at ``position`` and the place behind it.

    :param end: the place behind what it is in.
    :raises _Broken: it does not end there, or not within ``most_bytes``.
    """
    number = shift = 0
    for place in range(position, min(end, position + most_bytes)):
        byte = data[place]
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place + 1
        shift += 7
    raise _Broken
