"""The report's page and the model card; text from a tree's files is escaped as HTML or Markdown."""

import json
import re
import shlex
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..artifact import evaluation
from ..core.progress import format_count, format_duration, format_size
from ..model import hub_list, variants
from . import describe_weights, tables
from .tables import format_percent
from .training import draw_curve
from .tree import COLUMNS, Tree

MARK = '<meta name="generator" content="sparse BERT reproduction kit">'
"""Marks a page that the kit has written."""

TEMPLATES = Path(__file__).parent / "templates"

COLOURS = ("#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b")
"""Of a heat map: ColorBrewer's *Blues* of nine classes, which differ in lightness."""

_DARK = 0.71628
"""The share above which white has more contrast (WCAG 2.1) to its colour than black."""

_LINES = {"attention output": ["attention", "output"], "intermediate": ["inter-", "mediate"]}
"""Names of matrices that take two lines above a heat map."""

_PANELS = (
    ("Zeros in the matrix as it is", lambda matrix: matrix.own),
    ("Zero or removed, of the dense matrix", lambda matrix: matrix.overall),
)

_MARKDOWN = re.compile(r"([\\`*\[\]<>|~$&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=:)/|^[#+=-])")


_KITS_LAUNCH_FILE = re.compile(r"(?: in |\$\{workspaceFolder\}/)(?:\.vscode|launch)/launch\.json$")
"""The kit's own launch file; earlier commits have it in ``launch/``."""

_UPSTREAMS_LAUNCH_FILE = "vscode-launch.json"
_SAMPLE = "launch/sample/"
_READ = ("--model_name_or_path", "--train_file")


class Markdown(str):
    """Text that is Markdown already."""


class Speed(NamedTuple):
    """What was measured of the trees: tables of text by title, headings first, and lines below them.

    :param warnings: and failures.
    :param figures: SVG elements, which ``style`` is for.
    """

    finished: str
    tables: Dict[str, List[List[str]]]
    notes: Sequence[str]
    warnings: Sequence[str]
    figures: Sequence[str]
    style: str


def draw_page(trees: Sequence[Tree], missing: Sequence[str], speed: Optional[Speed] = None) -> str:
    """Return the page on ``trees``, one self-contained HTML file; ``missing`` are variants without a tree."""
    return str(
        _environment(autoescape=True)
        .get_template("report.html")
        .render(
            trees=trees,
            missing=missing,
            speed=speed,
            damaged=[tree for tree in trees if tree.faults],
            tables=tables.choose_tables(trees),
            panels=_panels,
            colours=COLOURS,
            overall=variants.OVERALL_SPARSITY,
        )
    )


def write_card(tree: Tree, files: Sequence[Tuple[str, int]]) -> str:
    """Return the model card of a tree; ``files`` are the package's other files, path and bytes."""
    environment = _environment(autoescape=False, finalize=_escaped)
    environment.filters.update(
        code=lambda value: Markdown(" ".join(str(value).replace("`", "'").split())),  # between backticks
        literal=lambda text: Markdown(json.dumps(text)),
        markdown=Markdown,
    )
    template = environment.get_template("model_card.md")
    return str(template.render(tree=tree, p=tree.provenance, files=files, by_column=_by_column(tree)))


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
        size=format_size,
        duration=format_duration,
        share=tables.format_share,
        percent=format_percent,
        colour=choose_colour,
        ink=choose_ink,
        heads=tables.format_heads,
        agreement=tables.format_agreement,
        bits=tables.format_bits,
        count=lambda number: f"{number:,}",
        counted=format_count,
        commands=list_commands,
        label=evaluation.LABELS.__getitem__,
        curve=lambda pair: draw_curve(*pair),
        weights=describe_weights,
        words=lambda argv: " ".join(shlex.quote(word) if " " in word else word for word in argv),
    )
    return environment


def choose_colour(share: float) -> str:
    """Return the colour of a share between 0 and 1."""
    place = min(max(share, 0.0), 1.0) * (len(COLOURS) - 1)
    first = min(int(place), len(COLOURS) - 2)
    pair = zip(*([int(text[at : at + 2], 16) for at in (1, 3, 5)] for text in COLOURS[first : first + 2]))
    return "#" + "".join(f"{round(one + (other - one) * (place - first)):02x}" for one, other in pair)


def choose_ink(share: float) -> str:
    """Return the CSS class of a text on the colour of a share."""
    return "on-dark" if share > _DARK else "on-light"


def _panels(tree: Tree) -> List[Dict[str, Any]]:
    """Return the heat maps of a tree: title, text alternative, columns (lines of text), shares by row."""
    panels = []
    for title, share in _PANELS:
        grid = tree.grid(share)
        ranges = []
        for column, name in enumerate(COLUMNS):
            known = [value for value in (row[column] for row in grid) if value is not None]
            if known:
                least, most = format_percent(min(known)), format_percent(max(known))
                ranges.append(f"{name} {least}" + ("" if least == most else f" to {most}"))
        label = f"Heat map of {tree.name}. {title}, in percent, over {len(grid)} layers: {'; '.join(ranges)}."
        columns = [_LINES.get(name, [name]) for name in COLUMNS]
        panels.append({"title": title, "label": label, "columns": columns, "grid": grid})
    return panels


def _by_column(tree: Tree) -> List[Dict[str, Any]]:
    """Return the transformer-block matrices summed over the layers, one entry for each kind."""
    lines = []
    for name in COLUMNS:
        matrices = [matrix for matrix in tree.matrices() if matrix.column == name]
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
    """Return a value as Markdown that shows it literally, on one line."""
    if isinstance(value, Markdown):
        return value
    return _MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))


def list_commands(provenance: Dict[str, Any]) -> List[str]:
    """Return the shell commands that make the tree again; paths of a machine are ``<…>``, quoted."""
    commit = provenance["kit"]["commit"]
    words = [
        f"V={provenance['variant']}",
        f"SOURCE={provenance['source']['name']}",
        f"SEED={provenance['weights']['seed']}",
        f"THREADS={provenance['weights']['threads']}",
        *_inputs(provenance),
        *_weights(provenance),
        f"MO={provenance['model_optimizer']}",
    ]
    launch = provenance["command"]["launch"]
    if _UPSTREAMS_LAUNCH_FILE in launch:
        words.append("LAUNCH=upstream")
    elif not _KITS_LAUNCH_FILE.search(launch):
        words.append("LAUNCH=<the launch file>")
    before = [f"git checkout {shlex.quote(commit)}"] if commit else []
    before += ["make third_party"] if provenance["source"]["name"] == "fork" else []
    return [*before, " ".join(["make", "variant", *map(shlex.quote, words)])]


def _weights(provenance: Dict[str, Any]) -> List[str]:
    if provenance["weights"]["kind"] == "random":
        return []
    heads = provenance["onnx_key"]["arguments"].get("heads")
    return [f"WEIGHTS=<{provenance['weights']['source']}>", *([f"HEADS={heads}"] if heads == "first" else [])]


def _inputs(provenance: Dict[str, Any]) -> List[str]:
    if "hub" in provenance:
        read, listed = provenance["hub"], hub_list.read_hub_list(hub_list.LIST)
        kits = (read["repository"], read["revision"]) == (listed.repository, listed.revision)
        kits = kits and listed.train.sha256 in read["files"].values()
        return ["INPUT=hub"] if kits else ["INPUT=hub", "HUB=<list>"]
    words = provenance["command"]["argv"]
    # As both --name value and --name=value.
    values = [value for word, value in zip(words, words[1:]) if word in _READ]
    values += [word for word in words if word.split("=", 1)[0] in _READ and "=" in word]
    if values and all(_SAMPLE in value for value in values):
        return ["INPUT=sample"]
    sample = provenance["weights"]["kind"] == "trained" and any(_SAMPLE in value for value in values)
    return ["INPUT=files", "MODEL=<folder>", *([] if sample else ["TRAIN_FILE=<questions.json>"])]
