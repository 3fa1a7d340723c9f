"""An IR's text files, read with limits and without the runtime, before anything loads what they claim."""

import math
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Set

from ..core import paths
from ..core.errors import KitError
from .checks import Check

MAX_BYTES = 64 * 10**6
"""What is read of ``.xml`` or ``.mapping`` at most; those of BERT-large have two million bytes."""

MAX_ELEMENTS = 2**31
"""Elements of one tensor at most; the largest of BERT-large, the word embeddings, has 31 million."""

_DIGITS = 18
"""Digits of a number at most."""

_HINT = "Remove the tree and make it again, or copy it again from where it came."


class IrFile:
    """What an ``.xml`` file says of an IR.

    :param path: the file; its ``.bin`` lies beside it.
    :raises KitError: it is no IR, is larger than is read, or claims constants that ``.bin`` has not.
    """

    def __init__(self, path: Path) -> None:
        root = _parse(path)
        if root.tag != "net":
            raise _fault(path, f"its first element is {root.tag!r}, not 'net'")
        self.version = _number(path, root.get("version"), "the version")
        self.names: Set[str] = set()
        types: List[str] = []
        end = 0
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise KitError("The IR has no .bin file.", where=paths.show_path(weights), hint=_HINT)
        there = weights.stat().st_size
        for layer in root.iterfind("layers/layer"):
            name, kind = layer.get("name") or "", layer.get("type") or ""
            self.names.add(name)
            types.append(kind)
            for port in layer.iterfind("*/port"):
                sizes = [_number(path, dim.text, f"a dimension of {name!r}") for dim in port.iterfind("dim")]
                if math.prod(sizes) > MAX_ELEMENTS:
                    raise _fault(path, f"layer {name!r} has a tensor of {sizes}")
            data = layer.find("data")
            if kind == "Const" and data is not None:
                offset = _number(path, data.get("offset"), f"the offset of {name!r}")
                size = _number(path, data.get("size"), f"the size of {name!r}")
                end = max(end, offset + size)
                if offset + size > there:
                    reason = f"constant {name!r} ends at byte {offset + size:,} of a .bin of {there:,} bytes"
                    raise _fault(path, reason)
        if not types:
            raise _fault(path, "it has no layers")
        if end != there:
            raise _fault(path, f"its last constant ends at byte {end:,} of a .bin of {there:,} bytes")
        self.types: Dict[str, int] = dict(sorted(Counter(types).items()))


def check_mapping(path: Path, ir: IrFile) -> Check:
    """Check that a ``.mapping`` file names tensors of the ONNX file, and layers that the IR has."""
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
    """Return the root of an XML file; no entity is expanded and nothing else is opened."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import ElementTree
    from defusedxml.common import DefusedXmlException

    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise _fault(path, f"it has {size:,} bytes, and {MAX_BYTES:,} are read at most")
        return ElementTree.parse(str(path), forbid_dtd=True).getroot()
    except FileNotFoundError:
        raise KitError(
            f"The IR has no {path.suffix} file.", where=paths.show_path(path), hint=_HINT
        ) from None
    except (ParseError, ValueError) as error:
        if isinstance(error, DefusedXmlException):
            raise _fault(path, "it declares entities, which no IR has") from None
        raise _fault(path, f"it is no XML: {error}") from None


def _number(path: Path, text: Any, what: str) -> int:
    # A dimension of unknown size is -1, which no tree has.
    digits = str(text).strip()
    if not (digits.isascii() and digits.isdigit()):
        raise _fault(path, f"{what} is {text!r} and no whole number")
    if len(digits) > _DIGITS:
        raise _fault(path, f"{what} has {len(digits):,} digits")
    return int(digits)


def _fault(path: Path, reason: str) -> KitError:
    return KitError(f"This is no IR, or it is damaged: {reason}.", where=paths.show_path(path), hint=_HINT)
