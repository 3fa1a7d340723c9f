"""What a benchmark is to do, and whether the machine can: variants, sides, repeats, memory and disk."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Sequence

from launch.build import preflight
from launch.core import machine, paths
from launch.core.errors import KitError, make_unknown_error
from launch.model import bert_config
from launch.model.variants import VARIANTS, BertShape, Variant
from launch.sources.source import Source

from . import sides
from .sides import Side

SIZES = ("full", "small")

_SMALL: Dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 2,
    "vocab_size": 2048,  # the sample's tokenizer has as many words
}
"""What ``SIZE=small`` changes of BERT-large: the smallest that all four hybrids can be cut from."""

_MOST = 100

# The recipe by hand, fitted to five runs at full size (2 cores); with the checkpoint that it reads. Not
# launch.build.preflight': the kit's own need changes with the kit, this one does not.
_HAND_BASE_BYTES = 0.85e9
_HAND_BYTES_PER_WEIGHT = 37
_HAND_BYTES_PER_EMBEDDING = 46

_SOURCES_BYTES = 0.3e9
"""Two derived trees, a compiled extension, caches of tokenized questions."""


@dataclass(frozen=True)
class Plan:
    """One benchmark.

    :param size: one of :data:`SIZES`.
    :param repeat: runs of each side and variant.
    :param to: the folder that the results appear in.
    """

    size: str
    variants: Sequence[Variant]
    repeat: int
    base: Side
    kit: Side
    to: Path

    @property
    def sides(self) -> Sequence[Side]:
        """Both, in the order of the table."""
        return (self.base, self.kit)

    def turns(self, repeat: int) -> Sequence[Side]:
        """Return both in the order in which they run, the other way round each time.

        The second finds the machine as the first has left it, files in the system's cache for one.

        :param repeat: which of a variant's runs it is, from 0 on.
        """
        return self.sides[::-1] if repeat % 2 else self.sides

    @property
    def by_hand(self) -> bool:
        """Whether upstream's recipe is run, which reads a checkpoint."""
        return isinstance(self.base.source, sides.Hand)

    @property
    def stem(self) -> str:
        """Name of the results' files without suffix; one variant's overwrite no table of all."""
        kind = "" if self.by_hand else f"-{self.kit.source.name}"
        only = f"-{self.variants[0].name}" if len(self.variants) < len(VARIANTS) else ""
        return f"pipeline-{self.size}{kind}{only}"


def make(source: Source, size: str, variant: str, repeat: str, to: Path) -> Plan:
    """Return the plan that the make variables' texts (empty: not given) make.

    :param source: what the kit runs on.
    :raises KitError: a value is none of those allowed.
    """
    if size not in SIZES:
        raise KitError(
            f"There is no size {size!r}.", where=f"SIZE={size}", hint=f"Set SIZE to {' or '.join(SIZES)}."
        )
    if not (repeat.isascii() and repeat.isdigit() and 1 <= int(repeat) <= _MOST):
        raise KitError(
            f"The number of runs is no whole number from 1 to {_MOST}.",
            where=f"REPEAT={repeat}",
            hint="Correct REPEAT.",
        )
    if variant and variant not in VARIANTS:
        raise make_unknown_error("variant", variant, "V", VARIANTS)
    chosen = [VARIANTS[variant]] if variant else list(VARIANTS.values())
    return Plan(size, chosen, int(repeat), *sides.pair(source, size == "small"), to)


def config(plan: Plan) -> Dict[str, Any]:
    """Return the dense model's config."""
    dense = bert_config.read_config(paths.SAMPLE / "model")
    return {**dense, **_SMALL} if plan.size == "small" else dense


def write_model(plan: Plan) -> None:
    """Write the model folder without weights."""
    shutil.copytree(str(paths.SAMPLE / "model"), str(sides.MODEL))
    (sides.MODEL / "config.json").write_text(json.dumps(config(plan), indent=2) + "\n", encoding="utf-8")


def _shape(dense: Dict[str, Any], variant: Variant) -> BertShape:
    where = "the benchmark's model"
    chosen = bert_config.make_hybrid(dense, variant, where) if variant.hybrid else dense
    return bert_config.read_shape(chosen, where)


def _checkpoint_bytes(dense: Dict[str, Any]) -> int:
    shape = bert_config.read_shape(dense, "the benchmark's model")
    return 4 * (shape.dense_block_weights + _embeddings(shape))


def _embeddings(shape: BertShape) -> int:
    return (shape.vocab_size + shape.max_positions + 2) * shape.hidden


def need(plan: Plan, side: Side, variant: Variant) -> preflight.Estimate:
    """Return what a side is expected to take for a variant."""
    dense = config(plan)
    shape = _shape(dense, variant)
    found = preflight.estimate_need(shape, fast=side.source.fast, upstreams_script=plan.by_hand)
    if side is not plan.base or not plan.by_hand:
        return found
    memory = _HAND_BASE_BYTES + _HAND_BYTES_PER_WEIGHT * shape.kept_weights
    memory += _HAND_BYTES_PER_EMBEDDING * _embeddings(shape) + _checkpoint_bytes(dense)
    return replace(found, memory=int(memory))


def check_machine(plan: Plan) -> None:
    """Check that each run fits into memory and the largest onto the disk.

    :raises KitError: it does not; nothing has been started.
    """
    needs: List[preflight.Estimate] = []
    for variant in plan.variants:
        for side in plan.sides:
            needs.append(need(plan, side, variant))
            preflight.check_memory(f"{variant.name} ({side.name})", needs[-1])
    wanted = max(one.disk for one in needs) + _SOURCES_BYTES
    if plan.by_hand:
        wanted += _checkpoint_bytes(config(plan))
    machine.check_disk("The benchmark", sides.FOLDER, int(wanted))


def weights_file() -> Path:
    """Return where the checkpoint is that the recipe by hand reads."""
    return sides.MODEL / "pytorch_model.bin"
