"""The wire format of an ONNX file, which is protobuf's: https://protobuf.dev/programming-guides/encoding/."""

import mmap
from typing import Tuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types; 3 and 4 are groups, which ONNX has none of, 6 and 7 are nothing."""

WIDTHS = {FIXED64: 8, FIXED32: 4}
"""Bytes of what is not preceded by its length."""

TAG_BYTES = 5
MOST_BYTES = {VARINT: 10, BYTES: 5}
"""Bytes that a tag, and a number or length, takes at most."""


class Broken(Exception):
    """The bytes are no message."""


def varint(data: mmap.mmap, position: int, end: int, most_bytes: int) -> Tuple[int, int]:
    """Return the number at ``position`` and the place behind it.

    :param end: the place behind what it is in.
    :raises Broken: it does not end there, or not within ``most_bytes``.
    """
    number = shift = 0
    for place in range(position, min(end, position + most_bytes)):
        byte = data[place]
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place + 1
        shift += 7
    raise Broken
