"""Source ``registry``: the releases named in ``env/sources.in``, fetched by hash, unpacked and patched."""

import hashlib
import json
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Dict, List, Tuple

from . import digests, patches, paths, third_party
from .errors import KitError
from .source import Source

_REQUIREMENT = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s\\;]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class Registry(Source):
    """The releases from the package index; the kit's own program runs on them."""

    name = "registry"

    @property
    def python_path(self) -> List[Path]:
        """The tree, which holds both packages, and the kit, which holds the program."""
        return [self.tree, paths.REPOSITORY]

    @property
    def programs(self) -> Path:
        """The kit's own: the release of transformers has none."""
        return paths.PACKAGE / "qa"

    def key(self) -> str:
        """Return the wheels' sums and every patch's diff as one sha256."""
        digest = hashlib.sha256(json.dumps(pinned(), sort_keys=True).encode())
        for found in _patches().values():
            for patch in found:
                digest.update(patch.diff.encode())
        return digest.hexdigest()

    def describe(self) -> str:
        """Return the source in one line."""
        versions = ", ".join(f"{name} {version}" for name, (version, _) in pinned().items())
        return f"{self.name} ({versions}, {patches.counted(sum(map(len, _patches().values())))})"

    def _fill(self, staging: Path) -> None:
        for wheel in _wheels():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(staging)
        forks = {fork.name: fork for fork in third_party.forks()}
        for name, found in _patches().items():
            # A wheel holds one folder of the repository that the patch's paths are relative to.
            strip = 1 + len(Path(forks[name].packed).parts)
            for patch in found:
                patches.apply(patch.path, staging, strip=strip)


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


def _patches() -> Dict[str, List[patches.Patch]]:
    return {name: patches.chosen(name, Registry.name) for name in pinned()}


def _wheels() -> List[Path]:
    """Return the pinned wheels, fetched where they are not there yet."""
    paths.WHEELS.mkdir(parents=True, exist_ok=True)
    found = _find_wheels()
    if len(found) == len(pinned()):
        return found
    requirements = paths.ENVIRONMENT_DATA / "sources.lock"
    command = [str(paths.VENV_PYTHON), "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--dest", str(paths.WHEELS)]
    command += ["--requirement", str(requirements)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    found = _find_wheels()
    if done.returncode or len(found) != len(pinned()):
        raise KitError(
            "The releases of nncf and transformers cannot be fetched:\n"
            + "\n".join(done.stdout.splitlines()[-8:]),
            where=paths.shown(requirements),
            hint="A route to the package index is needed once. Run `make setup` again when there is one.",
        )
    return found


def _find_wheels() -> List[Path]:
    """Return the wheels that are there with one of their pinned sums, in the lock's order."""
    found = []
    for package, (version, sums) in pinned().items():
        for wheel in sorted(paths.WHEELS.glob(f"{package}-{version}-*.whl")):
            if digests.of_file(wheel) in sums:
                found.append(wheel)
                break
    return found
