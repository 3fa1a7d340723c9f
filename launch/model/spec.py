"""What a tree must be: numbers that follow from the model's dimensions."""

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .bert_config import BertShape
from .variants import OVERALL_SPARSITY, VARIANTS, Variant, count_block_weights, count_dense_weights

OPSET = 10
"""Version of ONNX's operators with which NNCF exports."""

INPUTS = ("input_ids", "attention_mask.1", "input.1")
"""Token ids, attention mask and token types, int64 of 1 × sequence length each."""

BITS = 8
"""Bit width of every quantizer."""

SPARSITY_TOLERANCE = 1e-4
"""Tolerance of block sparsity: upstream's threshold is a weight, and ties with it are pruned too."""

BLOCK_PREFIX = "bert.encoder.layer."

ATTENTION = (*(f"attention.self.{name}" for name in ("query", "key", "value")), "attention.output.dense")
FEED_FORWARD = ("intermediate.dense", "output.dense")

HEAD = "qa_outputs.weight"


def make_bert_large(variant: Variant) -> BertShape:
    """Return the dimensions of ``variant`` at full size."""
    return BertShape(
        layers=24,
        hidden=1024,
        head_size=64,
        heads=(variant.heads or 16,) * 24,
        intermediate_size=variant.intermediate_size or 4096,
        vocab_size=30522,
        max_positions=512,
        dense_block_weights=count_dense_weights(24, 1024),
        overall_sparsity=OVERALL_SPARSITY,
    )


@dataclass(frozen=True)
class Spec(BertShape):
    """What the tree of ``variant`` must be; ``sequence_length`` is the tokens of a feature."""

    variant: str
    sequence_length: int

    @classmethod
    def of(cls, variant: Variant, shape: BertShape, sequence_length: int = 384) -> "Spec":
        """Return the spec of a variant with the dimensions ``shape``."""
        return cls(**vars(shape), variant=variant.name, sequence_length=sequence_length)

    @classmethod
    def from_model(cls, variant: str, model: Mapping[str, Any]) -> "Spec":
        """Return the spec in the ``model`` of a valid provenance."""
        return cls(variant=variant, **{**model, "heads": tuple(model["heads"])})

    def model(self) -> Dict[str, Any]:
        """Return the dimensions as a provenance has them."""
        content = {**vars(self), "heads": list(self.heads)}
        del content["variant"]
        return content

    def describe(self) -> str:
        """Return the model in a few words."""
        variant = VARIANTS.get(self.variant)
        text = (
            f"{self.layers} layers, hidden {self.hidden},"
            f" heads {' or '.join(map(str, sorted(set(self.heads))))},"
            f" intermediate {self.intermediate_size}, sequence length {self.sequence_length}"
        )
        large = variant is not None and self == Spec.of(variant, make_bert_large(variant))
        return text + ("" if large else " (not BERT-large)")

    def contradiction(self) -> Optional[str]:
        """Return how the dimensions contradict each other or the variant; None if they do not."""
        variant = VARIANTS.get(self.variant)
        if variant is None:
            return f"there is no variant {self.variant!r}"
        if len(self.heads) != self.layers:
            return f"heads of {len(self.heads)} layers in a model of {self.layers}"
        if variant.hybrid and set(self.heads) != {variant.heads}:
            return f"{self.variant} keeps {variant.heads} heads, not {sorted(set(self.heads))}"
        if variant.hybrid and self.intermediate_size != variant.intermediate_size:
            rows = variant.intermediate_size
            return f"{self.variant} keeps {rows} feed-forward rows, not {self.intermediate_size}"
        if self.overall_sparsity != OVERALL_SPARSITY:
            return f"the kit's models are {OVERALL_SPARSITY:.0%} sparse, not {self.overall_sparsity:.0%}"
        dense = count_block_weights(self.layers, self.hidden, self.hidden, self.dense_intermediate_size)
        if self.kept_weights > self.dense_block_weights or dense != self.dense_block_weights:
            return f"{self.dense_block_weights:,} dense weights do not fit the other dimensions"
        whole = {heads * self.head_size for heads in self.heads} == {self.hidden}
        if not variant.hybrid and not (whole and self.kept_weights == self.dense_block_weights):
            return f"{self.variant} has all heads and rows of its dense model"
        return None

    @property
    def dense_intermediate_size(self) -> int:
        """Rows of the dense model's feed-forward matrices."""
        return (self.dense_block_weights // self.layers - 4 * self.hidden**2) // (2 * self.hidden)

    def matrices(self) -> Dict[str, Tuple[int, int]]:
        """Return rows and columns of each quantized weight matrix, by parameter, in the graph's order."""
        rows = {"word": self.vocab_size, "token_type": 2, "position": self.max_positions}
        found = {f"bert.embeddings.{name}_embeddings.weight": (n, self.hidden) for name, n in rows.items()}
        for layer, heads in enumerate(self.heads):
            width = heads * self.head_size
            for name in (*ATTENTION, *FEED_FORWARD):
                shape = {
                    ATTENTION[3]: (self.hidden, width),
                    FEED_FORWARD[0]: (self.intermediate_size, self.hidden),
                    FEED_FORWARD[1]: (self.hidden, self.intermediate_size),
                }.get(name, (width, self.hidden))
                found[f"{BLOCK_PREFIX}{layer}.{name}.weight"] = shape
        found[HEAD] = (2, self.hidden)
        return found

    def dense_size(self, parameter: str) -> int:
        """Return the number of elements of a matrix in the dense model."""
        if parameter.startswith(BLOCK_PREFIX):
            feed_forward = is_feed_forward(parameter)
            return self.hidden * (self.dense_intermediate_size if feed_forward else self.hidden)
        rows, columns = self.matrices()[parameter]
        return rows * columns

    # Numbers of the graph that upstream's scripts export of 2 and of 24 layers at the pinned commits.
    @property
    def nodes(self) -> int:
        """Nodes of the ONNX graph."""
        return 62 + 163 * self.layers

    @property
    def activation_quantizers(self) -> int:
        """FakeQuantize nodes that quantize no constant."""
        return 3 + 13 * self.layers

    @property
    def outputs(self) -> List[str]:
        """Names of the outputs, start and end logits: the exporter numbers what has no name."""
        return [str(104 + 275 * self.layers + number) for number in (0, 1)]

    def expected_zeros(self) -> Dict[str, float]:
        """Return the expected share of zeros in each transformer-block matrix of random weights.

        torch draws a layer's n weights uniformly around zero, so ‖W‖₂ = bound·√(n/3).  NNCF (``normed_abs``)
        prunes where |w| / ‖W‖₂ is at most one threshold t for all: a share min(1, t·√(n/3)) of each matrix.
        t follows from the share of all.
        """
        sizes = {
            name: rows * columns
            for name, (rows, columns) in self.matrices().items()
            if name.startswith(BLOCK_PREFIX)
        }
        wanted = self.unstructured_sparsity * self.kept_weights
        low, high = 0.0, 1.0
        for _ in range(80):
            middle = (low + high) / 2
            gone = sum(min(1.0, middle * math.sqrt(size)) * size for size in sizes.values())
            low, high = (middle, high) if gone < wanted else (low, middle)
        return {name: min(1.0, high * math.sqrt(size)) for name, size in sizes.items()}


def is_feed_forward(parameter: str) -> bool:
    """Return whether a transformer-block parameter is a feed-forward matrix."""
    return ".attention." not in parameter
