"""``provenance.json``: what a tree was made from, how, where, and what was measured on it."""

import errno
import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterable, Iterator, List, Mapping, Union

from ..core import files, hidden, paths
from ..core.errors import KitError
from ..model.variants import BLOCK_PREFIX, parse_name
from . import sums, trees
from .trees import Content

_SHOWN = 10
"""Problems of a provenance that an error lists."""


def read_provenance(tree: Path) -> Content:
    """:raises KitError: a tree has no provenance, one of another format, or one with a fault."""
    path = tree / trees.PROVENANCE
    again = "Make the tree again: make variant V=" + (tree.name if parse_name(tree.name) else "<name>")

    def fail(problem: str, hint: str = again) -> KitError:
        return KitError(problem, where=paths.show_path(path), hint=hint)

    try:
        content = trees.parse_json(files.read_bytes(path, trees.MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        hint = "Name a folder in which make has left one, as gen_hybrid_sparse/<V>."
        raise fail("There is no provenance, so this is no tree of the kit's.", hint) from None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EISDIR, errno.EFBIG):
            limit = f"{trees.MAX_BYTES:,} bytes"
            raise fail(f"The provenance is no regular file of up to {limit}.") from None
        raise fail(f"The provenance cannot be read: {error.strerror}.", "Make it readable.") from None
    except (ValueError, RecursionError) as error:
        raise fail(f"The provenance is not valid JSON: {str(error)[:200]}.") from None
    version = content.get("format") if isinstance(content, dict) else None
    if version in trees.EARLIER_FORMATS:
        problem = f"The tree is an earlier kit's: its provenance is of format {version}, not {trees.FORMAT}."
        raise fail(problem, again + "  (its ONNX file and IR are used again where they are current)")
    if version != trees.FORMAT:
        problem = f"The provenance is of a format that this kit does not know: {json.dumps(version)[:60]}."
        raise fail(problem)
    lines = find_problems(content)
    if lines:
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise fail("\n".join(["The provenance is not as the kit writes it:", *lines[:_SHOWN], *more]))
    return dict(content)


def find_disagreements(tree: Path, entries: Mapping[str, str], content: Content) -> Iterator[str]:
    """Yield where a valid provenance disagrees with its folder or the checksums ``entries`` (empty: none)."""
    if content["variant"] != tree.name:
        yield f"{trees.PROVENANCE} is that of {content['variant']}"
    if not entries:
        return
    described = {file: entry["sha256"] for file, entry in content["files"].items()}
    listed = {file: digest for file, digest in entries.items() if file != trees.PROVENANCE}
    for file in sorted(set(described) | set(listed)):
        if file not in listed:
            yield f"{file} is in {trees.PROVENANCE} and not in {sums.NAME}"
        elif file not in described:
            yield f"{file} is in {sums.NAME} and not in {trees.PROVENANCE}"
        elif described[file] != listed[file]:
            yield f"{file} has one sum in {sums.NAME} and another in {trees.PROVENANCE}"
        else:
            with suppress(OSError):
                if (tree / file).lstat().st_size != content["files"][file]["bytes"]:
                    yield f"{file} has not the size that {trees.PROVENANCE} says"


def find_problems(content: Any) -> List[str]:
    """Return a provenance's faults, a line each: against the schema, contradictions, paths of a machine."""
    import jsonschema

    schema = json.loads(trees.SCHEMA.read_text(encoding="utf-8"))
    errors = list(jsonschema.Draft7Validator(schema).iter_errors(content))
    if errors:
        errors.sort(key=lambda error: list(map(str, error.path)))
        return [f"{_place(error.path)}: {_message(error.instance, error.message)}" for error in errors]
    return [*_contradictions(content), *_matrix_faults(content), *_places("$", content)]


def _place(parts: Iterable[Union[str, int]]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _message(value: Any, text: str) -> str:
    whole = repr(value)
    if len(whole) > 80:
        text = text.replace(whole, whole[:60] + "…")
    return " ".join(text.split())[:300]


def _contradictions(content: Content) -> Iterator[str]:
    """Yield where two parts of a provenance of the schema's form do not agree."""
    name, files, model = content["variant"], content["files"], content["model"]
    variant = parse_name(name)
    if variant is None:
        yield f"$.variant: there is no variant {name!r}"
        return
    stem = variant.stem
    expected = set(trees.list_files(stem))
    yield from (f"$.files: {file} is missing" for file in sorted(expected - set(files)))
    yield from (f"$.files: {file} is no file of a tree" for file in sorted(set(files) - expected))
    if len(model["heads"]) != model["layers"]:
        yield f"$.model.heads: {len(model['heads'])} entries for {model['layers']} layers"
    if max(model["heads"]) * model["head_size"] > model["hidden"]:
        yield "$.model.heads: more than fit into the hidden size"
    if model["sequence_length"] > model["max_positions"]:
        yield "$.model.sequence_length: more tokens than the model has positions"
    onnx, key = files.get(f"{stem}.onnx", {}).get("sha256"), content["onnx_key"]
    if onnx is not None and content["ir_key"].get("onnx") != onnx:
        yield "$.ir_key.onnx: not the sum of the ONNX file in $.files"
    if key.get("source") != content["source"]["digest"]:
        yield "$.onnx_key.source: not $.source.digest"
    arguments = key.get("arguments")
    if not isinstance(arguments, dict):
        yield "$.onnx_key.arguments: not an object"
        return
    if arguments.get("seed") != content["weights"]["seed"]:
        yield "$.onnx_key.arguments.seed: not $.weights.seed"
    if str(arguments.get("weights", "")).rpartition(":")[2] != content["weights"].get("sha256", ""):
        yield "$.onnx_key.arguments.weights: not $.weights.sha256"
    if arguments.get("max_seq_length") != model["sequence_length"]:
        yield "$.onnx_key.arguments.max_seq_length: not $.model.sequence_length"
    for argument, value in content["inputs"].items():
        if arguments.get(argument) != value:
            yield f"$.inputs.{argument}: not what $.onnx_key.arguments has"


def _matrix_faults(content: Content) -> Iterator[str]:
    """Yield where the matrices' counts are impossible, or do not add up to the block sparsity."""
    verification, left = content["verification"], 0
    for number, matrix in enumerate(verification["matrices"]):
        size, place = math.prod(matrix["shape"]), f"$.verification.matrices[{number}]"
        for count in ("zeros", "ir_zeros"):
            if matrix[count] > size:
                yield f"{place}.{count}: {matrix[count]:,} of {size:,} elements"
        if size > matrix["dense"]:
            yield f"{place}.dense: fewer elements than are kept"
        if matrix["parameter"].startswith(BLOCK_PREFIX):
            left += size - matrix["zeros"]
    share = max(0.0, 1 - left / content["model"]["dense_block_weights"])
    if verification["matrices"] and abs(share - verification["block_sparsity"]) > 1e-9:
        yield f"$.verification.block_sparsity: the matrices add up to {share:.9f}"


def _places(place: str, value: Any) -> Iterator[str]:
    """Yield the places of strings that hold an absolute path."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from _places(f"{place}.{name}", entry)
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            yield from _places(f"{place}[{number}]", entry)
    elif isinstance(value, str) and hidden.shows_path(value):
        yield f"{place}: a path of the machine: {value[:60]!r}"
