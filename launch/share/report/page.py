"""The report's page and the model card: what is known of trees, put into the templates.

Whatever comes from a tree's files is escaped: as HTML in the page, as Markdown in the card.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

from ...core.progress import counted, duration, size
from ...model import variants
from . import heatmap, reproduce, table
from .tree import COLUMNS, Matrix, Tree

MARK = '<meta name="generator" content="sparse BERT reproduction kit">'
"""By which a page is known that the kit has written."""

TEMPLATES = Path(__file__).parent / "templates"

_LINES = {"attention output": ["attention", "output"], "intermediate": ["inter-", "mediate"]}
"""Names of matrices that take two lines above a heat map."""

_PANELS = (
    ("Zeros in the matrix as it is", lambda matrix: matrix.own),
    ("Zero or removed, of the dense matrix", lambda matrix: matrix.overall),
)

_MARKDOWN = re.compile(r"([\\`*\[\]<>|~$&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=:)/|^[#+=-])")


class Markdown(str):
    """Text that is Markdown already."""


def report(trees: Sequence[Tree], missing: Sequence[str]) -> str:
    """Return the page, one HTML file that needs nothing beside it.

    :param missing: variants that are not there.
    """
    return str(
        _environment(autoescape=True)
        .get_template("report.html")
        .render(
            trees=trees,
            missing=missing,
            damaged=[tree for tree in trees if tree.faults],
            tables=table.TABLES,
            panels=panels,
            colours=heatmap.COLOURS,
            overall=variants.OVERALL_SPARSITY,
        )
    )


def model_card(tree: Tree, files: Sequence[Tuple[str, int]]) -> str:
    """Return the model card of a tree.

    :param files: what is in the package beside the card, path and bytes.
    """
    environment = _environment(autoescape=False, finalize=_escaped)
    environment.filters.update(code=_code, literal=lambda text: Markdown(json.dumps(text)), markdown=Markdown)
    return str(
        environment.get_template("model_card.md").render(
            tree=tree,
            p=tree.provenance,
            files=files,
            columns=[name for name, _ in COLUMNS],
            by_column=_by_column(tree),
        )
    )


def _environment(**options: Any) -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(TEMPLATES)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.filters.update(
        size=size,
        duration=duration,
        share=table.share,
        percent=heatmap.percent,
        colour=heatmap.colour,
        ink=heatmap.ink,
        heads=table.heads,
        agreement=table.agreement,
        bits=table.bits,
        count=lambda number: f"{number:,}",
        counted=counted,
        commands=reproduce.commands,
        words=lambda argv: " ".join(shlex.quote(word) if " " in word else word for word in argv),
        column=lambda place: COLUMNS[place][0],
    )
    return environment


def panels(tree: Tree) -> List[Dict[str, Any]]:
    """Return the heat maps of a tree: title, text alternative, columns (lines of text), shares by row."""
    return [_panel(tree, title, share) for title, share in _PANELS]


def _panel(tree: Tree, title: str, share: Callable[[Matrix], float]) -> Dict[str, Any]:
    grid = tree.grid(share)
    ranges = []
    for column, (name, _) in enumerate(COLUMNS):
        values = [row[column] for row in grid]
        known = [value for value in values if value is not None]
        if known:
            least, most = heatmap.percent(min(known)), heatmap.percent(max(known))
            ranges.append(f"{name} {least}" + ("" if least == most else f" to {most}"))
    label = f"Heat map of {tree.name}. {title}, in percent, over {len(grid)} layers: {'; '.join(ranges)}."
    columns = [_LINES.get(name, [name]) for name, _ in COLUMNS]
    return {"title": title, "label": label, "columns": columns, "grid": grid}


def _by_column(tree: Tree) -> List[Dict[str, Any]]:
    """Return the transformer-block matrices summed up over the layers, a line for each kind."""
    lines = []
    for place, (name, _) in enumerate(COLUMNS):
        matrices = [matrix for matrix in tree.matrices() if matrix.column == place]
        if matrices:
            elements = sum(matrix.size for matrix in matrices)
            zeros = sum(matrix.zeros for matrix in matrices)
            lines.append(
                {
                    "name": name,
                    "shapes": sorted({" × ".join(map(str, matrix.shape)) for matrix in matrices}),
                    "own": zeros / elements,
                    "overall": 1 - (elements - zeros) / sum(matrix.dense for matrix in matrices),
                }
            )
    return lines


def _escaped(value: Any) -> Any:
    """Return a value as Markdown that shows it as it is, on one line."""
    if isinstance(value, Markdown):
        return value
    return _MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))


def _code(value: Any) -> Markdown:
    """Return a value for a block of code or for between backticks: on one line, without backticks."""
    return Markdown(" ".join(str(value).replace("`", "'").split()))
