"""``provenance.json``: what a tree was made from, how, where, and what was measured on it.

``schema/provenance.json`` says which form it has.  It is written when a tree is published; everything in it
but times, memory and machine follows from the checkout and the command.
"""

import datetime
import json
import math
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional

from . import digests, git, hidden, host, paths, requirements, schema_check, sums, surroundings, trees
from .bert_config import BertShape
from .errors import KitError
from .jobs import TreeJob
from .optimizers import Optimizer
from .source import Source
from .sparsity import BLOCK_PREFIX
from .spec import Spec
from .variants import VARIANTS

EPOCH = "SOURCE_DATE_EPOCH"
"""Variable that says, in seconds since 1970, which time a product is to bear instead of the clock's."""

_LATEST = 253402300799
"""The last second of the year 9999."""

_SHOWN = 10
"""Problems of a provenance that an error shows."""

_OPTIMIZER = "openvino-dev"
"""The package that Model Optimizer is in."""

Content = Dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """What the trees of one run have in common, as it was when the run began.

    :param source: ``source`` of a provenance.
    :param versions: ``versions`` of a provenance.
    :param kit: ``kit`` of a provenance.
    :param model_optimizer: its release.
    :param epoch: the time to bear, in seconds since 1970; None for the clock's.
    """

    source: Content
    versions: Dict[str, str]
    kit: Content
    model_optimizer: str
    epoch: Optional[int]


def facts(source: Source, optimizer: Optimizer) -> Facts:
    """Return what the trees of a run on ``source`` have in common.

    :raises KitError: a patch or a lock cannot be read, or ``SOURCE_DATE_EPOCH`` is no time.
    """
    versions = requirements.pins("runtime.lock")
    versions[_OPTIMIZER] = requirements.pins(optimizer.lock)[_OPTIMIZER]
    applied = [
        {"name": f"{package}/{patch.path.name}", "sha256": digests.of_file(patch.path)}
        for package, found in source.series().items()
        for patch in found
    ]
    return Facts(
        source={
            "name": source.name,
            "digest": source.key(),
            "packages": source.packages(),
            "patches": applied,
        },
        versions=versions,
        kit=checkout(),
        model_optimizer=optimizer.name,
        epoch=_epoch(),
    )


def checkout() -> Content:
    """Return ``kit`` of a provenance: the checkout's commit, and whether tracked files differ from it.

    Submodules do not count.  Both are None where there is no git, no checkout of the kit's own, or one that
    git does not look into because it is another user's.
    """
    try:
        commit = git.run(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], paths.REPOSITORY)
        # Without the locks, for the sake of which git would write to the index.
        words = ["--no-optional-locks", "status", "--porcelain=v2", "--untracked-files=no"]
        state = git.run([*words, "--ignore-submodules=all"], paths.REPOSITORY)
    except (KitError, OSError):
        return {"commit": None, "changed": None}
    if commit.returncode or state.returncode:
        return {"commit": None, "changed": None}
    # 1 XY <sub> …: <sub> begins with S for a submodule, with N for anything else.
    changed = [
        line for line in state.stdout.splitlines() if line[:1] in "12u" and line.split(" ")[2][0] == "N"
    ]
    return {"commit": commit.stdout.strip(), "changed": bool(changed)}


def _epoch() -> Optional[int]:
    text = os.environ.get(EPOCH, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= _LATEST):
        raise KitError(
            "This is no time in seconds since 1970.",
            where=f"{EPOCH}={text[:60]}",
            hint=f"Correct {EPOCH}, or unset it to have the clock's time recorded.",
        )
    return int(text)


def _time(epoch: Optional[int]) -> str:
    moment = datetime.datetime.fromtimestamp(time.time() if epoch is None else epoch, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def recorded(key: Any) -> Any:
    """Return a key as it stands in a provenance: like it, and without paths of this machine.

    Where a path is left out, a digest of it stands beside what is left, so that two keys stay two.
    """
    if isinstance(key, dict):
        return {name: recorded(value) for name, value in key.items()}
    if isinstance(key, list):
        return [recorded(value) for value in key]
    if isinstance(key, str) and host.shows_path(key):
        return f"{host.placeless(key)} ({digests.of_value(key)[:12]})"
    return key


def build(
    facts: Facts,
    job: TreeJob,
    shape: BertShape,
    *,
    onnx_key: Content,
    ir_key: Content,
    files: Content,
    seconds: Mapping[str, float],
    peak_bytes: Mapping[str, int],
    verification: Content,
) -> Content:
    """Return the provenance of a tree that is about to be published.

    :param shape: the model's dimensions.
    :param onnx_key: what the ONNX file depends on, :func:`launch.jobs.onnx_key`; ``ir_key`` likewise.
    :param files: size and sha256 by relative path, :func:`launch.trees.describe_files`.
    :param seconds: what each stage took; ``peak_bytes`` its largest resident set.
    :param verification: what was measured on the files, in the form of the schema.
    """
    arguments = job.arguments
    key = recorded(onnx_key)
    return {
        "format": trees.FORMAT,
        "variant": job.variant.name,
        "finished": _time(facts.epoch),
        "kit": facts.kit,
        "model": Spec.of(job.variant, shape, arguments.max_seq_length).model(),
        "weights": {
            "kind": "random",
            "seed": arguments.seed,
            "threads": surroundings.threads(job.invocation.env),
        },
        "source": facts.source,
        "command": {
            "argv": [host.placeless(hidden.shown(word)) for word in job.invocation.argv()],
            "environment": {
                name: host.placeless(hidden.shown(value))
                for name, value in job.invocation.env.items()
                if value is not None
            },
            "launch": host.placeless(job.origin),
            "working_directory": host.placeless(hidden.shown(job.invocation.cwd)),
        },
        # What counts and is text names something, but for the revision that the program does not ask for.
        "inputs": {
            name: value
            for name, value in key["arguments"].items()
            if isinstance(value, str) and name != "model_revision"
        },
        **({"hub": dict(job.downloaded)} if job.downloaded else {}),
        "model_optimizer": facts.model_optimizer,
        "versions": facts.versions,
        "host": host.facts(job.invocation.python),
        "files": files,
        "onnx_key": key,
        "ir_key": recorded(ir_key),
        "seconds": dict(seconds),
        "peak_bytes": dict(peak_bytes),
        "verification": verification,
    }


def read(tree: Path) -> Content:
    """Return a published tree's provenance.

    :raises KitError: there is none, it is of another format, or something is wrong in it.
    """
    path = tree / trees.PROVENANCE
    where = paths.shown(path)
    again = "Make the tree again: make variant V=" + (tree.name if tree.name in VARIANTS else "<name>")
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > trees.MAX_BYTES:
            raise KitError(
                f"The provenance is no regular file of up to {trees.MAX_BYTES:,} bytes.",
                where=where,
                hint=again,
            )
        content = trees.parse(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise KitError(
            "There is no provenance, so this is no tree of the kit's.",
            where=where,
            hint="Name a folder in which make has left one, as gen_hybrid_sparse/<V>.",
        ) from None
    except OSError as error:
        raise KitError(
            f"The provenance cannot be read: {error.strerror}.", where=where, hint="Make it readable."
        ) from None
    except (ValueError, RecursionError) as error:
        raise KitError(
            f"The provenance is not valid JSON: {str(error)[:200]}.", where=where, hint=again
        ) from None
    version = content.get("format") if isinstance(content, dict) else None
    if version in trees.EARLIER_FORMATS:
        raise KitError(
            f"The tree is an earlier kit's: its provenance is of format {version}, not {trees.FORMAT}.",
            where=where,
            hint=f"{again}  (its ONNX file and IR are used again where they are current)",
        )
    if version != trees.FORMAT:
        raise KitError(
            f"The provenance is of a format that this kit does not know: {json.dumps(version)[:60]}.",
            where=where,
            hint=again,
        )
    found_problems = problems(content)
    if found_problems:
        more = len(found_problems) - _SHOWN
        raise KitError(
            "The provenance is not as the kit writes it:\n"
            + "\n".join(found_problems[:_SHOWN] + ([f"and {more} more"] if more > 0 else [])),
            where=where,
            hint=again,
        )
    assert isinstance(content, dict)
    return content


def disagreements(tree: Path, entries: Mapping[str, str], content: Content) -> Iterator[str]:
    """Yield where a valid provenance says something else than its folder and the list of checksums in it.

    :param tree: the folder.
    :param entries: :func:`launch.sums.read` of the folder; empty where there is no list.
    """
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
        elif _size(tree / file) not in (None, content["files"][file]["bytes"]):
            yield f"{file} has not the size that {trees.PROVENANCE} says"


def _size(path: Path) -> Optional[int]:
    try:
        return path.lstat().st_size
    except OSError:
        return None


def problems(content: Any) -> List[str]:
    """Return what is wrong in a provenance, a line each with its place; nothing where all is well.

    It has the schema's form, its parts agree with each other, and no path of a machine is in it.
    """
    errors = sorted(trees.form_problems(content), key=lambda error: list(map(str, error[0])))
    if errors:
        return [f"{_place(place)}: {_message(value, text)}" for place, value, text in errors]
    return [*_contradictions(content), *_matrix_faults(content), *_places("$", content)]


def _place(parts: schema_check.Place) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _message(value: Any, text: str) -> str:
    """Return a schema error in one line of readable length."""
    whole = repr(value)
    if len(whole) > 80:
        text = text.replace(whole, whole[:60] + "…")
    return " ".join(text.split())[:300]


def _contradictions(content: Content) -> Iterator[str]:
    """Yield where two parts of a provenance that is as the schema says do not agree."""
    name, files, model = content["variant"], content["files"], content["model"]
    if name not in VARIANTS:
        yield f"$.variant: there is no variant {name!r}"
        return
    stem = VARIANTS[name].stem
    expected = set(trees.all_files(stem))
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
    elif isinstance(value, str) and host.shows_path(value):
        yield f"{place}: a path of the machine: {value[:60]!r}"
