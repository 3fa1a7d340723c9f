"""A series as git commits, and a commit as a patch: the same commit always gives the same bytes."""

import re
import shutil
from pathlib import Path
from typing import Iterable

from ..core import git, paths
from ..core.errors import KitError
from .patches import FIELD_LIST, SUBJECT, Patch, apply_patch, find_problems, parse_patch
from .third_party import Fork

BASE = "refs/kit/base"
"""The pin, in a repository that :func:`make_commits` has made."""

MAIL = "patches@localhost"
"""The address of the commits made from patches; a person's own have the person's."""

_IDENTITY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "patches"), ("EMAIL", MAIL), ("DATE", "2021-11-30T00:00:00Z"))
}

_CONTEXT = 1
"""Lines of the patched code that stay around a change: as few as place it."""

_SHOW = (
    *("diff-tree", "-p", "--always", f"--format={SUBJECT}%B", "--no-color", "--no-ext-diff"),
    "--no-textconv",
    *("--no-renames", "--diff-algorithm=myers", "--no-indent-heuristic", f"--unified={_CONTEXT}"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--submodule=short"),
)


def make_commits(fork: Fork, series: Iterable[Patch], folder: Path) -> None:
    """Make a repository in ``folder``: the pin, and each patch as one commit on top.

    The files are in its index and not in the folder; the submodule's objects stay where they are.

    :param folder: a new one.
    :raises KitError: a patch does not apply without fuzz.
    """
    folder.mkdir(parents=True)
    git.output(["init", "--quiet"], folder)
    kept = git.output(["rev-parse", "--git-path", "objects", "--git-path", "shallow"], fork.folder)
    objects, shallow = ((fork.folder / place).resolve() for place in kept.splitlines())
    (folder / ".git/objects/info/alternates").write_text(f"{objects}\n")
    if shallow.is_file():
        shutil.copyfile(shallow, folder / ".git/shallow")
    git.output(["update-ref", BASE, fork.base], folder)
    git.output(["reset", "--quiet", "--soft", fork.base], folder)
    git.output(["read-tree", fork.base], folder)
    for patch in series:
        apply_patch(patch, folder, "--cached")
        message = patch.message[len(SUBJECT) :].rstrip("\n") + "\n"
        words = ["commit", "--quiet", "--no-verify", "--cleanup=verbatim", "--file=-"]
        git.output(words, folder, env=_IDENTITY, text=message)


def export_commit(repository: Path, commit: str) -> Patch:
    """Return a commit as a patch: its message, and its diff without what varies from git to git.

    The patch has no file yet.

    :raises KitError: the message lacks what a patch has to say, or the commit changes nothing or no text.
    """
    shown = parse_patch(Path(), git.output([*_SHOW, commit], repository))
    # Object names and the heading that git guesses for a hunk say nothing that a reader needs.
    diff = re.sub(r"^index [0-9a-f]+\.\.[0-9a-f]+(?: \d+)?\n", "", shown.diff, flags=re.M)
    diff = re.sub(r"^(@@ -\S+ \+\S+ @@).*$", r"\1", diff, flags=re.M)
    patch = Patch(shown.path, shown.message.rstrip("\n") + "\n\n", diff)
    problems = find_problems(patch)
    if problems:
        raise KitError(
            f"The commit is no patch yet: {'; '.join(problems)}.",
            where=f"{paths.shown(repository)}: commit {commit[:12]}: {patch.subject}",
            hint=f"git commit --amend: a subject, a paragraph on why, and the fields\n{FIELD_LIST}",
        )
    return patch
