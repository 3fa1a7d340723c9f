"""The list of what ``INPUT=hub`` reads: a model's repository at one revision, and question files."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Tuple

from ..core import files, paths
from ..core.errors import KitError

LIST = paths.PACKAGE / "model" / "hub.json"
"""The list that is read unless ``HUB=`` names another."""


@dataclass(frozen=True)
class File:
    """A file to download; ``address`` is empty in the model's repository, what is not published is None."""

    name: str
    address: str = ""
    bytes: Optional[int] = None
    sha256: Optional[str] = None


@dataclass(frozen=True)
class Listing:
    """What ``INPUT=hub`` reads; ``revision`` is a commit, and only evaluations read ``weights``."""

    repository: str
    revision: str
    model: Tuple[File, ...]
    weights: Tuple[File, ...]
    train: File
    validation: File


def read_hub_list(path: Path) -> Listing:
    """:raises KitError: the list cannot be read, or has not the form of :data:`LIST`."""
    content = files.read_json(path, "HUB")
    try:
        model, questions = content["model"], content["questions"]
        found = Listing(
            repository=_matching(r"[\w.-]+(/[\w.-]+)?", model["repository"], "repository"),
            revision=_matching("[0-9a-f]{40}", model["revision"], "revision (the whole hash of a commit)"),
            model=tuple(_file(name, entry) for name, entry in model["files"].items()),
            weights=tuple(_file(name, entry) for name, entry in model["weights"].items()),
            train=_questions(questions["train"]),
            validation=_questions(questions["validation"]),
        )
        names = [file.name for file in (*found.model, *found.weights, found.train, found.validation)]
        if len(set(names)) < len(names):
            raise ValueError("two files have one name")
        return found
    except KeyError as error:
        problem = f"the key {error} is missing"
    except (AttributeError, TypeError):
        problem = "a text or an object stands where the other must"
    except ValueError as error:
        problem = str(error)
    raise KitError(
        f"The list of what INPUT=hub reads is not of the form it must be: {problem}.",
        where=f"HUB={path}",
        hint=f"Write it as {paths.show_path(LIST)} is.",
    )


def _matching(pattern: str, value: Any, what: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise ValueError(f"{json.dumps(value)[:60]} is no {what}")
    return value


def _file(name: str, entry: Mapping[str, Any]) -> File:
    _matching(r"\w[\w.-]*", name, "name of a file")
    for key, value in entry.items():
        if key == "sha256":
            _matching("[0-9a-f]{64}", value, "sha256")
        elif key == "bytes":
            if type(value) is not int or value < 0:
                raise ValueError(f"{json.dumps(value)[:60]} is no number of bytes")
        elif key != "address":
            raise ValueError(f"the key {key!r} means nothing")
    return File(name, **entry)


def _questions(entry: Mapping[str, Any]) -> File:
    address = _matching(r"https?://[^\s@]+/\w[\w.-]*", entry["address"], "address of a file")
    return _file(address.rpartition("/")[2], {**entry, "bytes": entry["bytes"], "sha256": entry["sha256"]})
