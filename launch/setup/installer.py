"""uv, which installs what the locks name: one that is here already, and how it reaches the package index."""

import configparser
import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Tuple

from . import requirements

LOCK = "installer.lock"
"""The lock that names uv."""

ANSWER_SECONDS = 30.0
"""A uv that does not say its version within these seconds counts as one that does not start."""

_PIP_TO_UV: Tuple[Tuple[Tuple[str, ...], Tuple[str, ...]], ...] = (
    (("index-url",), ("UV_DEFAULT_INDEX", "UV_INDEX_URL")),
    (("trusted-host",), ("UV_INSECURE_HOST",)),
    (("cert",), ("SSL_CERT_FILE", "SSL_CERT_DIR")),
    (("proxy",), ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")),
    (("timeout", "default-timeout"), ("UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT")),
)
"""Settings of pip, and uv's variables for the same; the first is set where none of them is.

extra-index-url and find-links are left out on purpose: uv takes a package from the first index that knows its
name, and where that has other builds than the lock, it fails.
"""


def find_uv(candidates: Iterable[Path]) -> str:
    """Return the first uv, PATH's last, of the locked one's minor version and no older patch; else "".

    uv's minor version is raised for changes that break something (its documentation, "Versioning").
    """
    wanted = _version(requirements.read_pins(LOCK)["uv"])
    for uv in filter(None, (*map(str, candidates), shutil.which("uv"))):
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


def read_pip_settings(environment: Mapping[str, str]) -> Dict[str, str]:
    """Return pip's settings for installing, as pip reads them (its documentation, "Configuration").

    A variable goes before the section ``install`` of any file, and that before ``global``.
    """
    own, home = environment.get("PIP_CONFIG_FILE", ""), Path(environment.get("HOME", "/"))
    folders = (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    places = [*(Path(folder) / "pip" / "pip.conf" for folder in folders), Path("/etc/pip.conf")]
    if not Path(own).is_file():
        person = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
        places += [home / ".pip" / "pip.conf", person / "pip" / "pip.conf"]
    parser = configparser.RawConfigParser(strict=False)
    with contextlib.suppress(configparser.Error, UnicodeDecodeError):
        parser.read([] if own == os.devnull else [*places, *filter(None, [own])], encoding="utf-8")
    found: Dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found.update(parser[section])
    for name, value in environment.items():
        if name.startswith("PIP_"):
            found[name[len("PIP_") :].lower().replace("_", "-")] = value
    return {name: " ".join(value.split()) for name, value in found.items() if value.strip()}


def derive_uv_settings(environment: Mapping[str, str]) -> Dict[str, str]:
    """Return the variables that, with a person's ``environment``, make uv reach an index as pip does."""
    pip = read_pip_settings(environment)
    settings: Dict[str, str] = {}
    for keys, variables in _PIP_TO_UV:
        value = next((pip[key] for key in keys if key in pip), "")
        if value and not any(environment.get(variable) for variable in variables):
            folder = variables[0] == "SSL_CERT_FILE" and Path(value).is_dir()
            settings[variables[1] if folder else variables[0]] = value
    return settings
