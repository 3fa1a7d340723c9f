"""A minimal Debian with git, make and python3 alone, and the Pythons that uv finds there."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sysconfig
import tarfile
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional

from launch.core import paths
from launch.core.files import Stamp

PACKAGES = "git,make,python3,ca-certificates"
PLACE = "/srv"
"""Where the test keeps what is its own within the root."""


def why_not() -> str:
    """Return why no root can be made here; empty where it can."""
    if os.geteuid() != 0:
        return "only root enters another root"
    if not shutil.which("debootstrap"):
        return "debootstrap is not installed"
    release = Path("/etc/os-release").read_text()
    if "ID=debian" not in release.splitlines():
        return "no Debian: which mirror debootstrap would ask is not known"
    return ""


def _mirror() -> List[str]:
    """Return the suite and the mirror that this machine's own apt asks."""
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(SITE) $(COMPONENT)"],
        capture_output=True,
        text=True,
        check=True,
    )
    codename = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.M)
    assert codename
    for line in asked.stdout.splitlines():
        words = line.split()
        if words[0] == codename.group(1) and words[-1] == "main":
            return [words[0], words[1]]
    raise AssertionError("apt names no mirror of this Debian")


class Root:
    """The root, and what is run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        suite, mirror = _mirror()
        settings = folder / "etc/dpkg/dpkg.cfg.d/test"
        settings.parent.mkdir(parents=True)
        settings.write_text("force-unsafe-io\n")  # it is thrown away: no file has to be on disk
        log = folder.with_suffix(".log")
        with log.open("w") as output:
            subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(folder), mirror],
                stdout=output,
                stderr=output,
                check=True,
            )
        # How this machine reaches the package index: names, certificates; settings come as variables.
        shutil.copy("/etc/resolv.conf", str(folder / "etc/resolv.conf"))
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", str(folder / "etc/ssl/certs"))
        subprocess.run(["chroot", str(folder), "useradd", "--create-home", "person"], check=True)
        self.python_list = _write_pythons(folder / PLACE[1:])

    def run(
        self,
        command: str,
        *,
        at: str = "/",
        user: str = "root",
        path: str = "/usr/bin:/bin",
        **variables: Optional[str],
    ) -> "subprocess.CompletedProcess[str]":
        """Run a shell command with a bare environment; a variable of None is left out."""
        base: Dict[str, Optional[str]] = {
            "HOME": "/root" if user == "root" else f"/home/{user}",
            "UV_PYTHON_DOWNLOADS_JSON_URL": self.python_list,
            "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
            **_index(),
        }
        given = [f"{name}={value}" for name, value in {**base, **variables}.items() if value is not None]
        become = (
            []
            if user == "root"
            else ["/usr/bin/setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        )
        argv = ["chroot", str(self.folder), "/usr/bin/env", "-i", f"PATH={path}", *given, *become]
        return subprocess.run(
            [*argv, "/bin/sh", "-c", f"cd '{at}' && {command}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    @contextlib.contextmanager
    def mounted(self) -> Iterator["Root"]:
        """Have what a program expects of a kernel in it, none of it this machine's own."""
        done: List[str] = []
        try:
            for kind, name in (("proc", "proc"), ("sysfs", "sys"), ("devpts", "dev/pts")):
                place = str(self.folder / name)
                options = ["-o", "newinstance,ptmxmode=0666"] if kind == "devpts" else []
                subprocess.run(["mount", "-t", kind, *options, kind, place], check=True)
                done.insert(0, place)
            yield self
        finally:
            for place in done:
                subprocess.run(["umount", "--lazy", place], check=True)


def remove(folder: Path) -> None:
    """Remove a root, and nothing that is mounted in it."""
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)


def _index() -> Mapping[str, str]:
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL", "HTTPS_PROXY", "https_proxy")
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _write_pythons(folder: Path) -> str:
    """Write a tar of a CPython 3.8 that runs anywhere, and uv's list of downloads that has it alone."""
    stamp = Stamp.read(paths.VENV / ".kit-stamp.json")
    assert stamp
    prefix = Path(stamp.made["python"]).resolve().parent.parent
    tree = folder / "python"
    ignored = shutil.ignore_patterns(
        "test", "tests", "__pycache__", "site-packages", "*.a", "idlelib", "share"
    )
    shutil.copytree(str(prefix), str(tree), symlinks=True, ignore=ignored)
    # An interpreter that was compiled here looks for its library here; then it looks beside itself.
    before = os.fsencode(sysconfig.get_config_var("LIBDIR") or "")
    after = b"$ORIGIN/../lib".ljust(len(before), b"\0")
    for file in [*tree.glob("bin/python3.8"), *tree.glob("lib/*.so*")]:
        if before and not file.is_symlink():
            content = file.read_bytes()
            file.write_bytes(content.replace(before + b"\0", after + b"\0"))
    packed = folder / "cpython.tar.gz"
    with tarfile.open(str(packed), "w:gz", compresslevel=1) as archive:
        archive.add(str(tree), "python")
    shutil.rmtree(str(tree))
    name = "cpython-3.8.18-linux-x86_64-gnu"
    entry = {
        **{"name": "cpython", "arch": {"family": "x86_64", "variant": None}, "os": "linux", "libc": "gnu"},
        **{"major": 3, "minor": 8, "patch": 18, "prerelease": "", "variant": None, "build": "1"},
        "url": f"file://{PLACE}/{packed.name}",
        "sha256": hashlib.sha256(packed.read_bytes()).hexdigest(),
    }
    (folder / "pythons.json").write_text(json.dumps({name: entry}))
    return f"{PLACE}/pythons.json"


def clone(root: Root, to: str, user: str = "root") -> None:
    """Clone the checkout into the root, as a person does."""
    target = root.folder / to[1:]
    subprocess.run(["git", "clone", "--quiet", f"file://{paths.REPOSITORY}", str(target)], check=True)
    if user != "root":
        subprocess.run(["chroot", str(root.folder), "chown", "-R", f"{user}:{user}", to], check=True)


def words(done: "subprocess.CompletedProcess[str]") -> str:
    """Return what a command said, for an assertion."""
    return f"{done.args[-1]}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
