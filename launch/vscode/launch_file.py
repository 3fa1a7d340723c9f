"""VS Code's launch file: JSON with comments, its configurations by name, and the place of each value.

Comments and trailing commas are as VS Code reads them; a key written twice and NaN are errors.
"""

import difflib
import functools
import json
import operator
import pathlib
import re
import sys
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Tuple, Union

from ..core import files, hidden
from ..core.errors import KitError
from ..core.files import find_position

PLATFORM = {"darwin": "osx", "win32": "windows"}.get(sys.platform, "linux")  # key of its properties
_SHOWN = 200  # characters of a value that an error shows
MAX_BYTES = 4 << 20  # of a launch file; the kit's has 12 thousand

KeyPath = Tuple[Union[str, int], ...]  # the keys and list indices that lead to a value
ABSENT = object()  # the value of a key that is not there; null is a value
MAX_DEPTH = 100  # objects and lists inside each other; a launch file needs five
_PATH_SHOWN = 60  # characters of a key path that an error shows

# VS Code's white space: src/vs/base/common/json.ts, isWhiteSpace and isLineBreak.
_BLANK = r" \t\r\n\v\f\u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"

# A string need not be closed here: json.loads says where it begins.
_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\\r\n]|\\.)*"?)
    |(?P<blank>//[^\r\n\u2028\u2029]*|/\*.*?\*/|[BLANK]+)
    |(?P<mark>[][{}:,])
    |(?P<word>[^][{}:,"/BLANK]+)
    |(?P<other>/)""".replace("BLANK", _BLANK),
    re.VERBOSE | re.DOTALL,
)
_NOT_LINE_END = re.compile(r"[^\r\n]")

_TRAILING = re.compile(r'"(?:[^"\\\r\n]|\\.)*"?|[\[{:,][ \r\n]*,|,(?=[ \r\n]*[\]}])', re.DOTALL)
"""A string; a comma after no value; or a comma that may be left out.  Comments are blank by then."""


@dataclass(frozen=True)
class Document:
    """A value and the text it was read from, named ``source`` in errors."""

    value: Any
    text: str
    source: str
    starts: Dict[KeyPath, int]  # where in the text each key and each list item begins

    def at(self, path: KeyPath) -> Any:
        """Return the value at ``path``; :data:`ABSENT` where there is none."""
        try:
            return functools.reduce(operator.getitem, path, self.value)
        except (KeyError, IndexError, TypeError):
            return ABSENT

    def place(self, path: KeyPath) -> str:
        """Return the file and line of the key or item at ``path``, or of the nearest one around it."""
        while path and path not in self.starts:
            path = path[:-1]
        line = self.text.count("\n", 0, self.starts.get(path, 0)) + 1
        return f"{self.source}, line {line}"


def parse_jsonc(text: str, source: str) -> Document:
    """Return the value that ``text`` holds, with the places of its parts; a KitError where it holds none."""
    blanked = _TOKEN.sub(lambda it: _NOT_LINE_END.sub(" ", it.group()) if it["blank"] else it.group(), text)
    plain = _TRAILING.sub(lambda it: " " if it.group() == "," else it.group(), blanked)
    value: Any = ABSENT
    try:
        value = json.loads(plain)
    except json.JSONDecodeError as error:
        if text.startswith("/*", error.pos):
            hint = "Add the missing */."
            raise _invalid(text, error.pos, source, "the comment is not closed", hint) from None
        reason = error.msg.replace(" starting at", "")  # the position is named anyway
        raise _invalid(text, error.pos, source, reason) from None
    except ValueError:
        longest = max(_TOKEN.finditer(plain), key=lambda token: len(token.group()))
        raise _invalid(text, longest.start(), source, "the number has too many digits") from None
    except RecursionError:
        pass  # the walk finds where
    starts: Dict[KeyPath, int] = {}
    for token, path, begins in _walk(text):
        found, start = token.group(), token.start()
        if found in ("{", "[") and len(path) >= MAX_DEPTH:
            reason = f"more than {MAX_DEPTH} objects and lists stand inside each other"
            raise _invalid(text, start, source, reason, "Nest them less deeply.")
        if token.lastgroup == "word" and not _is_finite(found):
            reason = f"{found[:40]} is not a finite number"
            raise _invalid(text, start, source, reason, "Write a finite number.")
        if begins and path and path in starts:
            raise KitError(
                f"{source} has the key {path[-1]!r} twice in one object.",
                where=f"{source}, {find_position(text, starts[path])} and {find_position(text, start)}"
                + _at(text, start + 1),
                hint="Remove one of the two: VS Code would silently use the last.",
            )
        if begins:
            starts[path] = start
    return Document(value, text, source, starts)


def format_path(path: KeyPath) -> str:
    """Return a path as ``configurations[1].env.NAME``."""
    words = [
        f"[{step}]" if isinstance(step, int) else "." + (step if step.isprintable() else json.dumps(step))
        for step in path
    ]
    text = "".join(words)
    return text[1:] if text.startswith(".") else text


def _at(text: str, index: int) -> str:
    """Return the key at or before a character, as the end of a place; empty where there is none."""
    path: KeyPath = ()
    for token, inside, _ in _walk(text):
        if token.start() >= index:
            break
        path = inside
    key = format_path(path)
    return f", at or after {key if len(key) <= _PATH_SHOWN else key[:_PATH_SHOWN] + '…'}" if key else ""


def _walk(text: str) -> Iterator[Tuple["re.Match[str]", KeyPath, bool]]:
    """Yield a text's tokens, each with its path and whether it begins a key or an item."""
    path: List[Union[str, int, None]] = []  # for every open list a place, for every open object a key
    for token in _TOKEN.finditer(text):
        found, kind = token.group(), token.lastgroup
        if kind == "blank":
            continue
        begins = False
        if found in ("}", "]"):
            del path[-1:]
        elif found == "," and path:
            last = path[-1]
            path[-1] = last + 1 if isinstance(last, int) else None
        elif kind == "string" and path and path[-1] is None:
            try:
                path[-1] = str(json.loads(found))  # "a" and "\u0061" are the same key
            except ValueError:
                path[-1] = found
            begins = True
        elif found not in (":", ","):
            begins = not path or isinstance(path[-1], int)
        yield token, tuple(step for step in path if step is not None), begins
        if found in ("{", "["):
            path.append(None if found == "{" else 0)


def _invalid(text: str, index: int, source: str, reason: str, hint: str = "") -> KitError:
    return KitError(
        f"{source} is not valid JSON: {reason}.",
        where=f"{source}, {find_position(text, index)}{_at(text, index)}",
        hint=hint or "Correct the file there, or just before.  Comments and trailing commas are allowed.",
    )


def _is_finite(word: str) -> bool:
    """Return False for a number that JSON cannot hold (also ``1e999``), True for any other word."""
    try:
        return word.lstrip("-").isdigit() or abs(float(word)) < float("inf")
    except ValueError:
        return True  # true, false, null, or what json.loads refuses


@dataclass(frozen=True)
class Configuration:
    """The entry ``index`` of ``configurations`` as written: nothing is substituted."""

    name: str
    body: Dict[str, Any]
    index: int
    document: Document = field(repr=False, compare=False)

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

    def path(self, key: str) -> KeyPath:
        """Return the path, within the entry, of the value that ``key`` has on this platform."""
        override = self.body.get(PLATFORM)
        return (PLATFORM, key) if isinstance(override, dict) and key in override else (key,)

    def place(self, path: KeyPath) -> str:
        """Return the file, line and key of ``path`` in this entry."""
        whole: KeyPath = ("configurations", self.index, *path)
        return f"{self.document.place(whole)}, {format_path(whole)}"

    def error(self, path: KeyPath, what: str, hint: str) -> KitError:
        """Return an error about the value at ``path`` in this entry."""
        return _error(self.document, ("configurations", self.index, *path), what, hint, self.hides(path))

    def hides(self, path: KeyPath) -> bool:
        """Return whether the value at ``path`` may belong to a variable that is not the kit's own."""
        within = path[1:] if path[:1] == (PLATFORM,) else path
        return within[:1] == ("env",) and (len(within) == 1 or within[1] not in hidden.OWN)


@dataclass(frozen=True)
class LaunchFile:
    """The configurations of a launch file in order; no two have the same name."""

    configurations: Tuple[Configuration, ...]
    document: Document = field(repr=False)


def read_launch_file(path: pathlib.Path) -> LaunchFile:
    """Return the configurations of a launch file; a KitError where it is none that can be read."""
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
    document = parse_jsonc(text, source)
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
    """Return the configuration called ``name``; a KitError where there is none, or it is a compound."""
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


def _error(document: Document, path: KeyPath, what: str, hint: str, hide: bool = False) -> KitError:
    """Return an error about the value at ``path``, shown as JSON up to 200 characters."""
    value = document.at(path)
    text = "absent" if value is ABSENT else json.dumps(value, ensure_ascii=False)
    if hide and value not in (ABSENT, None):
        text = hidden.NOT_SHOWN
    key = f", {format_path(path)} = " if path else ": "
    return KitError(
        what,
        where=f"{document.place(path)}{key}{text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}",
        hint=hint,
    )
