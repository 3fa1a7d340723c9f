"""A small kit: the real code and Makefile in a git checkout with made-up forks, pins and patches.

The forks are git repositories of a few lines each, laid out as the kit expects theirs.  Nothing of the user's
git configuration is read or written, and no network is used.
"""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, Mapping, Tuple

from launch.core import files, paths

QA = "examples/pytorch/question-answering"
GREET = "nncf/greet.py"
RUN_QA = f"{QA}/run_qa.py"

FILES: Dict[str, Dict[str, bytes]] = {
    "nncf": {
        "README.md": b"No part of a run.\n",
        "nncf/__init__.py": b"",
        GREET: b"first\nhello\nthird\nfourth\nfifth\nthe last\n",
        "nncf/tool.sh": b"#!/bin/sh\necho tool\n",
    },
    "transformers": {
        "docs/index.md": b"No part of a run.\n",
        "src/transformers/__init__.py": b"one\ntwo\nthree\nfour\n",
        "src/transformers/windows.txt": b"\xc3\xa4 one\r\ntwo\r\nthree\r\n",
        RUN_QA: b"import fetched\n\nrun()\n\n",
        f"{QA}/gen-hybrid-sparse/gen_hybrid_sparse_qa.py": b"generate()\n",
    },
}
"""What the forks hold at their pins."""

LINK = f"{QA}/gen_hybrid_sparse_qa.py"
LINKED = "gen-hybrid-sparse/gen_hybrid_sparse_qa.py"
"""A link in the transformers fork, and where it leads."""

BRANCHES = {"nncf": "main", "transformers": "gen-hybrid-sparse"}

FIELDS = {
    "Output-bytes": "unchanged",
    "Upstream-status": "not submitted",
    "Remove-when": "upstream says it too",
    "Applies-to": "fork; the release has no such file",
}


def message(subject: str, **fields: str) -> str:
    """Return a commit message as patches have it; ``Output_bytes=""`` leaves that field out."""
    given = {**FIELDS, **{name.replace("_", "-"): value for name, value in fields.items()}}
    lines = [f"{name}: {value}" for name, value in given.items() if value]
    return "\n".join([subject, "", "A test wants it.", "", *lines]) + "\n"


def patch(subject: str, diff: str, **fields: str) -> str:
    """Return a patch as an export writes it."""
    return f"Subject: {message(subject, **fields)}\n{diff}"


def diff(path: str, hunk: str) -> str:
    """Return a diff of one file."""
    return f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n{hunk}"


BOTH = "fork and registry; both say hello"

FAST = patch(
    "Say the fourth at once",
    diff(GREET, "@@ -3,3 +3,3 @@\n third\n-fourth\n+4th\n fifth\n"),
    Applies_to=BOTH,
    Optional_set="fast",
)
"""A patch of the optional set; :meth:`SmallKit.add_fast` puts it into the series of nncf."""

PATCHES: Dict[str, Dict[str, str]] = {
    "nncf": {
        "greeting.patch": patch(
            "Say goodbye", diff(GREET, "@@ -1,3 +1,3 @@\n first\n-hello\n+goodbye\n third\n"), Applies_to=BOTH
        ),
        "ending.patch": patch(
            "Go on after the fifth", diff(GREET, "@@ -5,2 +5,3 @@\n fifth\n+sixth\n the last\n")
        ),
    },
    "transformers": {
        "module.patch": patch(
            "Count from zero",
            diff("src/transformers/__init__.py", "@@ -1 +1,2 @@\n+zero\n one\n"),
            Applies_to=BOTH,
        ),
        "metric.patch": patch(
            "Fetch nothing", diff(RUN_QA, "@@ -1,2 +1,2 @@\n-import fetched\n+import installed\n \n")
        ),
    },
}
"""The patches in the order of their series."""


class SmallKit:
    """A checkout at ``root``; ``upstream`` has the forks' repositories, ``home`` is the user's."""

    def __init__(self, folder: Path, upstream: Path) -> None:
        self.root = folder / "kit"
        self.home = folder / "home"
        self.upstream = upstream
        self.env = {
            # launch/kit.sh takes its Python from here.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "HOME": str(self.home),
            "GIT_CONFIG_GLOBAL": str(self.home / ".gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TEMPLATE_DIR": "",  # no sample hooks: they are most of a small repository
            "GIT_EDITOR": "true",
            "GIT_AUTHOR_NAME": "A Person",
            "GIT_AUTHOR_EMAIL": "person@localhost",
            "GIT_COMMITTER_NAME": "A Person",
            "GIT_COMMITTER_EMAIL": "person@localhost",
        }

    # --- running things ----------------------------------------------------------------------------------

    def run(self, *argv: str, at: Path = Path(), **env: str) -> "subprocess.CompletedProcess[str]":
        """Run a program in the checkout, or in a folder below it."""
        return subprocess.run(
            argv,
            cwd=str(self.root / at),
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def launch(self, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return self.run(sys.executable, "-m", "launch", *words, **env)

    def make(self, target: str, *values: str, **env: str) -> "subprocess.CompletedProcess[str]":
        """Run a target as the Makefile does, with the variables that are given as ``NAME=value``.

        It starts the kit in this Python, as kit.sh does in one that it looks for, which takes as long again.
        """
        given = dict(value.split("=", 1) for value in values)
        told = {f"LAUNCH_{name}": value for name, value in given.items()}
        told["LAUNCH_MAKE"] = f"{target} {' '.join(f'{name}=' for name in given)}"
        return self.run(sys.executable, "-E", "-m", "launch", target, **{**told, **env})

    def do(self, *words: str, **env: str) -> str:
        """Run a target that has to succeed, and return what it printed on both streams."""
        done = self.make(*words, **env)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    def git(self, *words: str, at: Path = Path(), **env: str) -> str:
        """Run git as a person does; it has to succeed."""
        done = self.run("git", *words, at=at, **env)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def configure(self, key: str, value: str) -> None:
        """Set something in the person's own git configuration."""
        self.git("config", "--global", "--add", key, value)

    def kill_at_fetch(self, *words: str) -> None:
        """Start a make target and kill it, with all that it has started, while the remote sends objects."""
        marker, hook = self.home / "sending", self.home / "hook"
        hook.write_text(f"#!/bin/sh\ntouch '{marker}'\nexec sleep 600\n")
        hook.chmod(0o755)
        # git's own way to put something in front of the program that sends objects.
        self.configure("uploadpack.packObjectsHook", str(hook))
        started = subprocess.Popen(
            ["make", *words],
            cwd=str(self.root),
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 120
            while not marker.exists():
                assert started.poll() is None, "it ended before anything was sent"
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        self.git("config", "--global", "--unset-all", "uploadpack.packObjectsHook")

    def reset(self) -> None:
        """Put everything back as it was built but the submodules, which have to be as they were."""
        for folder in (self.home, self.root / "build", self.root / "patches"):
            shutil.rmtree(str(folder), ignore_errors=True)
        self.home.mkdir()
        self.git("checkout", "--quiet", "--", "patches")
        assert self.git("status", "--porcelain") == ""

    # --- what is there -----------------------------------------------------------------------------------

    def pin(self, name: str) -> str:
        return str(self.config()[name]["base"])

    def config(self) -> Dict[str, Dict[str, str]]:
        content: Dict[str, Dict[str, str]] = json.loads((self.root / "patches/config.json").read_text())
        return content

    def submodule(self, name: str) -> Path:
        return self.root / "third_party" / name

    def clone(self, name: str) -> Path:
        """Return the scratch clone that `make patch-edit` makes."""
        return self.root / "build/patches" / name

    def series(self, name: str) -> Path:
        return self.root / "patches" / name / "series"

    def patch(self, name: str, file: str) -> Path:
        return self.root / "patches" / name / file

    def add_fast(self) -> Path:
        """Put :data:`FAST` at the end of nncf's series and return its file."""
        self.patch("nncf", "at_once.patch").write_text(FAST, encoding="utf-8")
        with self.series("nncf").open("a") as file:
            file.write("at_once.patch\n")
        return self.patch("nncf", "at_once.patch")

    def patch_bytes(self) -> Dict[str, bytes]:
        """Return every file of ``patches/`` by relative name."""
        folder = self.root / "patches"
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def change(self, path: Path, old: str, new: str) -> None:
        """Replace a text in a file; it has to be there."""
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def dead_addresses(self) -> None:
        """Let the public addresses lead nowhere, as without a route."""
        self.change(self.root / ".gitmodules", self.upstream.as_uri(), (self.home / "nowhere").as_uri())

    def submodules_state(self) -> Tuple[object, ...]:
        """Return all that a command could change in the submodules: commits, refs, objects, files, modes."""
        state: List[object] = []
        for name in FILES:
            folder = self.submodule(name)
            objects = folder / self.git("rev-parse", "--git-path", "objects", at=folder).strip()
            state += [
                self.git("status", "--porcelain", "--ignored", "--untracked-files=all", at=folder),
                self.git("rev-parse", "HEAD", at=folder),
                self.git("for-each-ref", at=folder),
                sorted(str(path.relative_to(objects)) for path in objects.rglob("*")),
                contents(folder),
            ]
        return tuple(state)


def contents(folder: Path) -> Mapping[str, Tuple[int, str]]:
    """Return mode and content, or target, of everything below ``folder`` that is not git's."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        mode = path.lstat().st_mode
        if name.parts[0] == ".git" or stat.S_ISDIR(mode):
            continue
        text = os.readlink(str(path)) if stat.S_ISLNK(mode) else files.digest_file(path)
        found[str(name)] = (mode, text)
    return found


def build(folder: Path) -> SmallKit:
    """Make a small kit below ``folder``, its submodules not checked out."""
    kit = SmallKit(folder, folder / "upstream")
    kit.home.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.part")
    shutil.copytree(str(paths.PACKAGE), str(kit.root / "launch"), ignore=ignored)
    (kit.root / paths.LAUNCH_FILE.parent.name).mkdir()
    shutil.copyfile(str(paths.LAUNCH_FILE), str(kit.root / paths.LAUNCH_FILE.relative_to(paths.REPOSITORY)))
    for file in ("Makefile", ".gitignore"):
        shutil.copy(str(paths.REPOSITORY / file), str(kit.root))
    pins = {name: _make_upstream(kit, name) for name in FILES}
    packed = {"nncf": "", "transformers": "src"}
    config = {
        name: {"submodule": f"third_party/{name}", "base": pin, "packed": packed[name]}
        for name, pin in pins.items()
    }
    for name, texts in PATCHES.items():
        kit.series(name).parent.mkdir(parents=True)
        kit.series(name).write_text("".join(f"{file}\n" for file in texts))
        for file, text in texts.items():
            kit.patch(name, file).write_text(text, encoding="utf-8")
    (kit.root / "patches/config.json").write_text(json.dumps(config, indent=2) + "\n")
    kit.git("init", "--quiet")
    for name, pin in pins.items():
        for key, value in (
            ("path", f"third_party/{name}"),
            ("url", (kit.upstream / name).as_uri()),
            ("branch", BRANCHES[name]),
            ("shallow", "true"),
        ):
            kit.git("config", "--file", ".gitmodules", f"submodule.third_party/{name}.{key}", value)
        kit.git("update-index", "--add", "--cacheinfo", f"160000,{pin},third_party/{name}")
        # What `git clone` leaves without --recurse-submodules.
        kit.submodule(name).mkdir(parents=True)
    kit.git("add", "--", ".gitmodules", ".gitignore", ".vscode", "Makefile", "launch", "patches")
    kit.git("commit", "--quiet", "--message=The kit")
    # Copies are made faster of one pack, and start faster with the compiled modules.
    kit.git("repack", "-a", "-d", "--quiet")
    assert kit.launch("help").returncode == 0
    return kit


def copy(kit: SmallKit, folder: Path) -> SmallKit:
    """Return a copy of ``kit`` below ``folder``, as it is now; both have the same forks to fetch from."""
    # Half the time of shutil.copytree.
    folder.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", str(kit.root), str(kit.home), str(folder)], check=True)
    return SmallKit(folder, kit.upstream)


def _make_upstream(kit: SmallKit, name: str) -> str:
    """Make a fork's repository, with a commit before and one after the pin; return the pin."""
    folder = kit.upstream / name
    folder.mkdir(parents=True)
    kit.git("init", "--quiet", at=folder)
    kit.git("symbolic-ref", "HEAD", f"refs/heads/{BRANCHES[name]}", at=folder)
    kit.git("commit", "--quiet", "--allow-empty", "--message=Before", at=folder)
    for file, content in FILES[name].items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if path.suffix == ".sh":
            path.chmod(0o755)
    if name == "transformers":
        (folder / LINK).symlink_to(LINKED)
    kit.git("add", "--all", at=folder)
    kit.git("commit", "--quiet", "--message=Pinned", at=folder)
    pin = kit.git("rev-parse", "HEAD", at=folder).strip()
    next(folder.rglob("*.py")).write_text("later\n")
    kit.git("commit", "--quiet", "--all", "--message=After", at=folder)
    return pin
