"""What running a configuration means: its keys and variables, as VS Code takes them (sources: README.md)."""

import difflib
import json
import os
import pathlib
import re
import shlex
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..core import hidden
from ..core.errors import KitError
from .invocation import Invocation
from .launch_file import ABSENT, PLATFORM, Configuration, KeyPath

_TYPES = ("debugpy", "python")

_SELECTED = "${command:python.interpreterPath}"  # the interpreter selected in VS Code

_BEFORE_VSCODE = (("python",), ("pythonPath",))
"""Keys in which the extension replaces variables before VS Code does, except in a platform's object."""

_BLANKS = "".join(map(chr, (*range(9, 14), 32, 160, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029)))
_BLANKS += "\u202f\u205f\u3000\ufeff"
"""White space of JavaScript's ``trim``, which differs from Python's."""

# The values of "console"; the first is the default.
_INTEGRATED, _EXTERNAL, _NO_SHELL = "integratedTerminal", "externalTerminal", "internalConsole"

_CONTROL = re.compile("[\x01-\x1f\x7f]")
_NAMES = {"\n": "A line end", "\r": "A carriage return", "\t": "A tab", "\x1b": "Escape", "\x7f": "Delete"}
_TILDE = re.compile(r"~|[A-Za-z_]\w*\+?=(.*:)?~", re.ASCII | re.DOTALL)

# What a shell leaves alone: it splits this, as shlex does, and expands nothing ("!" is the history's).
_SPLIT_ONLY = re.compile(
    r"""(?: '[^']*'
          | "(?:[^"\\$`!]|\\[^$`!\r\n])*"
          | \\[^\r\n]
          | [^\s'"\\$`*?\[\]{}~;&|<>()\#!=]
          | (?<![\s])(?<!^)=
          | [ \t]
        )*""",
    re.VERBOSE,
)

_INSTEAD = f'Or set "console": "{_NO_SHELL}", which has no shell.'

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


def resolve_configuration(variables: "Variables", default_python: str) -> Invocation:
    """Return what VS Code would run for a configuration with these variables.

    :param default_python: the interpreter selected in VS Code, for configurations that name none.
    :raises KitError: a key has a wrong type or value, or the run cannot be reproduced outside VS Code.
    """
    keys = _Keys(variables)
    _check_kind(keys)
    return Invocation(
        python=_interpreter(keys, default_python),
        target=_target(keys),
        args=_arguments(keys),
        env=_environment(keys),
        cwd=_working_directory(keys),
        options=tuple(keys.strings("pythonArgs")),
    )


class Variables:
    """A configuration's ``${…}`` variables: ``workspace`` is open in a VS Code started in ``env``."""

    def __init__(self, configuration: Configuration, workspace: pathlib.Path, env: Mapping[str, str]) -> None:
        self.configuration = configuration
        # VS Code opens folders by absolute, normal paths.
        self.folder = folder = os.path.normpath(str(workspace.absolute()))
        self.env = env
        self._inputs = configuration.inputs
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
            return hidden.hide_variable(argument, self.env.get(argument, ""))
        raise self._problem(reference, name, argument, env)

    def _home(self, reference: str) -> str:
        try:
            return self.env.get("HOME") or str(pathlib.Path.home())
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


class _Keys:
    """One configuration's keys for this platform, checked and substituted when they are asked for."""

    def __init__(self, variables: Variables) -> None:
        self.variables = variables
        self.configuration = configuration = variables.configuration
        self.values = configuration.here
        override = configuration.body.get(PLATFORM, {})
        if not isinstance(override, dict):
            raise configuration.error((PLATFORM,), "This must be an object.", "Put { … } there.")
        if "type" in override:
            raise self.error("type", '"type" cannot depend on the platform.', f'Move it out of "{PLATFORM}".')

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str) -> Any:
        return self.values.get(key, ABSENT)

    def path(self, key: str) -> KeyPath:
        return self.configuration.path(key)

    def depends_on_platform(self, key: str) -> bool:
        return len(self.path(key)) > 1

    def error(self, key: str, what: str, hint: str) -> KitError:
        return self.configuration.error(self.path(key), what, hint)

    def text(self, key: str) -> str:
        """Return the string ``key``, which must be there."""
        return self.string(self.path(key), self.values[key])

    def optional(self, key: str) -> Optional[str]:
        """Return the string ``key``; None where it is absent or null."""
        return None if self.get(key) in (ABSENT, None) else self.text(key)

    def strings(self, key: str) -> List[str]:
        """Return the list of strings ``key``; empty where it is absent."""
        value = [] if self.get(key) is ABSENT else self.get(key)
        if not isinstance(value, list):
            raise self.error(key, f'"{key}" must be a list of strings.', "Put [ … ] there.")
        return [self.string((*self.path(key), index), item) for index, item in enumerate(value)]

    def string(self, path: KeyPath, value: Any) -> str:
        """Return ``value``, at ``path``, substituted; a KitError where no process can be given it."""
        error = self.configuration.error
        if not isinstance(value, str):
            hint = "Write a string, in quotes."
            if isinstance(value, (bool, int, float)) and not self.configuration.hides(path):
                hint = f"Write {json.dumps(json.dumps(value))}, in quotes."
            raise error(path, "This must be a string.", hint)
        try:
            text = self.variables.substitute(value, env=path not in _BEFORE_VSCODE)
            text.encode("utf-8", "surrogateescape")
        except KitError as problem:
            raise error(path, problem.what, problem.hint) from None
        except UnicodeEncodeError:
            what = "Half of a surrogate pair is not a character."
            raise error(path, what, "Write the character itself, or both halves.") from None
        if "\0" in text:
            raise error(path, "No process can be given a NUL character.", "Remove \\u0000.")
        return text


def _check_kind(keys: _Keys) -> None:
    """:raises KitError: it starts no Python program, starts it as another user, or names an ``envFile``."""
    if keys.get("type") not in _TYPES:
        what = "Only configurations of Python's debugger can be run."
        raise keys.error("type", what, 'Set "type": "debugpy".')
    if keys.get("request") != "launch":
        what = "Only configurations that launch a program can be run."
        raise keys.error("request", what, 'Set "request": "launch".')
    what = "A configuration is not run as another user."
    if not (keys.get("sudo") is ABSENT or keys.get("sudo") is False):
        raise keys.error("sudo", what, 'Remove "sudo".')
    options = keys.get("debugOptions")
    if isinstance(options, list) and "Sudo" in options:
        raise keys.error("debugOptions", what, 'Remove "Sudo".')
    if keys.optional("envFile"):
        hint = (
            'Write what the program needs into "env", a secret as "NAME": "${env:NAME}" with NAME exported,'
        )
        raise keys.error("envFile", "Make reads no environment file.", f'{hint}\nand remove "envFile".')


def _interpreter(keys: _Keys, default: str) -> str:
    key = "python"
    if "pythonPath" in keys:
        key = "pythonPath"
        if keys.depends_on_platform(key):
            what = f'The debugger extension passes over "{key}" in "{PLATFORM}".'
            raise keys.error(key, what, 'Write "python".')
        if "python" in keys:
            what = '"python" and its old name "pythonPath" exclude each other.'
            raise keys.error(key, what, 'Remove "pythonPath".')
    if isinstance(keys.get(key), list):
        what = "The debugger extension takes no list here, though debugpy does."
        raise keys.error(key, what, 'Write the interpreter as a string, and its options as "pythonArgs".')
    python = default if keys.get(key) == _SELECTED else keys.optional(key)
    if not python and keys.depends_on_platform(key):
        raise keys.error(key, "The interpreter's name is empty.", f'Remove "{key}".')
    return python or default


def _target(keys: _Keys) -> Tuple[str, ...]:
    given = [key for key in ("program", "module", "code") if key in keys]
    if len(given) != 1:
        what = '"program", "module" and "code" exclude each other.' if given else "Nothing is to be run."
        hint = 'Set exactly one of "program", "module" and "code".'
        raise keys.error((given or ["program"])[-1], what, hint)
    key = given[0]
    value = keys.get(key)
    is_list = key == "code" and isinstance(value, list)
    text = hidden.join_words("\n", keys.strings(key)) if is_list else keys.text(key)
    if value == [] or (not text and key != "code"):
        raise keys.error(key, f'"{key}" is empty.', "Name what is to be run.")
    _check_typed(keys, keys.path(key), text)
    # Python opens a relative program from the directory it is started in; so it stays as written.
    return {"program": (text,), "module": ("-m", text), "code": ("-c", text)}[key]


def _console(keys: _Keys) -> str:
    """Return where the program runs; an unknown name means the default, as in VS Code."""
    found = keys.get("console")
    return found if found in (_EXTERNAL, _NO_SHELL) else _INTEGRATED


def _check_typed(keys: _Keys, path: KeyPath, word: str) -> None:
    """:raises KitError: the shell through which VS Code passes the word would change it."""
    console = _console(keys)
    if console == _NO_SHELL:
        return
    hint = "Write the path itself, or begin it with ${userHome}." if "~" in word else "Leave that out."
    hint += f"\n{_INSTEAD}"
    if console == _EXTERNAL:
        what = _find_raw_change(word)
    elif isinstance(keys.get("args"), str):
        what = _find_raw_change(word) or _find_control(word)
        hint = 'Write "args" as a list, one string an argument: VS Code quotes the words then.'
    else:
        what = _find_change(word)
    if what is not None:
        raise keys.configuration.error(path, what, hint)


def _working_directory(keys: _Keys) -> str:
    cwd = keys.optional("cwd")
    if cwd is None:
        return keys.variables.folder
    if not pathlib.PurePath(cwd).is_absolute():
        what = "VS Code takes a relative working directory from where it was started itself."
        raise keys.error("cwd", what, "Begin it with ${workspaceFolder}, or ${userHome} for ~.")
    reason = _find_control(cwd) if _console(keys) == _INTEGRATED else None
    if reason is not None:
        raise keys.error("cwd", reason, f"Name another folder.\n{_INSTEAD}")
    return hidden.map_word(lambda text: str(pathlib.PurePath(text)), cwd)


def _arguments(keys: _Keys) -> Tuple[str, ...]:
    if not isinstance(keys.get("args"), str):
        words = keys.strings("args")
        for index, word in enumerate(words):
            _check_typed(keys, (*keys.path("args"), index), word)
        return tuple(words)
    console, text = _console(keys), keys.text("args")
    split = _split_words(text)
    if console == _NO_SHELL:
        what: Optional[str] = f'debugpy takes no string here with "console": "{console}": there is no shell.'
    elif console == _EXTERNAL and text:
        what = f'With "console": "{console}" VS Code makes one word of a string.'
    elif hidden.show_word(text) != text:
        what = "How a shell splits a value of the environment cannot be shown without showing the value."
    else:
        what = _find_control(text)
    if what is None and split is not None:
        return tuple(split)
    what = what or "A shell would expand these arguments, or cannot split them."
    raise keys.error("args", what, "Write a list, one string an argument.")


def _environment(keys: _Keys) -> Dict[str, Optional[str]]:
    """Return the variables that the configuration sets; None removes one."""
    entries = keys.get("env")
    if not isinstance(entries, dict) and entries is not ABSENT:
        raise keys.error("env", '"env" must be an object.', 'Put { "NAME": "…" } there.')
    own = dict(_variable(keys, key, value) for key, value in ({} if entries is ABSENT else entries).items())
    for name in ("PATH", "PYTHONPATH"):
        searched = hidden.map_word(lambda text: text.strip(_BLANKS), own.get(name) or "")
        inherited = keys.variables.env.get(name, "").strip(_BLANKS)
        if not searched:
            own.pop(name, None)
        elif inherited:
            own[name] = hidden.join_words(os.pathsep, [searched, hidden.hide_variable(name, inherited)])
        else:
            own[name] = searched
    return own


def _variable(keys: _Keys, key: str, value: Any) -> Tuple[str, Optional[str]]:
    path = (*keys.path("env"), key)
    name = keys.string(path, key)  # VS Code substitutes in keys, too.
    if not name or "=" in name or name.startswith("-") or hidden.show_word(name) != name:
        # What stands behind = was meant for a value.
        named, equals, _ = key.partition("=")
        what = f"{named + equals!r} cannot be the name of a variable."
        hint = "Name it with letters, digits and underscores."
        raise keys.configuration.error(path[:-1] if equals else path, what, hint)
    if value is None and name in ("PATH", "PYTHONPATH"):
        what = f"VS Code does not remove {name}: it runs with what it inherits."
        hint = "Remove the key; or unset the variable before VS Code or make is started."
        raise keys.configuration.error(path, what, hint)
    return name, None if value is None else hidden.hide_entry(name, value, keys.string(path, value))


def _find_control(text: str) -> Optional[str]:
    """Return why a terminal does not take ``text``; None where it does."""
    found = _CONTROL.search(text)
    if found is None:
        return None
    sign = found.group()
    name = _NAMES.get(sign) or f"Control-{chr(ord(sign) + 64)}"
    return f"{name} is a key where VS Code types this into a terminal: it changes, ends or deletes the line."


def _find_change(word: str) -> Optional[str]:
    """Return why a word of a list would not reach a program in the integrated terminal, or None."""
    if _TILDE.match(word):
        return "VS Code leaves ~ here to the terminal's shell, which puts a home folder in its place."
    if word in ("<", ">"):
        return "VS Code leaves this to the terminal's shell, which redirects input or output."
    if re.match("=.", word, re.DOTALL):
        return "VS Code leaves = here to the terminal's shell, and zsh puts a command's path in its place."
    return _find_control(word)


def _find_raw_change(word: str) -> Optional[str]:
    """Return why a word that VS Code quotes only for spaces would not reach a program, or None."""
    typed = f'"{word}"' if " " in word else word
    if _split_words(typed) != [word]:
        return "VS Code leaves this word to a shell, which splits, expands or unquotes it."
    return None


def _split_words(text: str) -> Optional[List[str]]:
    """Return the words that a shell splits ``text`` into; None where it would expand it or fail."""
    try:
        return shlex.split(text) if _SPLIT_ONLY.fullmatch(text) else None
    except ValueError:
        return None
