"""A git commit as a patch of the series, and back: the same commit always gives the same bytes."""

import re
from pathlib import Path

from . import git, patches, paths
from .errors import KitError

CONTEXT = 1
"""Lines of the patched code that stay around a change: as few as place it."""

DIFF = (
    *("diff-tree", "-p", "--no-commit-id", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames"),
    *("--diff-algorithm=myers", "--no-indent-heuristic", f"--unified={CONTEXT}"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--submodule=short"),
)


def in_clone(clone: Path, *arguments: str) -> str:
    """Return what git prints in a repository.

    :raises KitError: git fails.
    """
    done = git.run(arguments, clone)
    if done.returncode:
        raise KitError(
            f"git {arguments[0]} failed: {git.words(done)}",
            where=paths.shown(clone),
            hint="Mend it there with git, or remove the folder and begin again.",
        )
    return done.stdout


def of_commit(repository: Path, commit: str) -> str:
    """Return a commit as a patch: its message with fields, and its diff without what varies from git to git.

    :raises KitError: the message lacks what a patch has to say, or the commit changes nothing or no text.
    """
    message = in_clone(repository, "log", "-1", "--format=%B", commit)
    return from_parts(patches.SUBJECT + message, in_clone(repository, *DIFF, commit), commit[:12])


def from_parts(message: str, diff: str, name: str) -> str:
    """Return a message with fields and a diff as a patch.

    :param name: of the commit, for the error.
    :raises KitError: see :func:`of_commit`.
    """
    problems = patches.missing_parts(message)
    if not diff.strip():
        problems.append("it changes nothing")
    if "\nGIT binary patch\n" in diff or re.search(r"^Binary files ", diff, re.M):
        problems.append("it changes a file that is no text")
    elif any("\udc80" <= character <= "\udcff" for character in message + diff):
        problems.append("its message or a line it changes is not UTF-8")
    if problems:
        subject = message.splitlines()[0][len(patches.SUBJECT) :]
        raise KitError(
            f"The commit is no patch yet: {'; '.join(problems)}.",
            where=f"commit {name}: {subject}",
            hint="git commit --amend: a subject, a paragraph on why, and the fields\n" + patches.field_list(),
        )
    message = message.rstrip("\n") + "\n\n"
    # Object names and the heading that git guesses for a hunk say nothing that a reader needs.
    diff = re.sub(r"^index [0-9a-f]+\.\.[0-9a-f]+(?: \d+)?\n", "", diff, flags=re.M)
    diff = re.sub(r"^(@@ -\S+ \+\S+ @@).*$", r"\1", diff, flags=re.M)
    return message + diff
