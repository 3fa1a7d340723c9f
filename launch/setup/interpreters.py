"""Finding the Python that the environment is made of.

CPython 3.8 is the newest that all libraries of 2021 have wheels for.  What a machine calls ``python3.8`` need
not be one: pyenv's shim of that name fails while another version is selected, Debian's lacks ``ensurepip``
until another package is installed, and a virtual environment's outlives the interpreter that it was made of.
So every candidate is run before it is believed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..core.errors import KitError
from ..core.progress import wait_for_output

PROBE_SECONDS = 30.0
"""How long a candidate may take to say what it is; a cold start from a network drive takes some seconds."""

_VERSION = "3.8"
_NAME = f"python{_VERSION}"

_PROBE = f"""
import json, os, platform, sys, sysconfig
path = sys.executable
if sys.prefix != sys.base_prefix:
    # An environment must not hang on another environment, which may be the one about to be replaced.
    base = os.path.join(sys.base_prefix, "bin", "{_NAME}")
    path = base if os.path.exists(base) else os.path.realpath(path)
try:
    import ensurepip
    lacks = []
except ImportError:
    lacks = ["ensurepip"]
headers = sysconfig.get_path("include") or ""
lacks += [] if os.path.exists(os.path.join(headers, "Python.h")) else ["Python.h"]
print(json.dumps(dict(
    path=path, implementation=platform.python_implementation(), version=platform.python_version(),
    headers=headers, lacks=lacks,
)))
"""


@dataclass(frozen=True)
class Interpreter:
    """A CPython 3.8 that has been run.

    :param path: the interpreter itself; for a virtual environment's, the one that that was made of.
    :param version: its full version, e.g. ``3.8.18``.
    :param origin: how it was found, in words.
    :param headers: the folder of its ``Python.h``.
    :param lacks: what of ``ensurepip`` and ``Python.h`` is not there.
    """

    path: str
    version: str
    origin: str
    headers: str = ""
    lacks: Tuple[str, ...] = ()


class Unusable(Exception):
    """A candidate is not a CPython 3.8 that starts; the text completes the sentence "it ..."."""


def probe_interpreter(path: str, origin: str) -> Interpreter:
    """Run ``path`` and return what it is.

    :raises Unusable: it does not start, or it is something else.
    """
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
    if not name.startswith(f"CPython {_VERSION}."):
        raise Unusable(f"is {name}")
    return Interpreter(facts["path"], facts["version"], origin, facts["headers"], tuple(facts["lacks"]))


def _lines(output: bytes) -> List[str]:
    return output.decode("utf-8", "replace").strip().splitlines()


def find_interpreter(requested: str = "") -> Interpreter:
    """Return the first CPython 3.8 that starts and lacks nothing, else the first that starts.

    :param requested: the make variable ``PYTHON``: a name on PATH or a path; nothing else is looked at then.
    :raises KitError: there is none, and the error lists each place that was tried.
    """
    if requested:
        return _probe_requested(requested)
    tried: List[str] = []
    incomplete: Optional[Interpreter] = None
    for origin, path in _candidates(tried):
        try:
            found = probe_interpreter(path, origin)
        except Unusable as reason:
            tried.append(f"{origin}: {path} {reason}")
            continue
        if not found.lacks:
            return found
        tried.append(f"{origin}: {path} lacks {' and '.join(found.lacks)}")
        incomplete = incomplete or found
    if incomplete:
        return incomplete
    raise KitError(
        f"There is no Python {_VERSION} here that starts; the kit's libraries need that version.",
        where="\n".join(tried),
        hint="Do one of these and run the command again:\n"
        f"- install {_NAME} with its venv module and headers"
        f" (Debian, Ubuntu: apt install {_NAME} {_NAME}-venv {_NAME}-dev)\n"
        f"- pip install uv: the kit then has uv fetch a Python {_VERSION}\n"
        f"- pyenv install {_VERSION}.18\n"
        f"- name one that is elsewhere: make setup PYTHON=/path/to/{_NAME}",
    )


def _probe_requested(requested: str) -> Interpreter:
    where = f"PYTHON={requested}"
    hint = (
        f"Name a CPython {_VERSION}, such as PYTHON=/usr/bin/{_NAME},"
        " or leave PYTHON out: the kit then looks for one."
    )
    by_path = os.sep in requested
    path = str(Path(requested).expanduser().absolute()) if by_path else shutil.which(requested)
    if path is None:
        raise KitError(f"There is no program called {requested!r} on PATH.", where=where, hint=hint)
    try:
        return probe_interpreter(path, where)
    except Unusable as reason:
        raise KitError(
            f"PYTHON is not a CPython {_VERSION} that starts: {path} {reason}.", where=where, hint=hint
        ) from None


def _candidates(tried: List[str]) -> Iterator[Tuple[str, str]]:
    """Yield the interpreters to try, each with its place in words, nearest first; uv fetches the last.

    :param tried: receives a line for each place where there is none.
    """
    # pyenv's shims are on PATH at best; what they stand for is here, whichever version is selected.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    versions = sorted(pyenv.glob(f"{_VERSION}.*/bin/{_NAME}"), key=_numbers, reverse=True)
    on_path = [Path(folder) / _NAME for folder in os.get_exec_path()]
    places = (
        ("the running interpreter", [Path(sys.executable)] if sys.version.startswith(f"{_VERSION}.") else []),
        (f"{_NAME} on PATH", [path for path in on_path if os.access(path, os.X_OK)]),
        (f"pyenv ({pyenv})", versions),
    )
    for origin, paths in places:
        if not paths:
            tried.append(f"{origin}: nothing there")
        yield from ((origin, str(path)) for path in paths)
    uv = shutil.which("uv")
    if uv is None:
        tried.append("uv on PATH, which could fetch one: nothing there")
        return
    path = _find_managed(uv) or _fetch(uv, tried)
    if path:
        yield "uv", path


def _numbers(path: Path) -> List[int]:
    return [int(number) for number in re.findall(r"\d+", path.parent.parent.name)]


def _find_managed(uv: str) -> str:
    """Return the Python 3.8 that uv has installed; an empty text where there is none."""
    command = [uv, "python", "find", "--python-preference", "only-managed", "--no-project", _VERSION]
    answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return "" if answer.returncode else "".join(_lines(answer.stdout)[:1])


def _fetch(uv: str, tried: List[str]) -> str:
    """Have uv install a Python 3.8 and return it; where it fails, ``tried`` receives the reason."""
    print(f"setup: uv is fetching a Python {_VERSION}, some 30 MB", file=sys.stderr, flush=True)
    install = subprocess.Popen(
        [uv, "python", "install", _VERSION],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # No link in a folder of the person's.
        env={**os.environ, "UV_PYTHON_INSTALL_BIN": "0"},
    )
    said = _lines(wait_for_output(install))
    path = "" if install.returncode else _find_managed(uv)
    if not path:
        # The first line says what failed, the last one why.
        reasons = "; ".join(line.strip() for line in said[:1] + said[1:][-1:])
        tried.append(f"uv python install {_VERSION}: {reasons or 'failed without a word'}")
    return path
