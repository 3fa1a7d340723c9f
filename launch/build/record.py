"""What a provenance records of a run.

Everything in it but times, memory and machine follows from the checkout and the command.
"""

import os
import time
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional

from ..artifact import trees
from ..artifact.trees import Content
from ..core import digests, git, hidden, host, paths, surroundings
from ..core.errors import KitError
from ..model.spec import Spec
from ..setup import requirements
from ..sources.source import Source
from .convert import Optimizer
from .jobs import TreeJob

EPOCH = "SOURCE_DATE_EPOCH"
"""Variable that says, in seconds since 1970, which time a product is to bear instead of the clock's."""

_LATEST = 253402300799  # the last second of the year 9999

_OPTIMIZER = "openvino-dev"  # the package that Model Optimizer is in


@dataclass(frozen=True)
class Facts:
    """What the provenances of one run have in common, by their keys, as it was when the run began.

    :param epoch: the time to bear, in seconds since 1970; None for the clock's.
    """

    source: Content
    versions: Dict[str, str]
    kit: Content
    model_optimizer: str
    epoch: Optional[int]


def collect_facts(source: Source, optimizer: Optimizer) -> Facts:
    """Return what the trees of a run on ``source`` have in common.

    :raises KitError: a patch or a lock cannot be read, or ``SOURCE_DATE_EPOCH`` is no time.
    """
    applied = [
        {"name": f"{package}/{patch.path.name}", "sha256": digests.digest_file(patch.path)}
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
        versions={
            **requirements.read_pins("runtime.lock"),
            _OPTIMIZER: requirements.read_pins(optimizer.lock)[_OPTIMIZER],
        },
        kit=read_checkout(),
        model_optimizer=optimizer.name,
        epoch=_epoch(),
    )


def read_checkout() -> Content:
    """Return ``kit`` of a provenance: the checkout's commit, and whether tracked files differ from it.

    Submodules do not count.  Both are None where there is no git, no checkout of the kit's own, or one that
    git does not look into because it is another user's.
    """
    try:
        commit = git.run_git(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], paths.REPOSITORY)
        # Without the locks, for the sake of which git would write to the index.
        words = ["--no-optional-locks", "status", "--porcelain=v2", "--untracked-files=no"]
        state = git.run_git([*words, "--ignore-submodules=all"], paths.REPOSITORY)
        known = not (commit.returncode or state.returncode)
    except (KitError, OSError):
        known = False
    if not known:
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


def record_key(key: Any) -> Any:
    """Return a key as it stands in a provenance: in place of a path of this machine its end and a digest."""
    if isinstance(key, dict):
        return {name: record_key(value) for name, value in key.items()}
    if isinstance(key, list):
        return [record_key(value) for value in key]
    if isinstance(key, str) and host.shows_path(key):
        return f"{host.remove_paths(key)} ({digests.digest_value(key)[:12]})"
    return key


def make_provenance(
    facts: Facts,
    job: TreeJob,
    spec: Spec,
    *,
    onnx_key: Content,
    ir_key: Content,
    files: Content,
    stages: Mapping[str, Mapping[str, Any]],
    verification: Content,
) -> Content:
    """Return the provenance of a tree that is about to be published.

    :param spec: what the tree is, as it was when its first stage began.
    :param onnx_key: what the ONNX file depends on; ``ir_key`` likewise.
    :param files: size and sha256 by relative path.
    :param stages: ``seconds`` and ``peak_bytes`` of each stage.
    :param verification: what was measured on the files, in the form of the schema.
    """
    key, seconds = record_key(onnx_key), time.time() if facts.epoch is None else facts.epoch
    return {
        "format": trees.FORMAT,
        "variant": job.variant.name,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)),
        "kit": facts.kit,
        "model": spec.model(),
        "weights": {
            "kind": "random",
            "seed": job.arguments.seed,
            "threads": surroundings.read_threads(job.invocation.env),
        },
        "source": facts.source,
        "command": {
            "argv": [host.remove_paths(hidden.show_word(word)) for word in job.invocation.argv()],
            "environment": {
                name: host.remove_paths(hidden.show_word(value))
                for name, value in job.invocation.env.items()
                if value is not None
            },
            "launch": host.remove_paths(job.origin),
            "working_directory": host.remove_paths(hidden.show_word(job.invocation.cwd)),
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
        "host": host.describe_host(job.invocation.python),
        "files": files,
        "onnx_key": key,
        "ir_key": record_key(ir_key),
        **{
            taken: {stage: made[taken] for stage, made in stages.items()}
            for taken in ("seconds", "peak_bytes")
        },
        "verification": verification,
    }
