"""What running a configuration means: its keys, and its words on their way through a terminal's shell.

Key by key, and what VS Code and debugpy do with the words, with the sources: the README of this folder.
"""

import json
import os
import pathlib
import re
import shlex
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..core import hidden
from ..core.errors import KitError
from ..core.jsonc import ABSENT, KeyPath
from .file import PLATFORM, Configuration
from .invocation import Invocation
from .variables import NAME, NoValueError, Variables

_TYPES = ("debugpy", "python")

_SELECTED = "${command:python.interpreterPath}"
"""The interpreter selected in VS Code."""

_TERMINAL, _EXTERNAL, _NO_SHELL = "integratedTerminal", "externalTerminal", "internalConsole"
"""The values of ``console``; the first is the default."""

_INSTEAD = f'Or set "console": "{_NO_SHELL}", which has no shell.'

_CONTROL = re.compile("[\x01-\x1f\x7f]")
_CONTROL_NAMES = dict(zip("\n\r\t\x1b\x7f", ("A line end", "A carriage return", "A tab", "Escape", "Delete")))

_TILDE = re.compile(r"~|[A-Za-z_]\w*\+?=(.*:)?~", re.ASCII | re.DOTALL)


def resolve(
    configuration: Configuration, *, workspace: pathlib.Path, env: Mapping[str, str], default_python: str
) -> Invocation:
    """Return what VS Code would run for a configuration.

    :param workspace: the folder that VS Code has open: ``${workspaceFolder}``.
    :param env: the environment VS Code was started in: ``${env:…}``.
    :param default_python: the interpreter selected in VS Code, for configurations that name none.
    :raises KitError: a key has a wrong type or value, or the run cannot be reproduced outside VS Code.
    """
    keys = _Keys(configuration, Variables(workspace, env))
    _check_kind(keys)
    return Invocation(
        python=_interpreter(keys, default_python),
        target=_target(keys),
        args=_arguments(keys),
        env=_environment(keys, env),
        cwd=_working_directory(keys),
        options=tuple(keys.strings("pythonArgs")),
    )


class _Keys:
    """The keys of one configuration for this platform, checked and substituted as they are asked for."""

    def __init__(self, configuration: Configuration, variables: Variables) -> None:
        self.configuration = configuration
        self.variables = variables
        self.values = configuration.here
        self.path = configuration.path
        override = configuration.body.get(PLATFORM, {})
        if not isinstance(override, dict):
            raise configuration.error((PLATFORM,), "This must be an object.", "Put { … } there.")
        if "type" in override:
            raise self.error("type", '"type" cannot depend on the platform.', f'Move it out of "{PLATFORM}".')

    def get(self, key: str) -> Any:
        return self.values.get(key, ABSENT)

    def depends_on_platform(self, key: str) -> bool:
        return len(self.path(key)) > 1

    def error(self, key: str, what: str, hint: str) -> KitError:
        return self.configuration.error(self.path(key), what, hint)

    def text(self, key: str) -> str:
        """Return the string ``key``, empty where it is absent."""
        value = self.get(key)
        return "" if value is ABSENT else self.string(self.path(key), value)

    def optional(self, key: str) -> Optional[str]:
        """Return the string ``key``, or None where it is absent or null."""
        return None if self.get(key) in (ABSENT, None) else self.text(key)

    def strings(self, key: str) -> List[str]:
        """Return the list of strings ``key``, empty where it is absent."""
        value = [] if self.get(key) is ABSENT else self.get(key)
        if not isinstance(value, list):
            raise self.error(key, f'"{key}" must be a list of strings.', "Put [ … ] there.")
        return [self.string((*self.path(key), index), item) for index, item in enumerate(value)]

    def string(self, path: KeyPath, value: Any) -> str:
        """Return ``value``, which stands at ``path``, substituted.

        :raises KitError: it is no string, or not one that a process can be given.
        """
        error = self.configuration.error
        if not isinstance(value, str):
            hint = "Write a string, in quotes."
            if isinstance(value, (bool, int, float)) and not self.configuration.hides(path):
                hint = f"Write {json.dumps(json.dumps(value))}, in quotes."
            raise error(path, "This must be a string.", hint)
        try:
            # In "python" the extension replaces variables before VS Code does; in a platform's it does not.
            text = self.variables.substitute(value, env=path != ("python",))
            text.encode("utf-8", "surrogateescape")
        except NoValueError as problem:
            raise error(path, problem.what, problem.hint) from None
        except UnicodeEncodeError:
            what = "Half of a surrogate pair is not a character."
            raise error(path, what, "Write the character itself, or both halves.") from None
        if "\0" in text:
            raise error(path, "No process can be given a NUL character.", "Remove \\u0000.")
        return text


def _check_kind(keys: _Keys) -> None:
    """Raise unless the configuration starts a Python program as the user that runs make."""
    if keys.get("type") not in _TYPES:
        what = "Only configurations of Python's debugger can be run."
        raise keys.error("type", what, 'Set "type": "debugpy".')
    if keys.get("request") != "launch":
        what = "Only configurations that launch a program can be run."
        raise keys.error("request", what, 'Set "request": "launch".')
    if not (keys.get("sudo") is ABSENT or keys.get("sudo") is False):
        raise keys.error("sudo", "A configuration is not run as another user.", 'Remove "sudo".')
    if keys.optional("envFile"):
        hint = (
            'Write what the program needs into "env", a secret as "NAME": "${env:NAME}" with NAME exported,'
        )
        raise keys.error("envFile", "Make reads no environment file.", f'{hint}\nand remove "envFile".')


def _interpreter(keys: _Keys, default: str) -> str:
    if "pythonPath" in keys.values:
        raise keys.error("pythonPath", '"pythonPath" is the old name of "python".', 'Write "python".')
    found = keys.get("python")
    if isinstance(found, list):
        what = "The debugger extension takes no list here, though debugpy does."
        raise keys.error(
            "python", what, 'Write the interpreter as a string, and its options as "pythonArgs".'
        )
    python = default if found == _SELECTED else keys.optional("python")
    if not python and keys.depends_on_platform("python"):
        raise keys.error("python", "The interpreter's name is empty.", 'Remove "python".')
    return python or default


def _target(keys: _Keys) -> Tuple[str, ...]:
    given = [key for key in ("program", "module", "code") if key in keys.values]
    if len(given) != 1:
        what = '"program", "module" and "code" exclude each other.' if given else "Nothing is to be run."
        hint = 'Set exactly one of "program", "module" and "code".'
        raise keys.error((given or ["program"])[-1], what, hint)
    key = given[0]
    value = keys.get(key)
    is_list = key == "code" and isinstance(value, list)
    text = hidden.joined("\n", keys.strings(key)) if is_list else keys.text(key)
    if value == [] or (not text and key != "code"):
        raise keys.error(key, f'"{key}" is empty.', "Name what is to be run.")
    _check_typed(keys, keys.path(key), text)
    # Python opens a relative program from the directory it is started in; so it stays as written.
    return {"program": (text,), "module": ("-m", text), "code": ("-c", text)}[key]


def _console(keys: _Keys) -> str:
    """Return where the program runs; what is none of VS Code's names is not this kit's to complain about."""
    found = keys.get("console")
    return found if found in (_EXTERNAL, _NO_SHELL) else _TERMINAL


def _check_typed(keys: _Keys, path: KeyPath, word: str) -> None:
    """Raise where a word does not reach the program as it is, for VS Code passes it through a shell."""
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


def _find_control(text: str) -> Optional[str]:
    """Return why a terminal does not take ``text``: a control character is a key there; None: it takes it."""
    found = _CONTROL.search(text)
    if found is None:
        return None
    name = _CONTROL_NAMES.get(found.group()) or f"Control-{chr(ord(found.group()) + 64)}"
    return f"{name} is a key where VS Code types this into a terminal: it changes, ends or deletes the line."


def _find_change(word: str) -> Optional[str]:
    """Return why a word of a list does not reach a program in the integrated terminal; None: it does."""
    if _TILDE.match(word):
        return "VS Code leaves ~ here to the terminal's shell, which puts a home folder in its place."
    if word in ("<", ">"):
        return "VS Code leaves this to the terminal's shell, which redirects input or output."
    if re.match("=.", word, re.DOTALL):
        return "VS Code leaves = here to the terminal's shell, and zsh puts a command's path in its place."
    return _find_control(word)


def _find_raw_change(word: str) -> Optional[str]:
    """Return why a word that a shell gets as it is, quoted for spaces alone, may not reach a program."""
    bare = word.replace(" ", "")
    if shlex.quote(bare) == bare:
        return None
    return "VS Code leaves this word to a shell, which splits, expands or unquotes it."


def _working_directory(keys: _Keys) -> str:
    cwd = keys.optional("cwd")
    if cwd is None:
        return keys.variables.folder
    if not pathlib.PurePath(cwd).is_absolute():
        what = "VS Code takes a relative working directory from where it was started itself."
        raise keys.error("cwd", what, "Begin it with ${workspaceFolder}, or ${userHome} for ~.")
    reason = _find_control(cwd) if _console(keys) == _TERMINAL else None
    if reason is not None:
        raise keys.error("cwd", reason, f"Name another folder.\n{_INSTEAD}")
    return hidden.mapped(lambda text: str(pathlib.PurePath(text)), cwd)


def _arguments(keys: _Keys) -> Tuple[str, ...]:
    if not isinstance(keys.get("args"), str):
        words = keys.strings("args")
        for index, word in enumerate(words):
            _check_typed(keys, (*keys.path("args"), index), word)
        return tuple(words)
    console, text = _console(keys), keys.text("args")
    words = text.split()
    what: Optional[str] = None
    if console == _NO_SHELL:
        what = f'debugpy takes no string here with "console": "{console}": there is no shell.'
    elif console == _EXTERNAL and text:
        what = f'With "console": "{console}" VS Code makes one word of a string.'
    elif hidden.shown(text) != text:
        what = "How a shell splits a value of the environment cannot be shown without showing the value."
    elif any(map(_find_change, words)) or (words and _find_raw_change(text)):
        what = _find_control(text) or "A shell would expand these arguments, or cannot split them."
    if what:
        raise keys.error("args", what, "Write a list, one string an argument.")
    return tuple(words)


def _environment(keys: _Keys, env: Mapping[str, str]) -> Dict[str, Optional[str]]:
    """Return the variables that the configuration sets (None: removes)."""
    entries = keys.get("env")
    if not isinstance(entries, dict) and entries is not ABSENT:
        raise keys.error("env", '"env" must be an object.', 'Put { "NAME": "…" } there.')
    own = dict(_variable(keys, key, value) for key, value in ({} if entries is ABSENT else entries).items())
    for name in ("PATH", "PYTHONPATH"):
        searched = hidden.mapped(str.strip, own.get(name) or "")
        inherited = env.get(name, "").strip()
        if not searched:
            own.pop(name, None)
        elif inherited:
            own[name] = hidden.joined(os.pathsep, [searched, hidden.of_environment(name, inherited)])
        else:
            own[name] = searched
    return own


def _variable(keys: _Keys, key: str, value: Any) -> Tuple[str, Optional[str]]:
    """Return the name and the value that an entry of ``env`` sets (None: removes)."""
    path = (*keys.path("env"), key)
    name = keys.string(path, key)  # VS Code substitutes in keys, too.
    if not NAME.fullmatch(name) or hidden.shown(name) != name:
        # What stands behind = was meant for a value.
        named, equals, _ = key.partition("=")
        what = f"{named + equals!r} cannot be the name of a variable."
        hint = "Name it with letters, digits and underscores."
        raise keys.configuration.error(path[:-1] if equals else path, what, hint)
    if value is None and name in ("PATH", "PYTHONPATH"):
        what = f"VS Code does not remove {name}: it runs with what it inherits."
        hint = "Remove the key; or unset the variable before VS Code or make is started."
        raise keys.configuration.error(path, what, hint)
    return name, None if value is None else hidden.of_entry(name, value, keys.string(path, value))
