"""What verifying trees gave, for people."""

import math
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

from ..core import paths
from ..core.progress import Progress, align_columns, escape_text, format_size
from ..model.spec import BLOCK_PREFIX
from . import tree
from .tree import Result

_LABEL = 29
"""Columns for the longest name of a check."""


def _lines(result: Result) -> List[str]:
    lines = [
        f"  {'ok  ' if check.passed else 'FAIL'}  {check.name:<{_LABEL}}{check.text}"
        for check in result.checks
    ]
    for finding in result.findings:
        mark = "note" if finding.known else "FAIL"
        reason = f" ({finding.reason})" if finding.reason else ""
        lines.append(f"  {mark}  {finding.kind:<{_LABEL}}{finding.text}{reason}")
    return lines + _by_layer(result.measured["matrices"] if result.measured else [])


def _by_layer(matrices: Sequence[Mapping[str, Any]]) -> List[str]:
    """Return a table of what is zero in each transformer block, from ``matrices`` of a verification."""
    layers: Dict[str, List[Mapping[str, Any]]] = {}
    for row in matrices:
        if row["parameter"].startswith(BLOCK_PREFIX):
            layers.setdefault(row["parameter"][len(BLOCK_PREFIX) :].split(".")[0], []).append(row)
    lines = [("layer", "weights", "zeros in the ONNX file", "in the IR", "zero or removed")] if layers else []
    for layer, rows in layers.items():
        size, dense = sum(math.prod(row["shape"]) for row in rows), sum(row["dense"] for row in rows)
        zeros, kept = sum(row["zeros"] for row in rows), sum(row["ir_zeros"] for row in rows)
        lines.append((layer, f"{size:,}", f"{zeros:,}", f"{kept:,}", f"{1 - (size - zeros) / dense:.6f}"))
    return ["        " + line for line in align_columns(lines, range(5))]


def _summary(result: Result) -> str:
    if result.passed:
        known = f", {len(result.findings)} known findings" if result.findings else ""
        return f"verified: {len(result.checks)} checks passed{known}"
    count = len(result.failed) + len(result.unknown)
    return f"NOT AS IT MUST BE: {count} of {len(result.checks) + len(result.findings)} checks failed"


def verify_all(trees: Sequence[Path]) -> bool:
    """Verify trees one by one and print what each is; return whether all passed."""
    passed = True
    for path in trees:
        with Progress(f"{path.name}", None) as progress:
            result = tree.verify_tree(path, paths.VENV_PYTHON, progress.tick)
            progress.done(f"largest process {format_size(result.peak_bytes)}")
        print(f"{path.name}: {_summary(result)}")
        print(escape_text("\n".join(_lines(result))), flush=True)
        if not result.passed:
            print(f"  to do: {tree.suggest_again(path)}", flush=True)
        passed = passed and result.passed
    return passed
