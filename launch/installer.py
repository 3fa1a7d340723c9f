"""uv, which installs the locks: one that is here already, and what it has to be told.

It does not read pip's configuration.
"""

import ast
import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Optional, Tuple

from . import paths

_PIP_TO_UV: Tuple[Tuple[Tuple[str, ...], Tuple[str, ...]], ...] = (
    (("index-url",), ("UV_DEFAULT_INDEX", "UV_INDEX_URL")),
    (("trusted-host",), ("UV_INSECURE_HOST",)),
    (("cert",), ("SSL_CERT_FILE", "SSL_CERT_DIR")),
    (("proxy",), ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")),
    (("timeout", "default-timeout"), ("UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT")),
)
"""Settings of pip, and uv's variables for the same; the first is set where none of them is.

extra-index-url and find-links are left out on purpose.  The locks' hashes allow only the files that the index
of the lock had, so one index is enough; and uv takes a package from the first index that knows its name, so
that another index with other builds of it would end in an error instead of the right file.
"""


ANSWER_SECONDS = 30.0
"""Seconds within which a program answers what it is asked, or counts as one that does not start."""


def pip_settings(listing: str) -> Dict[str, str]:
    """Return pip's settings for installing, from the output of ``pip config list``.

    A variable goes before the section ``install``, and that before ``global``: pip's own order.
    """
    sections: Dict[str, Dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        match = re.match(r"(global|install|:env:)\.([a-z-]+)=(.*)", line)
        if match:
            with contextlib.suppress(ValueError, SyntaxError):
                sections[match.group(1)][match.group(2)] = str(ast.literal_eval(match.group(3))).strip()
    return {key: value for section in sections.values() for key, value in section.items() if value}


def uv_settings(pip: Mapping[str, str], environment: Mapping[str, str]) -> Dict[str, str]:
    """Return the variables that make uv reach an index as pip does, so that a mirror is set up only once.

    :param pip: :func:`pip_settings`; uv does not read them.
    :param environment: the user's variables; what they say to uv stays.
    """
    settings: Dict[str, str] = {}
    for keys, variables in _PIP_TO_UV:
        value = next((pip[key] for key in keys if key in pip), "")
        if value and not any(environment.get(variable) for variable in variables):
            folder = variables[0] == "SSL_CERT_FILE" and Path(value).is_dir()
            settings[variables[1] if folder else variables[0]] = value
    return settings


def uv_at_hand(locked: str, candidates: Iterable[str] = ()) -> str:
    """Return the first uv that can stand in for the locked one, else an empty text.

    That is one of the same minor version and no older patch: uv's minor version is raised for changes that
    break something, and its patch version for others (its documentation, "Versioning").

    :param locked: the version in the lock.
    :param candidates: where to look before PATH.
    """
    wanted = _version(locked)
    on_path = shutil.which("uv")
    for uv in (*candidates, *([on_path] if on_path else [])):
        found = _version(_answer(uv, "--version"))
        if wanted and found and found[:2] == wanted[:2] and found >= wanted:
            return uv
    return ""


def _version(text: str) -> Optional[List[int]]:
    # Releases only: a pre-release of 0.13.9 comes before it.
    match = re.search(r"(?:^|\s)(\d+)\.(\d+)\.(\d+)(?=\s|$)", text)
    return [int(number) for number in match.groups()] if match else None


def _answer(*command: str) -> str:
    """Return what a command prints; an empty text where it does not start, fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout.decode("utf-8", "replace")


def uv_environment(python: str, uv: str) -> Dict[str, str]:
    """Return what to add to the variables for uv."""
    # Asked of the environment itself: pip and uv are there only after the first steps of a setup.
    settings = uv_settings(pip_settings(_answer(python, "-I", "-m", "pip", "config", "list")), os.environ)
    cache = _answer(uv, "cache", "dir").strip()
    if cache and "UV_LINK_MODE" not in os.environ and _device(Path(cache)) != _device(paths.VENV):
        # What uv falls back to anyway, but without a warning that nobody can act on.
        settings["UV_LINK_MODE"] = "copy"
    return settings


def _device(path: Path) -> int:
    """Return the file system of ``path``, or of the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists()).stat().st_dev
