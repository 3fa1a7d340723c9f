"""Content hashes: what a product depends on, and whether a file is still the one that was made."""

import hashlib
import json
from pathlib import Path
from typing import Any, Iterable

from .files import check_regular

_CHUNK = 1 << 20

_WEIGHTS = (".bin", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".safetensors")
"""Files of a model folder that hold weights.  No variant reads them, so none depends on them."""


def of_file(path: Path) -> str:
    """Return the sha256 of a file's bytes.

    :raises OSError: it cannot be read, or is no regular file.
    """
    check_regular(path)
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        for chunk in iter(lambda: handle.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def of_value(value: Any) -> str:
    """Return the sha256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def of_files(files: Iterable[Path], base: Path) -> str:
    """Return one sha256 over several files and their names relative to ``base``."""
    return of_value(sorted((path.relative_to(base).as_posix(), of_file(path)) for path in files))


def of_model_folder(folder: Path) -> str:
    """Return one sha256 over a model folder's own files, its weights excepted."""
    return of_files(
        (path for path in folder.iterdir() if path.is_file() and path.suffix not in _WEIGHTS), folder
    )
