"""The patches in ``patches/<name>/``, in the order of its ``series``: fields that say why, and a diff."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, List, Mapping

from ..core import git, paths
from ..core.errors import KitError

SOURCES = ("fork", "registry")  # what a patch may apply to: the pinned commit, and the release

FIELDS = {
    "Output-bytes": "unchanged, or changed and how",
    "Upstream-status": "whether upstream has it, has mended it otherwise, or was not asked",
    "Remove-when": "when the patch can go",
    "Applies-to": "fork, registry, or fork and registry; and a word on why",
}
"""What every patch says beside its subject and reason."""

OPTIONAL_SET, FAST = "Optional-set", "fast"
"""The field of an optional patch and its one value: runs are faster or smaller, and no byte changes."""

FIELD_LIST = "\n".join(f"{name}: <{meaning}>" for name, meaning in FIELDS.items())
FIELD_LIST += f"\n{OPTIONAL_SET}: {FAST}  (only where it belongs to that set)"

SUBJECT = "Subject: "
_SUBJECT_LENGTH = 72

_FIELD = re.compile(r"^([A-Z][a-z]+(?:-[a-z]+)+): (.+(?:\n +\S.*)*)$", re.M)  # later lines are indented
_OPTIONAL_SET = re.compile(r"^\s*optional[-_ ]?sets?\s*:.*", re.I | re.M)
"""A line that means to be the field; misspelt, it would make a patch required in silence."""


@dataclass(frozen=True)
class Patch:
    """One patch: its file, everything before the diff, and the diff."""

    path: Path
    message: str
    diff: str

    @property
    def text(self) -> str:
        """The whole file."""
        return self.message + self.diff

    @property
    def subject(self) -> str:
        """Its purpose in one line."""
        return self.message.partition("\n")[0][len(SUBJECT) :].strip()

    @property
    def fields(self) -> Mapping[str, str]:
        """:data:`FIELDS`, and :data:`OPTIONAL_SET` where it is given, by name."""
        return {name: re.sub(r"\n +", " ", value) for name, value in _FIELD.findall(self.message)}

    @property
    def sources(self) -> List[str]:
        """The words of Applies-to before the reason, which follows ``;`` or stands in brackets."""
        return re.findall(r"[a-z]+", re.split(r"[;(]", self.fields.get("Applies-to", ""))[0])

    @property
    def fast(self) -> bool:
        """Whether the patch is of the optional set :data:`FAST`."""
        return self.fields.get(OPTIONAL_SET) == FAST


def parse_patch(path: Path, text: str) -> Patch:
    """Return ``text`` split at its diff; :func:`find_problems` says whether that is a complete patch."""
    start = re.search(r"^diff --git ", text, re.M)
    end = start.start() if start else len(text)
    return Patch(path, text[:end], text[end:])


def find_problems(patch: Patch) -> List[str]:
    """Return what a patch lacks, in words; empty where it is complete."""
    fields, named = patch.fields, set(patch.sources)
    problems = []
    if not patch.message.startswith(SUBJECT) or not patch.subject:
        problems.append("no subject")
    elif len(patch.subject) > _SUBJECT_LENGTH:
        problems.append(f"the subject is longer than {_SUBJECT_LENGTH} characters")
    if not _FIELD.sub("", patch.message.partition("\n")[2]).strip():
        problems.append("no reason")
    problems += [f"no {name}" for name in FIELDS if name not in fields]
    if "Applies-to" in fields and not (named <= {*SOURCES, "and"} and named & set(SOURCES)):
        problems.append("Applies-to names neither fork nor registry")
    meant = _OPTIONAL_SET.findall(patch.message)
    if meant and not (patch.fast and meant == [f"{OPTIONAL_SET}: {FAST}"]):
        problems.append(f"{'; '.join(meant).strip()[:60]!r} is not '{OPTIONAL_SET}: {FAST}' in one line")
    if not patch.diff.strip():
        problems.append("it changes nothing")
    if re.search(r"^(GIT binary patch|Binary files .*)$", patch.diff, re.M):
        problems.append("it changes a file that is no text")
    if re.search("[\udc80-\udcff]", patch.text):
        problems.append("its message or a line it changes is not UTF-8")
    return problems


def read_patch(path: Path) -> Patch:
    """Return the patch in a file; a KitError where it is not complete."""
    patch = parse_patch(path, path.read_bytes().decode("utf-8", "surrogateescape"))
    problems = find_problems(patch)
    if problems:
        raise KitError(
            f"A patch is not complete: {'; '.join(problems)}.",
            where=paths.show_path(path),
            hint=f"Begin it with 'Subject: …', a paragraph on why it exists, and the fields\n{FIELD_LIST}",
        )
    return patch


def read_series(name: str) -> List[Patch]:
    """Return the patches in ``patches/<name>/``, in order of its series; a KitError where one is at fault."""
    folder = paths.PATCHES / name
    listing = folder / "series"
    names = listing.read_text("utf-8", "replace").splitlines() if listing.is_file() else []
    for file in names:
        where = f"{paths.show_path(listing)}: {file}"
        if names.count(file) > 1:
            raise KitError("The series names a patch twice.", where=where, hint="Take one off the series.")
        if not (folder / file).is_file():
            raise KitError(
                "The series names a patch that does not exist.",
                where=where,
                hint="Restore the patch, or take the line out: the series has a file name a line, no more.",
            )
    unlisted = sorted(path for path in folder.glob("*.patch") if path.name not in names)
    if unlisted:
        raise KitError(
            "A patch is in no series, so it would never be applied.",
            where=", ".join(map(paths.show_path, unlisted)),
            hint=f"Add it to {paths.show_path(listing)}, or remove it.",
        )
    return [read_patch(folder / file) for file in names]


def check_order(found: Iterable[Patch], where: str) -> None:
    """Raise a KitError unless the required patches come first: none may build on an optional one."""
    optional = False
    for patch in found:
        if optional and not patch.fast:
            raise KitError(
                f"A required patch comes after one of the set {FAST!r}, which can be left out.",
                where=f"{where}: {patch.path.name} ({patch.subject})",
                hint=f"Required patches come first: make patch-edit P={patch.path.parent.name}, and there git"
                f" rebase -i\nputs it before the first with '{OPTIONAL_SET}: {FAST}'.",
            )
        optional = patch.fast


def choose_patches(name: str, source: str, fast: bool = True) -> List[Patch]:
    """Return those for a source, with the optional ones if ``fast``; errors as :func:`read_series`."""
    found = read_series(name)
    check_order(found, paths.show_path(paths.PATCHES / name / "series"))
    return [patch for patch in found if source in patch.sources and (fast or not patch.fast)]


def apply_patch(patch: Patch, folder: Path, *options: str) -> None:
    """Apply a patch in ``folder`` with options of ``git apply``, without fuzz, whole, or a KitError."""
    done = git.run_git(["apply", *options, str(patch.path)], folder)
    if done.returncode:
        raise KitError(
            f"A patch does not apply: {git.show_last_lines(done)}",
            where=paths.show_path(patch.path),
            hint="Restore the patch, or make it anew against the pinned source: make patch-edit.",
        )
