"""Changing patches with ordinary git commits.

``edit`` makes a scratch clone of a fork at its pin with each patch as one commit; a person changes, adds,
reorders or drops commits there; ``export`` writes the commits back as patches.  What is exported depends on
the commits alone, so exporting an unchanged clone changes no byte; :mod:`launch.patch_check` holds every
patch to that.
"""

import contextlib
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Dict, List

from . import digests, git, patches, paths, third_party
from .errors import KitError
from .files import flush, flush_all, write
from .patch_text import in_clone, of_commit
from .third_party import Fork

_NAME_LENGTH = 48
"""Characters of a new patch's file name, at most."""

_BRANCH = "patches"
_BASE = "refs/kit/base"
_EXPORTED = "refs/kit/exported"
"""Where the clone's branch was when its commits were last equal to the files in ``patches/``."""

_SUMS = "kit-patches.json"
"""In the clone's git directory: the files of ``patches/<name>/`` as they were then, and their sha256."""

_UNFINISHED = ("rebase-merge", "rebase-apply", "CHERRY_PICK_HEAD", "MERGE_HEAD", "REVERT_HEAD")
"""In a git directory: what there is while git waits for a person to go on."""

_COMMITTER = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "patches"), ("EMAIL", "patches@localhost"), ("DATE", "2021-11-30T00:00:00Z"))
}
"""The commits made from patches are the kit's and always the same; a person's own carry the person's name."""


def clone_of(fork: Fork) -> Path:
    """Return where a fork's scratch clone is."""
    return paths.BUILD / "patches" / fork.name


def edit(fork: Fork) -> Path:
    """Make the scratch clone and return its folder.

    :raises KitError: the submodule is not checked out as pinned, a patch does not apply, or the clone is
        there already with work in it that has not been exported.
    """
    _require(fork)
    check_exported(fork)
    clone = clone_of(fork)
    # Made beside it: what is at the clone's place is whole, also after a kill.
    staging = clone.with_name(f".{fork.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        _fill(fork, staging)
        if clone.exists():
            shutil.rmtree(clone)
        flush_all()
        staging.rename(clone)
        flush(clone.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return clone


def _require(fork: Fork) -> None:
    if not third_party.checked_out(fork):
        raise KitError(
            f"The patches of {fork.name} are changed on its source, and that is not checked out.",
            where=fork.submodule,
            hint="Fetch it: make third_party",
        )
    third_party.check(fork)


def _fill(fork: Fork, clone: Path) -> None:
    """Make the clone's repository and its commits; objects stay where the submodule has them."""
    in_clone(clone, "-c", f"init.defaultBranch={_BRANCH}", "init", "--quiet")
    for name in ("objects", "shallow"):
        place = git.run(["rev-parse", "--git-path", name], fork.folder).stdout.strip()
        source = (fork.folder / place).resolve()
        if name == "objects":
            (clone / ".git" / "objects" / "info" / "alternates").write_text(f"{source}\n")
        elif source.is_file():
            shutil.copyfile(source, clone / ".git" / "shallow")
    in_clone(clone, "update-ref", _BASE, fork.base)
    in_clone(clone, "reset", "--quiet", "--hard", fork.base)
    for path in patches.series(fork.name):
        patch = patches.read(path)
        patches.refuse(path, git.run(["apply", "--index", str(path)], clone))
        message = patch.message[len(patches.SUBJECT) :].rstrip("\n") + "\n"
        done = git.run(
            ["commit", "--quiet", "--no-verify", "--cleanup=verbatim", "--file=-"],
            clone,
            env=_COMMITTER,
            text=message,
        )
        if done.returncode:
            raise KitError(
                f"A patch cannot be committed: {git.words(done)}", where=paths.shown(path), hint="Mend it."
            )
    _remember(fork, clone)


def _remember(fork: Fork, clone: Path) -> None:
    """Note in the clone that its commits and the files in ``patches/`` are equal now."""
    write(clone / ".git" / _SUMS, json.dumps(_sums(fork)))
    in_clone(clone, "update-ref", _EXPORTED, "HEAD")


def _sums(fork: Fork) -> Dict[str, str]:
    folder = paths.PATCHES / fork.name
    return {path.name: digests.of_file(path) for path in [*folder.glob("*.patch"), *folder.glob("series")]}


def check_exported(fork: Fork) -> None:
    """Check that removing the scratch clone, where there is one, loses nothing.

    :raises KitError: it holds work that ``patches/`` does not.
    """
    clone = clone_of(fork)
    if not clone.exists():
        return
    where = paths.shown(clone)
    state = git.run(["status", "--porcelain", "--untracked-files=all"], clone)
    at = git.run(["rev-parse", "HEAD", _EXPORTED], clone).stdout.split()
    # What is stashed, or on another branch, is on no way from here either.
    more = git.run(["rev-list", "--max-count=1", "--all", "--not", _EXPORTED, _BASE], clone)
    lost = (
        state.returncode or state.stdout or len(at) != 2 or at[0] != at[1] or more.returncode or more.stdout
    )
    if lost or not _all_in_files(fork, clone):
        raise KitError(
            "The scratch clone holds work that is not in patches/ yet.",
            where=where,
            hint=f"Go on there and then: make patch-export P={fork.name}\nOr give the work up: rm -r {where}",
        )


def _all_in_files(fork: Fork, clone: Path) -> bool:
    """Return whether each commit that a person has made is a patch in ``patches/``.

    An export can be undone there.  Commits that the kit has made come from ``patches/``, now or earlier.
    """
    there = {path.read_bytes() for path in (paths.PATCHES / fork.name).glob("*.patch")}
    for line in in_clone(clone, "log", "--format=%H %ce", f"{_BASE}..HEAD").splitlines():
        commit, _, mail = line.partition(" ")
        if mail != _COMMITTER["GIT_COMMITTER_EMAIL"]:
            try:
                if of_commit(clone, commit).encode() not in there:
                    return False
            except KitError:
                return False
    return True


def export(fork: Fork) -> List[Path]:
    """Write the scratch clone's commits to ``patches/<name>/``, in order, and return the files.

    A commit whose subject a patch has already keeps that patch's file name; a new one is named after its
    subject.  Patches whose commits are gone are removed.

    :raises KitError: there is no clone, something in it is not committed, or a commit does not say what a
        patch has to say; nothing is written then.
    """
    clone = clone_of(fork)
    where = paths.shown(clone)
    if not (clone / ".git").exists():
        raise KitError("There is no scratch clone.", where=where, hint=f"make patch-edit P={fork.name}")
    changed = in_clone(clone, "status", "--porcelain", "--untracked-files=all").splitlines()
    if changed:
        raise KitError(
            f"The scratch clone has changes that are in no commit: {changed[0][3:]}"
            + (f" and {len(changed) - 1} more." if len(changed) > 1 else "."),
            where=where,
            hint="Commit them (git commit --fixup and git rebase -i --autosquash change an earlier patch).",
        )
    texts = [of_commit(clone, commit) for commit in _commits(fork, clone)]
    names = _names(fork, texts)
    _check_order(fork, texts)
    files = dict(zip(names, texts), series="".join(f"{name}\n" for name in names))
    _check_unchanged(fork, clone, files)
    folder = paths.PATCHES / fork.name
    for name, text in files.items():
        write(folder / name, text)
    for stale in {path.name for path in folder.glob("*.patch")} - set(names):
        (folder / stale).unlink()
    _remember(fork, clone)
    return [folder / name for name in names]


def _check_order(fork: Fork, texts: List[str]) -> None:
    """Check that commits that are required come before those of the optional set; ``texts`` are patches."""
    index = patches.misplaced(f"\n{patches.OPTIONAL_SET}: {patches.FAST}\n" in text for text in texts)
    if index is not None:
        subject = texts[index].splitlines()[0][len(patches.SUBJECT) :]
        raise KitError(
            f"A required commit comes after one of the set {patches.FAST!r}, which can be left out.",
            where=f"{paths.shown(clone_of(fork))}: {subject}",
            hint=f"Required commits come first: git rebase -i {_BASE} puts them in order.",
        )


def _commits(fork: Fork, clone: Path) -> List[str]:
    """Return the commits on top of the pin, the earliest first.

    :raises KitError: they are no straight line from the pin, or git is in the middle of changing them.
    """
    unfinished = [name for name in _UNFINISHED if (clone / ".git" / name).exists()]
    if unfinished:
        raise KitError(
            "git is not done with changing the scratch clone's commits.",
            where=f"{paths.shown(clone)}: {unfinished[0]}",
            hint="End it there: git status says how (git rebase --continue, or --abort).",
        )
    commits, at = [], fork.base
    for line in in_clone(clone, "rev-list", "--reverse", "--parents", f"{fork.base}..HEAD").splitlines():
        commit, *parents = line.split()
        if parents != [at]:
            break
        commits.append(commit)
        at = commit
    if in_clone(clone, "rev-parse", "HEAD").strip() != at:
        raise KitError(
            "The scratch clone's commits are no straight line from the pin, so they are no series.",
            where=f"{paths.shown(clone)}, pin {fork.base[:12]}",
            hint=f"Put them on top of it, without merges: git rebase --onto {fork.base[:12]} {_BASE}",
        )
    return commits


def _check_unchanged(fork: Fork, clone: Path, files: Dict[str, str]) -> None:
    """Check that an export undoes nothing that was changed in ``patches/`` since the clone was made.

    :param files: what the export will write.
    :raises KitError: it would.
    """
    now = _sums(fork)
    then: Dict[str, str] = json.loads((clone / ".git" / _SUMS).read_text(encoding="utf-8"))
    new = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    others = [name for name in {**then, **now} if now.get(name) not in (then.get(name), new.get(name))]
    if others:
        folder, here = paths.shown(paths.PATCHES / fork.name), paths.shown(clone)
        raise KitError(
            "An export would undo what has changed in patches/ since the scratch clone was made: "
            + ", ".join(sorted(others)),
            where=folder,
            hint=f"Undo the change there (git checkout -- {folder}), or put your commits on top of it:\n"
            f"mv {here} {here}.mine && git -C {here}.mine format-patch {_EXPORTED}\n"
            f"make patch-edit P={fork.name} && git -C {here} am $PWD/{here}.mine/*.patch",
        )


def _names(fork: Fork, texts: List[str]) -> List[str]:
    """Return the patches' file names."""
    known = _file_names(fork)
    names: List[str] = []
    for text in texts:
        subject = text.splitlines()[0][len(patches.SUBJECT) :]
        name = known.get(subject, f"{_slug(subject)}.patch")
        if name in names:
            raise KitError(
                f"Two commits give a patch of the same name, {name}.",
                where=f"{paths.shown(clone_of(fork))}: {subject}",
                hint="Give each patch its own purpose and subject.",
            )
        names.append(name)
    return names


def _file_names(fork: Fork) -> Dict[str, str]:
    """Return the files of the patches that are there by their subjects, whether or not the series has them.

    An export that was killed may have left one that the series does not name yet.
    """
    found = {}
    for path in sorted((paths.PATCHES / fork.name).glob("*.patch")):
        with contextlib.suppress(KitError):
            found[patches.read(path).subject] = path.name
    return found


def _slug(subject: str) -> str:
    """Return a subject as a file name, of whole words."""
    words = re.sub(r"[^a-z0-9]+", " ", subject.lower()).split()
    while len(words) > 1 and len("_".join(words)) > _NAME_LENGTH:
        words.pop()
    return "_".join(words)[:_NAME_LENGTH] or "patch"
