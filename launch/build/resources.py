"""What a variant is expected to take, and the memory that this machine has."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Sequence, Tuple

from ..core.errors import KitError
from ..model.bert_config import BertShape

GB = 1_000_000_000

IGNORE_MEMORY = "LAUNCH_IGNORE_MEMORY"  # the variable that starts a run which would not fit into memory


# Fitted to five runs at full size on 2 cores, and rounded up: a constant, and what is added for each unit.
# Weights and ONNX: each weight kept in the blocks, each of the embeddings; by whether `fast` is applied.
_ONNX_BYTES = {True: (0.55 * GB, 8.5, 20), False: (0.85 * GB, 37, 46)}
_ONNX_SECONDS = {True: (12.0, 2.8e-7, 4.0e-7), False: (15.0, 1.0e-6, 1.7e-6)}
_IR_SECONDS = (5.0, 1.0e-8)  # each byte of the ONNX file
_VERIFY_BYTES = (0.9 * GB, 1.6)  # each byte
_VERIFY_SECONDS = (2.0, 0.2, 8.0e-9)  # each layer, each byte
_ONNX_SLACK = 3_000_000
_DISK_SHARE = 1.27  # of the ONNX file: itself, the IR, reports

# Model Optimizer 2021.4 searches the graph for each of its patterns anew: its time grows with the square of
# the layers.  Fitted to models of 2, 8 and 24 layers; it also writes the weights twice before it is done.
_OLD_IR_SECONDS = (4.0, 4.0, 0.225, 5.0e-8)  # each layer, its square, each byte
_OLD_DISK_SHARE = 1.55


def _sum_up(fit: Sequence[float], *units: float) -> float:
    return sum((each * number for each, number in zip(fit[1:], units)), fit[0])


@dataclass(frozen=True)
class Estimate:
    """What making one variant is expected to take.

    :param memory: peak resident bytes.
    :param disk: bytes below the build folder while it is made, and then in the tree.
    :param onnx_seconds: of weights and ONNX on 2 cores; the others likewise.
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


def estimate_need(
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
    kept, layers = shape.kept_weights, shape.layers
    onnx_bytes = 4 * (kept + embeddings) + _ONNX_SLACK
    ir_seconds, disk = _sum_up(_IR_SECONDS, onnx_bytes), _DISK_SHARE
    if old_optimizer:
        ir_seconds, disk = _sum_up(_OLD_IR_SECONDS, layers, layers**2, onnx_bytes), _OLD_DISK_SHARE
    if upstreams_script and shape.pruned and not fast:
        disk += 1  # the checkpoint that it saves
    memory = max(_sum_up(_ONNX_BYTES[fast], kept, embeddings), _sum_up(_VERIFY_BYTES, onnx_bytes))
    return Estimate(
        memory=int(memory),
        disk=int(onnx_bytes * disk),
        onnx_seconds=_sum_up(_ONNX_SECONDS[fast], kept, embeddings),
        ir_seconds=ir_seconds,
        verify_seconds=_sum_up(_VERIFY_SECONDS, layers, onnx_bytes),
    )


# --- the memory of this machine --------------------------------------------------------------------------

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
        for mount in mounts:
            root, point, (found, _, options) = mount[3], mount[4], mount[mount.index("-") + 1 :]
            shared = {*controllers.split(",")} & {*options.split(",")}
            if found != kind or (controllers and "memory" not in shared):
                continue
            top = Path(point.replace("\\040", " "))
            # What is mounted may be a group itself: a container's own then is the top.
            inside = os.path.relpath(path, root) if root in (path, *map(str, Path(path).parents)) else "."
            group = top / inside
            within = [folder for folder in (group, *group.parents) if folder not in top.parents]
            yield from ((folder, kind) for folder in within)


def _left(group: Path, kind: str) -> Optional[int]:
    """Return how many bytes a control group may take yet; None where it has no limit."""
    *limits, droppable = _CONTROLS[kind]
    try:
        limit, used = (int((group / name).read_text()) for name in limits)
    except (OSError, ValueError):
        return None
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        stat = {}
    # What the kernel can drop at once (cached files) counts as free, as it does in MemAvailable.
    return max(0, limit - used + int(stat.get(droppable, 0)))


def read_available_memory() -> Optional[int]:
    """Return how many bytes a new process can take without swapping; None where that is unknown.

    The kernel's MemAvailable, or what is left below the limit of a control group that this process is in, of
    version 1 or 2, if that is less.
    """
    try:
        found = re.search("^MemAvailable: *([0-9]+)", Path("/proc/meminfo").read_text(), re.M)
    except OSError:
        return None
    if found is None:
        return None
    left = [_left(group, kind) for group, kind in _groups()]
    return min([int(found.group(1)) * 1024, *(most for most in left if most is not None)])


def check_memory(name: str, need: Estimate) -> None:
    """Check that a variant fits into memory.

    :raises KitError: it does not.
    """
    free = read_available_memory()
    if os.environ.get(IGNORE_MEMORY) or free is None or free >= need.memory:
        return
    raise KitError(
        f"{name} needs about {need.memory / GB:.1f} GB of memory; {free / GB:.1f} GB are free.",
        where="memory of this machine",
        hint="Close other programs, make a smaller variant (`make` lists them), or take a larger machine.\n"
        f"{IGNORE_MEMORY}=1 tries all the same.",
    )
