"""The ``${…}`` variables of launch files (sources: README.md in this folder)."""

import difflib
import os
import pathlib
import re
from typing import Mapping

from ..core import hidden
from ..core.errors import KitError
from .file import PLATFORM

_REFERENCE = re.compile(r"\$\{(.*?)\}", re.DOTALL)
# Its group ends where the name does: what follows may be a secret.
_UNCLOSED = re.compile(r"(?=\$\{[A-Za-z/])(\$\{(?:env:)?\w*)[^}]*\Z")
_EDITORS = re.compile(r"(file|relativeFile)([A-Z]\w*)?|lineNumber|columnNumber|selectedText")
_ELSEWHERE = {
    "command": "A command of VS Code or of an extension gives its value.",
    "config": "It is one of VS Code's settings.",
    **dict.fromkeys(
        ("execPath", "defaultBuildTask", "extensionInstallFolder"), "Only VS Code can find its value."
    ),
}
"""Variables that have a value only in VS Code, and why."""

_OLD_NAMES = {"workspaceRoot": "workspaceFolder", "workspaceRootFolderName": "workspaceFolderBasename"}
_SCOPED = ("workspaceFolder", "workspaceFolderBasename", "cwd")

_NO_ENV = (
    "Write the path itself, or begin it with ${workspaceFolder} or ${userHome}.\n"
    f'${{env:NAME}} has its value in the "python" of "{PLATFORM}": {{ … }}.'
)
"""The hint for a key in which ``${env:NAME}`` has no value."""


class Variables:
    """A launch file's variables, with the absolute, normal path ``folder`` open in VS Code."""

    def __init__(self, folder: str, env: Mapping[str, str], inputs: Mapping[str, str]) -> None:
        self.folder = folder
        self._env = env
        self._inputs = inputs
        self._values = {
            "workspaceFolder": folder,
            "workspaceFolderBasename": pathlib.PurePath(folder).name,
            "cwd": folder,
            "pathSeparator": os.sep,
            "/": os.sep,
        }

    def substitute(self, text: str, *, env: bool = True) -> str:
        """Return ``text`` with its variables replaced; ``env``: whether ``${env:NAME}`` has a value.

        :raises KitError: a variable has no value, or none outside VS Code; the error names no place.
        """
        unclosed = _UNCLOSED.search(text)
        if unclosed:
            what = f"{unclosed.group(1)} has no closing brace."
            raise KitError(what, hint="Add the closing brace.")
        pieces, end = [], 0
        for match in _REFERENCE.finditer(text):
            pieces += [text[end : match.start()], self._value(match.group(), match.group(1), env)]
            end = match.end()
        return hidden.join_words("", [*pieces, text[end:]])

    def _value(self, reference: str, inner: str, env: bool) -> str:
        name, colon, argument = inner.partition(":")
        name = _OLD_NAMES.get(name, name)
        if name in self._values and not colon:
            return self._values[name]
        if name in _SCOPED and argument == self._values["workspaceFolderBasename"]:
            return self._values[name]
        if name == "userHome" and not colon:
            return self._home(reference)
        if not env and inner.startswith(("env:", "env.")):
            what = f"The debugger extension replaces {reference} by nothing in this key."
            raise KitError(what, hint=_NO_ENV)
        if name == "env" and argument and not re.search(r"[:${\0]", argument):
            return hidden.hide_variable(argument, self._env.get(argument, ""))
        raise self._problem(reference, name, argument, env)

    def _home(self, reference: str) -> str:
        try:
            return self._env.get("HOME") or str(pathlib.Path.home())
        except (KeyError, RuntimeError):
            hint = "You have no home directory: set HOME."
            raise KitError(f"{reference} has no value.", hint=hint) from None

    def _problem(self, reference: str, name: str, argument: str, env: bool) -> KitError:
        why = _ELSEWHERE.get(name, "")
        if name == "input":
            asks = self._inputs.get(argument)
            why = f"VS Code asks for it{': ' + asks if asks else ''}.  Make cannot."
            why = 'No entry of "inputs" has this id.' if asks is None else why
        elif _EDITORS.fullmatch(name):
            why = "It depends on what is open in VS Code's editor."
        if why:
            instead = "Write the value itself, or ${env:NAME} and set NAME." if env else _NO_ENV
            return KitError(f"{reference} has no value outside VS Code.", hint=f"{why}\n{instead}")
        if name in _SCOPED:
            hint = f"The only folder is {self._values['workspaceFolderBasename']!r}.  Write ${{{name}}}."
            return KitError(f"{reference} has no value.", hint=hint)
        if env and re.match(r"env\b", name):
            hint = "Write ${env:NAME}."
        else:
            known = [*self._values, "userHome", *(["env:NAME"] if env else [])]
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean ${{{near[0]}}}?\n" if near else ""
            hint += "The variables are " + ", ".join(f"${{{variable}}}" for variable in known) + "."
        return KitError(f"{reference} is no variable of VS Code.", hint=hint)
