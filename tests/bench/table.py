"""The table of a benchmark in Markdown, aligned so that it can be read in a terminal too."""

from typing import List, Optional, Sequence

from .figures import QUANTITIES, Row, Run, Value, differing, rows

_SCALES = {"seconds": (1.0, 1), "cpu_seconds": (1.0, 1), "peak_bytes": (1e9, 2)}
"""Divisor and decimals of each quantity: seconds, and GB (10⁹ bytes)."""

_HEADINGS = {"seconds": "s", "cpu_seconds": "CPU s", "peak_bytes": "GB"}
_NONE = "–"
_STEP = 42
"""Characters of a step that are shown."""


def _number(value: Optional[Value], quantity: str, repeated: bool) -> str:
    if value is None:
        return _NONE
    scale, decimals = _SCALES[quantity]
    text = f"{value.minimum / scale:.{decimals}f}"
    return f"{text} ({value.median / scale:.{decimals}f})" if repeated else text


def _ratio(number: Optional[float]) -> str:
    return _NONE if number is None else f"{number:.2f}"


def markdown(runs: Sequence[Run], base: str, other: str) -> str:
    """Return the figures of ``runs`` as a table, and below it whether the sides made the same bytes.

    :param base: the side that ratios divide by; ``other`` is the kit.
    """
    repeats = max(sum((r.variant, r.side) == (run.variant, run.side) for r in runs) for run in runs)
    heading = ["stage"]
    for quantity in QUANTITIES:
        heading += [f"{base} {_HEADINGS[quantity]}", f"{other} {_HEADINGS[quantity]}", "ratio"]
    lines = [heading]
    before = ""
    for row in rows(runs, (base, other)):
        if row.variant != before:
            lines.append([f"**{row.variant}**", *[""] * (len(heading) - 1)])
        lines.append(_cells(row, base, other, repeats > 1))
        before = row.variant
    text = _aligned(lines)
    if repeats > 1:
        text += f"\n\n{repeats} runs of each: minimum (median); ratios are of the minima."
    text += "\n\ns: wall seconds; CPU s: processor seconds; GB: the largest process, 10⁹ bytes resident."
    return f"{text}\n\n{_bytes(runs)}\n"


def _cells(row: Row, base: str, other: str, repeated: bool) -> List[str]:
    cells = [f"· {_shortened(row.step)}" if row.step else row.stage]
    for quantity in QUANTITIES:
        for side in (base, other):
            cells.append(_number(getattr(row.cells.get(side), quantity, None), quantity, repeated))
        cells.append(_ratio(row.ratio(quantity, base, other)))
    return cells


def _shortened(text: str) -> str:
    return text if len(text) <= _STEP else text[: _STEP - 1].rstrip() + "…"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first line is its heading, columns from the second on are numbers."""
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(lines[0]))]

    def written(line: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (width - 1) + (":" if column else "-") for column, width in enumerate(widths)]
    return "\n".join([written(lines[0]), written(rule), *map(written, lines[1:])])


def _bytes(runs: Sequence[Run]) -> str:
    """Return a line a variant: whether all runs of both sides made the same bytes."""
    different = differing(runs)
    lines = []
    for variant in dict.fromkeys(run.variant for run in runs):
        files = [name for place, name in different if place == variant]
        outputs = next(run.outputs for run in runs if run.variant == variant)
        if files:
            lines.append(f"* {variant}: DIFFERENT BYTES in {', '.join(files)}")
        else:
            onnx = next((digest for name, digest in outputs.items() if name.endswith(".onnx")), "")
            lines.append(f"* {variant}: the same bytes, {len(outputs)} files (ONNX sha256 {onnx})")
    return "\n".join(lines)
