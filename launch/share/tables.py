"""The report's overview: tables with a line for each tree, for terminal and page."""

from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Sequence

from ..artifact import evaluation
from ..core.progress import format_duration, format_size
from .tree import Tree

NOTHING = "–"
"""The cell of an unknown value."""


@dataclass(frozen=True)
class Column:
    """A column; a tree without provenance has :data:`NOTHING` unless ``always``; numbers are flush right."""

    heading: str
    text: Callable[[Tree], str]
    number: bool = True
    always: bool = False

    def cell(self, tree: Tree) -> str:
        """Return the cell of ``tree``."""
        return self.text(tree) if tree.provenance or self.always else NOTHING


def format_percent(share: float, digits: int = 1) -> str:
    """Return a share in percent, without the sign; ``0`` and ``100`` only if exact."""
    if share in (0, 1):
        return str(int(100 * share))
    least = 10.0**-digits
    return f"{min(max(100 * share, least), 100 - least):.{digits}f}"


def format_share(value: float) -> str:
    """Return a share in percent with two decimals."""
    return f"{format_percent(value, 2)} %"


def format_heads(counts: Sequence[int]) -> str:
    """Return the number of heads, or the least and the largest if layers differ."""
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def format_agreement(found: Optional[Dict[str, float]]) -> str:
    """Return a difference and its tolerance; None is a run that was not needed."""
    if found is None:
        return "not needed"
    difference, tolerance = found["difference"], found["tolerance"]
    return f"{difference:.2g} {'≤' if difference <= tolerance else '>'} {tolerance:.2g}"


def format_bits(quantizers: Dict[str, Any]) -> str:
    """Return the bit widths of quantizers: ``8``, or ``4 (3), 8 (460)`` for several."""
    widths = sorted(quantizers["bits"].items(), key=lambda pair: (len(pair[0]), pair[0]))
    if len(widths) == 1:
        return str(widths[0][0])
    return ", ".join(f"{width} ({count:,})" for width, count in widths) or NOTHING


def _count_findings(tree: Tree) -> str:
    findings = tree.verification["findings"]
    unknown = sum(not finding["known"] for finding in findings)
    if not findings:
        return "none"
    return f"{len(findings)}, {unknown} not known" if unknown else f"{len(findings)} known"


def _size_of(folder: str, suffix: str) -> Callable[[Tree], str]:
    def text(tree: Tree) -> str:
        entry = tree.provenance["files"].get(f"{folder}{tree.stem}{suffix}")
        return format_size(entry["bytes"]) if entry else NOTHING

    return text


_NAME = Column("variant", lambda t: t.name, number=False, always=True)

TABLES: Dict[str, Sequence[Column]] = {
    "Dimensions and sparsity": (
        _NAME,
        Column("kind", lambda t: t.kind, number=False),
        Column("weights", lambda t: str(t.provenance["weights"]["kind"]), number=False),
        Column("layers", lambda t: str(t.provenance["model"]["layers"])),
        Column("heads", lambda t: format_heads(t.provenance["model"]["heads"])),
        Column("intermediate", lambda t: f"{t.provenance['model']['intermediate_size']:,}"),
        Column("block", lambda t: format_share(t.verification["block_sparsity"])),
        Column("attention", lambda t: format_share(t.verification["attention_sparsity"])),
        Column("feed-forward", lambda t: format_share(t.verification["feed_forward_sparsity"])),
    ),
    "Files": (
        _NAME,
        Column("files", lambda t: "DAMAGED" if t.faults else "as listed", number=False, always=True),
        Column("ONNX", _size_of("", ".onnx")),
        Column("IR .bin", _size_of("ir/", ".bin")),
        Column("IR .xml", _size_of("ir/", ".xml")),
        Column("whole tree", lambda t: format_size(sum(count or 0 for _, count, _ in t.sizes()))),
    ),
    "Quantizers and graph": (
        _NAME,
        Column("weights", lambda t: f"{t.verification['onnx']['quantizers']['weights']:,}"),
        Column("activations", lambda t: f"{t.verification['onnx']['quantizers']['activations']:,}"),
        Column("bits", lambda t: format_bits(t.verification["onnx"]["quantizers"])),
        Column("ONNX nodes", lambda t: f"{t.verification['onnx']['nodes']:,}"),
        Column("IR version", lambda t: str(t.verification["ir"]["version"])),
        Column("IR layers", lambda t: f"{sum(t.verification['ir']['layers'].values()):,}"),
        Column("MatMul", lambda t: f"{t.verification['ir']['layers'].get('MatMul', 0):,}"),
        Column("int8", lambda t: f"{t.verification['ir']['int8_constants']:,}"),
    ),
    "ONNX against IR, findings, time and memory": (
        _NAME,
        Column("as run", lambda t: format_agreement(t.verification["outputs"]["as_run"])),
        Column("no rounding", lambda t: format_agreement(t.verification["outputs"].get("without_rounding"))),
        Column("findings", _count_findings, number=False),
        Column("time", lambda t: format_duration(sum(t.provenance["seconds"].values()))),
        Column("peak memory", lambda t: format_size(max(t.provenance["peak_bytes"].values()))),
    ),
}
"""Columns by title."""


def _format_result(name: str) -> Callable[[Tree], str]:
    def text(tree: Tree) -> str:
        found = tree.evaluation.get("results", {}).get(name)
        return f"{found['exact_match']:.2f} / {found['f1']:.2f}" if found else NOTHING

    return text


_EVALUATION = (
    _NAME,
    *(Column(label, _format_result(name)) for name, label in evaluation.LABELS.items()),
    Column("questions", lambda t: f"{t.evaluation['questions']:,}" if t.evaluation else NOTHING),
    Column("same answers", lambda t: f"{t.evaluation['same_answers']:,}" if t.evaluation else NOTHING),
    Column("evaluation", lambda t: _describe_state(t), number=False),
)


def _describe_state(tree: Tree) -> str:
    if tree.evaluation_fault:
        return "STALE" if tree.evaluation else "UNREADABLE"
    return "of these files" if tree.evaluation else NOTHING


def choose_tables(trees: Sequence[Tree]) -> Dict[str, Sequence[Column]]:
    """Return :data:`TABLES`, and one of exact match and F1 where a tree was evaluated."""
    evaluated = any(tree.evaluation or tree.evaluation_fault for tree in trees)
    return {**TABLES, **({"Exact match and F1, in percent": _EVALUATION} if evaluated else {})}
