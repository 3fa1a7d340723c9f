"""The pinned forks: git submodules below ``third_party/``, fetched on request and never changed."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from ..core import git, paths
from ..core.errors import KitError, make_unknown_error


@dataclass(frozen=True)
class Fork:
    """A submodule, pinned at the commit ``base``, to which its patches apply."""

    name: str
    submodule: str
    base: str
    packed: str  # the folder of the repository that its released wheel holds; empty for the whole

    @property
    def folder(self) -> Path:
        """The submodule's folder."""
        return paths.REPOSITORY / self.submodule


def read_forks() -> List[Fork]:
    """Return the forks of ``patches/config.json``, in order; a KitError where it cannot be read."""
    path = paths.PATCHES / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [
            Fork(name, str(entry["submodule"]), str(entry["base"]), str(entry["packed"]))
            for name, entry in content.items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KitError(
            f"The map of the patches cannot be read: {type(error).__name__}: {error}",
            where=paths.show_path(path),
            hint=f"It belongs to the checkout: git checkout -- {paths.show_path(path)}",
        ) from None


def find_fork(name: str) -> Fork:
    """Return the fork of that name; a KitError where there is none."""
    known = {fork.name: fork for fork in read_forks()}
    if name in known:
        return known[name]
    raise make_unknown_error("fork", name, "P", known)


def is_checked_out(fork: Fork) -> bool:
    """Return whether anything is checked out there."""
    return (fork.folder / ".git").exists()


def check_pin(fork: Fork) -> None:
    """Raise a KitError where a checked-out submodule is at another commit, or files in it are changed."""
    head = git.run_git(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], fork.folder).stdout.strip()
    if head != fork.base:
        raise KitError(
            f"The submodule is at {head[:12] or 'no commit'} and not at its pin.",
            where=f"{fork.submodule}, pinned at {fork.base}",
            hint=f"git submodule update --init {fork.submodule}\n"
            f"(first give a commit of your own a branch: git -C {fork.submodule} branch mine; a change of"
            f" your own\nbelongs into a patch: make patch-edit P={fork.name}).  SOURCE=registry does without"
            " submodules.",
        )
    done = git.run_git(["status", "--porcelain", "--untracked-files=no"], fork.folder)
    changed = done.stdout.splitlines()
    if done.returncode or changed:
        some = ", ".join(line[3:] for line in changed[:3]) or git.show_last_lines(done)
        raise KitError(
            f"The submodule has local changes, which no build would use: {some}"
            + (f" and {len(changed) - 3} more." if len(changed) > 3 else "."),
            where=fork.submodule,
            hint=f"Keep them as a patch: git -C {fork.submodule} diff shows them, make patch-edit"
            f" P={fork.name} opens a place for them.\nOr put them away: git -C {fork.submodule} stash.",
        )


def has_forks() -> bool:
    """Return whether the forks are checked out; a KitError where only some are, or not as pinned."""
    forks = read_forks()
    there = [fork for fork in forks if is_checked_out(fork)]
    if there and len(there) < len(forks):
        missing = ", ".join(fork.submodule for fork in forks if fork not in there)
        raise KitError(
            f"{missing} is not checked out, {', '.join(fork.submodule for fork in there)} is.",
            where="third_party/",
            hint="Fetch it: make third_party.  SOURCE=registry does without submodules.",
        )
    for fork in there:
        check_pin(fork)
    return bool(there)


def require_forks() -> None:
    """Raise a KitError unless all forks are checked out as pinned."""
    if not has_forks():
        raise KitError(
            "SOURCE=fork needs the submodules, and they are not checked out.",
            where=", ".join(fork.submodule for fork in read_forks()),
            hint="Fetch them: make third_party\n"
            "(without a route to them: make third_party MIRROR=<folder with git directories nncf and"
            " transformers>)",
        )


def fetch_forks(mirror: Optional[Path]) -> None:
    """Check out missing submodules at their pins, and check the others; the caller holds :data:`.files.LOCK`.

    :param mirror: a folder with git directories of the forks; None for the addresses in ``.gitmodules``.
    :raises KitError: a submodule holds something else, or its commit cannot be had.
    """
    done = git.run_git(["rev-parse", "--show-toplevel"], paths.REPOSITORY)
    if done.returncode or Path(done.stdout.strip()).resolve() != paths.REPOSITORY.resolve():
        raise KitError(
            "This copy of the kit is no git checkout, so it has no submodules.",
            where=str(paths.REPOSITORY),
            hint="Clone the kit with git, or use SOURCE=registry, which needs none.",
        )
    for fork in read_forks():
        if is_checked_out(fork):
            check_pin(fork)
            _say(fork, f"at {fork.base[:12]}, up to date")
        elif fork.folder.is_dir() and any(fork.folder.iterdir()):
            raise KitError(
                "The submodule's folder holds files that are no checkout of it.",
                where=fork.submodule,
                hint="Move them away, and run make third_party again.",
            )
        else:
            _fetch(fork, mirror)
        _register(fork)


def _say(fork: Fork, text: str) -> None:
    print(f"{fork.submodule}  {text}", file=sys.stderr, flush=True)


def _find_mirrored(fork: Fork, mirror: Path, url: str) -> Path:
    """Return the fork's git directory below ``mirror``, which has to hold its commit."""
    candidates = [mirror / fork.name, mirror / f"{fork.name}.git"]
    for candidate in candidates:
        if candidate.is_dir() and not git.run_git(["rev-parse", "--git-dir"], candidate).returncode:
            if not git.run_git(["cat-file", "-e", f"{fork.base}^{{commit}}"], candidate).returncode:
                return candidate
            raise KitError(
                f"The mirror does not have the commit {fork.base}.",
                where=str(candidate),
                hint=f"Bring it there: git -C {candidate} fetch {url} {fork.base}",
            )
    raise KitError(
        f"The mirror has no git directory of {fork.name}.",
        where="MIRROR: " + ", ".join(map(str, candidates)),
        hint=f"Make one on a machine with a route: git clone --bare {url} {fork.name}.git",
    )


def _fetch(fork: Fork, mirror: Optional[Path]) -> None:
    """Check the submodule out at its pin, whole or not at all; its origin is the public address."""
    key = f"submodule.{fork.submodule}.url"
    url = git.ask_git(["config", "--file", ".gitmodules", key], paths.REPOSITORY).strip()
    source = _find_mirrored(fork, mirror, url) if mirror else None
    address = source.as_uri() if source else url
    _say(fork, f"fetching {fork.base[:12]}")
    # `git submodule update` also fetches the branch's tip, and leaves half a checkout when it is killed.
    staging = paths.BUILD / "third_party" / fork.name
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    # A transfer that stands still ends after a minute instead of never.
    patience = ["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60", "-c", "protocol.version=2"]
    fetch = [*patience, "fetch", "--depth", "1", "--no-tags", "--progress", address, fork.base]
    show = sys.stderr.isatty()
    try:
        git.ask_git(["init", "--quiet"], staging)
        git.ask_git(["remote", "add", "origin", url], staging)
        done = git.run_git(fetch, staging, show=show)
        if done.returncode:
            raise KitError(
                f"The submodule cannot be fetched from {source or url}"
                + ("; git's words are above." if show else f":\n{git.show_last_lines(done)}"),
                where=fork.submodule,
                hint="Without a route to it: make third_party MIRROR=<folder with git directories nncf and"
                " transformers>,\nor do without the forks: SOURCE=registry.",
            )
        git.ask_git(["checkout", "--quiet", "--detach", fork.base], staging)
        if fork.folder.exists():
            fork.folder.rmdir()
        fork.folder.parent.mkdir(exist_ok=True)
        shutil.move(str(staging), str(fork.folder))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _register(fork: Fork) -> None:
    """Make a checkout a submodule as git does, its git directory below the kit's unless one is there."""
    git.ask_git(["submodule", "init", "--quiet", "--", fork.submodule], paths.REPOSITORY)
    kept = git.ask_git(["rev-parse", "--git-path", f"modules/{fork.submodule}"], paths.REPOSITORY)
    if not (paths.REPOSITORY / kept.strip()).exists():
        git.ask_git(["submodule", "absorbgitdirs", "--", fork.submodule], paths.REPOSITORY)
