"""The five variants: names, dimensions and the arithmetic of hybrid sparsity.

A *hybrid* loses heads and feed-forward rows, then single weights; *unstructured* loses single weights only.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Tuple

from ..core.errors import KitError

OVERALL_SPARSITY = 0.9
"""Share of the dense model's transformer-block weights that are zero or removed, in every variant."""


@dataclass(frozen=True)
class Variant:
    """One of the five; ``heads`` (by layer) and ``intermediate_size`` are what is kept, None for all."""

    name: str
    heads: Optional[int]
    intermediate_size: Optional[int]

    @property
    def hybrid(self) -> bool:
        """Whether structure is removed before single weights are pruned."""
        return self.heads is not None

    @property
    def stem(self) -> str:
        """File name of ONNX file and IR, without suffix."""
        return f"{self.name}-8bit"


_FIVE = (
    Variant("90pc_sparse-02_head-0512_ffnn", 2, 512),
    Variant("90pc_sparse-04_head-1024_ffnn", 4, 1024),
    Variant("90pc_sparse-06_head-1536_ffnn", 6, 1536),
    Variant("90pc_sparse-08_head-2048_ffnn", 8, 2048),
    Variant("90pc_unstructured_sparse", None, None),
)

VARIANTS: Dict[str, Variant] = {variant.name: variant for variant in _FIVE}


def find_variant(name: str) -> Variant:
    """:raises KitError: there is no such variant; the error lists the five and names the nearest."""
    if name in VARIANTS:
        return VARIANTS[name]
    near = difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0.0) if name else []
    raise KitError(
        f"There is no variant {name!r}." if name else "No variant was named.",
        where="V=" + name,
        hint=(f"Did you mean V={near[0]}?\n" if near else "") + "The five are:\n  " + "\n  ".join(VARIANTS),
    )


def list_report_paths(onnx_path: Path) -> Tuple[Path, Path]:
    """Return the CSV and the Markdown file of an ONNX file's sparsity report, under upstream's names."""
    stem = onnx_path.with_suffix("").name + "-onnx_sparsity"
    return onnx_path.with_name(stem + ".csv"), onnx_path.with_name(stem + ".md")


def count_block_weights(layers: int, hidden: int, attention_width: int, intermediate_size: int) -> int:
    """Return the weights in transformer-block matrices; ``attention_width`` is kept heads × head size."""
    return layers * (4 * hidden * attention_width + 2 * hidden * intermediate_size)


def count_dense_weights(layers: int, hidden: int) -> int:
    """Return the transformer-block weights of a dense BERT, whose feed-forward layers are 4 × hidden wide
    (Devlin et al. 2019, section 3); 301,989,888 for BERT-large, upstream's constant.
    """
    return count_block_weights(layers, hidden, hidden, 4 * hidden)
