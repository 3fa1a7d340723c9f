"""The report on a folder of trees: one HTML page, and its overview in the terminal."""

from pathlib import Path
from typing import List, Sequence, Tuple

from ...core import files, paths
from ...core.errors import KitError
from ...core.progress import printable
from ...model import variants
from . import page, table
from .tree import Tree, find, look

NAME = "report.html"

_HEAD = 4096
"""Bytes at a page's beginning in which its mark stands."""


def check(out: str, to: str) -> Tuple[Path, Path]:
    """Return ``OUT`` and the page's path, where a report can be made; this needs no package and no time.

    :param out: the text of ``OUT=``.
    :param to: the text of ``TO=``; empty for ``OUT/report.html``.
    :raises KitError: there is no tree in ``OUT``, or the page cannot be where ``TO`` says.
    """
    folder = files.typed(out, "OUT")
    target = files.typed(to, "TO") if to else folder / NAME
    for tree in find(folder):
        if tree in (target, *target.parents):
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
            where=paths.shown(target),
            hint="Move it away, or set TO= to another file.",
        )
    return folder, target


def _may_be_written(target: Path) -> bool:
    """Return whether there is nothing, or an earlier page."""
    if not target.exists():
        return not target.is_symlink()
    if not target.is_file():
        return False
    try:
        with target.open("rb") as handle:
            return page.MARK.encode() in handle.read(_HEAD)
    except OSError:
        return False


def missing(trees: Sequence[Tree]) -> List[str]:
    """Return those of the five variants of which there is no tree."""
    names = {tree.name for tree in trees}
    return [name for name in variants.VARIANTS if name not in names]


def report(out: Path, to: Path) -> List[Tree]:
    """Check the trees in ``out``, write the page to ``to`` and return what was seen.

    :raises KitError: there is no tree.
    :raises OSError: the page cannot be written; an earlier one is untouched then.
    """
    trees = [look(folder) for folder in find(out)]
    files.write(to, page.report(trees, missing(trees)))
    return trees


def text(trees: Sequence[Tree]) -> str:
    """Return what the terminal shows of the page: the overview, findings, faults, and what is missing."""
    lines = [table.text(trees), ""]
    for tree in trees:
        for finding in tree.verification["findings"] if tree.provenance else ():
            kind = "warning" if finding["known"] else "NOT EXPECTED"
            lines.append(f"{kind}: {tree.name}: {finding['kind']}: {finding['text']}")
        lines += [f"DAMAGED: {tree.name}: {fault}" for fault in tree.faults]
    lines += [f"missing: {name}" for name in missing(trees)]
    return printable("\n".join(lines).rstrip())
