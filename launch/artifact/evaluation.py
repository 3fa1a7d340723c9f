"""``<OUT>/<V>-evaluation.json``, beside a tree: exact match and F1 of its files, and their sums."""

import json
from pathlib import Path
from typing import Dict, Mapping, Optional

from ..core import files, paths
from ..core.errors import KitError
from . import trees
from .trees import Content

FORMAT = 1
"""The form that :data:`SCHEMA` describes."""

SCHEMA = paths.PACKAGE / "artifact" / "schema" / "evaluation.json"

LABELS = {"checkpoint": "checkpoint", "onnx": "ONNX", "ir": "IR"}
"""What is evaluated, by its name in ``results``, in the order in which one is made from the other."""


def find_path(tree: Path) -> Path:
    """Return where the evaluation of ``tree`` is."""
    return tree.with_name(f"{tree.name}-evaluation.json")


def list_files(stem: str) -> Dict[str, str]:
    """Return the files of a tree that are evaluated, by their names in ``results``, relative to the tree."""
    return {"onnx": f"{stem}.onnx", "ir": f"ir/{stem}.xml", "weights": f"ir/{stem}.bin"}


def read_evaluation(tree: Path) -> Optional[Content]:
    """Return the evaluation of a tree; None if there is none.

    :raises KitError: it is not as the kit writes it.
    """
    import jsonschema

    path = find_path(tree)
    try:
        content = trees.parse_json(files.read_bytes(path, trees.MAX_BYTES))
        jsonschema.Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, jsonschema.ValidationError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
        raise KitError(
            f"The evaluation is not as the kit writes it: {' '.join(str(reason).split())[:200]}.",
            where=paths.show_path(path),
            hint=f"Remove it, and evaluate the tree again: make evaluate V={tree.name} VALIDATION_FILE=…",
        ) from None
    return dict(content)


def is_current(content: Content, entries: Mapping[str, str]) -> bool:
    """Return whether the evaluated files are those that a tree's checksums ``entries`` list."""
    return all(entries.get(name) == digest for name, digest in content["key"]["files"].items())
