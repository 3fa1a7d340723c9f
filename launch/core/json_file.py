"""Reading a JSON file that the user named, with errors that say which file and where in it."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Tuple

from . import files, jsonc
from .errors import KitError

BYTE_ORDER_MARK = "\ufeff"


def show_value(value: Any) -> str:
    """Return a JSON value as errors show it: as it stands in the file, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


class _TwiceError(ValueError):
    """An object has a key, which is the argument, twice."""


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _TwiceError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found


def _places(key: str, text: str) -> str:
    """Return where a text has a key, in whichever object."""
    forms = "|".join(re.escape(json.dumps(key, ensure_ascii=plain)) for plain in (True, False))
    spots = re.finditer(rf"({forms})(?=\s*:)", text)
    return "".join(f", {jsonc.find_position(text, spot.start())}" for spot in spots)


def describe_file(path: Path, name: str) -> str:
    """Return a file as errors name it, with what has named it; ``name`` is empty where nothing has."""
    return f"{name}={path}" if name else str(path)


def read_json(path: Path, name: str = "", *, unique: bool = False, others: str = "") -> Any:
    """Return the JSON in ``path``.

    :param name: what has named the file (``TRAIN_FILE``), for the error; empty: nothing.
    :param unique: whether a key may be in an object only once; else the last one counts.
    :param others: who reads the file besides and refuses a byte order mark.
    :raises KitError: the file is missing, unreadable, not UTF-8 or not JSON (with line and column).
    """
    where = describe_file(path, name)
    try:
        files.check_regular(path)
        files.check_no_pointer(path)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise KitError("The file does not exist.", where=where, hint="Correct its name.") from None
    except UnicodeDecodeError as error:
        raise KitError(
            f"The file is not UTF-8 text (byte {error.start}).", where=where, hint="Save it as UTF-8."
        ) from None
    except OSError as error:
        raise KitError(
            f"The file cannot be read: {error.strerror}.",
            where=where,
            hint="Make it readable, or name another.",
        ) from None
    if text.startswith(BYTE_ORDER_MARK):
        if others:
            raise KitError(
                f"The file begins with a byte order mark, which {others} does not read.",
                where=where,
                hint="Save it as UTF-8 without a byte order mark.",
            )
        text = text[1:]
    try:
        return json.loads(text, object_pairs_hook=_unique if unique else None)
    except ValueError as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            where += f", line {error.lineno}, column {error.colno}"
            reason = error.msg
        elif isinstance(error, _TwiceError):
            where += _places(reason, text)
            reason = f"the key {show_value(reason)} is there twice"
        raise KitError(
            f"The file is not valid JSON: {reason}.", where=where, hint="Mend the file at that place."
        ) from None
    except RecursionError:
        raise KitError(
            "The JSON is nested too deeply.", where=where, hint="Give a file of the expected form."
        ) from None
