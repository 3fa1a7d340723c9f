"""The ``${…}`` variables of launch files; what each stands for is in the README of this folder."""

import difflib
import os
import pathlib
import re
from typing import Mapping

from ..core import hidden
from .file import PLATFORM

NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
"""A name of a variable of the environment that every shell can refer to."""

_REFERENCE = re.compile(r"\$\{(.*?)\}", re.DOTALL)
_UNCLOSED = re.compile(r"(\$\{(?=[A-Za-z/])(?:env:)?\w*)[^}]*\Z")
"""The name without what follows it, which may be a secret, and the rest."""

_EDITORS = re.compile(r"(file|relativeFile)([A-Z]\w*)?|lineNumber|columnNumber|selectedText")
_ELSEWHERE = {
    "command": "A command of VS Code or of an extension gives its value.",
    "config": "It is one of VS Code's settings.",
    "input": "VS Code asks for it.  Make cannot.",
    **dict.fromkeys(
        ("execPath", "defaultBuildTask", "extensionInstallFolder"), "Only VS Code can find its value."
    ),
}
"""Variables that have a value in VS Code alone, and why."""

_OLD_NAMES = {"workspaceRoot": "workspaceFolder", "workspaceRootFolderName": "workspaceFolderBasename"}
_SCOPED = ("workspaceFolder", "workspaceFolderBasename", "cwd")

_NO_ENV = (
    "Write the path itself, or begin it with ${workspaceFolder} or ${userHome}.\n"
    f'${{env:NAME}} has its value in the "python" of "{PLATFORM}": {{ … }}.'
)
"""What to write in a key in which ``${env:NAME}`` has no value."""


class NoValueError(Exception):
    """A variable has no value outside VS Code: which one (``what``), and what to write instead."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class Variables:
    """What the variables of launch files stand for.

    :param workspace: the folder that VS Code has open.
    :param env: the environment that VS Code was started in.
    """

    def __init__(self, workspace: pathlib.Path, env: Mapping[str, str]) -> None:
        # VS Code opens folders by absolute, normal paths.
        self.folder = os.path.normpath(str(workspace.absolute()))
        self._env = env
        self._values = {
            "workspaceFolder": self.folder,
            "workspaceFolderBasename": pathlib.PurePath(self.folder).name,
            "cwd": self.folder,
            "pathSeparator": os.sep,
            "/": os.sep,
        }

    def substitute(self, text: str, *, env: bool = True) -> str:
        """Return ``text`` with its variables replaced.

        :param env: whether ``${env:NAME}`` has a value here.
        :raises NoValueError: one of the variables has none.
        """
        unclosed = _UNCLOSED.search(text)
        if unclosed:
            raise NoValueError(f"{unclosed.group(1)} has no closing brace.", "Add the closing brace.")
        pieces, end = [], 0
        for match in _REFERENCE.finditer(text):
            pieces += [text[end : match.start()], self._value(match.group(), match.group(1), env)]
            end = match.end()
        return hidden.joined("", [*pieces, text[end:]])

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
            raise NoValueError(what, _NO_ENV)
        if name == "env" and NAME.fullmatch(argument):
            return hidden.of_environment(argument, self._env.get(argument, ""))
        raise self._problem(reference, name, env)

    def _home(self, reference: str) -> str:
        try:
            return self._env.get("HOME") or str(pathlib.Path.home())
        except (KeyError, RuntimeError):
            hint = "You have no home directory: set HOME."
            raise NoValueError(f"{reference} has no value.", hint) from None

    def _problem(self, reference: str, name: str, env: bool) -> NoValueError:
        why = _ELSEWHERE.get(name, "")
        if _EDITORS.fullmatch(name):
            why = "It depends on what is open in VS Code's editor."
        if why:
            instead = "Write the value itself, or ${env:NAME} and set NAME." if env else _NO_ENV
            return NoValueError(f"{reference} has no value outside VS Code.", f"{why}\n{instead}")
        if name in _SCOPED:
            hint = f"The only folder is {self._values['workspaceFolderBasename']!r}.  Write ${{{name}}}."
            return NoValueError(f"{reference} has no value.", hint)
        if env and re.match(r"env\b", name):
            hint = "Write ${env:NAME}, NAME in letters, digits and underscores."
        else:
            known = [*self._values, "userHome", *(["env:NAME"] if env else [])]
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean ${{{near[0]}}}?\n" if near else ""
            hint += "The variables are " + ", ".join(f"${{{variable}}}" for variable in known) + "."
        return NoValueError(f"{reference} is no variable of VS Code.", hint)
