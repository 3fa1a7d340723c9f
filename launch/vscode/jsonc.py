"""JSON with comments and trailing commas, as VS Code reads it; a key written twice and NaN are errors."""

import functools
import json
import operator
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Tuple, Union

from ..core.errors import KitError
from ..core.files import find_position

KeyPath = Tuple[Union[str, int], ...]  # the keys and list indices that lead to a value
ABSENT = object()  # the value of a key that is not there; null is a value
MAX_DEPTH = 100  # objects and lists inside each other; a launch file needs five
_SHOWN = 60  # characters of a key path that an error shows

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
    """Return the value that ``text`` holds, with the places of its parts.

    :raises KitError: it is not JSON with comments, has a key twice in one object or a number that is not
        finite, or nests objects and lists deeper than :data:`MAX_DEPTH`.
    """
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
    return f", at or after {key if len(key) <= _SHOWN else key[:_SHOWN] + '…'}" if key else ""


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
