"""Errors that one process alone may have: too little memory, and what cannot be written."""

import contextlib
import os
from pathlib import Path
from typing import Iterator, List

from ..core import machine
from ..core.errors import KitError
from .arguments import Request

_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says, in lower case, where memory is too small."""


class OwnError(KitError):
    """An error that other processes need not have: the one that has it tells it."""


@contextlib.contextmanager
def explain_memory(request: Request) -> Iterator[None]:
    """:raises OwnError: the memory of the GPU or of the machine is too small."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = " ".join(str(error).split())
        if isinstance(error, RuntimeError) and not any(text in said.lower() for text in _MEMORY):
            raise
        batch, parts = request.hyperparameters["batch_size"], request.arguments.gradient_accumulation_steps
        raise OwnError(
            f"The memory is too small{f': {said[:200]}' if said else '.'}",
            where=f"batch_size {batch}, --gradient_accumulation_steps {parts},"
            f" --eval_batch_size {request.arguments.eval_batch_size}",
            hint=f"One of these: {', '.join(_list_remedies(request))}.",
        ) from None


def _list_remedies(request: Request) -> List[str]:
    args, batch = request.arguments, request.hyperparameters["batch_size"]
    found = []
    if args.gradient_accumulation_steps * int(os.environ.get("WORLD_SIZE", "1")) < batch:
        found.append("raise --gradient_accumulation_steps")
    if not args.gradient_checkpointing:
        found.append("add --gradient_checkpointing")
    if args.eval_batch_size > 1:
        found.append("lower --eval_batch_size (where it evaluates or scores heads)")
    return [*found, "lower --max_seq_length"]


@contextlib.contextmanager
def explain_writing(path: Path) -> Iterator[None]:
    """:raises OwnError: what is at ``path`` cannot be written, above all because the disk is full."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        free = machine.measure_free_disk(path.parent)
        if isinstance(error, RuntimeError) and free > 1e8:  # torch reports a full disk as one
            raise
        raise OwnError(
            f"This cannot be written: {getattr(error, 'strerror', '') or error}.",
            where=f"{path}: {free / 1e9:.1f} GB free",
            hint="Free disk space, correct the permissions, or name another --work_dir, and run the same"
            " command again: it resumes.",
        ) from None
