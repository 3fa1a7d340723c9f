"""Finding the Python that an environment is made of.

CPython 3.8 is the newest that all libraries of 2021 have wheels for; those of today need a later one.  What
is called ``python3.8`` may be a shim of pyenv's that fails, may lack modules, or outlive what it was made of:
so each candidate is run before it is believed.  Where none is left, uv fetches one.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..core.errors import KitError
from ..core.progress import format_size
from .settings import derive_uv_settings, find_uv_folder
from .steps import Steps

PROBE_SECONDS = 30.0  # for a candidate to say what it is; a start from a network drive takes some
DOWNLOAD = 30e6  # bytes of the CPython that uv fetches, roughly
VERSIONS = ("3.8",)  # that the kit's own environment may have

_PROBE = """
import json, os, platform, sys
path = sys.executable
if sys.prefix != sys.base_prefix:
    # An environment must not hang on another environment, which may be the one about to be replaced.
    base = os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2])
    path = base if os.path.exists(base) else os.path.realpath(path)
lacks = []
for name in ("bz2", "ctypes", "lzma", "ssl", "zlib", *["distutils.core"][sys.version_info[:2] > (3, 8):]):
    try:
        __import__(name)
    except ImportError:
        lacks.append(name)
print(json.dumps(dict(
    path=path, implementation=platform.python_implementation(), version=platform.python_version(),
    lacks=lacks,
)))
"""


class Interpreter(NamedTuple):
    """A CPython of a wanted version that has been run."""

    path: str  # of the interpreter itself; for a virtual environment's, of the one that that was made of
    version: str  # e.g. 3.8.18


class Unusable(Exception):
    """A candidate is not a wanted CPython that starts; the text completes the sentence "it ..."."""


def probe_interpreter(path: str, versions: Sequence[str] = VERSIONS) -> Interpreter:
    """Run ``path`` and return what it is; :class:`Unusable` where it is none of ``versions`` that starts."""
    try:
        answer = subprocess.run(
            [path, "-I", "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unusable(f"does not answer within {PROBE_SECONDS:g} s") from None
    except OSError as error:
        raise Unusable(f"does not start: {error.strerror}") from None
    if answer.returncode:
        if b"Unknown option: -I" in answer.stderr:
            raise Unusable("is a Python 2")
        complaint = "".join(_lines(answer.stderr)[:1]) or f"exit status {answer.returncode}"
        raise Unusable(f"does not start: {complaint}")
    try:
        # The last line: a sitecustomize may have printed others before it.
        facts: Dict[str, Any] = json.loads(_lines(answer.stdout)[-1])
        name = f"{facts['implementation']} {facts['version']}"
    except (ValueError, LookupError, TypeError):
        raise Unusable("does not answer as a Python does") from None
    if not name.startswith(tuple(f"CPython {version}." for version in versions)):
        raise Unusable(f"is {name}")
    if facts["lacks"]:
        raise Unusable(f"has no {' and no '.join(facts['lacks'])}")
    return Interpreter(facts["path"], facts["version"])


def _lines(output: bytes) -> List[str]:
    return output.decode("utf-8", "replace").strip().splitlines()


def find_interpreter(
    requested: str = "", tried: Optional[List[str]] = None, versions: Sequence[str] = VERSIONS
) -> Optional[Interpreter]:
    """Return the first CPython of ``versions``, the best first, here that starts; None where none does.

    :param requested: the make variable ``PYTHON``: a name on PATH or a path; nothing else is looked at then.
    :param tried: receives a line for each place that was tried.
    :raises KitError: the requested one is none.
    """
    if requested:
        return _probe_requested(requested, versions)
    tried = [] if tried is None else tried
    for origin, path in _candidates(tried, versions):
        try:
            return probe_interpreter(path, versions)
        except Unusable as reason:
            tried.append(f"{origin}: {path} {reason}")
    return None


def fetch_interpreter(
    uv: str, steps: Steps, tried: List[str], versions: Sequence[str] = VERSIONS
) -> Interpreter:
    """Have uv install the first of ``versions`` in its folder; a KitError lists ``tried`` and ways out."""
    best = versions[0]
    try:
        steps.run(
            f"fetching CPython {best}, {format_size(DOWNLOAD)}, with {uv}",
            [uv, "python", "install", best],
            draws=True,
        )
        for path in _managed([best]):
            return probe_interpreter(str(path), [best])
        said = "none was there afterwards"
    except Unusable as reason:
        said = f"it {reason}"
    except KitError as error:
        words = [line.strip() for line in error.hint.splitlines() if re.match(r" *(error|cause):", line)]
        # The first says what failed, the last why.
        said = "; ".join(words[:1] + words[1:][-1:]) or error.where
    name, wanted = f"python{best}", " or ".join(versions)
    elsewhere = f"name one that is elsewhere: make setup PYTHON=/path/to/{name}"
    raise KitError(
        f"There is no Python {wanted} here that starts, which the libraries need, and uv cannot fetch one.",
        where="\n".join([*tried, f"uv python install {best}: {said}"]),
        hint="Do one of these and run the command again:\n"
        f"- {elsewhere if versions is VERSIONS else f'put one on PATH, as {name}'}\n"
        f"- install one: pyenv install {best}, or a package of your system's\n"
        "- check the network; behind a proxy set HTTPS_PROXY\n"
        "- name a mirror of uv's Pythons: UV_PYTHON_INSTALL_MIRROR=URL, or a list of one's own:"
        " UV_PYTHON_DOWNLOADS_JSON_URL=<file>\n"
        "- copy the folder that `uv python dir` names from a machine that has one",
    )


def _probe_requested(requested: str, versions: Sequence[str]) -> Interpreter:
    where, wanted = f"PYTHON={requested}", " or ".join(versions)
    hint = (
        f"Name a CPython {wanted}, such as PYTHON=/usr/bin/python{versions[0]},"
        " or leave PYTHON out: the kit then looks for one."
    )
    by_path = os.sep in requested
    path = str(Path(requested).expanduser().absolute()) if by_path else shutil.which(requested)
    if path is None:
        raise KitError(f"There is no program called {requested!r} on PATH.", where=where, hint=hint)
    try:
        return probe_interpreter(path, versions)
    except Unusable as reason:
        raise KitError(
            f"PYTHON is not a CPython {wanted} that starts: {path} {reason}.", where=where, hint=hint
        ) from None


def _candidates(tried: List[str], versions: Sequence[str]) -> Iterator[Tuple[str, str]]:
    """Yield the interpreters to try, nearest first, with their places; ``tried`` gets those without."""
    # pyenv's shims are on PATH at best; what they stand for is here, whichever version is selected.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path(os.environ.get("HOME") or os.devnull) / ".pyenv")
    own = "{}.{}".format(*sys.version_info) in versions and sys.executable
    names = [f"python{version}" for version in versions]
    on_path = [Path(folder) / name for name in names for folder in os.get_exec_path()]
    for origin, paths in (
        ("the running interpreter", [Path(own)] if own else []),
        (f"{' or '.join(names)} on PATH", [path for path in on_path if os.access(path, os.X_OK)]),
        ("pyenv", _newest_first(pyenv / "versions", "", versions)),
        ("uv", _managed(versions)),
    ):
        if not paths:
            tried.append(f"{origin}: nothing there")
        yield from ((origin, str(path)) for path in paths)


def _managed(versions: Sequence[str]) -> List[Path]:
    """Return the wanted Pythons that uv has installed (its documentation, "Storage")."""
    folder = {**os.environ, **derive_uv_settings(os.environ)}.get("UV_PYTHON_INSTALL_DIR", "")
    usual = find_uv_folder(os.environ, "XDG_DATA_HOME", ".local/share") / "python"
    return _newest_first(Path(folder) if folder else usual, "cpython-", versions)


def _newest_first(folder: Path, prefix: str, versions: Sequence[str]) -> List[Path]:
    def numbers(path: Path) -> List[int]:
        return [int(number) for number in re.findall(r"\d+", path.parent.parent.name)]

    found = (
        sorted(folder.glob(f"{prefix}{version}.*/bin/python{version}"), key=numbers, reverse=True)
        for version in versions
    )
    return [path for paths in found for path in paths]
