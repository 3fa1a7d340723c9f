"""Running git in a clean environment."""

import os
import re
import subprocess
from pathlib import Path
from typing import Mapping, Optional, Sequence

from . import paths
from .errors import KitError

_MISLEADING = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_DIFF_OPTS"),
)
"""Variables, set in a hook for example, that lead git to another repository or change its diffs."""

# What a person has configured for diffs, commits and files must not change bytes, nor run anything.
_SETTINGS = (
    *("core.autocrlf=false", "core.eol=lf", "core.quotePath=false", "core.attributesFile=/dev/null"),
    *("core.hooksPath=/dev/null", "apply.whitespace=nowarn", "apply.ignoreWhitespace=no"),
    *("diff.noprefix=false", "diff.mnemonicPrefix=false", "diff.suppressBlankEmpty=false"),
    *("i18n.commitEncoding=UTF-8", "i18n.logOutputEncoding=UTF-8", "log.showSignature=false"),
    *("commit.gpgSign=false", "gc.auto=0"),
)

_DISTRUST = re.compile(
    r"(?:dubious ownership in repository at|unsafe repository) \(?'([^']+)'(?: is owned by someone else)?"
)
"""The message of git from 2.35.2 on about a folder of another user."""


def run_git(
    arguments: Sequence[str],
    folder: Path,
    *,
    env: Optional[Mapping[str, str]] = None,
    text: str = "",
    show: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run git in ``folder`` with ``text`` as input and return its output; its exit status is not checked.

    It never prompts and finds no repository above ``folder``.  Output is UTF-8; other bytes become lone
    surrogates, line ends are kept.

    :param show: whether standard error, where git reports progress, goes to the terminal.
    :raises KitError: there is no git, or it refuses to read a folder of another user.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    kept.update(GIT_TERMINAL_PROMPT="0", GIT_CEILING_DIRECTORIES=str(folder.resolve().parent), LC_ALL="C")
    try:
        done = subprocess.run(
            ["git", *(word for setting in _SETTINGS for word in ("-c", setting)), *arguments],
            cwd=str(folder),
            env={**kept, **(env or {})},
            input=text.encode("utf-8", "surrogateescape"),
            stdout=subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            check=False,
        )
    except FileNotFoundError:
        raise KitError(
            "There is no git.", where="PATH", hint="Install git (Debian, Ubuntu: apt install git)."
        ) from None
    # Not subprocess's own text mode: it would turn the line ends of a patch to a file with CRLF into LF.
    output, said = (part.decode("utf-8", "surrogateescape") for part in (done.stdout, done.stderr or b""))
    distrusted = _DISTRUST.search(said)
    if done.returncode and distrusted:
        raise KitError(
            "git reads no repository that belongs to another user.",
            where=distrusted.group(1),
            hint=f"If you trust it: git config --global --add safe.directory {distrusted.group(1)}",
        )
    return subprocess.CompletedProcess(done.args, done.returncode, output, said)


def ask_git(
    arguments: Sequence[str], folder: Path, *, env: Optional[Mapping[str, str]] = None, text: str = ""
) -> str:
    """Run git and return what it printed, parameters as in :func:`run_git`; a KitError where it fails."""
    done = run_git(arguments, folder, env=env, text=text)
    if done.returncode:
        raise KitError(
            f"git {arguments[0]} failed: {show_last_lines(done)}",
            where=paths.show_path(folder),
            hint="Mend there what git says, and run the same command again.",
        )
    return done.stdout


def show_last_lines(done: "subprocess.CompletedProcess[str]") -> str:
    """Return the last six lines of git's output, for an error."""
    return "\n".join((done.stderr + done.stdout).strip().splitlines()[-6:])
