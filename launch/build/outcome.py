"""What a build command ends with: the trees, and the table of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from ..core import paths
from ..core.progress import columns_of, duration, size
from ..model.variants import Variant


@dataclass(frozen=True)
class Outcome:
    """A published tree, as the final table shows it.

    :param built: whether this run made it.
    """

    variant: Variant
    tree: Path
    provenance: Dict[str, Any]
    built: bool


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the final table: variant, sizes, block sparsity, time, peak memory, path."""
    lines: List[Tuple[str, ...]] = [
        ("variant", "ONNX", "IR .bin", "block sparsity", "time", "peak memory", "path")
    ]
    for outcome in outcomes:
        files, stem = outcome.provenance["files"], outcome.variant.stem
        seconds, peak = outcome.provenance["seconds"], outcome.provenance["peak_bytes"]
        lines.append(
            (
                outcome.variant.name,
                size(files[f"{stem}.onnx"]["bytes"]),
                size(files[f"ir/{stem}.bin"]["bytes"]),
                f"{outcome.provenance['verification']['block_sparsity']:.6f}",
                duration(sum(seconds.values())) + ("" if outcome.built else " (up to date)"),
                size(max(peak.values())),
                paths.shown(outcome.tree),
            )
        )
    return "\n".join(columns_of(lines))
