"""``SHA256SUMS``, for ``sha256sum -c`` too: lines ``<sha256>  <path>``, in the order of the paths' bytes.

A list in any other form is refused, so that no byte of it can change unseen.
"""

import re
import stat
from pathlib import Path
from typing import Callable, Dict, List, Mapping

from ..core import files, paths
from ..core.errors import KitError

NAME = "SHA256SUMS"

MAX_BYTES = 1 << 20
"""Limit on the bytes of a list; that of a tree has a thousand."""

_LINE = re.compile(r"([0-9a-f]{64})  ([^\n\\]+)\n")


def format_sums(entries: Mapping[str, str]) -> str:
    """Return the list of ``entries``, sha256 by relative path."""
    return "".join(f"{entries[name]}  {name}\n" for name in sorted(entries, key=str.encode))


def write_sums(folder: Path, known: Mapping[str, str]) -> None:
    """Write the list of every file below ``folder``; ``known`` sums are not computed again."""
    names = (name for name in list_files(folder) if name != NAME)
    entries = {name: known.get(name) or files.digest_file(folder / name) for name in names}
    files.write_text(folder / NAME, format_sums(entries))


def show_name(name: str) -> str:
    """Return a path as text: what is not UTF-8 is escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def list_files(folder: Path) -> List[str]:
    """Return what is below ``folder`` and is no folder, as sorted relative paths."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )


def read_sums(folder: Path) -> Dict[str, str]:
    """:raises KitError: there is no list in ``folder``, or it has not the form of :func:`format_sums`."""
    path = folder / NAME
    content = ""
    hint = "Remove the tree and make it again, or copy it again from where it came."
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            # Not followed, and not waited for: it would be read from elsewhere, or never end.
            problem = "The list of checksums is no regular file."
        elif found.st_size > MAX_BYTES:
            problem = f"The list of checksums is longer than {MAX_BYTES:,} bytes."
        else:
            content, problem = path.read_bytes().decode("utf-8"), ""
    except FileNotFoundError:
        problem = "There is no list of checksums."
    except UnicodeDecodeError:
        problem = "The list of checksums is not UTF-8 text."
    except OSError as error:
        problem, hint = f"The list of checksums cannot be read: {error.strerror}.", "Make it readable."
    entries = {name: digest for digest, name in _LINE.findall(content)}
    if not problem and format_sums(entries) != content:
        form = "'<sha256>  <path>', sorted"
        problem = f"The list of checksums has not the form in which the kit writes it: {form}."
    if problem:
        raise KitError(problem, where=paths.show_path(path), hint=hint)
    return entries


def find_faults(folder: Path, entries: Mapping[str, str], tick: Callable[[str], None]) -> List[str]:
    """Return faults of the files, a line each; ``tick`` is called with a path before its file is read."""
    there = [name for name in list_files(folder) if name != NAME]
    found = [f"{name} is missing" for name in sorted(set(entries) - set(there))]
    for name in there:
        path = folder / name
        if name not in entries:
            found.append(f"{show_name(name)} is not in {NAME}")
        elif not stat.S_ISREG(path.lstat().st_mode):
            found.append(f"{name} is no regular file")
        else:
            tick(name)
            try:
                if files.digest_file(path) != entries[name]:
                    found.append(f"{name} has not the bytes that {NAME} says")
            except OSError as error:
                found.append(f"{name} cannot be read: {error.strerror}")
    return found
