"""What a variant is: its name, its model's dimensions, and the numbers of its tree that follow from them.

A *hybrid* loses heads and feed-forward rows, then single weights; *unstructured* loses single weights only.
"""

import difflib
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..core.errors import KitError, make_unknown_error

OVERALL_SPARSITY = 0.9
"""Share of the dense model's transformer-block weights that are zero or removed, in each of the five."""

QUANTIZED, PLAIN = "8bit", "fp32"
"""What ``PRECISION=`` takes, and what upstream's script ends the name of an ONNX file in."""

PRECISIONS = (QUANTIZED, PLAIN)

FORM = "<S>pc_sparse-<HH>_head-<NNNN>_ffnn or <S>pc_unstructured_sparse"
"""Of names: S percent, heads kept and feed-forward rows kept, with zeros before them."""

_NAME = re.compile(
    r"([0-9]{1,9})pc_(?:unstructured_sparse|sparse-([0-9]{1,9})_head-([0-9]{1,9})_ffnn)(-fp32)?", re.A
)

INPUTS = ("input_ids", "attention_mask.1", "input.1")
"""Token ids, attention mask and token types, int64 of 1 × sequence length each."""

BITS = 8
"""Bit width of every quantizer."""

BLOCK_PREFIX = "bert.encoder.layer."

ATTENTION = (*(f"attention.self.{name}" for name in ("query", "key", "value")), "attention.output.dense")
FEED_FORWARD = ("intermediate.dense", "output.dense")

HEAD = "qa_outputs.weight"


@dataclass(frozen=True)
class Variant:
    """A model to make; ``heads`` (by layer) and ``intermediate_size`` are what is kept, None for all.

    :param percent: of the dense model's transformer-block weights, what is zero or removed.
    """

    percent: int
    heads: Optional[int] = None
    intermediate_size: Optional[int] = None
    precision: str = QUANTIZED

    @property
    def base(self) -> str:
        """The name in either precision: upstream's, but that of one digit it makes a space and the digit."""
        kept = "unstructured_sparse"
        if self.hybrid:
            kept = f"sparse-{self.heads:02}_head-{self.intermediate_size:04}_ffnn"
        return f"{self.percent:02}pc_{kept}"

    @property
    def name(self) -> str:
        """The name of the tree."""
        return self.base if self.quantized else self.stem

    @property
    def hybrid(self) -> bool:
        """Whether the name says what structure is kept, so that upstream's script for hybrids makes it."""
        return self.heads is not None

    @property
    def quantized(self) -> bool:
        """Whether weights and activations have 8 bits."""
        return self.precision == QUANTIZED

    @property
    def overall_sparsity(self) -> float:
        """Share of the dense model's transformer-block weights that are zero or removed."""
        return self.percent / 100

    @property
    def stem(self) -> str:
        """File name of ONNX file and IR, without suffix."""
        return f"{self.base}-{self.precision}"


_FIVE = (
    Variant(90, 2, 512),
    Variant(90, 4, 1024),
    Variant(90, 6, 1536),
    Variant(90, 8, 2048),
    Variant(90),
)

VARIANTS: Dict[str, Variant] = {variant.name: variant for variant in _FIVE}
"""The five, which are made where no other is named."""


def parse_name(name: str) -> Optional[Variant]:
    """Return the variant of a name, None where there is none."""
    variant = _read(name)
    return variant if variant and variant.name == name and not _explain(variant) else None


def find_variant(name: str, precision: str = "") -> Variant:
    """Return the variant of a name; ``precision``, if it is not empty, is that of a name without one.

    :raises KitError: there is no such variant or precision; the error says why, or names the nearest.
    """
    if precision not in ("", *PRECISIONS):
        raise make_unknown_error("precision", precision, "PRECISION", PRECISIONS)
    read, why = _read(name), ""
    if read is not None:
        named = read.name == name and (read.quantized or precision in ("", read.precision))
        read = replace(read, precision=precision or read.precision)
        why = _explain(read)
        if named and not why:
            return read
    near = [_mend(read).name] if read else difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0.0)
    raise KitError(
        f"There is no variant {name!r}{why and ': '}{why}." if name else "No variant was named.",
        where=f"V={name}" + (f" PRECISION={precision}" if precision else ""),
        hint=(f"Did you mean V={near[0]}?\n" if name and near else "")
        + f"A name is {FORM};\nthe five of `make all`:\n  "
        + "\n  ".join(VARIANTS),
    )


def find_variants(names: str, precision: str = "") -> List[Variant]:
    """Return the variants of names with spaces or commas between them, each once; errors as above."""
    words = names.replace(",", " ").split() or [""]
    return list(dict.fromkeys(find_variant(name, precision) for name in words))


def _read(name: str) -> Optional[Variant]:
    """Return what a name of the form says, though there may be no such variant."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    percent, heads, rows, plain = found.groups()
    kept = [None if number is None else int(number) for number in (heads, rows)]
    return Variant(int(percent), kept[0], kept[1], PLAIN if plain else QUANTIZED)


def _explain(variant: Variant) -> str:
    """Return why a variant cannot be; empty where it can."""
    if variant.percent > 99:
        return "sparsity is a whole percentage from 00 to 99"
    if variant.heads == 0 or variant.intermediate_size == 0:
        return f"it would keep no {'head' if variant.heads == 0 else 'feed-forward row'}"
    if variant.intermediate_size == 1 and variant.quantized:
        return "OpenVINO 2022.1 cannot run a feed-forward layer of one row in 8 bits"
    return ""


def _mend(variant: Variant) -> Variant:
    """Return the nearest variant that can be."""
    percent, heads, rows = min(99, variant.percent), variant.heads, variant.intermediate_size
    if heads is None or rows is None:
        return replace(variant, percent=percent)
    return replace(
        variant, percent=percent, heads=max(1, heads), intermediate_size=max(1 + variant.quantized, rows)
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


def find_least_percent(dense: int, kept: int) -> int:
    """Return the least sparsity, in whole percent, of a model that keeps ``kept`` of ``dense`` weights."""
    return -(-100 * (dense - kept) // dense)


@dataclass(frozen=True)
class BertShape:
    """The dimensions of one BERT; ``heads`` (by layer) and ``intermediate_size`` are what is kept.

    :param dense_block_weights: transformer-block weights of the dense model that this one is, or is cut from.
    :param overall_sparsity: share of those that is to be zero or removed.
    """

    layers: int
    hidden: int
    head_size: int
    heads: Tuple[int, ...]
    intermediate_size: int
    vocab_size: int
    max_positions: int
    dense_block_weights: int
    overall_sparsity: float

    @property
    def kept_weights(self) -> int:
        """Transformer-block weights that are left once structure is removed."""
        widths = (heads * self.head_size for heads in self.heads)
        return sum(count_block_weights(1, self.hidden, width, self.intermediate_size) for width in widths)

    @property
    def pruned(self) -> bool:
        """Whether structure is removed."""
        return self.kept_weights != self.dense_block_weights

    @property
    def dense_intermediate_size(self) -> int:
        """Rows of the dense model's feed-forward matrices."""
        return (self.dense_block_weights // self.layers - 4 * self.hidden**2) // (2 * self.hidden)

    @property
    def sparsity_tolerance(self) -> float:
        """Tolerance of block sparsity: upstream's threshold is a weight, and ties with it are pruned too."""
        return max(1e-4, 3 / self.dense_block_weights)

    @property
    def unstructured_sparsity(self) -> float:
        """Share of :attr:`kept_weights` to prune so that :attr:`overall_sparsity` is reached."""
        # In upstream's order: the result selects an order statistic, and another rounding could move it.
        dense, kept = self.dense_block_weights, self.kept_weights
        structured = 1 - kept / dense
        share = (self.overall_sparsity - structured) * dense / kept
        # Where just as much is removed as is to be, rounding may leave a little less than nothing.
        return 0.0 if -1e-9 < share < 0 else share


@dataclass(frozen=True)
class Spec(BertShape):
    """What the tree of ``variant`` must be; ``sequence_length`` is the tokens of a feature.

    :param trained: ``weights`` of the provenance, where they are a checkpoint's; None for random ones.
    """

    variant: str
    sequence_length: int
    trained: Optional[Mapping[str, Any]] = field(default=None, compare=False)

    @classmethod
    def of(cls, variant: Variant, shape: BertShape, sequence_length: int = 384) -> "Spec":
        """Return the spec of a variant with the dimensions ``shape``."""
        return cls(**vars(shape), variant=variant.name, sequence_length=sequence_length)

    @classmethod
    def from_model(
        cls, variant: str, model: Mapping[str, Any], weights: Optional[Mapping[str, Any]] = None
    ) -> "Spec":
        """Return the spec in ``model`` and ``weights`` of a valid provenance; by default these are random."""
        trained = weights if weights and weights["kind"] == "trained" else None
        return cls(variant=variant, trained=trained, **{**model, "heads": tuple(model["heads"])})

    def model(self) -> Dict[str, Any]:
        """Return the dimensions as a provenance has them."""
        content = {**vars(self), "heads": list(self.heads)}
        del content["variant"], content["trained"]
        return content

    def describe(self) -> str:
        """Return the model in a few words."""
        variant = parse_name(self.variant)
        text = (
            f"{self.layers} layers, hidden {self.hidden},"
            f" heads {' or '.join(map(str, sorted(set(self.heads))))},"
            f" intermediate {self.intermediate_size}, sequence length {self.sequence_length}"
        )
        large = variant is not None and self == make_bert_large(variant)
        return text + ("" if large else " (not BERT-large)")

    def contradiction(self) -> Optional[str]:
        """Return how the dimensions contradict each other or the variant; None if they do not."""
        variant = parse_name(self.variant)
        if variant is None:
            return f"there is no variant {self.variant!r}"
        if len(self.heads) != self.layers:
            return f"heads of {len(self.heads)} layers in a model of {self.layers}"
        if variant.hybrid and set(self.heads) != {variant.heads}:
            return f"{self.variant} keeps {variant.heads} heads, not {sorted(set(self.heads))}"
        if variant.hybrid and self.intermediate_size != variant.intermediate_size:
            rows = variant.intermediate_size
            return f"{self.variant} keeps {rows} feed-forward rows, not {self.intermediate_size}"
        if self.overall_sparsity != variant.overall_sparsity:
            return f"{self.variant} is {variant.overall_sparsity:.0%} sparse, not {self.overall_sparsity:.0%}"
        dense = count_block_weights(self.layers, self.hidden, self.hidden, self.dense_intermediate_size)
        if self.kept_weights > self.dense_block_weights or dense != self.dense_block_weights:
            return f"{self.dense_block_weights:,} dense weights do not fit the other dimensions"
        whole = {heads * self.head_size for heads in self.heads} == {self.hidden}
        if not variant.hybrid and not (whole and self.kept_weights == self.dense_block_weights):
            return f"{self.variant} has all heads and rows of its dense model"
        return None

    def matrices(self) -> Dict[str, Tuple[int, int]]:
        """Return rows and columns of each weight matrix, by parameter, in the graph's order."""
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

    @property
    def quantized(self) -> bool:
        """Whether the variant's weights and activations have 8 bits."""
        variant = parse_name(self.variant)
        return variant is None or variant.quantized

    # Numbers of the graph that upstream's scripts export of 2, 3 and 24 layers at the pinned commits.
    @property
    def nodes(self) -> int:
        """Nodes of the ONNX graph."""
        if not self.quantized:
            return 36 + 94 * self.layers
        return 62 + 163 * self.layers - 3 * self.removed_quantizers  # each with two constants

    @property
    def activation_quantizers(self) -> int:
        """FakeQuantize nodes that quantize no constant."""
        return 3 + 13 * self.layers - self.removed_quantizers if self.quantized else 0

    @property
    def removed_quantizers(self) -> int:
        """Quantizers that :mod:`.trained_quantizers` takes out of a trained model."""
        return 2 + 7 * self.layers if self.trained is not None else 0

    @property
    def outputs(self) -> List[str]:
        """Names of the outputs, start and end logits: the exporter numbers what has no name."""
        first = 104 + 275 * self.layers if self.quantized else 51 + 136 * self.layers
        if self.quantized and self.trained is not None:
            first += 21  # three more quantizers, which are taken out, in the sum of the embeddings
        return [str(first + number) for number in (0, 1)]

    def expected_zeros(self) -> Dict[str, float]:
        """Return the expected share of zeros in each transformer-block matrix, if weights are random.

        torch draws a layer's n weights uniformly around zero, so ‖W‖₂ = bound·√(n/3).  NNCF (``normed_abs``)
        prunes where |w| / ‖W‖₂ is at most one threshold t for all: a share min(1, t·√(n/3)) of each matrix.
        t follows from the share of all.
        """
        sizes = {
            name: rows * columns
            for name, (rows, columns) in self.matrices().items()
            if name.startswith(BLOCK_PREFIX) and self.trained is None
        }
        wanted = self.unstructured_sparsity * self.kept_weights
        low, high = 0.0, 1.0
        for _ in range(80):
            middle = (low + high) / 2
            gone = sum(min(1.0, middle * math.sqrt(size)) * size for size in sizes.values())
            low, high = (middle, high) if gone < wanted else (low, middle)
        return {name: min(1.0, high * math.sqrt(size)) for name, size in sizes.items()}


def make_bert_large(variant: Variant) -> Spec:
    """Return what the tree of ``variant`` must be at full size."""
    shape = BertShape(
        layers=24,
        hidden=1024,
        head_size=64,
        heads=(variant.heads or 16,) * 24,
        intermediate_size=variant.intermediate_size or 4096,
        vocab_size=30522,
        max_positions=512,
        dense_block_weights=count_dense_weights(24, 1024),
        overall_sparsity=variant.overall_sparsity,
    )
    return Spec.of(variant, shape)


def is_block_matrix(parameter: str) -> bool:
    """Return whether a parameter is a matrix of a transformer block, which are what is pruned."""
    return (
        parameter.startswith(BLOCK_PREFIX) and parameter.endswith("weight") and "LayerNorm" not in parameter
    )


def is_feed_forward(parameter: str) -> bool:
    """Return whether a transformer-block parameter is a feed-forward matrix."""
    return ".attention." not in parameter
