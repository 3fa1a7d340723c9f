"""The report's overview: tables with a line for each tree, the same in the terminal and in the page."""

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ...core.progress import columns_of, duration, printable, size
from .heatmap import percent
from .tree import Tree

NOTHING = "–"
"""What stands where nothing is known."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    :param heading: what it holds.
    :param number: whether that is a number, which is set flush right.
    :param text: gives the text for a tree; called for trees that have a provenance, unless ``always``.
    :param always: whether it needs none.
    """

    heading: str
    text: Callable[[Tree], str]
    number: bool = True
    always: bool = False

    def cell(self, tree: Tree) -> str:
        """Return what stands in the line of ``tree``."""
        return self.text(tree) if self.always or tree.provenance is not None else NOTHING


@dataclass(frozen=True)
class Table:
    """A table of the overview."""

    title: str
    columns: Sequence[Column]


def share(value: float) -> str:
    """Return a share in percent with two digits after the point."""
    return f"{percent(value, 2)} %"


def heads(counts: Sequence[int]) -> str:
    """Return a number of heads for all layers, or the least and the largest."""
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def agreement(found: Optional[Dict[str, float]]) -> str:
    """Return a difference with what is tolerated; None stands for a run that was not needed."""
    if found is None:
        return "not needed"
    difference, tolerance = found["difference"], found["tolerance"]
    return f"{difference:.2g} {'≤' if difference <= tolerance else '>'} {tolerance:.2g}"


def bits(quantizers: Dict[str, Any]) -> str:
    """Return the bit widths of quantizers: ``8``, or ``4 (3), 8 (460)`` where there are several."""
    widths = sorted(quantizers["bits"].items(), key=lambda pair: (len(pair[0]), pair[0]))
    if len(widths) == 1:
        return str(widths[0][0])
    return ", ".join(f"{width} ({count:,})" for width, count in widths) or NOTHING


def findings(tree: Tree) -> str:
    """Return how many findings there are, and how many of them nobody expects."""
    found = tree.verification["findings"]
    unknown = sum(not finding["known"] for finding in found)
    if not found:
        return "none"
    return f"{len(found)} known" if not unknown else f"{len(found)}, {unknown} not known"


def _model(tree: Tree) -> Dict[str, Any]:
    assert tree.provenance is not None
    return dict(tree.provenance["model"])


def _bytes(tree: Tree, name: str) -> str:
    assert tree.provenance is not None
    entry = tree.provenance["files"].get(name.format(stem=f"{tree.provenance['variant']}-8bit"))
    return size(entry["bytes"]) if entry else NOTHING


def _all_bytes(tree: Tree) -> str:
    return size(sum(count or 0 for _, count, _ in tree.sizes()))


def _seconds(tree: Tree) -> str:
    assert tree.provenance is not None
    return duration(sum(tree.provenance["seconds"].values()))


def _peak(tree: Tree) -> str:
    assert tree.provenance is not None
    return size(max(tree.provenance["peak_bytes"].values()))


_NAME = Column("variant", lambda tree: tree.name, number=False, always=True)


def state(tree: Tree) -> str:
    """Return in a word or two whether a tree's files are as listed."""
    return "DAMAGED" if tree.faults else "as listed"


TABLES: Tuple[Table, ...] = (
    Table(
        "Dimensions and sparsity",
        (
            _NAME,
            Column("kind", lambda tree: "hybrid" if tree.hybrid else "unstructured", number=False),
            Column("layers", lambda tree: str(_model(tree)["layers"])),
            Column("heads", lambda tree: heads(_model(tree)["heads"])),
            Column("intermediate", lambda tree: f"{_model(tree)['intermediate_size']:,}"),
            Column("block", lambda tree: share(tree.verification["block_sparsity"])),
            Column("attention", lambda tree: share(tree.verification["attention_sparsity"])),
            Column("feed-forward", lambda tree: share(tree.verification["feed_forward_sparsity"])),
        ),
    ),
    Table(
        "Files",
        (
            _NAME,
            Column("files", state, number=False, always=True),
            Column("ONNX", lambda tree: _bytes(tree, "{stem}.onnx")),
            Column("IR .bin", lambda tree: _bytes(tree, "ir/{stem}.bin")),
            Column("IR .xml", lambda tree: _bytes(tree, "ir/{stem}.xml")),
            Column("whole tree", _all_bytes),
        ),
    ),
    Table(
        "Quantizers and graph",
        (
            _NAME,
            Column("weights", lambda tree: f"{tree.verification['onnx']['quantizers']['weights']:,}"),
            Column("activations", lambda tree: f"{tree.verification['onnx']['quantizers']['activations']:,}"),
            Column("bits", lambda tree: bits(tree.verification["onnx"]["quantizers"])),
            Column("ONNX nodes", lambda tree: f"{tree.verification['onnx']['nodes']:,}"),
            Column("IR version", lambda tree: str(tree.verification["ir"]["version"])),
            Column("IR layers", lambda tree: f"{sum(tree.verification['ir']['layers'].values()):,}"),
            Column("MatMul", lambda tree: f"{tree.verification['ir']['layers'].get('MatMul', 0):,}"),
            Column("int8", lambda tree: f"{tree.verification['ir']['int8_constants']:,}"),
        ),
    ),
    Table(
        "ONNX against IR, findings, time and memory",
        (
            _NAME,
            Column("as run", lambda tree: agreement(tree.verification["outputs"]["as_run"])),
            Column(
                "no rounding", lambda tree: agreement(tree.verification["outputs"].get("without_rounding"))
            ),
            Column("findings", findings, number=False),
            Column("time", _seconds),
            Column("peak memory", _peak),
        ),
    ),
)


def text(trees: Sequence[Tree]) -> str:
    """Return the overview for the terminal."""
    return "\n\n".join(_text(table, trees) for table in TABLES)


def _text(table: Table, trees: Sequence[Tree]) -> str:
    lines: List[List[str]] = [[column.heading for column in table.columns]]
    lines += [[printable(column.cell(tree)).replace("\n", "?") for column in table.columns] for tree in trees]
    right = [place for place, column in enumerate(table.columns) if column.number]
    rows = columns_of(lines, right)
    return "\n".join([table.title, *("  " + row for row in rows)])
