"""Limits on what an ONNX file may hold, counted in its bytes before anything is made of them.

A small file can ask for much.  An empty message takes 2 bytes in the file and up to 295 once protobuf has
parsed it, a string of one character 3 and 88; a tensor of a few bytes can declare 10^15 elements.
:func:`check` follows the wire format through a mapping of the file: it goes into messages, passes over the
bytes of weights without reading them, builds no object, and stops at the first limit that is exceeded.

The wire format is that of https://protobuf.dev/programming-guides/encoding/, the fields are those that
``onnx.ModelProto`` describes.  What is accepted here can still be no model; protobuf and its readers say so.
"""

import mmap
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from . import paths
from .errors import KitError
from .onnx_wire import BYTES, FIXED32, FIXED64, MOST_BYTES, TAG_BYTES, VARINT, WIDTHS, Broken, varint


@dataclass(frozen=True)
class Limits:
    """How much a file may hold.

    The largest file of the kit has 1.34e9 bytes, nearly all of them weights, and 8,667 messages, 40,238
    fields and 12,624 values, down to a depth of 6.  The bytes below were measured with protobuf 3.20.3 and
    its parser in C++ (x86-64, glibc).  At all limits together a model takes about half a gigabyte beside its
    texts and raw data, which take what they take in the file.

    :param file_bytes: of the file; the bound that protobuf sets to a message.
    :param messages: the model, its graphs, nodes, attributes, tensors, types and so on.  An empty one takes,
        parsed, 295 bytes as AttributeProto, 249 as TensorProto, 247 as GraphProto, 201 as FunctionProto,
        169 as NodeProto, 121 as TrainingInfoProto and 63 to 89 as any other.
    :param fields: in all messages, each time that one is given, and packed dimensions: what is looked at one
        by one, a million in one second, or in three where every number is as long as it can be.  What
        protobuf keeps of one takes up to 93 bytes beside its content (a repeated string 40 to 88, an unknown
        field 19 to 93), and up to 80 more where it is the first of its kind in its message.
    :param values: strings and numbers in repeated fields, packed or not; of an unknown field, each byte.  A
        number takes up to 16 bytes (its array doubles as it grows), and 40 more while numpy reads a tensor
        whose values are not in ``raw_data``.
    :param depth: of messages within each other, the model's own being 0; protobuf refuses a deeper one.
    :param dimensions: of one tensor; numpy has no more.
    """

    file_bytes: int = 2**31 - 1
    messages: int = 500_000
    fields: int = 1_000_000
    values: int = 16_000_000
    depth: int = 100
    dimensions: int = 32


DEFAULT = Limits()

_32_BITS = 2**32 - 1
"""What protobuf keeps of a tag, an ``int32`` and an enumeration."""

_GOES_ON = bytes(byte >> 7 for byte in range(256))
"""For ``bytes.translate``: 1 for a byte after which a varint goes on, 0 for its last."""

_CHUNK = 1 << 20

_EXTERNAL = 1
"""``TensorProto.DataLocation``: the values are in another file."""

_STRING = 8
_COMPLEX = (14, 15)
_ELEMENT_BYTES = {
    **dict.fromkeys((2, 3, 9), 1),
    **dict.fromkeys((4, 5, 10, 16), 2),
    **dict.fromkeys((1, 6, 12), 4),
    **dict.fromkeys((7, 11, 13, 14), 8),
    15: 16,
}
"""Bytes of an element in ``raw_data``, by ``TensorProto.DataType`` as of onnx 1.10.2."""

_SHARING = 8
"""Elements of a later type that one byte, or one number, can hold: of an element of one bit."""


def check(path: Path, limits: Limits = DEFAULT) -> bool:
    """Refuse a file that would take too much memory or time to read, or whose bytes are no message.

    A tensor is refused, too, that declares more elements than it holds, unless its values are in another
    file.  So is one that is given twice where one belongs: protobuf would join the two, and their shapes.

    :return: whether the values of a tensor are in another file.
    :raises KitError: a limit is exceeded, or the file is damaged.
    :raises OSError: the file cannot be read.
    """
    size = path.stat().st_size  # what is empty cannot be mapped
    if size > limits.file_bytes:
        raise _excess(path, limits.file_bytes, size, "bytes")
    if not size:
        raise damaged(path, "it is empty")
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if hasattr(data, "madvise"):  # or the weights would be read ahead from the disk
            data.madvise(mmap.MADV_RANDOM)
        walk = _Walk(path, data, limits)
        walk.message(_model(), 0, len(data), 0)
        return walk.is_elsewhere


def damaged(path: Path, reason: str) -> KitError:
    """Return the error for a file that is no whole ONNX file."""
    return KitError(
        f"This is no ONNX file, or it is damaged: {reason}.",
        where=paths.shown(path),
        hint="Name a whole ONNX file; if this one was copied or was being written, make it again.",
    )


def _excess(path: Path, limit: int, found: int, what: str) -> KitError:
    """Return the error for a file that holds more than one limit allows."""
    return KitError(
        f"The ONNX file holds too much to be read: at least {found:,} {what}, where {limit:,} are the limit.",
        where=paths.shown(path),
        hint="The kit's own files stay far below it; if this one should be one of them, make it again.",
    )


class _Field(NamedTuple):
    """A field of a message, in one of the forms in which it may be given.

    :param message: what is in it; None for a number or a string.
    :param repeated: whether each time that it is given adds to it.
    :param packed: bytes of each of the numbers that are packed in it, 0 for varints; None for another form.
    :param once: whether it is refused where it is given twice.
    """

    name: str
    message: Optional["_Message"]
    repeated: bool
    packed: Optional[int]
    once: bool


class _Message:
    """A type of message: its fields by tag, which is their number and wire type."""

    def __init__(self) -> None:
        self.fields: Dict[int, _Field] = {}
        self.is_tensor = False


class _Tensor:
    """What a tensor declares, and what it holds."""

    def __init__(self) -> None:
        self.shape: List[int] = []
        self.data_type = 0
        self.raw_bytes: Optional[int] = None
        self.values = 0
        self.is_elsewhere = False

    def elements(self) -> int:
        """Return the number of elements that its shape declares."""
        number = 1
        for size in self.shape:
            number *= size
        return number

    def room(self) -> int:
        """Return the number of elements that its bytes or values can be."""
        width = _ELEMENT_BYTES.get(self.data_type)
        if self.data_type == _STRING:
            return self.values
        if width is None:
            return _SHARING * ((self.raw_bytes or 0) + self.values)
        if self.raw_bytes is not None:
            return self.raw_bytes // width
        return self.values // 2 if self.data_type in _COMPLEX else self.values


@lru_cache(maxsize=None)
def _model() -> _Message:
    """Return what ``onnx.ModelProto`` describes."""
    import onnx

    return _describe(onnx.ModelProto.DESCRIPTOR, {})


def _describe(descriptor: Any, known: Dict[str, _Message]) -> _Message:
    """Return a message type and, in ``known``, those within it; a type may be within itself."""
    if descriptor.full_name in known:
        return known[descriptor.full_name]
    message = known[descriptor.full_name] = _Message()
    message.is_tensor = descriptor.full_name == "onnx.TensorProto"
    for field in descriptor.fields:
        repeated = field.label == field.LABEL_REPEATED
        inner = _describe(field.message_type, known) if field.message_type else None
        once = bool(inner) and not repeated and _is_one_tensor(field.message_type)
        if field.type in (field.TYPE_MESSAGE, field.TYPE_STRING, field.TYPE_BYTES):
            wire_type = BYTES
        else:
            wire_type, width = _number(field)
            if repeated:
                message.fields[field.number << 3 | BYTES] = _Field(field.name, None, True, width, False)
        message.fields[field.number << 3 | wire_type] = _Field(field.name, inner, repeated, None, once)
    return message


def _is_one_tensor(descriptor: Any) -> bool:
    """Return whether a message is a tensor, or has one in a field that is not repeated."""
    return descriptor.full_name in ("onnx.TensorProto", "onnx.SparseTensorProto")


def _number(field: Any) -> Tuple[int, int]:
    """Return a number's wire type and its bytes where they are fixed, else 0."""
    if field.type in (field.TYPE_FLOAT, field.TYPE_FIXED32, field.TYPE_SFIXED32):
        return FIXED32, 4
    if field.type in (field.TYPE_DOUBLE, field.TYPE_FIXED64, field.TYPE_SFIXED64):
        return FIXED64, 8
    return VARINT, 0


class _Walk:
    """One pass over a file's bytes, and the counts so far."""

    def __init__(self, path: Path, data: mmap.mmap, limits: Limits) -> None:
        self._path = path
        self._data = data
        self._limits = limits
        self._messages = 0
        self._fields = 0
        self._values = 0
        self.is_elsewhere = False

    def message(self, kind: _Message, position: int, end: int, depth: int) -> None:
        """Go through the message in the bytes from ``position`` to before ``end``."""
        self._messages += 1
        if self._messages > self._limits.messages:
            raise _excess(self._path, self._limits.messages, self._messages, "messages")
        if depth > self._limits.depth:
            raise _excess(self._path, self._limits.depth, depth, "messages within each other")
        data, fields = self._data, kind.fields
        tensor = _Tensor() if kind.is_tensor else None
        seen: List[int] = []
        while position < end:
            self._fields += 1
            if self._fields > self._limits.fields:
                raise _excess(self._path, self._limits.fields, self._fields, "fields")
            start = position
            tag, position = data[position], position + 1
            if tag > 127:
                tag, position = self._varint(start, end, TAG_BYTES)
                tag &= _32_BITS
            wire_type = tag & 7
            number = 0
            if wire_type in MOST_BYTES:
                number = data[position] if position < end else 128
                if number < 128:  # most are; a call for each would take as long as all the rest
                    position += 1
                else:
                    number, position = self._varint(position, end, MOST_BYTES[wire_type])
                stop = position + number if wire_type == BYTES else position
            elif wire_type in WIDTHS:
                stop = position + WIDTHS[wire_type]
            else:
                raise self._broken(start, f"a field of wire type {wire_type}")
            if stop > end:
                raise self._broken(start, "a field that goes on behind the end of what it is in")
            field = fields.get(tag)
            if field is None:
                if tag < 8:
                    raise self._broken(start, "a field with the number 0")
                self._add_values(stop - start)
            elif field.message is not None:
                if field.once:
                    if tag in seen:
                        raise self._broken(start, "a second tensor where one belongs")
                    seen.append(tag)
                self.message(field.message, position, stop, depth + 1)
            else:
                count = 1
                if field.packed is not None:
                    count = self._packed(position, stop, field.packed)
                elif field.repeated:
                    self._add_values(1)
                if tensor is not None:
                    self._note(tensor, field, number, count, position, stop)
            position = stop
        if tensor is not None and tensor.shape:
            self._measure(tensor, end)

    def _varint(self, position: int, end: int, most_bytes: int) -> Tuple[int, int]:
        """Return the number at ``position`` and the place behind it."""
        try:
            return varint(self._data, position, end, most_bytes)
        except Broken:
            raise self._broken(position, "a number that does not end") from None

    def _packed(self, position: int, end: int, width: int) -> int:
        """Count the packed numbers between two places, each of ``width`` bytes, or varints where it is 0."""
        if width:
            count, rest = divmod(end - position, width)
            if rest:
                raise self._broken(position, f"packed numbers of {width} bytes with {rest} left over")
            self._add_values(count)
            return count
        count = 0
        for start in range(position, end, _CHUNK):
            # With the end of the chunk before, for a number that lies in both.
            before = min(start - position, MOST_BYTES[VARINT] - 1)
            goes_on = self._data[start - before : min(start + _CHUNK, end)].translate(_GOES_ON)
            ended = goes_on.count(0, before)
            self._add_values(ended)
            count += ended
            if b"\1" * MOST_BYTES[VARINT] in goes_on:
                raise self._broken(start, "a packed number that does not end")
        if end > position and self._data[end - 1] > 127:
            raise self._broken(end - 1, "a packed number that does not end")
        return count

    def _add_values(self, count: int) -> None:
        self._values += count
        if self._values > self._limits.values:
            raise _excess(self._path, self._limits.values, self._values, "values beside raw data")

    def _note(
        self, tensor: _Tensor, field: _Field, number: int, count: int, position: int, stop: int
    ) -> None:
        """Take from one field of a tensor what it declares or holds."""
        if field.name == "dims":
            found = len(tensor.shape) + count
            if found > self._limits.dimensions:
                raise _excess(self._path, self._limits.dimensions, found, "dimensions of one tensor")
            if field.packed is None:
                self._lengthen(tensor, number, position)
            else:
                self._fields += count  # each is looked at, and takes as long as a field
            while field.packed is not None and position < stop:
                number, behind = self._varint(position, stop, MOST_BYTES[VARINT])
                self._lengthen(tensor, number, position)
                position = behind
        elif field.name == "data_type":
            tensor.data_type = number & _32_BITS
        elif field.name == "data_location":
            if number & _32_BITS in (0, _EXTERNAL):  # another one is kept as an unknown field
                tensor.is_elsewhere = number & _32_BITS == _EXTERNAL
                self.is_elsewhere |= tensor.is_elsewhere
        elif field.name == "raw_data":
            tensor.raw_bytes = stop - position
        elif field.name.endswith("_data"):
            tensor.values += count

    def _lengthen(self, tensor: _Tensor, number: int, position: int) -> None:
        """Give a tensor one dimension more."""
        size = number & 2**64 - 1
        if size >= 2**63:
            raise self._broken(position, f"a tensor with a dimension of {size - 2**64}")
        tensor.shape.append(size)

    def _measure(self, tensor: _Tensor, end: int) -> None:
        """Refuse a tensor that declares more than it holds."""
        elements, room = tensor.elements(), tensor.room()
        if elements >= 2**63:
            raise self._broken(end, "a tensor with more elements than 63 bits can count")
        if elements > room and not tensor.is_elsewhere:
            raise self._broken(
                end,
                "a tensor that has not the values that its type and shape need:"
                f" {elements:,} elements are declared, {room:,} are there",
            )

    def _broken(self, position: int, what: str) -> KitError:
        return damaged(self._path, f"it has {what}, at byte {position:,}")
