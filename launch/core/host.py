"""The machine: what a provenance says of it, and texts without its folders."""

import os
import platform
import re
from pathlib import Path
from typing import Any, Dict, Mapping

from . import paths

_CPUINFO = Path("/proc/cpuinfo")
_MODEL_NAME = re.compile(r"^model name\s*:\s*(.*\S)", re.M)
_VERSION = re.compile(r"^version(?:_info)?\s*=\s*(\d+\.\d+\.\d+)", re.M)

_FOLDERS = {"${workspaceFolder}": paths.REPOSITORY, "${venv}": paths.VENV}

_PATH = re.compile(
    r"""( ^ | (?:^|\s)-[A-Za-z] | [\s=,;|&@<(\[{'"`] | \bfile:(?://[\w.-]*|(?!//)) | :(?!//) )
        ( /+ [^/\s:] [^\n]* )""",
    re.X | re.M,
)
"""What stands before an absolute path, and the path: to the line's end, as names may hold any character.

Relative paths, addresses (``https://…``) and paths after a ``${name}`` are none.
"""


def describe_host(python: str) -> Dict[str, Any]:
    """Return ``host`` of a provenance; what the system does not tell is empty, memory 0.

    :param python: the interpreter that the first stage ran.
    """
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": read_processor(),
        # Those that this process may use.
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_bytes": _memory(),
        "python": read_python_version(python),
    }


def read_processor() -> str:
    """Return the processor's model name; empty where ``/proc/cpuinfo`` does not say."""
    return _search(_MODEL_NAME, _CPUINFO)


def _search(pattern: "re.Pattern[str]", path: Path) -> str:
    try:
        found = pattern.search(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return found.group(1) if found else ""


def _memory() -> int:
    try:
        return max(0, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (OSError, ValueError):
        return 0


def read_python_version(python: str) -> str:
    """Return the version of a virtual environment's interpreter, from ``pyvenv.cfg``; of others nothing."""
    settings = Path(python).parent.parent / "pyvenv.cfg"
    return _search(_VERSION, settings) if settings.is_absolute() else ""


def name_folders(text: str, folders: Mapping[str, Path]) -> str:
    """Return ``text`` with names in place of folders; of nested folders the inner one's.

    :param folders: absolute paths by name; names have no backslash.
    """
    forms = {
        form: name
        for name, folder in folders.items()
        # The folder as the kit calls it, and as a program finds it that asks where it is.
        for form in (str(folder), str(folder.resolve()))
        if form != "/"
    }
    for form in sorted(forms, key=len, reverse=True):
        # Not within a longer path or name; but behind an option's letter.
        begin = r"(?:(?<![\w.~}+%-])|(?<=\s-[A-Za-z])|(?<=^-[A-Za-z]))"
        whole = begin + re.escape(form) + r"(?![\w+%@~-]|\.\w)"
        text = re.sub(whole, forms[form], text)
    return text


def remove_paths(text: str) -> str:
    """Return ``text`` without paths of this machine.

    Instead are ``${workspaceFolder}``, ``${venv}``, ``${userHome}`` for the home folder itself, and
    ``${elsewhere}/<name>`` with the last part of another absolute path.
    """
    text = name_folders(text, _FOLDERS)
    entries = text.split(os.pathsep)
    if all(not entry or entry[0] in "/$" for entry in entries):
        return os.pathsep.join(map(_shorten, entries))  # a list as of PATH, or a single path
    return _shorten(text)


def _shorten(text: str) -> str:
    return _PATH.sub(lambda found: found.group(1) + _last(found.group(2)), text)


def _last(path: str) -> str:
    try:
        if Path(path) == Path.home():
            return "${userHome}"
    except RuntimeError:
        pass  # a user without a home
    return "${elsewhere}/" + path.rstrip("/").rpartition("/")[2]


def shows_path(text: str) -> bool:
    """Return whether an absolute path is in ``text``."""
    return _PATH.search(text) is not None
