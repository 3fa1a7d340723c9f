"""Published trees: what belongs to one, whether one is as listed, and how one appears."""

import ctypes
import errno
import json
import math
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional, Tuple

from ..core import files, paths
from ..core.errors import KitError
from ..core.files import digest_file
from ..model.variants import Variant, list_report_paths
from . import sums

PROVENANCE = "provenance.json"
SCHEMA = paths.PACKAGE / "artifact" / "schema" / "provenance.json"
FORMAT = 3
"""The form of :data:`PROVENANCE` that :data:`SCHEMA` describes."""

EARLIER_FORMATS = (1, 2)
"""Forms whose trees' files can still be used: they name what those were made from in the same way."""

MAX_BYTES = 4 << 20
"""Limit on the bytes of a provenance, which has some 40 kB."""

IR_SUFFIXES = (".bin", ".mapping", ".xml")

MO_LOG = "mo.log"
"""Model Optimizer's output, beside the IR."""

IR_VERSIONS = {"2022.1": 11, "2021.4": 10}
"""The version of the IR by release of Model Optimizer."""

Content = Dict[str, Any]
"""A provenance, or a part of one."""

_CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
"""Errors of a filesystem that cannot link two files; any other is a failure."""

_AT_FDCWD = -100  # openat(2)
_RENAME_EXCHANGE = 2  # renameat2(2)


def list_onnx_files(stem: str) -> List[str]:
    """Return the files of the first stage, relative to the tree."""
    onnx = Path(f"{stem}.onnx")
    return [onnx.name, *(path.name for path in list_report_paths(onnx))]


def list_ir_files(stem: str) -> List[str]:
    """Return the files of Model Optimizer's stage, relative to the tree."""
    return [*(f"ir/{stem}{suffix}" for suffix in IR_SUFFIXES), f"ir/{MO_LOG}"]


def list_files(stem: str) -> List[str]:
    """Return a tree's files but provenance and checksums, relative to the tree."""
    return list_onnx_files(stem) + list_ir_files(stem)


def describe_files(folder: Path, names: List[str]) -> Dict[str, Dict[str, Any]]:
    """Return size and sha256 of each named file below ``folder``."""
    found = {name: folder / name for name in names}
    return {name: {"bytes": path.stat().st_size, "sha256": digest_file(path)} for name, path in found.items()}


def is_intact(folder: Path, files: Dict[str, Dict[str, Any]], *, by_hash: bool) -> bool:
    """Return whether each described file is no link and has its size and, ``by_hash``, its bytes."""
    try:
        for name, entry in files.items():
            found = (folder / name).lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size != entry["bytes"]:
                return False
            if by_hash and digest_file(folder / name) != entry["sha256"]:
                return False
    except (OSError, KeyError, TypeError):
        return False
    return True


def is_as_listed(tree: Path, provenance: Dict[str, Any]) -> bool:
    """Return whether a tree's checksums are those of its provenance, and every file has its size."""
    try:
        described = {name: entry["sha256"] for name, entry in provenance["files"].items()}
        described[PROVENANCE] = digest_file(tree / PROVENANCE)
        return sums.read_sums(tree) == described and is_intact(tree, provenance["files"], by_hash=False)
    except (KitError, OSError, KeyError, TypeError, AttributeError):
        return False


def read_provenance(tree: Path) -> Optional[Dict[str, Any]]:
    """Return a tree's provenance, otherwise unchecked; None unless of :data:`FORMAT` with finite figures."""
    content = read_some_provenance(tree)
    try:
        stages = [*content["seconds"].values(), *content["peak_bytes"].values()]
        figures = map(math.isfinite, (content["verification"]["block_sparsity"], *stages))
        whole = content["format"] == FORMAT and isinstance(content["files"], dict) and all(figures)
    except (KeyError, TypeError, AttributeError, OverflowError):
        return None
    return content if whole and len(stages) == 6 else None


def read_some_provenance(tree: Path) -> Dict[str, Any]:
    """Return a tree's provenance, of an earlier format too, unchecked; empty where none can be read."""
    try:
        content = parse_json(files.read_bytes(tree / PROVENANCE, MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    usable = isinstance(content, dict) and content.get("format") in (FORMAT, *EARLIER_FORMATS)
    return dict(content) if usable else {}


def parse_json(content: bytes) -> Any:
    """:raises ValueError: it is no JSON, or has NaN or an infinity; or RecursionError: it is too deep."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number")

    def finite(text: str) -> float:
        # JSON allows 1e400, of which Python makes an infinity.
        return float(text) if math.isfinite(float(text)) else refuse(text)

    return json.loads(content.decode("utf-8"), parse_constant=refuse, parse_float=finite)


def _beside(out: Path, variant: Variant) -> Tuple[Path, Path]:
    """Return where a new tree is put together, and where an earlier one is set aside."""
    return out / f".{variant.name}.new", out / f".{variant.name}.old"


def has_leftovers(out: Path, variant: Variant) -> bool:
    """Return whether a killed run left something of ``variant`` in ``out``."""
    return any(path.exists() for path in _beside(out, variant))


def recover_tree(out: Path, variant: Variant) -> None:
    """Clear away what a killed run left; a tree that it set aside and did not replace comes back."""
    tree, (staging, aside) = out / variant.name, _beside(out, variant)
    with files.hold_folder(out):
        if aside.is_dir() and not tree.exists():
            aside.rename(tree)
        for left in (staging, aside):
            shutil.rmtree(left, ignore_errors=True)


def check_writable(out: Path) -> None:
    """:raises KitError: ``out``, which may not exist yet, cannot take trees."""
    if out.exists() and not out.is_dir():
        raise KitError("OUT is not a folder.", where=f"OUT={out}", hint="Set OUT= to a folder, new or not.")
    there = next(folder for folder in (out, *out.parents) if os.path.lexists(str(folder)))
    probe = there / f".write-test-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise KitError(
            f"The output folder cannot be made or written to: {error.strerror}.",
            where=f"OUT={out}",
            hint="Make it writable, or set OUT= to another folder.",
        ) from None


def publish_tree(work: Path, out: Path, variant: Variant, provenance: Dict[str, Any]) -> Path:
    """Let the tree in ``work`` appear as ``<out>/<V>`` in one step and return that path.

    :param provenance: its ``files`` have the sums of the files in ``work``, which are not computed again.
    :raises KitError: the disk is full or ``out`` is not writable; an earlier tree is untouched then.
    """
    tree, (staging, aside) = out / variant.name, _beside(out, variant)
    content = {"format": FORMAT, **provenance}
    known = {name: entry["sha256"] for name, entry in content.get("files", {}).items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        with files.hold_folder(out):
            shutil.rmtree(staging, ignore_errors=True)
            (staging / "ir").mkdir(parents=True)
            for name in list_files(variant.stem):
                link_file(work / name, staging / name)
            files.write_text(staging / PROVENANCE, json.dumps(content, indent=2, sort_keys=True) + "\n")
            sums.write_sums(staging, known)
            replace_tree(tree, staging, aside)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise KitError(
            f"The tree cannot be published: {error.strerror or error}.",
            where=paths.show_path(tree),
            hint="Free disk space or make the folder writable, then run the same command: it resumes here.",
        ) from None
    return tree


def replace_tree(tree: Path, staging: Path, aside: Path) -> None:
    """Let ``staging`` be ``tree``; an earlier tree goes, or stays where this or the power fails.

    Where the two cannot be exchanged in one step, the earlier one is ``aside`` for a moment.
    """
    files.flush_tree(staging)
    if tree.is_symlink():
        tree.unlink()  # the link was the user's; what it leads to is not the kit's to change
    if not tree.exists():
        staging.rename(tree)
    elif not _exchange(staging, tree):
        tree.rename(aside)
        try:
            staging.rename(tree)
        except OSError:
            aside.rename(tree)
            raise
    files.flush_file(tree.parent)
    for earlier in (staging, aside):
        shutil.rmtree(earlier, ignore_errors=True)


def link_file(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, or a copy where the filesystem cannot link."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        shutil.copyfile(source, target)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; return False where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    names = os.fsencode(first), os.fsencode(second)
    return bool(renameat2 and renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)
