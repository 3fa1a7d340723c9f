"""Whether this machine has the memory and disk that a variant takes, and how long it may take."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Tuple

from ..model.bert_config import BertShape
from ..core.errors import KitError

GB = 1_000_000_000

IGNORE_MEMORY = "LAUNCH_IGNORE_MEMORY"
"""The environment variable that starts a run which would not fit into memory."""


@dataclass(frozen=True)
class _Fit:
    """What weights and ONNX take, fitted to five runs at full size (2 cores) and rounded up.

    Time and peak memory grow with the weights that are drawn, ranked and calibrated.
    """

    base_bytes: float
    bytes_per_weight: float
    bytes_per_embedding: float
    base_seconds: float
    seconds_per_weight: float
    seconds_per_embedding: float


_PLAIN = _Fit(0.85 * GB, 37, 46, 15.0, 1.0e-6, 1.7e-6)
_FAST = _Fit(0.55 * GB, 8.5, 20, 12.0, 2.8e-7, 4.0e-7)
"""With the optional set ``fast``."""

_IR_BASE_SECONDS = 5.0
_IR_SECONDS_PER_BYTE = 1.0e-8
_VERIFY_BASE_BYTES = 0.9 * GB
_VERIFY_BYTES_PER_BYTE = 1.6
_VERIFY_BASE_SECONDS = 2.0
_VERIFY_SECONDS_PER_LAYER = 0.2
_VERIFY_SECONDS_PER_BYTE = 8.0e-9
_ONNX_SLACK = 3_000_000

_DISK_SHARE = 1.27  # of the ONNX file: itself, the IR, reports

# Model Optimizer 2021.4 searches the graph for each of its patterns anew: its time grows with the square of
# the layers.  Fitted to models of 2, 8 and 24 layers; it also writes the weights twice before it is done.
_OLD_IR_SECONDS = (4.0, 4.0, 0.225)
_OLD_IR_SECONDS_PER_BYTE = 5.0e-8
_OLD_DISK_SHARE = 1.55


@dataclass(frozen=True)
class Estimate:
    """What making one variant is expected to take.

    :param memory: peak resident bytes.
    :param disk: bytes below the build folder while it is made, and then in the tree.
    :param onnx_seconds: seconds of weights and ONNX on 2 cores.
    :param ir_seconds: seconds of Model Optimizer on 2 cores.
    :param verify_seconds: seconds of verification on 2 cores.
    """

    memory: int
    disk: int
    onnx_seconds: float
    ir_seconds: float
    verify_seconds: float

    @property
    def seconds(self) -> float:
        """Seconds of all stages."""
        return self.onnx_seconds + self.ir_seconds + self.verify_seconds


def estimate(
    shape: BertShape,
    *,
    fast: bool = True,
    upstreams_script: bool = False,
    old_optimizer: bool = False,
) -> Estimate:
    """Return the estimate for a model of these dimensions.

    :param fast: with the optional set ``fast``.
    :param upstreams_script: whether upstream's script makes it, which without ``fast`` saves a checkpoint.
    :param old_optimizer: whether the IR is made by Model Optimizer 2021.4.
    """
    embeddings = (shape.vocab_size + shape.max_positions + 2) * shape.hidden
    kept = shape.kept_weights
    onnx_bytes = 4 * (kept + embeddings) + _ONNX_SLACK
    ir_seconds = _IR_BASE_SECONDS + _IR_SECONDS_PER_BYTE * onnx_bytes
    disk = _DISK_SHARE
    if old_optimizer:
        ir_seconds = (
            _OLD_IR_SECONDS[0]
            + _OLD_IR_SECONDS[1] * shape.layers
            + _OLD_IR_SECONDS[2] * shape.layers**2
            + _OLD_IR_SECONDS_PER_BYTE * onnx_bytes
        )
        disk = _OLD_DISK_SHARE
    if upstreams_script and shape.pruned and not fast:
        disk += 1  # the checkpoint that it saves
    fit = _FAST if fast else _PLAIN
    onnx_memory = fit.base_bytes + fit.bytes_per_weight * kept + fit.bytes_per_embedding * embeddings
    verify_memory = _VERIFY_BASE_BYTES + _VERIFY_BYTES_PER_BYTE * onnx_bytes
    return Estimate(
        memory=int(max(onnx_memory, verify_memory)),
        disk=int(onnx_bytes * disk),
        onnx_seconds=fit.base_seconds
        + fit.seconds_per_weight * kept
        + fit.seconds_per_embedding * embeddings,
        ir_seconds=ir_seconds,
        verify_seconds=_VERIFY_BASE_SECONDS
        + _VERIFY_SECONDS_PER_LAYER * shape.layers
        + _VERIFY_SECONDS_PER_BYTE * onnx_bytes,
    )


_PROCESS = Path("/proc/self")

_CONTROLS = {
    "cgroup2": ("memory.max", "memory.current", "inactive_file"),
    "cgroup": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By type of filesystem: the files with limit and use, and the entry of ``memory.stat`` with what can be
dropped ("Memory Resource Controller" and "Control Group v2" in the kernel's documentation)."""


def _groups() -> Iterator[Tuple[Path, str]]:
    """Yield the memory control groups that this process is in, from its own outwards, with their type.

    ``/proc/self/cgroup`` says which in each hierarchy, ``/proc/self/mountinfo`` where hierarchies are seen.
    """
    try:
        memberships = (_PROCESS / "cgroup").read_text().splitlines()
        mounts = [line.split() for line in (_PROCESS / "mountinfo").read_text().splitlines()]
    except OSError:
        return
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        kind = "cgroup" if controllers else "cgroup2"
        if controllers and "memory" not in controllers.split(","):
            continue
        for mount in mounts:
            root, point, (found, _, options) = mount[3], mount[4], mount[mount.index("-") + 1 :]
            if found != kind or (controllers and "memory" not in options.split(",")):
                continue
            top = Path(point.replace("\\040", " "))
            # What is mounted may be a group itself: a container's own then is the top.
            inside = os.path.relpath(path, root) if root in (path, *map(str, Path(path).parents)) else "."
            group = top / inside
            while group != top:
                yield group, kind
                group = group.parent
            yield top, kind


def _number(path: Path) -> Optional[int]:
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None


def _left(group: Path, kind: str) -> Optional[int]:
    """Return how many bytes a control group may take yet; None where it has no limit."""
    most, current, droppable = _CONTROLS[kind]
    limit, used = _number(group / most), _number(group / current)
    if limit is None or used is None:
        return None
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        stat = {}
    # What the kernel can drop at once (cached files) counts as free, as it does in MemAvailable.
    return max(0, limit - used + int(stat.get(droppable, 0)))


def available_memory() -> Optional[int]:
    """Return how many bytes a new process can take without swapping; None where that is unknown.

    The kernel's MemAvailable, or what is left below the limit of a control group that this process is in, of
    version 1 or 2, if that is less.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    if not free:
        return None
    left = [_left(group, kind) for group, kind in _groups()]
    return min(free + [most for most in left if most is not None])


def check_memory(name: str, need: Estimate) -> None:
    """Check that a variant fits into memory.

    :raises KitError: it does not.
    """
    free = available_memory()
    if os.environ.get(IGNORE_MEMORY) or free is None or free >= need.memory:
        return
    raise KitError(
        f"{name} needs about {need.memory / GB:.1f} GB of memory; {free / GB:.1f} GB are free.",
        where="memory of this machine",
        hint="Close other programs, make a smaller variant (`make` lists them), or take a larger machine.\n"
        f"{IGNORE_MEMORY}=1 tries all the same.",
    )
