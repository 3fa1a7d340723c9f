"""What differs between two ONNX files: the graph, or else the values of constants.

A FakeQuantize node's first input is a weight matrix if it is constant; a mask says which elements are zero.
"""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, Iterator, List, Sequence, Set, Tuple

from ..core.progress import format_count
from ..model.onnx_model import Model, make_damaged_error, name_type, read_node_constant, strip_prefix
from . import make_ticker


@dataclass
class Found:
    """The differences of two ONNX files.

    :param structure: the first difference of the graphs; if there is one, nothing else was compared.
    :param matrices: count of weight matrices; ``other_matrices`` differ, ``other_masks`` of them in the mask.
    :param others: other constants that differ, activation ranges excepted.
    :param ranges: count of activation quantizers; ``other_ranges`` are their differences, in widths.
    """

    structure: str = ""
    matrices: int = 0
    other_matrices: List[str] = field(default_factory=list)
    other_masks: int = 0
    others: List[str] = field(default_factory=list)
    ranges: int = 0
    other_ranges: List[float] = field(default_factory=list)

    @property
    def same_weights(self) -> bool:
        """Whether graphs and values are the same, activation ranges excepted."""
        return not (self.structure or self.other_matrices or self.others)

    @property
    def text(self) -> str:
        """The differences in one line."""
        if self.structure:
            return f"other graph: {self.structure}"
        if self.same_weights and not self.other_ranges:
            return "same graph and values; the files differ in other bytes"
        parts = ["same graph, weights and masks"]
        if not self.same_weights:
            matrices = f"{len(self.other_matrices):,} of {self.matrices:,} weight matrices differ"
            if self.other_matrices:
                masks = f"the masks of {self.other_masks:,}" if self.other_masks else "no masks"
                matrices += f" ({masks}), first {self.other_matrices[0]}"
            parts = ["same graph and shapes", matrices]
        if self.others:
            count = format_count(len(self.others), "other constant")
            parts.append(
                f"{count} {'differs' if len(self.others) == 1 else 'differ'}, first {self.others[0]}"
            )
        if self.other_ranges:
            most = max(self.other_ranges)
            count = f"{len(self.other_ranges):,} of {self.ranges:,} activation ranges differ"
            parts.append(f"{count}, by at most {100 * most:{'.0f' if most >= 0.1 else '.2g'}} %")
        return "; ".join(parts)


def compare_models(name: str, a: Model, b: Model) -> Found:
    """Compare two graphs and, if they are the same, their values; progress is reported under ``name``."""
    import numpy

    structure = next(filter(None, _graph_differences(a, b)), "")
    if structure:
        return Found(structure=structure)
    found = Found(matrices=len(a.matrices), ranges=len(a.activations))
    free = a.range_names()
    other: Set[str] = set()
    tick = make_ticker(f"{name}: compared")
    # The graphs are the same: so are the names in both lists, and their order.
    for done, ((constant, left), (_, right)) in enumerate(zip(a.constants, b.constants)):
        tick(f"{done:,} of {len(a.constants):,} constants")
        if numpy.array_equal(a.content(left), b.content(right)):
            continue
        other.add(constant)
        if constant in free:
            continue
        text, masks = _value_difference(a.array(left), b.array(right), constant in a.matrices)
        differing = found.other_matrices if constant in a.matrices else found.others
        differing.append(f"{a.constant_label(constant)}: {text}")
        found.other_masks += masks
    for node in a.activations:
        if other.intersection(node.input[1:]):
            found.other_ranges.append(_range_difference(node, a, b))
    return found


def _graph_differences(a: Model, b: Model) -> Iterator[str]:
    """Yield texts on two graphs, values of constants excepted: a difference, or empty for none."""
    yield _difference("opset", _opset(a.proto), _opset(b.proto))
    yield _difference("input", _interface(a.proto.graph.input), _interface(b.proto.graph.input))
    yield _difference("output", _interface(a.proto.graph.output), _interface(b.proto.graph.output))
    counts = ""
    if len(a.nodes) != len(b.nodes):
        counts = f" ({len(a.nodes):,} nodes in A, {len(b.nodes):,} in B)"
    for one, other in zip(a.nodes, b.nodes):
        text = next(filter(None, _node_differences(one, other)), "")
        if text:
            constant = all(read_node_constant(node) is not None for node in (one, other))
            constant = constant and one.output == other.output
            yield (a.constant_label(one.output[0]) if constant else a.node_label(one)) + f": {text}{counts}"
    if counts:
        longer, common = (a, len(b.nodes)) if len(a.nodes) > len(b.nodes) else (b, len(a.nodes))
        yield f"{longer.node_label(longer.nodes[common])}: {_only(longer is a)}{counts}"
    names, others = ([name for name, _ in model.initializers] for model in (a, b))
    alone = sorted(set(names).symmetric_difference(others))
    if alone:
        yield f"{strip_prefix(alone[0])}: {_only(alone[0] in names)}"
    elif names != others:
        yield "initializers: a name is there twice"
    for (name, left), (_, right) in zip(a.initializers, b.initializers):
        text = _tensor_difference(left, right)
        yield text and f"{strip_prefix(name)}: {text}"
    # Nothing that the kit makes has these; two files that differ in them are not to pass as the same.
    if _serialized(a.proto.graph.sparse_initializer) != _serialized(b.proto.graph.sparse_initializer):
        yield "sparse initializers differ"
    if _serialized(a.proto.functions) != _serialized(b.proto.functions):
        yield "functions differ"


def _difference(kind: str, left: Sequence[object], right: Sequence[object]) -> str:
    """Return the first difference of two lists, empty for none; ``#`` in ``kind`` is the place."""
    for place, (one, other) in enumerate(itertools.zip_longest(left, right, fillvalue="none")):
        if one != other:
            return f"{kind.replace('#', str(place))}: {one} in A, {other} in B"
    return ""


def _only(in_a: bool) -> str:
    return f"in {'A' if in_a else 'B'} only"


def _opset(proto: Any) -> List[str]:
    return sorted(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in proto.opset_import)


def _interface(values: Any) -> List[str]:
    lines = []
    for value in values:
        tensor = value.type.tensor_type
        sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim]
        known = value.type.HasField("tensor_type") and tensor.HasField("shape")
        what = f"{name_type(tensor.elem_type)} {sizes}" if known else " ".join(str(value.type).split())
        lines.append(f"{value.name} {what}")
    return lines


def _node_differences(a: Any, b: Any) -> Iterator[str]:
    for kind, left, right in (
        ("name", [a.name], [b.name]),
        ("op type", [a.op_type], [b.op_type]),
        ("domain", [a.domain], [b.domain]),
        ("edge, input #", a.input, b.input),
        ("edge, output #", a.output, b.output),
    ):
        yield _difference(kind, [*map(repr, left)], [*map(repr, right)])
    left_ones, right_ones = ({attribute.name: attribute for attribute in node.attribute} for node in (a, b))
    alone = sorted(set(left_ones).symmetric_difference(right_ones))
    if alone:
        yield f"attribute {alone[0]}: {_only(alone[0] in left_ones)}"
    if len(a.attribute) != len(b.attribute):
        yield f"attributes: {len(a.attribute)} in A, {len(b.attribute)} in B"
    for name, one in left_ones.items():
        other = right_ones[name]
        if name == "value" and a.op_type == "Constant":
            yield _tensor_difference(one.t, other.t)
        elif _serialized([one]) != _serialized([other]):
            yield f"attribute {name}: {_shown(one)} in A, {_shown(other)} in B"


def _tensor_difference(a: Any, b: Any) -> str:
    """Return the difference of two constants in shape or type; empty for none."""
    return _difference("shape", [list(a.dims)], [list(b.dims)]) or _difference(
        "type", [name_type(a.data_type)], [name_type(b.data_type)]
    )


def _serialized(messages: Any) -> List[bytes]:
    # Not by ==, for which a NaN differs from itself.
    return [message.SerializeToString(deterministic=True) for message in messages]


def _shown(attribute: Any) -> str:
    from onnx import helper

    try:
        text = str(helper.get_attribute_value(attribute))
    except ValueError:  # an attribute without a type
        text = str(attribute)
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:59] + "…"


def _value_difference(a: Any, b: Any, matrix: bool) -> Tuple[str, bool]:
    """Return how two arrays of one shape and type differ, and whether their masks do."""
    import numpy

    bits = f"u{a.dtype.itemsize}"
    different = numpy.atleast_1d(a).view(bits) != numpy.atleast_1d(b).view(bits)
    count = int(numpy.count_nonzero(different))
    index = numpy.unravel_index(int(different.argmax()), a.shape)
    place = f" at {[int(number) for number in index]}" if a.shape else ""
    text = f"value: {count:,} of {a.size:,} elements differ,{place} {a[index]!s} in A, {b[index]!s} in B"
    filled = int(numpy.count_nonzero((a == 0) & (b != 0)))
    emptied = int(numpy.count_nonzero((a != 0) & (b == 0)))
    if not matrix or not (filled or emptied):
        return text, False
    masks = f"masks differ: {filled:,} zeros of A are not zero in B, {emptied:,} zeros of B not in A"
    return f"{text}; {masks}", True


def _range_difference(node: Any, a: Model, b: Model) -> float:
    """Return the larger of |low − low'| and |high − high'|, divided by the larger width, high − low.

    It is infinite if both widths are zero, or an end is no number; ends that are computed do not count.
    """
    import numpy

    largest = 0.0
    for names in (node.input[1:3], node.input[3:5]):
        if not all(name in a.tensors for name in names):
            continue
        # In doubles, in which neither a difference of two floats nor a width overflows.
        (low, high), (other_low, other_high) = (
            [model.array(model.tensors[name]).astype(numpy.float64) for name in names] for model in (a, b)
        )
        try:
            with numpy.errstate(all="ignore"):
                moved = numpy.maximum(abs(low - other_low), abs(high - other_high))
                share = moved / numpy.maximum(abs(high - low), abs(other_high - other_low))
        except ValueError:
            raise make_damaged_error(
                a.path, f"the ends of {node.name}'s range have shapes that do not fit"
            ) from None
        share = numpy.where(moved == 0, 0.0, numpy.where(numpy.isnan(share), math.inf, share))
        largest = max(largest, float(share.max(initial=0.0)))
    return largest
