"""A tree as a package to hand on: the tree, a report on it, a model card, the licence, and checksums of all.

``TO/V/`` holds the tree as ``V``, so
that ``TO/V`` is a folder of trees like any other; with ``FORMAT=tar`` the same is in ``TO/V.tar``, whose
bytes depend on nothing but the files in it.
"""

import calendar
import shutil
import tarfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, List, Tuple

from ..artifact import sums, trees
from ..artifact.provenance import read as read_provenance
from ..core import digests, files, locks, paths, place
from ..core.errors import KitError, unknown
from ..core.progress import Progress
from ..model import variants
from ..verify import tree as verification
from . import archive
from .report import command as report
from .report import page
from .report.tree import Tree, ticker

FORMATS = ("folder", "tar")

CARD, LICENCE = "README.md", "LICENSE"

_EDITED = 8 << 20
"""Bytes up to which a package's file is one that a person may have edited."""

_SLACK = 4 << 20
"""Bytes on disk beside the files': what a filesystem and an archive need."""


def package(name: str, out: Path, to: Path, form: str, verify: Callable[[Path], None]) -> Path:
    """Package a variant's tree and return the folder or the file that was made.

    It is built in a hidden place beside and appears in one step, as a whole; so is an earlier one replaced.

    :param name: the variant.
    :param out: the folder that its tree is in.
    :param to: the folder that the package appears in.
    :param form: one of :data:`FORMATS`.
    :param verify: called with the tree first; raises :class:`KitError` where it does not pass.
    :raises KitError: there is no such tree, it does not pass, it changes meanwhile, there is something else
        where the package is to be, or the disk is full.
    """
    tree, target = _check(name, out, to, form)
    read_provenance(tree)  # an earlier kit's is told from a damaged one
    verify(tree)
    provenance = read_provenance(tree)
    with _disk_errors(target):
        contents = _contents(Tree(tree, sums.read(tree), [], provenance))
        _check_disk(name, to, sum(archive.size(content) for content, _ in contents.values()) + _SLACK)
        to.mkdir(parents=True, exist_ok=True)
        if form == "tar":
            _make_tar(name, target, contents, provenance["finished"])
        else:
            _make_folder(name, target, contents)
    return target


def check(name: str, out: str, to: str, form: str) -> Tuple[str, Path, Path, str]:
    """Return what a person asked for, where it can be packaged; this needs no package and no time.

    :param name: the text of ``V=``; ``out``, ``to`` and ``form`` those of ``OUT=``, ``TO=`` and ``FORMAT=``.
    :raises KitError: there is no such tree, or it cannot be packaged there.
    """
    folder, place = files.typed(out, "OUT"), files.typed(to, "TO")
    _check(name, folder, place, form)
    return name, folder, place, form


def _check(name: str, out: Path, to: Path, form: str) -> Tuple[Path, Path]:
    """Return where the tree is, and where its package is to be."""
    variants.get(name)
    if form not in FORMATS:
        raise unknown("format", form, "FORMAT", FORMATS)
    tree = out / name
    if not (tree / trees.PROVENANCE).is_file():
        raise KitError(
            f"There is no tree of {name}.",
            where=paths.shown(tree),
            hint=f"Make it (make variant V={name}), or set OUT= to the folder that it is in.",
        )
    if tree in (to, *to.parents):
        raise KitError(
            "The package would be in the tree itself.", where=f"TO={to}", hint="Set TO= to another folder."
        )
    target = to / (f"{name}.tar" if form == "tar" else name)
    _check_target(target, name)
    return tree, target


def _check_target(target: Path, name: str) -> None:
    """Check that there is nothing but an earlier package where the package is to be."""
    if not (target.exists() or target.is_symlink()):
        return
    if not (_is_tar(target, name) if target.suffix == ".tar" else _is_folder(target, name)):
        raise KitError(
            "Where the package is to be, there is something that the kit did not put there, or that was"
            " changed since.",
            where=paths.shown(target),
            hint="Move it away, or set TO= to another folder.",
        )


def _marks(name: str) -> List[str]:
    """Return the files by which a package is known."""
    return [CARD, sums.NAME, f"{name}/{trees.PROVENANCE}"]


def _is_folder(path: Path, name: str) -> bool:
    """Return whether a folder is a package that nobody has put anything into since.

    What is large is not read: nobody edits it.
    """
    if path.is_symlink() or not all((path / mark).is_file() for mark in _marks(name)):
        return False
    try:
        entries = sums.read(path)
        there = [file for file in sums.listed(path) if file != sums.NAME]
        return set(there) <= set(entries) and all(
            (path / file).stat().st_size > _EDITED or digests.of_file(path / file) == entries[file]
            for file in there
        )
    except (KitError, OSError):
        return False


def _is_tar(path: Path, name: str) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with tarfile.open(str(path), "r:") as found:
            return {f"{name}/{mark}" for mark in _marks(name)} <= set(found.getnames())
    except (OSError, tarfile.TarError):
        return False


def _check_disk(name: str, to: Path, need: int) -> None:
    try:
        place.check_disk(f"Packaging {name}", to, need)
    except KitError as error:
        hint = "Free disk space, or set TO= to a folder on another disk."
        raise KitError(error.what, where=error.where, hint=hint) from None


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KitError(
            f"The package cannot be made: {error.strerror or error}.",
            where=str(error.filename or paths.shown(target)),
            hint="Free disk space, or correct the permissions.  An earlier package is untouched.",
        ) from None


def _contents(tree: Tree) -> archive.Contents:
    """Return what is in the package of a tree that passed."""
    name = tree.name
    contents: archive.Contents = {
        f"{name}/{file}": (tree.folder / file, digest) for file, digest in tree.sums.items()
    }
    contents[f"{name}/{sums.NAME}"] = archive.made(sums.text(tree.sums))
    contents[report.NAME] = archive.made(page.report([tree], []))
    contents[LICENCE] = archive.made((paths.REPOSITORY / LICENCE).read_bytes())
    listed = [(file, archive.size(contents[file][0])) for file in sorted(contents)]
    contents[CARD] = archive.made(page.model_card(tree, listed))
    listing = sums.text({file: digest for file, (_, digest) in contents.items()})
    contents[sums.NAME] = archive.made(listing)
    return contents


def _make_folder(name: str, target: Path, contents: archive.Contents) -> None:
    to, staging = target.parent, target.with_name(f".{name}.new")
    trees.recover(to, variants.get(name))
    _check_target(target, name)
    with locks.folder(to):
        try:
            archive.write_folder(staging, contents, ticker(f"{name}: copying"))
            trees.replace(target, staging, target.with_name(f".{name}.old"))
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _make_tar(name: str, target: Path, contents: archive.Contents, finished: str) -> None:
    staging = target.with_name(f".{target.name}.new")
    try:
        mtime = calendar.timegm(time.strptime(finished, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        raise KitError(
            f"The time at which the tree was finished is none: {finished}.",
            where=f"{name}/{trees.PROVENANCE}, finished",
            hint=f"Make the tree again: make variant V={name}",
        ) from None
    with locks.folder(target.parent):
        try:
            archive.write_tar(staging, name, contents, mtime, ticker(f"{name}: copying"))
            files.flush(staging)
            staging.replace(target)
            files.flush(target.parent)
        finally:
            if staging.exists():
                staging.unlink()


def verified(tree: Path) -> None:
    """Verify a tree as ``make verify`` does, in the kit's environment.

    :raises KitError: it does not pass.
    """
    with Progress(f"{tree.name} verify", None) as progress:
        result = verification.verify(tree, paths.VENV_PYTHON, progress.tick)
        progress.done(f"{len(result.checks) - len(result.failed)} of {len(result.checks)} checks passed")
    verification.require(result, paths.shown(tree), verification.again(tree))
