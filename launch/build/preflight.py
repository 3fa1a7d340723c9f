"""Checks before anything starts: the files of a job, and the memory and disk that a variant takes."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Optional, Sequence, Tuple

from ..core import files, hidden, paths
from ..core.errors import KitError
from ..model import model_folder
from ..model.variants import BertShape

if TYPE_CHECKING:  # not loaded for the help, which shows estimates
    from ..vscode.invocation import Invocation
    from .jobs import Configured, Run

GB = 1_000_000_000

IGNORE_MEMORY = "LAUNCH_IGNORE_MEMORY"  # the variable that starts a run which would not fit into memory

_READ = ("model_name_or_path", "config_name", "nncf_config", "train_file", "validation_file")
"""Arguments that name a file or a folder to read."""

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

# Reading a checkpoint: each byte of it, and of its tensors in 32 bits.  Finding what counts in a dense one:
# each byte of that model, twice, and each of its layers' hidden units; the seconds are each block weight's.
_READ_BYTES, _SCORE_BYTES, _SCORE_SECONDS = (0.6 * GB, 1, 1), (0.6 * GB, 2, 80_000), 1.6e-6

# Trained weights are calibrated in ranges with two ends, and then refined: each weight's seconds.  BERT-large
# cut to 8 heads and 2,048 rows took 2:06 to the ONNX file.
_TRAINED_SECONDS = 3.2e-7

# In 32 bits nothing is calibrated, the IR has the weights as they are, and the runtime copies of them.
_PLAIN_ONNX_SHARE, _PLAIN_DISK_SHARE, _PLAIN_VERIFY_BYTES = 0.6, 2.1, (0.9 * GB, 4.0)


def _sum_up(fit: Sequence[float], *units: float) -> float:
    return sum((each * number for each, number in zip(fit[1:], units)), fit[0])


@dataclass(frozen=True)
class Estimate:
    """What making a variant takes: peak resident bytes, bytes on disk, seconds of each stage on 2 cores."""

    memory: int
    disk: int
    onnx_seconds: float
    ir_seconds: float
    verify_seconds: float

    @property
    def seconds(self) -> float:
        """The seconds of all stages."""
        return self.onnx_seconds + self.ir_seconds + self.verify_seconds


def estimate_need(
    shape: BertShape,
    *,
    quantized: bool = True,
    fast: bool = True,
    upstreams_script: bool = False,
    old_optimizer: bool = False,
    checkpoint: int = 0,
    cut: bool = False,
) -> Estimate:
    """Return the estimate for a model; ``old_optimizer``: Model Optimizer 2021.4 makes its IR.

    :param quantized: False for 32 bits.
    :param checkpoint: bytes of the trained weights that are read; 0 where weights are drawn.
    :param cut: whether these have the variant's heads and rows, so that none are chosen.
    """
    embeddings = (shape.vocab_size + shape.max_positions + 2) * shape.hidden
    kept, layers = shape.kept_weights, shape.layers
    onnx_bytes = 4 * (kept + embeddings) + _ONNX_SLACK
    ir_seconds, disk = _sum_up(_IR_SECONDS, onnx_bytes), _DISK_SHARE
    if old_optimizer:
        ir_seconds, disk = _sum_up(_OLD_IR_SECONDS, layers, layers**2, onnx_bytes), _OLD_DISK_SHARE
    onnx_seconds, verify = _sum_up(_ONNX_SECONDS[fast], kept, embeddings), _VERIFY_BYTES
    if not quantized:
        onnx_seconds, disk, verify = onnx_seconds * _PLAIN_ONNX_SHARE, _PLAIN_DISK_SHARE, _PLAIN_VERIFY_BYTES
    if upstreams_script and shape.pruned and not fast:
        disk += 1  # the checkpoint that it saves
    memory = max(_sum_up(_ONNX_BYTES[fast], kept, embeddings), _sum_up(verify, onnx_bytes))
    if checkpoint:
        onnx_seconds += _TRAINED_SECONDS * (kept + embeddings) if quantized else 0
        dense = 4 * (shape.dense_block_weights + embeddings)
        memory = max(memory, _sum_up(_READ_BYTES, checkpoint, dense))
        disk += upstreams_script  # what it reads of the checkpoint
        if shape.pruned and not cut:
            memory = max(memory, _sum_up(_SCORE_BYTES, dense, layers * shape.hidden))
            onnx_seconds += _SCORE_SECONDS * shape.dense_block_weights
    return Estimate(
        memory=int(memory),
        disk=int(onnx_bytes * disk),
        onnx_seconds=onnx_seconds,
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
    """Yield this process's memory control groups with their type, from its own outwards."""
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
    """Return free memory in bytes: MemAvailable, or what a control group leaves if less; None if unknown."""
    try:
        found = re.search("^MemAvailable: *([0-9]+)", Path("/proc/meminfo").read_text(), re.M)
    except OSError:
        return None
    if found is None:
        return None
    left = [_left(group, kind) for group, kind in _groups()]
    return min([int(found.group(1)) * 1024, *(most for most in left if most is not None)])


_SMALLER = "make a smaller variant (`make` lists them), or take a larger machine"


def check_memory(name: str, need: Estimate, smaller: str = _SMALLER) -> None:
    """:raises KitError: what is called ``name`` does not fit into memory; ``smaller``: what needs less."""
    free = read_available_memory()
    if os.environ.get(IGNORE_MEMORY) or free is None or free >= need.memory:
        return
    raise KitError(
        f"{name} needs about {need.memory / GB:.1f} GB of memory; {free / GB:.1f} GB are free.",
        where="memory of this machine",
        hint=f"Close other programs, {smaller}.\n{IGNORE_MEMORY}=1 tries all the same.",
    )


# --- the files of a job ----------------------------------------------------------------------------------


def check_job(job: "Configured") -> None:
    """Check what the kit's launch file names; upstream's is rewritten to what the kit has made.

    :raises KitError: working directory, interpreter, program or an argument's file cannot be used.
    """
    if job.checkpoint is not None:
        model_folder.list_checkpoint(job.checkpoint)
    if job.configuration is None:
        return
    invocation = job.invocation
    cwd, program = Path(invocation.cwd), job.local(invocation.target[-1])
    key = ""
    if not cwd.is_dir():
        key, named = "cwd", hidden.show_word(invocation.cwd)
        what = f"The working directory is {'no folder' if cwd.exists() else 'not there'}: {named}."
        hint = 'Correct or remove "cwd", or make the folder.'
    elif invocation.python != str(paths.VENV_PYTHON) and not _can_start(invocation):
        key = "pythonPath" if "pythonPath" in job.configuration.here else "python"
        what = f"This interpreter is not there, or cannot be run: {hidden.show_word(invocation.python)}."
        hint = f'Correct "{key}": ${{workspaceFolder}}/.venv/bin/python is what `make setup` makes.'
    elif not program.is_file():
        key, named = "program", hidden.show_word(invocation.target[-1])
        what = f"The program is {'no file' if program.exists() else 'not there'}: {named}."
        hint = 'Correct "program"; those of the kit are in launch/qa/.'
    if key:
        raise job.configuration.error(job.configuration.path(key), what, hint)
    for name in _READ:
        value = getattr(job.arguments, name, None)
        path = job.local(value or "")
        reason = files.explain_special(path) or ("" if path.exists() else "it does not exist")
        if value is not None and reason:
            raise KitError(
                f"A file that the launch configuration names cannot be read: {reason}.",
                where=f"{job.named(name)}={value}",
                hint="Make it readable, or name another.",
            )


def _can_start(invocation: "Invocation") -> bool:
    python = invocation.python
    if os.sep in python:
        python = str(Path(invocation.cwd) / python)
    return shutil.which(python, path=invocation.environment(os.environ).get("PATH")) is not None


def find_missing(run: "Run") -> str:
    """Return in one line what keeps a printed command from running, often the setup; empty: nothing."""
    from .jobs import Configured

    python = run.invocation.python
    folders = (run.invocation.env.get("PYTHONPATH") or "").split(os.pathsep)
    source = ""
    missing = python if python == str(paths.VENV_PYTHON) and not _can_start(run.invocation) else ""
    if run.source is not None:
        source = f" SOURCE={run.source.name}"
        if str(run.source.tree) in folders and not run.source.tree.is_dir():
            missing = missing or str(run.source.tree)
    if missing:
        return f"note: `make setup{source}` comes first: {missing} is not there yet"
    try:
        if isinstance(run, Configured):
            check_job(run)
    except KitError as error:
        return f"note: this would not run: {error.what}  ({error.where})"
    return ""
