"""The patch series: what is in ``patches/``, what a patch must say of itself, and applying one.

``patches/<name>/series`` lists a fork's patches in order, one file name a line.  A patch is a text that says
why it exists, in fields, and then a unified diff with as little of the code around it as makes it apply.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Optional

from . import git, paths
from .errors import KitError

SOURCES = ("fork", "registry")
"""What a patch may apply to: the pinned commit, and the release from the package index."""

FIELDS = {
    "Output-bytes": "unchanged, or changed and how",
    "Upstream-status": "whether upstream has it, has mended it otherwise, or was not asked",
    "Remove-when": "when the patch can go",
    "Applies-to": "fork, registry, or fork and registry; and a word on why",
}
"""What every patch says of itself beside its subject and the reason for it."""

OPTIONAL_SET = "Optional-set"
"""A field that a patch may have: the set it belongs to, which a user can leave out."""

FAST = "fast"
"""The one optional set: what makes runs faster or smaller and changes no output byte; ``FAST=0``."""

SUBJECT = "Subject: "
_FIELD = re.compile(r"^([A-Z][a-z]+(?:-[a-z]+)+): (.+)$")
_OPTIONAL_SET = re.compile(r"^\s*optional[-_ ]?sets?\s*:", re.I)
"""A line that means to be the field; misspelt, it would make a patch required in silence."""

_DIFF = re.compile(r"^diff --git ", re.M)
_SUBJECT_LENGTH = 72


@dataclass(frozen=True)
class Patch:
    """One patch, read.

    :param path: its file.
    :param subject: its purpose in one line.
    :param fields: :data:`FIELDS`, and :data:`OPTIONAL_SET` where it is given, by name; a field's later lines
        are joined with spaces.
    :param message: everything before the diff.
    :param diff: the rest, which alone reaches the patched files.
    """

    path: Path
    subject: str
    fields: Mapping[str, str]
    message: str
    diff: str

    def applies_to(self, source: str) -> bool:
        """Return whether the patch belongs to ``source``, one of :data:`SOURCES`."""
        return source in _named_sources(self.fields)

    @property
    def fast(self) -> bool:
        """Whether the patch is of the optional set :data:`FAST`."""
        return self.fields.get(OPTIONAL_SET) == FAST


def series(name: str) -> List[Path]:
    """Return the files of a fork's patches in the order they are applied; none where there is no series.

    :param name: the folder below ``patches/``.
    :raises KitError: the series names a patch twice or one that does not exist, or a patch is in no series.
    """
    folder = paths.PATCHES / name
    listing = folder / "series"
    lines = listing.read_text(encoding="utf-8", errors="replace").splitlines() if listing.is_file() else []
    listed: List[Path] = []
    for line in lines:
        file = line.split("#")[0].strip()
        if not file:
            continue
        path, where = folder / file, f"{paths.shown(listing)}: {file}"
        if path in listed:
            raise KitError("The series names a patch twice.", where=where, hint="Take one off the series.")
        if not path.is_file():
            raise KitError(
                "The series names a patch that does not exist.",
                where=where,
                hint="Restore the patch, or take it off the series.",
            )
        listed.append(path)
    unlisted = sorted(set(folder.glob("*.patch")) - set(listed))
    if unlisted:
        raise KitError(
            "A patch is in no series, so it would never be applied.",
            where=", ".join(paths.shown(path) for path in unlisted),
            hint=f"Add it to {paths.shown(listing)}, or remove it.",
        )
    return listed


def read(path: Path) -> Patch:
    """Return the patch in a file.

    :raises KitError: it says too little of itself, or has no diff.
    """
    where = paths.shown(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        raise KitError(f"A patch cannot be read: {error}", where=where, hint="Restore it.") from None
    start = _DIFF.search(text)
    message = text[: start.start()] if start else text
    problems = missing_parts(message)
    if problems:
        raise KitError(
            "A patch does not say enough of itself: " + "; ".join(problems) + ".",
            where=where,
            hint="Begin it with 'Subject: …', a paragraph on why it exists, and the fields\n" + field_list(),
        )
    if start is None:
        raise KitError("A patch changes nothing.", where=where, hint="Remove it, or restore its diff.")
    return Patch(
        path, message.splitlines()[0][len(SUBJECT) :], _fields(message), message, text[len(message) :]
    )


def field_list() -> str:
    """Return the fields of a patch with their meanings, a line each, for a hint."""
    lines = [f"{name}: <{meaning}>" for name, meaning in FIELDS.items()]
    return "\n".join([*lines, f"{OPTIONAL_SET}: {FAST}  (only where it belongs to that set)"])


def check_diff(patch: Patch) -> None:
    """Check that a patch's diff is one, and changes only files of the repository it is for.

    :raises KitError: it is not, or a path leads out of the repository.
    """
    where = paths.shown(patch.path)
    done = git.run(["apply", "--numstat", "-z", str(patch.path)], patch.path.parent)
    if done.returncode:
        raise KitError(
            f"A patch is no unified diff: {git.words(done)}",
            where=where,
            hint="Restore it, or make it anew: make patch-edit, make patch-export.",
        )
    for line in done.stdout.split("\0")[:-1]:
        file = line.split("\t", 2)[2]
        if file.startswith("/") or ".." in file.split("/"):
            raise KitError(
                "A patch changes a file outside of its repository.",
                where=f"{where}: {file}",
                hint="Remove it.",
            )


def _fields(message: str) -> Dict[str, str]:
    found: Dict[str, str] = {}
    last = ""
    for line in message.splitlines():
        match = _FIELD.match(line)
        if match:
            last = match.group(1)
            found[last] = match.group(2)
        elif last and line.startswith(" ") and line.strip():
            found[last] += " " + line.strip()
        else:
            last = ""
    return found


def missing_parts(message: str) -> List[str]:
    """Return what a patch's message lacks, in words; nothing where it is complete."""
    lines = message.splitlines()
    problems = []
    if not lines or not lines[0].startswith(SUBJECT) or not lines[0][len(SUBJECT) :].strip():
        problems.append("no subject")
    elif len(lines[0]) > len(SUBJECT) + _SUBJECT_LENGTH:
        problems.append(f"the subject is longer than {_SUBJECT_LENGTH} characters")
    body = [
        line for line in lines[1:] if line.strip() and not line.startswith(" ") and not _FIELD.match(line)
    ]
    if not body:
        problems.append("no reason")
    fields = _fields(message)
    problems += [f"no {name}" for name in FIELDS if name not in fields]
    named = set(_named_sources(fields))
    if "Applies-to" in fields and not (named <= {*SOURCES, "and"} and named & set(SOURCES)):
        problems.append("Applies-to names neither fork nor registry")
    for line in lines[1:]:
        if _OPTIONAL_SET.match(line) and line != f"{OPTIONAL_SET}: {FAST}":
            problems.append(f"{line.strip()[:60]!r} is not '{OPTIONAL_SET}: {FAST}', the only optional set")
    if sum(line == f"{OPTIONAL_SET}: {FAST}" for line in lines) > (fields.get(OPTIONAL_SET) == FAST):
        problems.append(f"{OPTIONAL_SET} is given twice, or goes on in the next line")
    return problems


def misplaced(members: Iterable[bool]) -> Optional[int]:
    """Return the index of the first required patch that stands after one of the optional set; else None.

    Required patches come first in a series.  So none builds on an optional one, and the series without the
    set is its beginning.

    :param members: for each patch of a series, in order, whether it is of the set.
    """
    earlier = False
    for index, member in enumerate(members):
        if earlier and not member:
            return index
        earlier = earlier or member
    return None


def _named_sources(fields: Mapping[str, str]) -> List[str]:
    """Return the words of Applies-to before the reason, which follows ``;`` or stands in brackets."""
    return re.findall(r"[a-z]+", re.split(r"[;(]", fields.get("Applies-to", ""))[0])


def check_order(found: List[Patch]) -> None:
    """Check that the required patches of a series come before those of the optional set.

    :raises KitError: one does not.
    """
    index = misplaced(patch.fast for patch in found)
    if index is not None:
        path = found[index].path
        raise KitError(
            f"A required patch comes after one of the set {FAST!r}, which can be left out.",
            where=f"{paths.shown(path.parent / 'series')}: {path.name}",
            hint=f"Required patches come first: put it before the first with '{OPTIONAL_SET}: {FAST}'"
            f" (make patch-edit P={path.parent.name}, git rebase -i).",
        )


def chosen(name: str, source: str, fast: bool = True) -> List[Patch]:
    """Return a fork's patches that belong to ``source``, in order.

    :param fast: with those of the optional set :data:`FAST`.
    :raises KitError: the series or a patch is at fault.
    """
    found = [read(path) for path in series(name)]
    check_order(found)
    return [patch for patch in found if patch.applies_to(source) and (fast or not patch.fast)]


def counted(number: int) -> str:
    """Return ``1 patch`` or ``n patches``."""
    return f"{number} patch{'' if number == 1 else 'es'}"


def folders() -> List[str]:
    """Return the names of the folders below ``patches/``."""
    return sorted(entry.name for entry in paths.PATCHES.iterdir() if entry.is_dir())


def apply(patch: Path, folder: Path, *, strip: int = 1) -> None:
    """Apply a patch to plain files below ``folder``, without fuzz, whole or not at all.

    :param strip: leading parts of the patch's paths to leave out, as ``-p`` of git and patch.
    :raises KitError: it does not apply; the error names the place.
    """
    refuse(patch, git.run(["apply", f"-p{strip}", str(patch)], folder))


def refuse(patch: Path, done: "subprocess.CompletedProcess[str]") -> None:
    """Raise where git has not applied ``patch``.

    :param done: git's completed process.
    :raises KitError: its status is not 0; the error names the place in the patched file.
    """
    if done.returncode:
        raise KitError(
            f"A patch does not apply: {git.words(done)}",
            where=paths.shown(patch),
            hint="Restore the patch, or make it anew against the pinned source: make patch-edit.",
        )


class Tree:
    """A commit of a repository with patches applied, without touching the repository or a working tree.

    Objects and the index are kept in a scratch folder; the repository is only read.

    :param repository: a folder that git finds a repository in.
    :param scratch: an empty folder.
    """

    def __init__(self, repository: Path, scratch: Path) -> None:
        self.repository = repository
        (scratch / "objects").mkdir(parents=True)
        objects = git.run(["rev-parse", "--git-path", "objects"], repository).stdout.strip()
        self.env = {
            "GIT_INDEX_FILE": str(scratch / "index"),
            "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((repository / objects).resolve()),
        }

    def git(self, arguments: Iterable[str], text: str = "") -> str:
        """Run git on the scratch index and return what it printed.

        :raises KitError: it fails.
        """
        done = git.run(list(arguments), self.repository, env=self.env, text=text)
        if done.returncode:
            raise KitError(
                f"git failed: {git.words(done)}",
                where=str(self.repository),
                hint="Check the repository: git fsck.",
            )
        return done.stdout

    def read(self, commit: str) -> None:
        """Start from ``commit``.

        :raises KitError: the repository does not have it.
        """
        self.git(["read-tree", commit])

    def apply(self, patch: Path) -> str:
        """Apply a patch and return the tree's object name.

        :raises KitError: it does not apply without fuzz.
        """
        refuse(patch, git.run(["apply", "--cached", str(patch)], self.repository, env=self.env))
        return self.git(["write-tree"]).strip()

    def write(self, folder: Path, parts: Optional[List[str]] = None) -> None:
        """Write the files into ``folder``, with their modes, links as links.

        :param parts: folders and files of the tree; None for all.
        """
        names = self.git(["ls-files", "-z", "--", *(parts or [])])
        self.git(["checkout-index", "-z", "--stdin", f"--prefix={folder}/"], text=names)
