"""Finding the Python that the environment is made of.

The kit runs the libraries of 2021, and CPython 3.8 is the newest that all of them have wheels for.  What a
machine calls ``python3.8`` need not be one: pyenv's shim of that name ends with an error while another
version is selected, Debian's lacks ``ensurepip`` until another package is installed, and a virtual
environment's outlives the interpreter that it was made of.  So every candidate is run before it is believed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, List, NoReturn, Optional, Tuple

from .errors import KitError
from .progress import output_of

WANTED = (3, 8)
"""The version of CPython that the locks are for."""

PROBE_SECONDS = 30.0
"""How long a candidate may take to say what it is; a cold start from a network drive takes some seconds."""

_NAME = "python{}.{}".format(*WANTED)
_VERSION = "{}.{}".format(*WANTED)

_PROBE = f"""
import json, os, platform, sys, sysconfig
path = sys.executable
if sys.prefix != sys.base_prefix:
    # An environment must not hang on another environment, which may be the one about to be replaced.
    base = os.path.join(sys.base_prefix, "bin", "{_NAME}")
    path = base if os.path.exists(base) else os.path.realpath(path)
pip = []
try:
    import ensurepip, glob, venv
    complete = True
    folder = os.path.join(os.path.dirname(ensurepip.__file__), "_bundled")
    pip = glob.glob(os.path.join(glob.escape(folder), "pip-" + ensurepip.version() + "-*.whl"))
except ImportError:
    complete = False
headers = sysconfig.get_path("include") or ""
print(json.dumps(dict(
    path=path, implementation=platform.python_implementation(), version=platform.python_version(),
    major=sys.version_info[0], minor=sys.version_info[1], wide=sys.maxsize > 2**32, venv=complete,
    pip=pip[0] if len(pip) == 1 else "",
    headers=headers if os.path.exists(os.path.join(headers, "Python.h")) else "",
)))
"""


@dataclass(frozen=True)
class Interpreter:
    """A CPython 3.8 that has been run.

    :param path: the interpreter itself; where the candidate is a virtual environment's, that one's base.
    :param version: its full version, e.g. ``3.8.18``.
    :param origin: how it was found, in words.
    :param has_venv: whether it can make virtual environments that have pip.
    :param headers: the folder of its ``Python.h``; empty where there is none.
    :param pip: the wheel of the pip that it puts into virtual environments; empty where it has none of its
        own (Debian's takes pip's parts from elsewhere).
    """

    path: str
    version: str
    origin: str
    has_venv: bool = True
    headers: str = ""
    pip: str = ""

    @property
    def lacks(self) -> str:
        """What the environment needs and this interpreter does not have, in words; empty if nothing."""
        parts = [] if self.has_venv else ["ensurepip"]
        parts += [] if self.headers else ["Python.h"]
        return " and ".join(parts)


class Unusable(Exception):
    """A candidate is not a CPython 3.8 that starts; the text completes the sentence "it ..."."""


def probe(path: str, origin: str) -> Interpreter:
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
        complaint = _first_line(answer.stderr) or f"exit status {answer.returncode}"
        raise Unusable(f"does not start: {complaint}")
    facts = _last_object(answer.stdout)
    if facts is None:
        raise Unusable("does not answer as a Python does")
    if facts["implementation"] != "CPython" or (facts["major"], facts["minor"]) != WANTED:
        raise Unusable(f"is {facts['implementation']} {facts['version']}")
    if not facts["wide"]:
        raise Unusable(f"is a 32-bit {facts['implementation']} {facts['version']}")
    return Interpreter(
        facts["path"], facts["version"], origin, bool(facts["venv"]), facts["headers"], facts.get("pip", "")
    )


def _first_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[0].strip() if lines else ""


def _last_object(output: bytes) -> Any:
    """Return the JSON of the last line; a ``sitecustomize`` may have printed others before it."""
    lines = output.decode("utf-8", "replace").strip().splitlines()
    try:
        value = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return value if isinstance(value, dict) and "implementation" in value else None


def find(requested: str = "") -> Interpreter:
    """Return a CPython 3.8 that starts.

    The result may still lack ``ensurepip`` or headers (:attr:`Interpreter.lacks`): one that lacks nothing
    is preferred wherever it is, but where there is none, telling the user what to install beside the one
    there is helps more than denying that it exists.

    :param requested: the make variable ``PYTHON``: a name on PATH or a path.  Where it is given, nothing else
        is looked at: whoever names an interpreter wants that one or an error.
    :raises KitError: the requested one is not a CPython 3.8 that starts; or none was found, and then the
        error lists each place that was tried.
    """
    if requested:
        return _requested(requested)
    tried: List[str] = []
    found = _search(_places(), tried)
    if found is not None and not found.lacks:
        return found
    fetched = _fetch(found, tried)
    if fetched is not None:
        return fetched
    return found if found is not None else _nothing(tried)


def _requested(requested: str) -> Interpreter:
    where = f"PYTHON={requested}"
    hint = (
        f"Name a CPython {_VERSION}, such as PYTHON=/usr/bin/{_NAME},"
        " or leave PYTHON out: the kit then looks for one."
    )
    if os.sep in requested:
        path: Optional[str] = str(Path(requested).expanduser().absolute())
    else:
        path = shutil.which(requested)
    if path is None:
        raise KitError(f"There is no program called {requested!r} on PATH.", where=where, hint=hint)
    try:
        return probe(path, where)
    except Unusable as reason:
        raise KitError(
            f"PYTHON is not a CPython {_VERSION} that starts: {path} {reason}.", where=where, hint=hint
        ) from None


def _search(places: Iterable[Tuple[str, List[str]]], tried: List[str]) -> Optional[Interpreter]:
    """Return the first interpreter that lacks nothing, else the first that starts, else None.

    :param tried: receives a line for each place without one that lacks nothing.
    """
    incomplete: Optional[Interpreter] = None
    for origin, candidates in places:
        if not candidates:
            tried.append(f"{origin}: nothing there")
        for path in candidates:
            try:
                interpreter = probe(path, origin)
            except Unusable as reason:
                tried.append(f"{origin}: {path} {reason}")
                continue
            if not interpreter.lacks:
                return interpreter
            tried.append(f"{origin}: {path} lacks {interpreter.lacks}")
            incomplete = incomplete or interpreter
    return incomplete


def _places() -> Iterator[Tuple[str, List[str]]]:
    """Yield where to look, nearest first, each with the candidates there."""
    if sys.version_info[:2] == WANTED:
        yield "the running interpreter", [sys.executable] if sys.executable else []
    on_path = [Path(folder) / _NAME for folder in os.get_exec_path()]
    yield f"{_NAME} on PATH", [str(path) for path in on_path if path.is_file() and os.access(path, os.X_OK)]
    # pyenv's shims are on PATH at best; what they stand for is here, whichever version is selected.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield f"pyenv ({pyenv})", _newest_first(pyenv.glob(f"{_VERSION}.*/bin/{_NAME}"))
    yield _uv_place()


def _uv_place() -> Tuple[str, List[str]]:
    # Not `uv python find`: it gives up at the first python3.8 on PATH that does not start.
    folder = Path(
        os.environ.get("UV_PYTHON_INSTALL_DIR")
        or Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "uv" / "python"
    )
    return f"uv ({folder})", _newest_first(folder.glob(f"cpython-{_VERSION}*/bin/{_NAME}"))


def _newest_first(paths: Iterable[Path]) -> List[str]:
    def patch(path: Path) -> Tuple[List[int], str]:
        return [int(number) for number in re.findall(r"\d+", path.parent.parent.name)[:3]], str(path)

    return [str(path) for path in sorted(paths, key=patch, reverse=True)]


def _fetch(incomplete: Optional[Interpreter], tried: List[str]) -> Optional[Interpreter]:
    """Have uv install a Python 3.8, and return it; None, with a line in ``tried``, where that fails."""
    uv = shutil.which("uv")
    if uv is None:
        tried.append("uv on PATH, which could fetch one: nothing there")
        return None
    have = f"{incomplete.path} lacks {incomplete.lacks}" if incomplete else f"No Python {_VERSION} here"
    print(f"setup: {have}; uv is fetching one", file=sys.stderr, flush=True)
    try:
        process = subprocess.Popen(
            [uv, "python", "install", _VERSION],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        tried.append(f"{uv} does not start: {error.strerror}")
        return None
    answer = output_of(process)
    if process.returncode:
        # The first line says what failed, the last one why.
        lines = answer.decode("utf-8", "replace").strip().splitlines()
        reasons = [line.strip() for line in (lines[:1] + lines[1:][-1:])]
        tried.append(f"uv python install {_VERSION}: " + ("; ".join(reasons) or "failed without a word"))
        return None
    fetched = _search([_uv_place()], tried)
    return fetched if fetched is not None and not fetched.lacks else None


def _nothing(tried: List[str]) -> NoReturn:
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
