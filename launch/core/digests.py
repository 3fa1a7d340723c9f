"""Content hashes (sha256): what a product depends on, and whether a file is still the one that was made."""

import hashlib
import hmac
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterable

from . import paths
from .files import check_regular

_KEY = paths.BUILD / "digest.key"

_WEIGHTS = (".bin", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".safetensors")
"""Files of a model folder that hold weights: no variant reads them."""


def digest_file(path: Path) -> str:
    """:raises OSError: it cannot be read, or is no regular file."""
    check_regular(path)
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        for chunk in iter(lambda: handle.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def digest_value(value: Any) -> str:
    """Return the digest of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_with_key(text: str) -> str:
    """Return a digest of ``text`` that may be published: only this checkout can make it.

    With a plain one a short secret is found by trying all.  The key is random and stays in the build folder;
    where there is none, it is made.

    :raises OSError: the key cannot be read or written.
    """
    if not _KEY.is_file():
        _KEY.parent.mkdir(parents=True, exist_ok=True)
        part = _KEY.with_name(f".{_KEY.name}.{os.urandom(8).hex()}.part")
        try:
            with open(part, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as handle:
                handle.write(os.urandom(32))
            with suppress(FileExistsError):
                os.link(part, _KEY)  # whoever is first
        finally:
            part.unlink()
    return hmac.new(_KEY.read_bytes(), text.encode("utf-8", "surrogateescape"), "sha256").hexdigest()


def digest_files(files: Iterable[Path], base: Path) -> str:
    """Return one digest over several files and their names relative to ``base``."""
    return digest_value(sorted((path.relative_to(base).as_posix(), digest_file(path)) for path in files))


def digest_model_folder(folder: Path) -> str:
    """Return one digest over a model folder's own files, its weights excepted."""
    return digest_files(
        (path for path in folder.iterdir() if path.is_file() and path.suffix not in _WEIGHTS), folder
    )
