"""Checking the series of patches, and changing it with git commits in a scratch clone of a fork.

A patch's bytes depend on its commit alone; :func:`check_patches` holds every patch to that.
"""

import dataclasses
import hashlib
import itertools
import json
import re
import shutil
import tempfile
import textwrap
from pathlib import Path
from typing import Dict, Iterable, List

from ..core import git, paths
from ..core.errors import KitError
from ..core.files import digest_file, write_text
from ..core.progress import format_count
from . import patches, third_party
from .patches import FIELD_LIST, SUBJECT, Patch, parse_patch
from .third_party import Fork

_BASE = "refs/kit/base"  # the pin, in a repository that _make_commits has made
_EXPORTED = "refs/kit/exported"  # the clone's branch when its commits were last equal to the patches
_SUMS = "kit-patches.json"  # in the clone's git directory: the patches' files then, and their sha256

_UNFINISHED = ("rebase-merge", "rebase-apply", "CHERRY_PICK_HEAD", "MERGE_HEAD", "REVERT_HEAD")
"""In a git directory: what there is while git waits for a person to go on."""

_MAIL = "patches@localhost"  # the address of commits made from patches; a person's have the person's
_IDENTITY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "patches"), ("EMAIL", _MAIL), ("DATE", "2021-11-30T00:00:00Z"))
}

_SHOW = (
    *("diff-tree", "-p", "--always", f"--format={SUBJECT}%B", "--no-color", "--no-ext-diff"),
    # One line of context: as few as place a change.
    *("--no-textconv", "--no-renames", "--diff-algorithm=myers", "--no-indent-heuristic", "--unified=1"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--submodule=short"),
)


def check_patches() -> List[str]:
    """Check all patches, and return what was checked, one line a fork; a KitError where one is at fault.

    Where a fork is checked out, patches are also applied without fuzz, and exported again to the same bytes.
    """
    forks = third_party.read_forks()
    folders = {entry.name for entry in paths.PATCHES.iterdir() if entry.is_dir()}
    unknown = sorted(folders - {fork.name for fork in forks})
    if unknown:
        raise KitError(
            f"patches/{unknown[0]} belongs to no fork.",
            where="patches/config.json",
            hint="Add it there with its submodule and base commit, or remove the folder.",
        )
    return [_check_fork(fork) for fork in forks]


def _check_fork(fork: Fork) -> str:
    found = patches.read_series(fork.name)
    for patch in found:
        done = git.run_git(["apply", "--numstat", str(patch.path)], patch.path.parent)
        if done.returncode:
            raise KitError(
                f"A patch is no unified diff: {git.show_last_lines(done)}",
                where=paths.show_path(patch.path),
                hint="Restore it, or make it anew: make patch-edit, make patch-export.",
            )
    patches.check_order(found, paths.show_path(paths.PATCHES / fork.name / "series"))
    fast = sum(patch.fast for patch in found)
    some = f" ({fast} of the set {patches.FAST})" if fast else ""
    read = f"{fork.name}: {format_count(len(found), 'patch', 'patches')}{some} read"
    if not third_party.is_checked_out(fork):
        return f"{read}; {fork.submodule} is not checked out, so none was applied"
    third_party.check_pin(fork)
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch, fork.name)
        _make_commits(fork, found, repository)
        commits = git.ask_git(["rev-list", "--reverse", f"{_BASE}..HEAD"], repository).split()
        for patch, commit in zip(found, commits):
            _check_same(patch, _export_commit(repository, commit))
    # As required patches come first.
    both = f" without and with the set {patches.FAST}" if fast else ""
    return f"{read}, applied to {fork.base[:12]}{both} and exported again: no difference"


def _check_same(patch: Patch, again: Patch) -> None:
    lines = itertools.zip_longest(patch.text.split("\n"), again.text.split("\n"))
    for number, (here, there) in enumerate(lines, 1):
        if here != there:
            name = patch.path.parent.name
            raise KitError(
                f"Exporting the patch again gives other bytes: {here!r} in the file, {there!r} exported",
                where=f"{paths.show_path(patch.path)}, line {number}",
                hint=f"make patch-edit P={name} && make patch-export P={name}",
            )


def _make_commits(fork: Fork, series: Iterable[Patch], folder: Path) -> None:
    """Make a repository of the pin and each patch as one commit on top; its files are in its index alone."""
    folder.mkdir(parents=True)
    git.ask_git(["init", "--quiet"], folder)
    # The submodule's objects stay where they are.
    kept = git.ask_git(["rev-parse", "--git-path", "objects", "--git-path", "shallow"], fork.folder)
    objects, shallow = ((fork.folder / place).resolve() for place in kept.splitlines())
    (folder / ".git/objects/info/alternates").write_text(f"{objects}\n")
    if shallow.is_file():
        shutil.copyfile(shallow, folder / ".git/shallow")
    git.ask_git(["update-ref", _BASE, fork.base], folder)
    git.ask_git(["reset", "--quiet", "--soft", fork.base], folder)
    git.ask_git(["read-tree", fork.base], folder)
    for patch in series:
        patches.apply_patch(patch, folder, "--cached")
        words = ["commit", "--quiet", "--no-verify", "--cleanup=verbatim", "--file=-"]
        git.ask_git(words, folder, env=_IDENTITY, text=patch.message[len(SUBJECT) :].rstrip("\n") + "\n")


def _export_commit(repository: Path, commit: str) -> Patch:
    """Return a commit as a patch that has no file yet; a KitError where it lacks something."""
    shown = parse_patch(Path(), git.ask_git([*_SHOW, commit], repository))
    # Object names and the heading that git guesses for a hunk say nothing that a reader needs.
    diff = re.sub(r"^index [0-9a-f]+\.\.[0-9a-f]+(?: \d+)?\n", "", shown.diff, flags=re.M)
    diff = re.sub(r"^(@@ -\S+ \+\S+ @@).*$", r"\1", diff, flags=re.M)
    patch = Patch(shown.path, shown.message.rstrip("\n") + "\n\n", diff)
    problems = patches.find_problems(patch)
    if problems:
        raise KitError(
            f"The commit is no patch yet: {'; '.join(problems)}.",
            where=f"{paths.show_path(repository)}: commit {commit[:12]}: {patch.subject}",
            hint=f"git commit --amend: a subject, a paragraph on why, and the fields\n{FIELD_LIST}",
        )
    return patch


def _clone_of(fork: Fork) -> Path:
    return paths.BUILD / "patches" / fork.name


def edit_patches(fork: Fork) -> Path:
    """Make the scratch clone and return it; a KitError where that loses work, or a patch does not apply."""
    if not third_party.is_checked_out(fork):
        raise KitError(
            f"The patches of {fork.name} are changed on its source, and that is not checked out.",
            where=fork.submodule,
            hint="Fetch it: make third_party",
        )
    third_party.check_pin(fork)
    check_exported(fork)
    clone = _clone_of(fork)
    # Made beside it: what is at the clone's place is whole, also after a kill.
    staging = clone.with_name(f".{fork.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        _make_commits(fork, patches.read_series(fork.name), staging)
        git.ask_git(["reset", "--quiet", "--hard"], staging)
        _remember(fork, staging)
        shutil.rmtree(clone, ignore_errors=True)
        staging.rename(clone)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return clone


def _remember(fork: Fork, clone: Path) -> None:
    """Note in the clone that its commits and the files in ``patches/`` are equal now."""
    write_text(clone / ".git" / _SUMS, json.dumps(_sums(fork)))
    git.ask_git(["update-ref", _EXPORTED, "HEAD"], clone)


def _sums(fork: Fork) -> Dict[str, str]:
    folder = paths.PATCHES / fork.name
    files = [*folder.glob("*.patch"), *folder.glob("series")]
    return {path.name: digest_file(path) for path in files}


def check_exported(fork: Fork) -> None:
    """Raise a KitError where the scratch clone holds work that ``patches/`` does not."""
    clone = _clone_of(fork)
    if clone.exists() and not _is_exported(fork, clone):
        where = paths.show_path(clone)
        raise KitError(
            "The scratch clone holds work that is not in patches/ yet.",
            where=where,
            hint=f"Go on there and then: make patch-export P={fork.name}\nOr give the work up: rm -r {where}",
        )


def _is_exported(fork: Fork, clone: Path) -> bool:
    try:
        head, exported = git.ask_git(["rev-parse", "HEAD", _EXPORTED], clone).split()
        # What is stashed, or on another branch, is on no way from here either.
        more = git.ask_git(["rev-list", "--max-count=1", "--all", "--not", _EXPORTED, _BASE], clone)
        if head != exported or more or _find_changes(clone):
            return False
        # An export can be undone in patches/.  Commits that the kit has made are from there, now or earlier.
        there = {path.read_bytes() for path in (paths.PATCHES / fork.name).glob("*.patch")}
        log = git.ask_git(["log", "--format=%H %ce", f"{_BASE}..HEAD"], clone).splitlines()
        persons = [line.split()[0] for line in log if line.split()[1:] != [_MAIL]]
        return all(_export_commit(clone, commit).text.encode() in there for commit in persons)
    except KitError:
        return False


def _find_changes(clone: Path) -> List[str]:
    changed = git.ask_git(["status", "--porcelain", "--untracked-files=all"], clone)
    return [line[3:] for line in changed.splitlines()]


def export_patches(fork: Fork) -> List[Path]:
    """Write the scratch clone's commits to ``patches/<name>/``, in order, and return the files.

    A patch of the same subject keeps its file name; patches without a commit are removed.  A KitError, and
    nothing written, where the commits are no series.
    """
    clone = _clone_of(fork)
    where = paths.show_path(clone)
    if not (clone / ".git").exists():
        raise KitError("There is no scratch clone.", where=where, hint=f"make patch-edit P={fork.name}")
    changed = _find_changes(clone)
    if changed:
        raise KitError(
            f"The scratch clone has changes that are in no commit: {changed[0]}"
            + (f" and {len(changed) - 1} more." if len(changed) > 1 else "."),
            where=where,
            hint="Commit them (git commit --fixup and git rebase -i --autosquash change an earlier patch).",
        )
    found = _name_patches(fork, [_export_commit(clone, commit) for commit in _list_commits(fork, clone)])
    patches.check_order(found, where)
    texts = {patch.path.name: patch.text for patch in found}
    texts["series"] = "".join(f"{name}\n" for name in texts)
    _check_unchanged(fork, clone, texts)
    folder = paths.PATCHES / fork.name
    for name, text in texts.items():
        write_text(folder / name, text)
    for path in folder.glob("*.patch"):
        if path.name not in texts:
            path.unlink()
    _remember(fork, clone)
    return [patch.path for patch in found]


def _list_commits(fork: Fork, clone: Path) -> List[str]:
    """Return the commits on top of the pin, the earliest first; a KitError where they are no series."""
    unfinished = [name for name in _UNFINISHED if (clone / ".git" / name).exists()]
    if unfinished:
        raise KitError(
            "git is not done with changing the scratch clone's commits.",
            where=f"{paths.show_path(clone)}: {unfinished[0]}",
            hint="End it there: git status says how (git rebase --continue, or --abort).",
        )
    listed = git.ask_git(["rev-list", "--reverse", "--parents", f"{fork.base}..HEAD"], clone)
    commits = [line.split() for line in listed.splitlines()]
    ends = [fork.base, *(commit for commit, *_ in commits)]
    head = git.ask_git(["rev-parse", "HEAD"], clone).strip()
    if head != ends[-1] or [parents for _, *parents in commits] != [[end] for end in ends[:-1]]:
        raise KitError(
            "The scratch clone's commits are no straight line from the pin, so they are no series.",
            where=f"{paths.show_path(clone)}, pin {fork.base[:12]}",
            hint=f"Put them on top of it, without merges: git rebase --onto {fork.base[:12]} {_BASE}",
        )
    return ends[1:]


def _name_patches(fork: Fork, found: List[Patch]) -> List[Patch]:
    # An export that was killed may have left a file that the series does not name yet: its name counts, too.
    folder = paths.PATCHES / fork.name
    old = [parse_patch(path, path.read_text("utf-8", "replace")) for path in folder.glob("*.patch")]
    known = {patch.subject: patch.path for patch in old}
    named: Dict[Path, Patch] = {}
    for patch in found:
        path = known.get(patch.subject, folder / f"{_slug(patch.subject)}.patch")
        if path in named:
            raise KitError(
                f"Two commits give a patch of the same name, {path.name}.",
                where=f"{paths.show_path(_clone_of(fork))}: {patch.subject}",
                hint="Give each patch its own purpose and subject.",
            )
        named[path] = dataclasses.replace(patch, path=path)
    return list(named.values())


def _slug(subject: str) -> str:
    """Return a subject as a file name, of whole words and at most 48 characters."""
    words = re.sub(r"[^a-z0-9]+", " ", subject.lower())
    return textwrap.shorten(words, 48, placeholder="").replace(" ", "_") or "patch"


def _check_unchanged(fork: Fork, clone: Path, texts: Dict[str, str]) -> None:
    """Check that writing ``texts``, by file, undoes no change to ``patches/`` since the clone was made."""
    now = _sums(fork)
    then: Dict[str, str] = json.loads((clone / ".git" / _SUMS).read_text(encoding="utf-8"))
    new = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    others = [name for name in {**then, **now} if now.get(name) not in (then.get(name), new.get(name))]
    if others:
        folder, here = paths.show_path(paths.PATCHES / fork.name), paths.show_path(clone)
        raise KitError(
            "An export would undo what has changed in patches/ since the scratch clone was made: "
            + ", ".join(sorted(others)),
            where=folder,
            hint=f"Undo the change there (git checkout -- {folder}), or put your commits on top of it:\n"
            f"mv {here} {here}.mine && git -C {here}.mine format-patch {_EXPORTED}\n"
            f"make patch-edit P={fork.name} && git -C {here} am $PWD/{here}.mine/*.patch",
        )
