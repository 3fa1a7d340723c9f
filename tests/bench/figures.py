"""What was measured, and the arithmetic on it: minima, medians, sums and ratios."""

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple

ONNX, IR, VERIFICATION = "weights and ONNX", "IR", "verification"
"""The stages; the last one is the kit's alone."""

FLOOR = "calibration alone"
"""The forward passes that identical bytes require, measured by themselves; no stage of any side."""

MADE = "ONNX and IR"
"""The stages that both sides have, together."""

ALL = "with verification"
"""All stages of a side together; the side that verifies nothing has :data:`MADE` here."""

EVERY = "all of them"
"""Stands for a variant in the rows that add the variants up."""


@dataclass(frozen=True)
class Figure:
    """What one stage took once.

    :param seconds: wall-clock time.
    :param cpu_seconds: processor time.
    :param peak_bytes: the largest resident set of one process.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Run:
    """One side's run of one variant.

    :param side: its name.
    :param stages: what each stage took.
    :param steps: wall seconds of the steps that a stage's program stated, by stage.
    :param outputs: sha256 of each file that was made.
    """

    variant: str
    side: str
    stages: Mapping[str, Figure]
    steps: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """One quantity over the repeated runs."""

    minimum: float
    median: float


@dataclass(frozen=True)
class Cell:
    """What one side took for one row; processor time and memory are not known of a step."""

    seconds: Value
    cpu_seconds: Optional[Value] = None
    peak_bytes: Optional[Value] = None


QUANTITIES = ("seconds", "cpu_seconds", "peak_bytes")
"""The fields of a :class:`Cell`."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    :param variant: its name, or :data:`EVERY`.
    :param stage: the stage, or sum of stages.
    :param step: a step within the stage; empty for the stage itself.
    :param cells: what each side took, by its name; a side that has no such stage is left out.
    """

    variant: str
    stage: str
    step: str
    cells: Mapping[str, Cell]

    def ratio(self, quantity: str, base: str, other: str, which: str = "minimum") -> Optional[float]:
        """Return what ``other`` took, divided by what ``base`` took; None where one is unknown or 0."""
        one, two = (getattr(self.cells.get(side), quantity, None) for side in (base, other))
        if one is None or two is None or getattr(one, which) <= 0:
            return None
        return float(getattr(two, which) / getattr(one, which))


def value(numbers: Sequence[float]) -> Value:
    """Return minimum and median of some numbers, at least one."""
    ordered = sorted(numbers)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return Value(ordered[0], median)


def _together(figures: Sequence[Figure]) -> Figure:
    """Return stages that ran one after the other as one."""
    return Figure(
        sum(figure.seconds for figure in figures),
        sum(figure.cpu_seconds for figure in figures),
        max(figure.peak_bytes for figure in figures),
    )


def _cell(figures: Sequence[Figure]) -> Cell:
    return Cell(
        value([figure.seconds for figure in figures]),
        value([figure.cpu_seconds for figure in figures]),
        value([figure.peak_bytes for figure in figures]),
    )


def rows(runs: Sequence[Run], sides: Sequence[str]) -> List[Row]:
    """Return the table's rows: each variant's stages, steps and sums, then the sums over the variants.

    :param sides: the sides' names in order.
    """
    found: List[Row] = []
    variants = list(dict.fromkeys(run.variant for run in runs))
    for variant in variants:
        own = {side: [run for run in runs if (run.variant, run.side) == (variant, side)] for side in sides}
        for stage in (ONNX, FLOOR, IR):
            found.append(_row(variant, stage, own, [stage]))
            found += _steps(variant, stage, own)
        found.append(_row(variant, MADE, own, [ONNX, IR]))
        found.append(_row(variant, VERIFICATION, own, [VERIFICATION]))
        found.append(_row(variant, ALL, own, None))
    if len(variants) > 1:
        found += [_sum(found, stage, sides) for stage in (ONNX, FLOOR, IR, MADE, VERIFICATION, ALL)]
    return [row for row in found if row.cells]  # a stage that no side has is no row


def _row(variant: str, stage: str, own: Mapping[str, Sequence[Run]], parts: Optional[Sequence[str]]) -> Row:
    """Return the row ``stage``, which is made of the stages ``parts``; None for all that a run has."""
    cells = {}
    for side, runs in own.items():
        names = [[name for name in run.stages if name != FLOOR] if parts is None else parts for run in runs]
        figures = [
            _together([run.stages[name] for name in wanted])
            for run, wanted in zip(runs, names)
            if set(wanted) <= set(run.stages)
        ]
        if figures:
            cells[side] = _cell(figures)
    return Row(variant, stage, "", cells)


def _steps(variant: str, stage: str, own: Mapping[str, Sequence[Run]]) -> List[Row]:
    """Return a row for each step; in a run that had no need of it, it took no time."""
    names = list(
        dict.fromkeys(name for runs in own.values() for run in runs for name in run.steps.get(stage, {}))
    )
    found = []
    for name in names:
        cells = {}
        for side, runs in own.items():
            steps = [run.steps.get(stage, {}) for run in runs]
            if any(name in one for one in steps):
                cells[side] = Cell(value([one.get(name, 0.0) for one in steps]))
        found.append(Row(variant, stage, name, cells))
    return found


def _sum(found: Sequence[Row], stage: str, sides: Sequence[str]) -> Row:
    """Return a stage's row over all variants: times added up, the largest memory."""
    cells = {}
    for side in sides:
        parts = [
            row.cells[side] for row in found if row.stage == stage and not row.step and side in row.cells
        ]
        if parts:
            cells[side] = Cell(
                _over([part.seconds for part in parts], sum),
                _over([part.cpu_seconds for part in parts], sum),
                _over([part.peak_bytes for part in parts], max),
            )
    return Row(EVERY, stage, "", cells)


def _over(values: Sequence[Optional[Value]], combine: Callable[[List[float]], float]) -> Value:
    known = [number for number in values if number is not None]
    return Value(combine([number.minimum for number in known]), combine([number.median for number in known]))


def differing(runs: Sequence[Run]) -> List[Tuple[str, str]]:
    """Return each variant and file that was not made with the same bytes by every run of both sides."""
    sums: Dict[Tuple[str, str], Set[Optional[str]]] = {}
    for run in runs:
        names = {name for other in runs if other.variant == run.variant for name in other.outputs}
        for name in sorted(names):
            sums.setdefault((run.variant, name), set()).add(run.outputs.get(name))
    return [place for place, found in sums.items() if len(found) > 1]


def as_json(found: Sequence[Row], base: str, other: str) -> List[Dict[str, Any]]:
    """Return rows as JSON, with the ratios of ``other`` to ``base``."""
    return [
        {
            "variant": row.variant,
            "stage": row.stage,
            "step": row.step or None,
            "sides": {
                side: {
                    quantity: {"minimum": number.minimum, "median": number.median}
                    for quantity in QUANTITIES
                    for number in [getattr(cell, quantity)]
                    if number is not None
                }
                for side, cell in row.cells.items()
            },
            "ratios": {
                quantity: {which: row.ratio(quantity, base, other, which) for which in ("minimum", "median")}
                for quantity in QUANTITIES
            },
        }
        for row in found
    ]
