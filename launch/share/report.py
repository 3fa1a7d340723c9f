"""The report on a folder of trees: one HTML page, and its overview in the terminal."""

import os
from pathlib import Path
from typing import List, Sequence

from ..core import files, paths
from ..core.errors import KitError
from ..core.progress import escape_text
from . import page, tables
from .tree import Tree, check_tree, find_trees

NAME = "report.html"

_HEAD = 4096
"""Bytes at a page's beginning in which its mark stands."""


def find_target(out: Path, to: str) -> Path:
    """Return the page's path, where a report on the trees in ``out`` can be made; this needs no package.

    :param to: the text of ``TO=``; empty for ``OUT/report.html``.
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
            return page.MARK.encode() in handle.read(_HEAD)
    except OSError:
        return False


def write_report(out: Path, target: Path) -> List[Tree]:
    """Check the trees in ``out``, write the page to ``target`` and return what was seen.

    :raises KitError: there is no tree.
    :raises OSError: the page cannot be written; an earlier one is untouched then.
    """
    trees = [check_tree(folder) for folder in find_trees(out)]
    files.write_text(target, page.draw_page(trees, page.find_missing(trees)))
    return trees


def write_text(trees: Sequence[Tree]) -> str:
    """Return what the terminal shows of the page: the overview, findings, faults, and what is missing."""
    lines = [tables.write_text(trees), ""]
    for tree in trees:
        for finding in tree.verification["findings"] if tree.provenance else ():
            kind = "warning" if finding["known"] else "NOT EXPECTED"
            lines.append(f"{kind}: {tree.name}: {finding['kind']}: {finding['text']}")
        lines += [f"DAMAGED: {tree.name}: {fault}" for fault in tree.faults]
    lines += [f"missing: {name}" for name in page.find_missing(trees)]
    return escape_text("\n".join(lines).rstrip())
