r"""Environment files (``envFile``, ``.env``), as VS Code's Python debugger reads them.

What is decided here, with its source.  *Environments* is the section *Environment variable definitions
file* of https://code.visualstudio.com/docs/python/environments; *extension* is the Python debugger
extension (https://github.com/microsoft/vscode-python-debugger,
``src/extension/common/variables/environment.ts``), which reads the file before debugpy sees the
configuration.

======================================  ====================================================================
``NAME=VALUE``, ``#`` comments          Environments.  A ``#`` after a value is part of it (extension).
quotes                                  Extension: count around a whole value only; ``\n`` in them is a line
                                        end, in either kind.
a value of several lines                Environments: not supported.  Extensions of 2026 do read one, and
                                        read a lone quote in a value or a comment as the start of one: an
                                        error, for what runs would depend on the extension's age.
``${NAME}``                             Environments: an earlier line's variable, else the configuration's
                                        ``env``; empty where there is none, also between single quotes
                                        (extension).  ``\$`` is a plain ``$``.
``${}``, ``${NAME`` and more, ``}``     Extension: then nothing in the value is replaced.  An error.
``${1}``, ``${_NAME}``                  Extension: stay as they are; they are no references.
``export NAME=VALUE``                   Extension: the line is passed over.  An error.
any other line, a file that is missing  Extension: passed over.  An error: a run that lacks a variable is
                                        another run.
======================================  ====================================================================
"""

import pathlib
import re
from typing import Dict, Mapping

from .. import files
from ..errors import KitError

MAX_BYTES = 1 << 20
"""Bytes up to which an environment file is read."""

# What JavaScript takes for white space in a pattern; Python's own idea of it differs.
_BLANK = "[\\t-\\r \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff]"
_LINE = re.compile(rf"{_BLANK}*(_*[A-Za-z]\w*){_BLANK}*=(.*)", re.ASCII | re.DOTALL)
_EXPORT = re.compile(rf"{_BLANK}*export{_BLANK}")
_QUOTE = re.compile(r"""(?<!\\)(?:\\\\)*(["'])""")
# A name, and what else stands before a closing brace; it begins with neither a digit nor an underscore.
_SUBSTITUTION = re.compile(r"\$\{([A-Za-z]\w*)?([^}\w][^\n\r\u2028\u2029]*)?\}", re.ASCII)


def read(path: pathlib.Path, named: str, own: Mapping[str, object]) -> Dict[str, str]:
    """Return the variables of an environment file.

    Errors show no line's text: these files hold secrets.

    :param named: the launch file, line and key that name the file, for errors.
    :param own: the configuration's ``env``, which lines may refer to.
    :raises KitError: the file cannot be read, is no regular one or too large, or a line is neither empty, a
        comment nor ``NAME=VALUE``.
    """
    try:
        text = files.read(path, MAX_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8"
        raise KitError(
            f"The environment file cannot be read: {reason}.",
            where=f"{named} = {path}",
            hint='Correct or remove "envFile".',
        ) from None
    variables: Dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{path}, line {number}\n{named}"
        comment = line.lstrip().startswith("#")
        if _leaves_a_quote_open(line):
            what = "A quote is open at the end of this " + ("comment." if comment else "line.")
            hint = "Close or remove it; for a value of several lines write \\n between quotes."
            raise KitError(what, where=where, hint=hint)
        if comment or not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None or "\0" in line:
            hint = 'Remove "export".' if _EXPORT.match(line) else "Write NAME=VALUE or # comment."
            raise KitError("This line sets no variable.", where=where, hint=hint)
        name, value = match.group(1), trimmed(match.group(2))
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1].replace("\\n", "\n")
        variables[name] = _substituted(name, value, variables, own, where)
    return variables


def trimmed(text: str) -> str:
    """Return ``text`` without the white space at its ends, as JavaScript's ``trim`` does."""
    return re.sub(rf"^{_BLANK}+|{_BLANK}+$", "", text)


def _leaves_a_quote_open(line: str) -> bool:
    """Whether a quote after the first ``=`` is not closed; a backslash takes a quote's meaning away."""
    open_quote = ""
    for match in _QUOTE.finditer(line.partition("=")[2]):
        if not open_quote:
            open_quote = match.group(1)
        elif match.group(1) == open_quote:
            open_quote = ""
    return bool(open_quote)


def _substituted(
    name: str, value: str, variables: Mapping[str, str], own: Mapping[str, object], where: str
) -> str:
    def replaced(reference: "re.Match[str]") -> str:
        if value[: reference.start()].endswith("\\"):
            return reference.group()
        other, more = reference.groups()
        if more or not other:
            hint = "Write ${NAME}, or \\${ for the characters themselves."
            shown = reference.group().partition("}")[0] + "}"  # what is behind it may be the secret
            raise KitError(f"{shown} in {name} is no variable.", where=where, hint=hint)
        return variables.get(other) or str(own.get(other) or "")

    return _SUBSTITUTION.sub(replaced, value).replace("\\$", "$")
