"""Features of many questions are kept below the build folder, for the next variant and the next run.

The name of a file says all that its content depends on, so that what has changed is never served stale.  The
files are those of the ``datasets`` package, which looks into a cache of its own only for questions that are
files of its own already.
"""

import contextlib
import hashlib
import inspect
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Sequence

from ..core import digests, paths

FOLDER = paths.BUILD / "cache" / "features"

WORTH = 1000
"""Questions from which on features are kept: a thousand take a second, and 11 MB."""

KEPT = 2
"""Files that are kept: features to calibrate on, and to evaluate on."""


def key(columns: Mapping[str, Sequence[str]], tokenizer: Any, **options: int) -> str:
    """Return a digest of what the features of questions depend on.

    That is the questions, the options, the tokenizer's content, the versions of the packages that encode and
    write, and the code that calls them: this package's, and the files of the tokenizer's classes, which are
    transformers' and may be patched.

    :param columns: what is tokenized.
    :param tokenizer: a fast tokenizer; it counts by its content, wherever it is from.
    :param options: the lengths.
    """
    import datasets
    import tokenizers
    import transformers

    classes = {Path(inspect.getfile(kind)) for kind in type(tokenizer).__mro__ if kind is not object}
    content = [
        dict(columns),
        tokenizer.backend_tokenizer.to_str(),
        [type(tokenizer).__name__, tokenizer.padding_side, tokenizer.pad_token_id],
        [tokenizer.pad_token_type_id, tokenizer.model_input_names],
        options,
        [datasets.__version__, tokenizers.__version__, transformers.__version__],
        sorted([path.name, digests.of_file(path)] for path in classes),
        digests.of_files(sorted(Path(__file__).parent.glob("*.py")), Path(__file__).parent),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def mapped(
    columns: Dict[str, List[str]], function: Callable[[Dict[str, List[str]]], Dict[str, Any]], name: str
) -> Any:
    """Return ``function`` of the columns as a ``datasets.Dataset``, from the file ``name`` if there is one.

    :param name: a digest, from :func:`key`; empty where nothing is to be kept.
    """
    from datasets import Dataset

    path = FOLDER / f"{name}.arrow"
    made: Any = None
    if name and path.is_file():
        # A file that somebody has damaged is made again.
        with contextlib.suppress(Exception):
            made = Dataset.from_file(str(path))
            os.utime(path)
    if made is None:
        rows = Dataset.from_dict(columns)
        options: Dict[str, Any] = {"batched": True, "remove_columns": list(columns)}
        if name:
            # What cannot be kept (a full disk) is made in memory.
            with contextlib.suppress(OSError):
                FOLDER.mkdir(parents=True, exist_ok=True)
                made = rows.map(function, cache_file_name=str(path), **options)
                _forget(path)
        if made is None:
            made = rows.map(function, **options)
    return made


def _forget(newest: Path) -> None:
    """Remove all files but the ones used last, and what killed runs have left."""
    finished = sorted(newest.parent.glob("*.arrow"), key=lambda path: path.stat().st_mtime, reverse=True)
    kept = {newest, *finished[:KEPT]}
    for path in newest.parent.iterdir():
        if path not in kept:
            with contextlib.suppress(OSError):
                path.unlink()
