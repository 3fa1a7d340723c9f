"""The report on a folder of trees: an HTML page, and its overview in the terminal."""

import os
from pathlib import Path
from typing import List, Optional, Sequence

from ..core import files, paths
from ..core.errors import KitError
from ..core.progress import align_columns, escape_text
from ..model import variants
from . import page, tables
from .tree import Tree, check_tree, find_trees

NAME = "report.html"


def find_target(out: Path, to: str) -> Path:
    """Return the path of the page on the trees in ``out``: ``to``, or ``OUT/report.html`` if that is empty.

    :raises KitError: there is no tree in ``OUT``, or the page cannot be where ``TO`` says.
    """
    target = files.expand_path(to, "TO") if to else out / NAME
    if any(tree in (target, *target.parents) for tree in find_trees(out)):
        raise KitError(
            "The page would be in a tree, whose files are listed and checked.",
            where=f"TO={to}",
            hint="Set TO= to a file elsewhere.",
        )
    if target.is_dir() or to.endswith("/"):
        raise KitError(
            "TO is a folder.", where=f"TO={to}", hint=f"Name a file, e.g. TO={to.rstrip('/')}/{NAME}"
        )
    if not _may_be_written(target):
        raise KitError(
            "Where the page is to be, there is something that is no earlier page.",
            where=paths.show_path(target),
            hint="Move it away, or set TO= to another file.",
        )
    return target


def _may_be_written(target: Path) -> bool:
    """Return whether there is nothing, or an earlier page."""
    if not target.is_file():
        return not os.path.lexists(str(target))
    try:
        with target.open("rb") as handle:
            return page.MARK.encode() in handle.read(4096)  # it stands at the beginning
    except OSError:
        return False


def _find_missing(trees: Sequence[Tree]) -> List[str]:
    """Return which of the five are missing where another of them is."""
    missing = [name for name in variants.VARIANTS if name not in {tree.name for tree in trees}]
    return missing if len(missing) < len(variants.VARIANTS) else []


def write_report(
    out: Path, target: Path, speed: Optional[page.Speed] = None, trained: Sequence[Path] = ()
) -> List[Tree]:
    """Check the trees in ``out``, write the page to ``target`` and return the trees.

    :param speed: what was measured of them.
    :param trained: as :func:`.check_tree` has it; what is beside the trees is looked at, too.
    :raises KitError: there is no tree.
    :raises OSError: the page cannot be written; an earlier one is untouched.
    """
    trees = [check_tree(folder, [*trained, out]) for folder in find_trees(out)]
    files.write_text(target, page.draw_page(trees, _find_missing(trees), speed))
    return trees


def write_text(trees: Sequence[Tree]) -> str:
    """Return the page's overview for the terminal, with findings, faults and missing variants."""
    lines = []
    for title, columns in tables.choose_tables(trees).items():
        cells = [[escape_text(column.cell(tree)).replace("\n", "?") for column in columns] for tree in trees]
        flush = [place for place, column in enumerate(columns) if column.number]
        rows = align_columns([[column.heading for column in columns], *cells], flush)
        lines += [title, *("  " + row for row in rows), ""]
    for tree in trees:
        for finding in tree.verification["findings"] if tree.provenance else ():
            kind = "warning" if finding["known"] else "NOT EXPECTED"
            lines.append(f"{kind}: {tree.name}: {finding['kind']}: {finding['text']}")
        lines += [f"DAMAGED: {tree.name}: {fault}" for fault in tree.faults]
        lines += [f"warning: {tree.name}: {tree.evaluation_fault}"] if tree.evaluation_fault else []
    lines += [f"missing: {name}" for name in _find_missing(trees)]
    return escape_text("\n".join(lines).rstrip())
