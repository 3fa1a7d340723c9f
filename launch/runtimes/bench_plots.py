"""The figures of a result, as SVG that follows the light or dark setting, alone and in a page."""

import math
from html import escape
from typing import Dict, List, Sequence, Tuple

from .bench_figures import GENERATOR, Figures

_WIDTH = 450
_SERIES = 3  # colours
_STYLE = """
.plot { --p-text: #1c1f23; --p-muted: #59616b; --p-line: #d8dbdf; --p-ground: #fcfcfb;
  --p-1: #1f5a96; --p-2: #b7791f; --p-3: #a8417a; font: 12px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { .plot { --p-text: #e4e6e8; --p-muted: #a2aab3; --p-line: #353b42;
  --p-ground: #14171a; --p-1: #86bbef; --p-2: #e3b341; --p-3: #f0a3cd; } }
@media print { .plot { print-color-adjust: exact; } }
.plot text { fill: var(--p-text); }
.plot .muted { fill: var(--p-muted); }
.plot line { stroke: var(--p-line); }
.plot path { fill: none; stroke-width: 1.5; }
"""
STYLE = _STYLE + "".join(
    f".plot .s{n} {{ stroke: var(--p-{n}); fill: var(--p-{n}); }} .plot path.s{n} {{ fill: none; }}"
    f" .plot .hollow.s{n} {{ fill: var(--p-ground); stroke-width: 1.5; }}\n"
    for n in range(1, _SERIES + 1)
)
"""The figures' style sheet, for a page that has them."""


def draw_figures(figures: Figures) -> Dict[str, str]:
    """Return the figures as elements of a page, by file name; none where nothing was measured."""
    drawn = {"latency.svg": _draw_latency(figures), "runtimes.svg": _draw_bars(figures)}
    return {name: text for name, text in drawn.items() if text}


def draw_files(figures: Figures) -> Dict[str, str]:
    """Return the figures as files of their own, by name."""
    start = f'<?xml version="1.0" encoding="UTF-8"?>\n<!-- {GENERATOR} -->\n'
    style = f"<style>{STYLE}.plot {{ background: var(--p-ground); }}</style>"
    found = {}
    for name, text in draw_figures(figures).items():
        end = text.index(">")
        found[name] = f'{start}{text[:end]} xmlns="http://www.w3.org/2000/svg">{style}{text[end + 1 :]}\n'
    return found


def _wrap(height: float, label: str, parts: Sequence[str]) -> str:
    head = f'<svg class="plot" role="img" viewBox="0 0 {_WIDTH} {height:.0f}" aria-label="{escape(label)}">'
    return "\n".join([head, *parts, "</svg>"])


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _legend(figures: Figures, y: float) -> List[str]:
    parts, x = [], 8.0
    for number, label in enumerate(figures.runtimes.values()):
        parts.append(f'<rect class="s{_series(number)}" x="{x:.1f}" y="{y - 9}" width="10" height="10"/>')
        parts.append(_text(x + 15, y, label))
        x += 28 + 6.6 * len(label)
    return parts


def _series(number: int) -> int:
    return number % _SERIES + 1


def _ticks(low: float, high: float) -> List[float]:
    """Return the round numbers, 1, 2 or 5 and zeros, between two."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return [one for one in found if low <= one <= high]


def _draw_latency(figures: Figures) -> str:
    """Return latency against the share of weights in matrices that are left, both on scales of ratios."""
    points: Dict[int, List[Tuple[float, float, str]]] = {}
    for number, runtime in enumerate(figures.runtimes):
        for name, tree in figures.trees.items():
            found = figures.find(name, runtime)
            if found:
                kind = "fp32" if not tree["quantized"] else "dense" if tree["dense"] else "sparse"
                points.setdefault(number, []).append((100 * tree["kept"], found.median * 1e3, kind))
    every = [point for line in points.values() for point in line]
    if not every:
        return ""
    left, right, top, bottom = 52, _WIDTH - 16, 34, 290
    xs = (min(x for x, *_ in every) / 1.25, max(x for x, *_ in every) * 1.25)
    ys = (min(y for _, y, _ in every) / 1.3, max(y for _, y, _ in every) * 1.3)

    def place(x: float, y: float) -> Tuple[float, float]:
        across = math.log(x / xs[0]) / math.log(xs[1] / xs[0])
        up = math.log(y / ys[0]) / math.log(ys[1] / ys[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    parts = _legend(figures, 16)
    for value in _ticks(*ys):
        y = place(xs[0], value)[1]
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(_text(left - 6, y + 4, f"{value:g}", "end", "muted"))
    for value in sorted({round(x, 1) for x, *_ in every}):
        x = place(value, ys[0])[0]
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 16, f"{value:g}", "middle", "muted"))
    parts.append(_text(right, bottom + 34, "weights in the matrices that are left, %", "end", "muted"))
    parts.append(_text(8, top - 2, "ms", kind="muted"))
    for number, line in points.items():
        series = _series(number)
        track = sorted(place(x, y) for x, y, kind in line if kind == "sparse")
        steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in track)
        if len(track) > 1:
            parts.append(f'<path class="s{series}" d="M{steps}"/>')
        for x, y, kind in line:
            x, y = place(x, y)
            if kind == "fp32":
                at = f'x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"'
                parts.append(f'<rect class="hollow s{series}" {at}/>')
            else:
                hollow = "hollow " if kind == "dense" else ""
                parts.append(f'<circle class="{hollow}s{series}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
    parts.append(_text(8, bottom + 54, "● sparse, 8 bits   ○ dense, 8 bits   □ dense, 32 bits", kind="muted"))
    said = "; ".join(
        f"{label}: " + ", ".join(f"{y:.3g} ms at {x:.3g} %" for x, y, _ in sorted(points.get(number, [])))
        for number, label in enumerate(figures.runtimes.values())
    )
    return _wrap(bottom + 62, f"Latency against the share of weights that are left. {said}.", parts)


def _draw_bars(figures: Figures) -> str:
    """Return a group of bars for each tree, one for each runtime: the latency."""
    rows = [
        (name, [(number, figures.find(name, runtime)) for number, runtime in enumerate(figures.runtimes)])
        for name in figures.trees
    ]
    known = [found.median for _, line in rows for _, found in line if found]
    if not known:
        return ""
    most, y, parts, said = max(known), 30.0, _legend(figures, 16), []
    for name, line in rows:
        y += 16
        parts.append(_text(8, y, name))
        for number, found in line:
            y += 4
            if found is None:
                parts.append(_text(8, y + 11, "failed", kind="muted"))
            else:
                wide = (_WIDTH - 76) * found.median / most
                bar = f'x="8" y="{y:.1f}" width="{wide:.1f}" height="12"'
                parts.append(f'<rect class="s{_series(number)}" {bar}/>')
                parts.append(_text(14 + wide, y + 10, f"{found.median * 1e3:.4g} ms", kind="muted"))
                said.append(f"{name} {list(figures.runtimes.values())[number]} {found.median * 1e3:.4g} ms")
            y += 12
        y += 10
    return _wrap(y, f"Latency by runtime. {'; '.join(said)}.", parts)
