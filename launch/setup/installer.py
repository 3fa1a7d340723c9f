"""uv, which installs what the locks name: one that is here already, or the locked one, fetched."""

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import List, Optional

from ..core import files, paths
from ..core.errors import KitError
from ..core.progress import Progress, format_size
from . import requirements
from .settings import INDEX
from .steps import Steps

LOCK = "installer.lock"  # names uv, and what builds a package that is there as its source alone
DOWNLOAD = 18e6  # bytes of uv's wheel, roughly
OWN = paths.ENVIRONMENTS / "uv" / "uv"  # the one that the kit has fetched
ANSWER_SECONDS = 30.0  # a uv that does not say its version by then counts as one that does not start


def find_uv() -> str:
    """Return the kit's own uv, or PATH's, of the locked one's minor version and no older patch; else "".

    uv's minor version is raised for changes that break something (its documentation, "Versioning").
    """
    wanted = _version(requirements.read_pins(LOCK)["uv"])
    for uv in filter(None, (str(OWN), shutil.which("uv"))):
        found = _ask_version(uv)
        if found and found[:2] == wanted[:2] and found >= wanted:
            return uv
    return ""


def _version(text: str) -> List[int]:
    # Releases only: a pre-release of 0.13.9 comes before it.
    match = re.search(r"(?:^|\s)(\d+)\.(\d+)\.(\d+)(?=\s|$)", text)
    return [int(number) for number in match.groups()] if match else []


def _ask_version(uv: str) -> List[int]:
    """Return a uv's version; an empty list where it does not start, fails or takes too long."""
    try:
        done = subprocess.run(
            [uv, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWER_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return _version(done.stdout.decode("utf-8", "replace"))


def fetch_uv(steps: Steps) -> str:
    """Fetch the locked uv, with the standard library, else with pip; a KitError lists what was tried."""
    from . import index  # and with it the library's HTTP, which few runs need

    version = requirements.read_pins(LOCK)["uv"]
    tried: List[str] = []
    steps.begin(f"fetching uv {version}, {format_size(DOWNLOAD)}")
    OWN.parent.mkdir(parents=True, exist_ok=True)
    with Progress("    uv", None) as progress:

        def tick(have: int, size: int) -> None:
            if sys.stderr.isatty():
                progress.tick(f"{format_size(have)} of {format_size(size or DOWNLOAD)}")

        wheel = index.fetch_uv_wheel(version, requirements.read_sums(LOCK, "uv"), tick, tried)
        if wheel is None and not os.environ.get("UV_OFFLINE"):
            progress.tick("pip is asked")
            wheel = _ask_pip(tried)
        if wheel is not None:
            progress.done(format_size(len(wheel)))
    if wheel is None:
        proxies = [name for name in os.environ if name.lower() in ("https_proxy", "http_proxy", "all_proxy")]
        raise KitError(
            f"uv {version}, which makes the environment, is not here and cannot be fetched.",
            where="\n".join(tried),
            hint="Do one of these and run the command again:\n"
            "- check the network"
            + (f" and the proxy that {' and '.join(sorted(proxies))} names" if proxies else "")
            + "; behind a proxy set HTTPS_PROXY\n"
            "- name a mirror of the package index: UV_DEFAULT_INDEX=URL, or pip's PIP_INDEX_URL\n"
            "- where a certificate is not known: apt install ca-certificates, or SSL_CERT_FILE=<file>\n"
            f"- put a uv {version} on PATH yourself (pipx install uv, or a copy of the one program)\n"
            '- without a network: launch/README.md, "Without a network"',
        )
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive, files.replace_file(OWN) as part:
        part.write_bytes(archive.read(f"uv-{version}.data/scripts/uv"))
        part.chmod(0o755)
    return str(OWN)


def _ask_pip(tried: List[str]) -> Optional[bytes]:
    """Have the running Python's pip, where it has one, download the wheel; it knows more kinds of login."""
    named = next(filter(None, map(os.environ.get, INDEX)), "")
    with tempfile.TemporaryDirectory(dir=str(OWN.parent)) as folder:
        pip = [sys.executable, "-m", "pip", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]
        only = ["--require-hashes", "--only-binary", ":all:", "--no-deps", "--retries", "1", "--dest", folder]
        done = subprocess.run(
            [*pip, "download", *only, "--requirement", str(paths.ENVIRONMENT_DATA / LOCK)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **({"PIP_INDEX_URL": named} if named else {})},
            check=False,
        )
        for wheel in Path(folder).glob("uv-*.whl"):
            return wheel.read_bytes()
    words = done.stdout.decode("utf-8", "replace").strip().splitlines()
    tried.append(f"pip of {sys.executable}: {words[-1] if words else 'failed without a word'}")
    return None


def unpack_packages(lock: str, folder: Path, steps: Steps) -> None:
    """Have uv unpack a lock's wheels into an empty folder, as importing needs them; else a KitError."""
    uv, pins = find_uv() or fetch_uv(steps), requirements.read_pins(lock)
    steps.run(
        f"fetching {' and '.join(pins)}",
        [
            *(uv, "pip", "install", "--python", str(paths.VENV_PYTHON), "--target", str(folder)),
            *("--no-deps", "--require-hashes", "--only-binary", ":all:", "--link-mode", "copy"),
            *("--requirement", str(paths.ENVIRONMENT_DATA / lock)),
        ],
        draws=True,
    )
    shutil.rmtree(str(folder / "bin"), ignore_errors=True)
    for file in folder.glob(".lock"):
        file.unlink()
