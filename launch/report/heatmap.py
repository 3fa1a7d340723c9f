"""Heat maps of shares between 0 and 1, as SVG that stands inside a page.

What comes out has no ids, no style rules and no metadata, so that any number of figures can stand in one
page: only paths with their fill, and texts with the classes ``label``, ``on-light`` and ``on-dark``.  Fonts
and the colours of texts are the page's; the root has the class ``heatmap``, each cell ``cell``.
"""

import io
import os
from contextlib import contextmanager
from html import escape
from typing import Any, Iterator, List, Optional, Sequence, Tuple
from xml.etree import ElementTree

from .. import paths

COLOURS = "Blues"
"""Matplotlib's colour map of one hue, after ColorBrewer: values differ in lightness alone, so that no colour
vision is needed, and a print in black and white says the same."""

FONT_SIZE = 9
CELL_WIDTH, CELL_HEIGHT = 46, 17
_LEFT, _TOP, _EDGE = 28, 30, 1
_LINE = 11
"""Measures in the figure's own units; the page scales it."""

_SCALE_STEPS = 50
_SCALE_WIDTH, _SCALE_HEIGHT = 257, 10

_SVG = "{http://www.w3.org/2000/svg}"

# Relative luminance of an sRGB colour as WCAG 2.1 defines it.
_LUMINANCE = (0.2126, 0.7152, 0.0722)

Grid = Sequence[Sequence[Optional[float]]]
"""Shares by row and column; None where there is nothing."""


def percent(share: float, digits: int = 1) -> str:
    """Return a share in percent without its sign; ``0`` and ``100`` stand for exactly none and all.

    :param digits: after the point.
    """
    if share in (0, 1):
        return str(int(100 * share))
    least = 10.0**-digits
    return f"{min(max(100 * share, least), 100 - least):.{digits}f}"


def panel(values: Grid, columns: Sequence[str], label: str) -> str:
    """Return a heat map with its numbers in percent, rows numbered from 0.

    :param columns: names; a line break starts a second line.
    :param label: the text alternative.
    """
    width = _LEFT + CELL_WIDTH * len(columns) + _EDGE
    figure = _Figure(width, _TOP + CELL_HEIGHT * len(values) + _EDGE)
    bottom = _TOP - 3 - _LINE / 2
    figure.text(_LEFT - 6, bottom, "layer", align="right")
    for column, name in enumerate(columns):
        lines = name.split("\n")
        for number, line in enumerate(lines):
            above = _LINE * (len(lines) - 1 - number)
            figure.text(_LEFT + CELL_WIDTH * (column + 0.5), bottom - above, line)
    for row, shares in enumerate(values):
        top = _TOP + CELL_HEIGHT * row
        figure.text(_LEFT - 6, top + CELL_HEIGHT / 2, str(row), align="right")
        for column, share in enumerate(shares):
            if share is not None:
                left = _LEFT + CELL_WIDTH * column
                figure.cell(left, top, CELL_WIDTH, CELL_HEIGHT, share, "cell", percent(share))
    return figure.svg(label)


def scale() -> str:
    """Return the colours' scale from 0 to 100 %."""
    width, right = _SCALE_WIDTH, _LEFT + _SCALE_WIDTH
    figure = _Figure(right + 20, _SCALE_HEIGHT + 18)
    for number in range(_SCALE_STEPS):
        left = _LEFT + width * number / _SCALE_STEPS
        # Each reaches to the end, under those that follow, so that no seam shows.
        figure.cell(left, 1, right - left, _SCALE_HEIGHT, number / (_SCALE_STEPS - 1), "step")
    for tick in range(0, 101, 25):
        figure.text(_LEFT + width * tick / 100, _SCALE_HEIGHT + 11, f"{tick} %")
    return figure.svg("Colour scale from 0 to 100 percent: the more, the darker.")


@contextmanager
def _settings() -> Iterator[Any]:
    """Yield matplotlib with its own defaults, whatever somebody's matplotlibrc says."""
    # It keeps a list of the machine's fonts, which goes with what else is derived.
    os.environ.setdefault("MPLCONFIGDIR", str(paths.BUILD / "matplotlib"))
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sparsity"})
        yield matplotlib


class _Figure:
    """A drawing in units of its own, from the top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._cells: List[Tuple[Tuple[float, float], float, float, float, str, str]] = []
        self._texts: List[Tuple[float, float, str, str]] = []

    def cell(
        self, left: float, top: float, width: float, height: float, share: float, kind: str, text: str = ""
    ) -> None:
        """Add a rectangle in the colour of ``share``, with a text in its middle.

        :param kind: its class.
        """
        self._cells.append(((left, top), width, height, share, kind, text))

    def text(self, x: float, y: float, text: str, align: str = "center") -> None:
        """Add a line around the height ``y``."""
        self._texts.append((x, y, text, align))

    def svg(self, label: str) -> str:
        """Return the drawing; what matplotlib adds to what was drawn is left out.

        :param label: the text alternative.
        """
        drawn = io.StringIO()
        with _settings() as matplotlib:
            self._draw(matplotlib).print_svg(drawn, metadata={"Date": None})
        parts: List[str] = []
        for group in ElementTree.fromstring(drawn.getvalue()).iter(f"{_SVG}g"):
            kind = group.get("id", "")
            for element in group if kind in ("cell", "step", "label", "on-light", "on-dark") else ():
                parts.append(_path(element, kind) if element.tag == f"{_SVG}path" else _text(element, kind))
        start = f'<svg class="heatmap" role="img" viewBox="0 0 {self.width} {self.height}"'
        return start + f' font-size="{FONT_SIZE}" aria-label="{escape(label)}">' + "".join(parts) + "</svg>"

    def _draw(self, matplotlib: Any) -> Any:
        """Return a canvas with all that was added."""
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.colors import to_hex
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

        figure = Figure(figsize=(self.width / 72, self.height / 72), dpi=72)
        axes = figure.add_axes([0, 0, 1, 1], xlim=(0, self.width), ylim=(self.height, 0))
        axes.set_axis_off()
        colours = matplotlib.cm.get_cmap(COLOURS)

        def write(x: float, y: float, text: str, kind: str, align: str) -> None:
            axes.text(
                x, y, text, ha=align, va="center_baseline", fontsize=FONT_SIZE, gid=kind, parse_math=False
            )

        for x, y, text, align in self._texts:
            write(x, y, text, "label", align)
        for corner, width, height, share, kind, text in self._cells:
            colour = colours(float(min(max(share, 0.0), 1.0)))  # a whole number would count as an index
            patch = Rectangle(corner, width, height, facecolor=to_hex(colour), clip_on=False, gid=kind)
            axes.add_patch(patch)
            if text:
                on = "on-dark" if _needs_white(colour[:3]) else "on-light"
                write(corner[0] + width / 2, corner[1] + height / 2, text, on, "center")
        return FigureCanvasSVG(figure)


def _path(element: Any, kind: str) -> str:
    words = [_number(word) for word in element.get("d", "").split()]
    return f'<path class="{kind}" d="{" ".join(words)}" fill="{_style(element, "fill")}"/>'


def _text(element: Any, kind: str) -> str:
    anchor = _style(element, "text-anchor")
    x, y = _number(element.get("x")), _number(element.get("y"))
    return (
        f'<text class="{kind}" x="{x}" y="{y}"'
        + (f' text-anchor="{anchor}"' if anchor else "")
        + f">{escape(element.text or '')}</text>"
    )


def _style(element: Any, name: str) -> str:
    for part in element.get("style", "").split(";"):
        key, _, value = part.partition(":")
        if key.strip() == name:
            return str(value.strip())
    return ""


def _number(word: str) -> str:
    """Return a number with two digits after the point at most; a path's letters as they are."""
    try:
        return f"{float(word):.2f}".rstrip("0").rstrip(".")
    except ValueError:
        return word


def _needs_white(colour: Tuple[float, float, float]) -> bool:
    """Return whether white stands out from a colour more than black does."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    luminance = sum(weight * part for weight, part in zip(_LUMINANCE, linear))
    # Contrast is (lighter + 0.05) / (darker + 0.05); white has luminance 1 and black 0.
    return 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05
