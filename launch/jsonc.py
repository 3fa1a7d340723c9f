"""JSON with comments and trailing commas, as VS Code writes it, read strictly in every other way.

Comments, trailing commas and the white space that JSON has not are overwritten with spaces, and what is left
goes to :mod:`json`.  White space and line ends are those of VS Code (``src/vs/base/common/json.ts``:
``isWhiteSpace``, ``isLineBreak``).  Nothing moves, so every line and column in an error is that of the file.
What :mod:`json` lets pass and a reader of the file would not expect (a key written twice, NaN, Infinity) is
an error too.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from .errors import KitError

KeyPath = Tuple[Union[str, int], ...]
"""Where a value is: the keys and, in lists, the places that lead to it."""

MAX_DEPTH = 100
"""Objects and lists inside each other.  A launch file needs five; :mod:`json` fails at about a thousand."""

_SHOWN = 60
"""Characters of a key path that an error shows."""

# A string need not be closed here: json.loads says where it begins, and one pass over the text is enough.
_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\\r\n]|\\.)*"?)
    |(?P<comment>//[^\r\n\u2028\u2029]*|/\*.*?\*/)
    |(?P<unclosed>/\*)
    |(?P<mark>[][{}:,])
    |(?P<word>[^][{}:,"/ \t\r\n\v\f\u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff]+)
    |(?P<other>/)""",
    re.VERBOSE | re.DOTALL,
)
_NOT_LINE_END = re.compile(r"[^\r\n]")


@dataclass(frozen=True)
class Document:
    """A value and the text it was read from, for errors about the value.

    :param source: what errors call the text: its file name.
    """

    value: Any
    text: str
    source: str

    def place(self, path: KeyPath) -> str:
        """Return the file and the line of the key, or of the list's item, at ``path``.

        Where there is none, that of the nearest that is there around it.
        """
        starts = _starts(self.text)
        while path and path not in starts:
            path = path[:-1]
        line = self.text.count("\n", 0, starts.get(path, 0)) + 1
        return f"{self.source}, line {line}"


def loads(text: str, source: str) -> Any:
    """Return the value that ``text`` holds; parameters and errors as :func:`parse`."""
    return parse(text, source).value


def parse(text: str, source: str) -> Document:
    """Return the value that ``text`` holds, with the places of its parts.

    :param source: what errors call the text: its file name.
    :raises KitError: the text is not JSON with comments and trailing commas, an object has a key twice, a
        number is NaN or infinite, or the nesting is deeper than :data:`MAX_DEPTH`.  The error names file,
        line, column and the key at or after which it is.
    """
    plain, refused = _scan(text, source)
    try:
        value = json.loads(plain)
    except json.JSONDecodeError as error:
        reason = error.msg.replace(" starting at", "")  # the position is named anyway
        raise _invalid(text, error.pos, source, reason) from None
    except (ValueError, RecursionError) as error:
        # An integer of thousands of digits; or a caller who has used up most of the stack.
        reason = "the number has too many digits"
        if isinstance(error, RecursionError):
            reason = "its objects and lists stand too deep inside each other"
        digits = max(_TOKEN.finditer(plain), key=lambda token: token.end() - token.start(), default=None)
        raise _invalid(text, digits.start() if digits else 0, source, reason) from None
    if refused is not None:
        raise refused
    return Document(value, text, source)


def dotted(path: KeyPath) -> str:
    """Return a path as people write it: ``configurations[1].env.NAME``."""
    words = [
        f"[{step}]" if isinstance(step, int) else "." + (step if step.isprintable() else json.dumps(step))
        for step in path
    ]
    text = "".join(words)
    return text[1:] if text.startswith(".") else text


def position(text: str, index: int) -> str:
    """Return ``line L, column C`` of a character, both counted from 1."""
    line_start = text.rfind("\n", 0, index) + 1
    return f"line {text.count(chr(10), 0, index) + 1}, column {index - line_start + 1}"


def _at(text: str, index: int) -> str:
    """Return the key at or after which a character is, for the end of a place; empty where there is none."""
    path: KeyPath = ()
    for start, inside, _ in _walk(text):
        if start >= index:
            break
        path = inside
    key = dotted(path)
    return f", at or after {key if len(key) <= _SHOWN else key[:_SHOWN] + '…'}" if key else ""


def _walk(text: str) -> Iterator[Tuple[int, KeyPath, bool]]:
    """Go through the tokens: where each starts, the path it is at, and whether a key or an item begins.

    The text need not be valid; then what follows the first fault means little.
    """
    path: List[Union[str, int, None]] = []  # for every open list a place, for every open object a key
    for token in _TOKEN.finditer(text):
        found, kind = token.group(), token.lastgroup
        if kind == "comment":
            continue
        begins = False
        if found in ("}", "]"):
            del path[-1:]
        elif found == "," and path:
            last = path[-1]
            path[-1] = last + 1 if isinstance(last, int) else None
        elif kind == "string" and path and path[-1] is None:
            try:
                path[-1] = str(json.loads(found))
            except ValueError:
                path[-1] = found
            begins = True
        elif found not in (":", ","):
            begins = not path or isinstance(path[-1], int)
        yield token.start(), tuple(step for step in path if step is not None), begins
        if found in ("{", "["):
            path.append(None if found == "{" else 0)


@lru_cache(maxsize=1)
def _starts(text: str) -> Dict[KeyPath, int]:
    """Return where each key and each list's item of a valid text begins."""
    starts: Dict[KeyPath, int] = {}
    for start, path, begins in _walk(text):
        if begins:
            starts.setdefault(path, start)
    return starts


def _invalid(text: str, index: int, source: str, reason: str, hint: str = "") -> KitError:
    return KitError(
        f"{source} is not valid JSON: {reason}.",
        where=f"{source}, {position(text, index)}{_at(text, index)}",
        hint=hint or "Correct the file there, or just before.  Comments and trailing commas are allowed.",
    )


def _scan(text: str, source: str) -> Tuple[str, Optional[KitError]]:
    """Return ``text`` with comments and trailing commas blanked, and the first thing that is refused.

    The refusal is returned and not raised because it is meaningful only in a text that is JSON.
    """
    pieces: List[str] = []
    refused: Optional[KitError] = None
    # For every open object its keys and where they stand; None for an open list.
    open_values: List[Optional[Dict[str, int]]] = []
    end = 0
    token, token_start = "", 0  # the last one that is not a comment
    may_trail = False  # it is a comma after a value: one that a bracket may follow
    comma_piece = 0
    for match in _TOKEN.finditer(text):
        pieces.append(_NOT_LINE_END.sub(" ", text[end : match.start()]))
        end = match.end()
        found = match.group()
        if match.lastgroup == "comment":
            pieces.append(_NOT_LINE_END.sub(" ", found))
            continue
        if match.lastgroup == "unclosed":
            raise _invalid(text, match.start(), source, "the comment is not closed", "Add the missing */.")
        if found in ("}", "]"):
            if may_trail:
                pieces[comma_piece] = " "
            if open_values:
                open_values.pop()
        elif found in ("{", "["):
            open_values.append({} if found == "{" else None)
            if len(open_values) > MAX_DEPTH:
                reason = f"more than {MAX_DEPTH} objects and lists stand inside each other"
                raise _invalid(text, match.start(), source, reason, "Nest them less deeply.")
        elif found == ":" and open_values and open_values[-1] is not None:
            refused = refused or _repeated(text, token, token_start, open_values[-1], source)
        elif match.lastgroup == "word" and not _finite(found):
            reason = f"{found[:40]} is not a finite number"
            refused = refused or _invalid(text, match.start(), source, reason, "Write a finite number.")
        may_trail = found == "," and token not in ("", "[", "{", ",", ":")
        token, token_start, comma_piece = found, match.start(), len(pieces)
        pieces.append(found)
    pieces.append(_NOT_LINE_END.sub(" ", text[end:]))
    return "".join(pieces), refused


def _finite(word: str) -> bool:
    """Tell whether a bare word is anything but a number that JSON cannot hold (also ``1e999``)."""
    try:
        return word.lstrip("-").isdigit() or abs(float(word)) < float("inf")
    except ValueError:
        return True  # true, false, null, or what json.loads refuses


def _repeated(text: str, token: str, start: int, keys: Dict[str, int], source: str) -> Optional[KitError]:
    """Note the key ``token`` in ``keys``; return an error where it was there already."""
    try:
        key = json.loads(token)  # "a" and "\u0061" are the same key
    except ValueError:
        return None
    if not isinstance(key, str):
        return None
    if key not in keys:
        keys[key] = start
        return None
    return KitError(
        f"{source} has the key {key!r} twice in one object.",
        where=f"{source}, {position(text, keys[key])} and {position(text, start)}{_at(text, start + 1)}",
        hint="Remove one of the two: VS Code would silently use the last.",
    )
