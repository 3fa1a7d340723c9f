"""An IR's text files, read with limits and without the runtime."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

from ..core import paths
from ..core.errors import KitError
from .checks import Check

MAX_BYTES = 64 * 10**6
"""Largest ``.xml`` or ``.mapping`` that is read; those of BERT-large have two million bytes."""

MAX_ELEMENTS = 2**31
"""Largest number of elements of a tensor; BERT-large's word embeddings have 31 million."""

_HINT = "Remove the tree and make it again, or copy it again from where it came."


class IrFile:
    """The content of an IR's ``.xml``, checked against the ``.bin`` beside it.

    :raises KitError: it is no IR, is too large, or its constants do not fill the ``.bin``.
    """

    def __init__(self, path: Path) -> None:
        root = _parse(path)
        if root.tag != "net":
            raise _fault(path, f"its first element is {root.tag!r}, not 'net'")
        self.version = _number(path, root.get("version"), "the version")
        there, end = _size(path.with_suffix(".bin")), 0
        layers = root.findall("layers/layer")
        if not layers:
            raise _fault(path, "it has no layers")
        self.names = {layer.get("name") or "" for layer in layers}
        self.types = dict(sorted(Counter(layer.get("type") or "" for layer in layers).items()))
        for layer in layers:
            name, data = layer.get("name") or "", layer.find("data")
            for port in layer.iterfind("*/port"):
                sizes = [_number(path, dim.text, f"a dimension of {name!r}") for dim in port.iterfind("dim")]
                if math.prod(sizes) > MAX_ELEMENTS:
                    raise _fault(path, f"layer {name!r} has a tensor of {sizes}")
            if layer.get("type") == "Const" and data is not None:
                offset = _number(path, data.get("offset"), f"the offset of {name!r}")
                size = _number(path, data.get("size"), f"the size of {name!r}")
                end = max(end, offset + size)
                if offset + size > there:
                    reason = f"constant {name!r} ends at byte {offset + size:,} of a .bin of {there:,} bytes"
                    raise _fault(path, reason)
        if end != there:
            raise _fault(path, f"its last constant ends at byte {end:,} of a .bin of {there:,} bytes")


def check_mapping(path: Path, ir: IrFile) -> Check:
    """Check that a ``.mapping`` maps names of the ONNX file to layers of the IR."""
    try:
        root = _parse(path)
        entries = root.findall("map") if root.tag == "mapping" else []
        if not entries:
            raise _fault(path, "it maps nothing")
        for entry in entries:
            framework, layer = entry.find("framework"), entry.find("IR")
            if framework is None or layer is None or not framework.get("name"):
                raise _fault(path, "an entry has not both names")
            if layer.get("name") not in ir.names:
                raise _fault(path, f"it names layer {layer.get('name')!r}, which the IR has not")
    except KitError as error:
        return Check("IR: mapping", False, error.what)
    return Check("IR: mapping", True, f"{len(entries):,} tensors of the ONNX file found in the IR")


def _parse(path: Path) -> Any:
    """Return the root of an XML file; entities are refused."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import ElementTree
    from defusedxml.common import DefusedXmlException

    size = _size(path)
    if size > MAX_BYTES:
        raise _fault(path, f"it has {size:,} bytes, and {MAX_BYTES:,} are read at most")
    try:
        return ElementTree.parse(str(path), forbid_dtd=True).getroot()
    except DefusedXmlException:
        raise _fault(path, "it declares entities, which no IR has") from None
    except (ParseError, ValueError) as error:
        raise _fault(path, f"it is no XML: {error}") from None


def _size(path: Path) -> int:
    if not path.is_file():
        raise KitError(f"The IR has no {path.suffix} file.", where=paths.show_path(path), hint=_HINT)
    return path.stat().st_size


def _number(path: Path, text: Any, what: str) -> int:
    # A dimension of unknown size is -1, which no tree has.
    digits = str(text).strip()
    if not (digits.isascii() and digits.isdigit()):
        raise _fault(path, f"{what} is {text!r} and no whole number")
    if len(digits) > 18:
        raise _fault(path, f"{what} has {len(digits):,} digits")
    return int(digits)


def _fault(path: Path, reason: str) -> KitError:
    return KitError(f"This is no IR, or it is damaged: {reason}.", where=paths.show_path(path), hint=_HINT)
