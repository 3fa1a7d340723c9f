"""The report's overview: tables with a line for each tree, the same in the terminal and in the page."""

from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from ..core.progress import align_columns, escape_text, format_duration, format_size
from .tree import Tree

NOTHING = "–"
"""What stands where nothing is known."""

Part = Dict[str, Any]
"""A part of a tree's provenance."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    :param text: gives the text for a tree, from its provenance and the ``verification`` in that.
    :param number: whether that is set flush right.
    :param always: whether it needs no provenance.
    """

    heading: str
    text: Callable[[Tree, Part, Part], str]
    number: bool = True
    always: bool = False

    def cell(self, tree: Tree) -> str:
        """Return what stands in the line of ``tree``."""
        if tree.provenance:
            return self.text(tree, tree.provenance, tree.verification)
        return self.text(tree, {}, {}) if self.always else NOTHING


@dataclass(frozen=True)
class Table:
    """A table of the overview."""

    title: str
    columns: Sequence[Column]


def format_percent(share: float, digits: int = 1) -> str:
    """Return a share in percent, without the sign; ``0`` and ``100`` stand for exactly none and all."""
    if share in (0, 1):
        return str(int(100 * share))
    least = 10.0**-digits
    return f"{min(max(100 * share, least), 100 - least):.{digits}f}"


def format_share(value: float) -> str:
    """Return a share in percent with two digits after the point."""
    return f"{format_percent(value, 2)} %"


def format_heads(counts: Sequence[int]) -> str:
    """Return a number of heads for all layers, or the least and the largest."""
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def format_agreement(found: Optional[Dict[str, float]]) -> str:
    """Return a difference with what is tolerated; None stands for a run that was not needed."""
    if found is None:
        return "not needed"
    difference, tolerance = found["difference"], found["tolerance"]
    return f"{difference:.2g} {'≤' if difference <= tolerance else '>'} {tolerance:.2g}"


def format_bits(quantizers: Part) -> str:
    """Return the bit widths of quantizers: ``8``, or ``4 (3), 8 (460)`` where there are several."""
    widths = sorted(quantizers["bits"].items(), key=lambda pair: (len(pair[0]), pair[0]))
    if len(widths) == 1:
        return str(widths[0][0])
    return ", ".join(f"{width} ({count:,})" for width, count in widths) or NOTHING


def _findings(tree: Tree, p: Part, v: Part) -> str:
    """Return how many findings there are, and how many of them nobody expects."""
    unknown = sum(not finding["known"] for finding in v["findings"])
    if not v["findings"]:
        return "none"
    return f"{len(v['findings'])}, {unknown} not known" if unknown else f"{len(v['findings'])} known"


def _bytes_of(name: str) -> Callable[[Tree, Part, Part], str]:
    def text(tree: Tree, p: Part, v: Part) -> str:
        entry = p["files"].get(name.format(stem=f"{p['variant']}-8bit"))
        return format_size(entry["bytes"]) if entry else NOTHING

    return text


_NAME = Column("variant", lambda tree, p, v: tree.name, number=False, always=True)

TABLES: Tuple[Table, ...] = (
    Table(
        "Dimensions and sparsity",
        (
            _NAME,
            Column("kind", lambda tree, p, v: "hybrid" if tree.hybrid else "unstructured", number=False),
            Column("layers", lambda tree, p, v: str(p["model"]["layers"])),
            Column("heads", lambda tree, p, v: format_heads(p["model"]["heads"])),
            Column("intermediate", lambda tree, p, v: f"{p['model']['intermediate_size']:,}"),
            Column("block", lambda tree, p, v: format_share(v["block_sparsity"])),
            Column("attention", lambda tree, p, v: format_share(v["attention_sparsity"])),
            Column("feed-forward", lambda tree, p, v: format_share(v["feed_forward_sparsity"])),
        ),
    ),
    Table(
        "Files",
        (
            _NAME,
            Column(
                "files",
                lambda tree, p, v: "DAMAGED" if tree.faults else "as listed",
                number=False,
                always=True,
            ),
            Column("ONNX", _bytes_of("{stem}.onnx")),
            Column("IR .bin", _bytes_of("ir/{stem}.bin")),
            Column("IR .xml", _bytes_of("ir/{stem}.xml")),
            Column(
                "whole tree", lambda tree, p, v: format_size(sum(count or 0 for _, count, _ in tree.sizes()))
            ),
        ),
    ),
    Table(
        "Quantizers and graph",
        (
            _NAME,
            Column("weights", lambda tree, p, v: f"{v['onnx']['quantizers']['weights']:,}"),
            Column("activations", lambda tree, p, v: f"{v['onnx']['quantizers']['activations']:,}"),
            Column("bits", lambda tree, p, v: format_bits(v["onnx"]["quantizers"])),
            Column("ONNX nodes", lambda tree, p, v: f"{v['onnx']['nodes']:,}"),
            Column("IR version", lambda tree, p, v: str(v["ir"]["version"])),
            Column("IR layers", lambda tree, p, v: f"{sum(v['ir']['layers'].values()):,}"),
            Column("MatMul", lambda tree, p, v: f"{v['ir']['layers'].get('MatMul', 0):,}"),
            Column("int8", lambda tree, p, v: f"{v['ir']['int8_constants']:,}"),
        ),
    ),
    Table(
        "ONNX against IR, findings, time and memory",
        (
            _NAME,
            Column("as run", lambda tree, p, v: format_agreement(v["outputs"]["as_run"])),
            Column("no rounding", lambda tree, p, v: format_agreement(v["outputs"].get("without_rounding"))),
            Column("findings", _findings, number=False),
            Column("time", lambda tree, p, v: format_duration(sum(p["seconds"].values()))),
            Column("peak memory", lambda tree, p, v: format_size(max(p["peak_bytes"].values()))),
        ),
    ),
)


def write_text(trees: Sequence[Tree]) -> str:
    """Return the overview for the terminal."""
    return "\n\n".join(_text(table, trees) for table in TABLES)


def _text(table: Table, trees: Sequence[Tree]) -> str:
    lines = [[column.heading for column in table.columns]]
    lines += [
        [escape_text(column.cell(tree)).replace("\n", "?") for column in table.columns] for tree in trees
    ]
    rows = align_columns(lines, [place for place, column in enumerate(table.columns) if column.number])
    return "\n".join([table.title, *("  " + row for row in rows)])
