"""A tree as a package: the folder ``TO/V/`` or ``TO/V.tar``, with the tree in it as ``V``."""

import calendar
import hashlib
import io
import shutil
import stat
import tarfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, Tuple, Union

from ..artifact import sums, trees
from ..artifact.provenance import read_provenance
from ..core import files, machine, paths
from ..core.errors import KitError, make_unknown_error
from ..core.progress import Progress
from ..model import variants
from ..verify import tree as verification
from . import make_ticker, page, report
from .tree import Tree, read_evaluation

FORMATS = ("folder", "tar")

CARD, LICENCE = "README.md", "LICENSE"

_EDITED = 8 << 20
"""Bytes up to which a package's file is checked for edits."""

_SLACK = 4 << 20
"""Bytes that a filesystem and an archive need besides the files'."""

Content = Union[bytes, Path]
Contents = Dict[str, Tuple[Content, str]]
"""By relative path: the bytes, or the file that has them, and their sha256."""


def find_place(name: str, out: Path, to: Path, form: str) -> Tuple[Path, Path]:
    """Return a variant's tree in ``out``, and the path of its package in ``to``.

    :raises KitError: there is no such tree, or it cannot be packaged there.
    """
    variants.find_variant(name)
    if form not in FORMATS:
        raise make_unknown_error("format", form, "FORMAT", FORMATS)
    tree = out / name
    if not (tree / trees.PROVENANCE).is_file():
        raise KitError(
            f"There is no tree of {name}.",
            where=paths.show_path(tree),
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
    is_package = _is_tar if target.suffix == ".tar" else _is_folder
    if target.is_symlink() or (target.exists() and not is_package(target, name)):
        raise KitError(
            "Where the package is to be, there is something that the kit did not put there, or that was"
            " changed since.",
            where=paths.show_path(target),
            hint="Move it away, or set TO= to another folder.",
        )


def _marks(name: str) -> List[str]:
    """Return the files by which a package is recognized."""
    return [CARD, sums.NAME, f"{name}/{trees.PROVENANCE}"]


def _is_folder(path: Path, name: str) -> bool:
    """Return whether a folder is a package without edits; files over :data:`_EDITED` are not read."""
    if not all((path / mark).is_file() for mark in _marks(name)):
        return False
    try:
        entries = sums.read_sums(path)
        there = [file for file in sums.list_files(path) if file != sums.NAME]
        return set(there) <= set(entries) and all(
            (path / file).stat().st_size > _EDITED or files.digest_file(path / file) == entries[file]
            for file in there
        )
    except (KitError, OSError):
        return False


def _is_tar(path: Path, name: str) -> bool:
    if not path.is_file():
        return False
    try:
        with tarfile.open(str(path), "r:") as found:
            return {f"{name}/{mark}" for mark in _marks(name)} <= set(found.getnames())
    except (OSError, tarfile.TarError):
        return False


def verify_tree(tree: Path) -> None:
    """Verify a tree as ``make verify`` does; raise a :class:`KitError` if it does not pass."""
    with Progress(f"{tree.name} verify", None) as progress:
        result = verification.verify_tree(tree, paths.VENV_PYTHON, progress.tick)
        progress.done(f"{len(result.checks) - len(result.failed)} of {len(result.checks)} checks passed")
    verification.require_passed(result, paths.show_path(tree), verification.suggest_again(tree))


def make_package(tree: Path, target: Path, verify: Callable[[Path], None] = verify_tree) -> None:
    """Package a tree; ``target`` of :func:`find_place` appears, or is replaced, in one step.

    :raises KitError: the tree does not pass or changes; ``target`` is no package, or cannot be written.
    """
    read_provenance(tree)  # an earlier kit's is told from a damaged one
    verify(tree)
    provenance = read_provenance(tree)
    to = target.parent
    try:
        entries = sums.read_sums(tree)
        evaluated, stale = read_evaluation(tree, entries)
        contents = _contents(Tree(tree, entries, [], provenance, {} if stale else evaluated))
        need = sum(_size(content) for content, _ in contents.values()) + _SLACK
        machine.check_disk(f"Packaging {tree.name}", to, need, "TO")
        to.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".tar":
            _make_tar(tree.name, target, contents, provenance["finished"])
        else:
            _make_folder(tree.name, target, contents)
    except OSError as error:
        raise KitError(
            f"The package cannot be made: {error.strerror or error}.",
            where=str(error.filename or paths.show_path(target)),
            hint="Free disk space, or correct the permissions.  An earlier package is untouched.",
        ) from None


def _contents(tree: Tree) -> Contents:
    name = tree.name
    contents: Contents = {
        f"{name}/{file}": (tree.folder / file, digest) for file, digest in tree.sums.items()
    }
    contents[f"{name}/{sums.NAME}"] = _summed(sums.format_sums(tree.sums))
    contents[report.NAME] = _summed(page.draw_page([tree], []))
    contents[LICENCE] = _summed((paths.REPOSITORY / LICENCE).read_text(encoding="utf-8"))
    listed = [(file, _size(contents[file][0])) for file in sorted(contents)]
    contents[CARD] = _summed(page.write_card(tree, listed))
    contents[sums.NAME] = _summed(sums.format_sums({file: digest for file, (_, digest) in contents.items()}))
    return contents


def _summed(text: str) -> Tuple[bytes, str]:
    return text.encode(), hashlib.sha256(text.encode()).hexdigest()


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _make_folder(name: str, target: Path, contents: Contents) -> None:
    staging = target.with_name(f".{name}.new")
    trees.recover_tree(target.parent, variants.find_variant(name))
    _check_target(target, name)
    tick = make_ticker(f"{name}: copying")
    with files.hold_folder(target.parent):
        try:
            for file, (content, digest) in contents.items():
                tick(file)
                path = staging / file
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as handle, _reading(content, digest) as reader:
                    shutil.copyfileobj(reader, handle, 1 << 20)
            trees.replace_tree(target, staging, target.with_name(f".{name}.old"))
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _make_tar(name: str, target: Path, contents: Contents, finished: str) -> None:
    try:
        mtime = calendar.timegm(time.strptime(finished, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        raise KitError(
            f"The time at which the tree was finished is none: {finished}.",
            where=f"{name}/{trees.PROVENANCE}, finished",
            hint=f"Make the tree again: make variant V={name}",
        ) from None
    staging = target.with_name(f".{target.name}.new")
    with files.hold_folder(target.parent):
        try:
            _write_tar(staging, name, contents, mtime)
            files.flush_file(staging)
            staging.replace(target)
            files.flush_file(target.parent)
        finally:
            with suppress(FileNotFoundError):
                staging.unlink()


def _write_tar(path: Path, top: str, contents: Contents, mtime: int) -> None:
    """Write a tar archive with ``contents`` in the folder ``top``; its bytes depend on the arguments alone.

    :param mtime: of all members, in seconds since 1970, UTC.
    """
    tick = make_ticker(f"{top}: copying")
    members = {f"{top}/{name}": content for name, content in contents.items()}
    folders = {str(parent) for name in members for parent in PurePosixPath(name).parents} - {"."}
    with tarfile.open(str(path), "w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted({*members, *folders}):
            member = tarfile.TarInfo(name)
            member.mode, member.mtime, member.uname, member.gname = 0o644, mtime, "root", "root"
            if name in folders:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
                continue
            tick(name)
            content, digest = members[name]
            member.size = _size(content)
            with _reading(content, digest) as reader:
                archive.addfile(member, reader)


@contextmanager
def _reading(content: Content, digest: str) -> Iterator[Any]:
    """Yield a reader of ``content``; raise a KitError if what was read has not the sum ``digest``."""
    changed = KitError(
        "A file has not the bytes that it is listed with.",
        where=paths.show_path(content) if isinstance(content, Path) else "",
        hint="Make the tree again, and leave it alone while it is packaged.",
    )
    if isinstance(content, Path) and not stat.S_ISREG(content.lstat().st_mode):
        raise changed
    found = hashlib.sha256()
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as handle:

        def read(count: int) -> bytes:
            data = handle.read(count)
            found.update(data)
            return data

        yield SimpleNamespace(read=read)
    if found.hexdigest() != digest:
        raise changed
