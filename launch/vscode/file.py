"""VS Code's launch file: its configurations by name, and the place of each value in the file."""

import difflib
import json
import pathlib
import sys
from dataclasses import dataclass, field
from typing import Any, Dict, Tuple

from ..core import files, hidden
from ..core.errors import KitError
from . import jsonc

PLATFORM = {"darwin": "osx", "win32": "windows"}.get(sys.platform, "linux")  # key of its properties
_SHOWN = 200  # characters of a value that an error shows
MAX_BYTES = 4 << 20  # of a launch file; the kit's has 12 thousand


@dataclass(frozen=True)
class Configuration:
    """The entry ``index`` of ``configurations`` as written: nothing is substituted."""

    name: str
    body: Dict[str, Any]
    index: int
    document: jsonc.Document = field(repr=False, compare=False)

    @property
    def here(self) -> Dict[str, Any]:
        """The entry with this platform's properties, as written."""
        override = self.body.get(PLATFORM)
        return {**self.body, **(override if isinstance(override, dict) else {})}

    @property
    def inputs(self) -> Dict[str, str]:
        """The descriptions of the file's ``inputs``, by id."""
        entries = self.document.value.get("inputs")
        entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        return {str(entry.get("id")): str(entry.get("description", "")) for entry in entries}

    def path(self, key: str) -> jsonc.KeyPath:
        """Return the path, within the entry, of the value that ``key`` has on this platform."""
        override = self.body.get(PLATFORM)
        return (PLATFORM, key) if isinstance(override, dict) and key in override else (key,)

    def place(self, path: jsonc.KeyPath) -> str:
        """Return the file, line and key of ``path`` in this entry."""
        whole: jsonc.KeyPath = ("configurations", self.index, *path)
        return f"{self.document.place(whole)}, {jsonc.format_path(whole)}"

    def error(self, path: jsonc.KeyPath, what: str, hint: str) -> KitError:
        """Return an error about the value at ``path`` in this entry."""
        return _error(self.document, ("configurations", self.index, *path), what, hint, self.hides(path))

    def hides(self, path: jsonc.KeyPath) -> bool:
        """Return whether the value at ``path`` may belong to a variable that is not the kit's own."""
        within = path[1:] if path[:1] == (PLATFORM,) else path
        return within[:1] == ("env",) and (len(within) == 1 or within[1] not in hidden.OWN)


@dataclass(frozen=True)
class LaunchFile:
    """The configurations of a launch file in order; no two have the same name."""

    configurations: Tuple[Configuration, ...]
    document: jsonc.Document = field(repr=False)


def read_launch_file(path: pathlib.Path) -> LaunchFile:
    """Return the configurations of a launch file; a byte order mark is ignored.

    :raises KitError: the file cannot be read, is no regular one, too large, not UTF-8 or not JSON with
        comments, or its configurations are not objects with different names.
    """
    source = str(path)
    try:
        text = files.read_bytes(path, MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The decoder counts from behind a byte order mark.
        line = error.object.count(b"\n", 0, error.start) + 1
        raise KitError(
            f"{source} is not UTF-8.",
            where=f"{source}, line {line}, byte {error.start}: {error.object[error.start]:#04x}",
            hint="Save the file as UTF-8.",
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise KitError(
            f"The launch file cannot be read: {reason}.",
            where=source,
            hint="Name a regular file that you may read.",
        ) from None
    return parse_launch_file(text, source)


def parse_launch_file(text: str, source: str) -> LaunchFile:
    """Return the configurations in ``text``, named ``source`` in errors, as :func:`read_launch_file` does."""
    document = jsonc.parse_jsonc(text, source)
    if not isinstance(document.value, dict):
        raise _error(document, (), "A launch file is an object.", 'Put { "configurations": [ … ] }.')
    entries = document.at(("configurations",))
    if not isinstance(entries, list):
        hint = 'Put "configurations": [ { "name": … }, … ] into the file.'
        raise _error(document, ("configurations",), "A launch file needs a list of configurations.", hint)
    found: Dict[str, Configuration] = {}
    for index, entry in enumerate(entries):
        path = ("configurations", index)
        if not isinstance(entry, dict):
            raise _error(document, path, "A configuration is an object.", 'Put { "name": …, … } there.')
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            raise _error(document, (*path, "name"), "A configuration needs a name.", 'Add a "name".')
        if name in found:
            what = f"configurations[{found[name].index}] has the same name."
            raise _error(document, (*path, "name"), what, "Rename one of the two.")
        found[name] = Configuration(name, entry, index, document)
    return LaunchFile(tuple(found.values()), document)


def find_configuration(file: LaunchFile, name: str) -> Configuration:
    """Return the configuration called ``name``.

    :raises KitError: there is none (the error lists the names and the nearest), or it is a compound.
    """
    names = [configuration.name for configuration in file.configurations]
    if name in names:
        return file.configurations[names.index(name)]
    compounds = file.document.at(("compounds",))
    for entry in compounds if isinstance(compounds, list) else ():
        if isinstance(entry, dict) and entry.get("name") == name:
            started = entry.get("configurations")
            # Each is a name, or an object with a name and the folder it is of.
            of = [
                each.get("name") if isinstance(each, dict) else each
                for each in (started if isinstance(started, list) else ())
            ]
            raise KitError(
                f"{name!r} is a compound, which starts several programs at once; one can be run.",
                where=f"{file.document.place(('compounds',))}, compounds",
                hint="\n  ".join(["Run its configurations one by one:", *map(str, of)]),
            )
    near = difflib.get_close_matches(name, names, n=1)
    hint = (f"Did you mean {near[0]!r}?\n" if near else "") + "The names are:"
    place = f"{file.document.place(('configurations',))}, configurations[*].name"
    raise KitError(
        f"There is no configuration {name!r}." if name else "No configuration was named.",
        where=place if name else f"V=\n{place}",
        hint="\n  ".join([hint, *names]) if names else "The launch file has no configurations.",
    )


def _error(
    document: jsonc.Document, path: jsonc.KeyPath, what: str, hint: str, hide: bool = False
) -> KitError:
    """Return an error about the value at ``path``, shown as JSON up to 200 characters."""
    value = document.at(path)
    text = "absent" if value is jsonc.ABSENT else json.dumps(value, ensure_ascii=False)
    if hide and value not in (jsonc.ABSENT, None):
        text = hidden.NOT_SHOWN
    key = f", {jsonc.format_path(path)} = " if path else ": "
    return KitError(
        what,
        where=f"{document.place(path)}{key}{text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}",
        hint=hint,
    )
