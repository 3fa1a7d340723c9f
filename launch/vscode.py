"""VS Code's launch file, and what running one of its configurations means without VS Code.

``.vscode/launch.json`` is the one place where the steps' command lines are written.  VS Code runs them in
its debugger, make runs them from here, and both must start the same program.  What only tells VS Code how
to show a run (``console``, ``justMyCode``, ``presentation``, ``preLaunchTask``, …) is not looked at; what
make cannot reproduce (``${input:…}``, ``sudo``, arguments that a shell would expand) is an error.

Sources of the decisions, by the names the comments use: *Variables reference*, *Debug configuration* and
*Python debugging* are pages of VS Code's documentation, *Environment files* is the section on ``.env`` of
its page on Python environments, *debugpy* is the debugger's handling of a launch request, and *extension*
is what the Python debugger extension does before debugpy sees the configuration.
"""

import difflib
import json
import os
import pathlib
import re
import shlex
import sys
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

from . import jsonc
from .errors import KitError


@dataclass(frozen=True)
class Configuration:
    """One entry of ``configurations``, as written.

    :param name: its ``name``, unique in the file.
    :param file: the launch file, for errors.
    :param body: the entry; nothing is substituted.
    :param index: its place in the list, from 0, for errors.
    """

    name: str
    file: str
    body: Dict[str, Any]
    index: int = 0

    @property
    def here(self) -> Dict[str, Any]:
        """The entry for this platform, still as written.

        Debug configuration, Platform-specific properties: the platform's keys replace the general ones; VS
        Code does so key by key, so that a platform's "env" replaces the general "env" as a whole.
        """
        override = self.body.get(_PLATFORM_KEYS.get(sys.platform, "linux"))
        return {**self.body, **(override if isinstance(override, dict) else {})}


@dataclass(frozen=True)
class Invocation:
    """A program to run: every variable is substituted, every default filled in.

    :param python: the interpreter.
    :param target: ``("prog.py",)``, ``("-m", "module")`` or ``("-c", "code")``.
    :param args: what the program gets after that.
    :param env: the variables that the configuration sets; None removes one that is inherited.
    :param cwd: the directory to run in, absolute; a relative program is opened from there.
    :param options: the interpreter's own, before the target.
    """

    python: str
    target: Tuple[str, ...]
    args: Tuple[str, ...]
    env: Mapping[str, Optional[str]]
    cwd: str
    options: Tuple[str, ...] = ()

    def argv(self) -> List[str]:
        """Return the command line, one string for each argument."""
        return [self.python, *self.options, *self.target, *self.args]

    def environment(self, base: Mapping[str, str]) -> Dict[str, str]:
        """Return ``base`` with the configuration's variables set and removed."""
        merged: Dict[str, Optional[str]] = {**base, **self.env}
        return {name: value for name, value in merged.items() if value is not None}

    def shell(self) -> str:
        """Return a command for a POSIX shell that does the same, with an option and its value on a line."""
        lines = []
        if self.env:
            removed = [word for name, value in self.env.items() if value is None for word in ("-u", name)]
            lines.append(["env", *removed])
            lines += [[f"{name}={value}"] for name, value in self.env.items() if value is not None]
        # Both env(1) and the shell could take an interpreter with = in its path for one more variable.
        detour = ["/bin/sh", "-c", 'exec "$0" "$@"'] if "=" in self.python else []
        lines.append([*detour, self.python, *self.options, *self.target])
        pair_open = False
        for arg in self.args:
            option = arg.startswith("-")
            if pair_open and not option:
                lines[-1].append(arg)
            else:
                lines.append([arg])
            pair_open = option
        quoted = [" ".join(shlex.quote(word) for word in line) for line in lines]
        return f"cd {shlex.quote(self.cwd)} && \\\n" + " \\\n  ".join(quoted)


def load(path: pathlib.Path) -> List[Configuration]:
    """Return the configurations of a launch file in the file's order.

    :raises KitError: the file cannot be read, is not UTF-8 (a byte order mark is passed over) or not JSON
        with comments, or its configurations are not objects with distinct names.
    """
    source = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise KitError(
            f"{source} is not UTF-8.",
            where=f"{source}, byte {error.start}: {error.object[error.start]:#04x}",
            hint="Save the file as UTF-8.",
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise KitError(
            f"The launch file cannot be read: {reason}.",
            where=source,
            hint="Name a file that exists and that you may read.",
        ) from None
    document = jsonc.loads(text, source)
    if not isinstance(document, dict):
        raise _error(source, "", document, "A launch file is an object.", 'Put { "configurations": [ … ] }.')
    entries = document.get("configurations", _ABSENT)
    if not isinstance(entries, list):
        raise _error(
            source,
            "configurations",
            entries,
            "A launch file needs a list of configurations.",
            'Put "configurations": [ { "name": … }, … ] into the file.',
        )
    found: Dict[str, Configuration] = {}
    for index, entry in enumerate(entries):
        key = f"configurations[{index}]"
        if not isinstance(entry, dict):
            raise _error(source, key, entry, "A configuration is an object.", 'Put { "name": …, … } there.')
        name = entry.get("name", _ABSENT)
        if not isinstance(name, str) or not name:
            raise _error(source, key + ".name", name, "A configuration needs a name.", 'Add a "name".')
        if name in found:
            first = found[name].index
            what = f"configurations[{first}] has the same name."
            raise _error(source, key + ".name", name, what, "Rename one of the two.")
        found[name] = Configuration(name, source, entry, index)
    return list(found.values())


def find(configurations: List[Configuration], name: str) -> Configuration:
    """Return the configuration called ``name``.

    :raises KitError: there is none; the error lists the names and the nearest.
    """
    names = [configuration.name for configuration in configurations]
    if name in names:
        return configurations[names.index(name)]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0) if name else []
    raise KitError(
        f"There is no configuration {name!r}.",
        where=f"{configurations[0].file}, configurations[*].name" if configurations else "",
        hint=(f"Did you mean {near[0]!r}?\n" if near else "")
        + ("The names are:\n  " + "\n  ".join(names) if names else "The launch file has no configurations."),
    )


def resolve(
    configuration: Configuration,
    *,
    workspace: pathlib.Path,
    env: Mapping[str, str],
    default_python: str,
) -> Invocation:
    """Return what VS Code would run for a configuration.

    :param workspace: the folder that VS Code has open: ``${workspaceFolder}``.
    :param env: the environment VS Code was started in: ``${env:…}``.
    :param default_python: the interpreter selected in VS Code, for configurations that name none.
    :raises KitError: a key has a wrong type or value, or the run cannot be reproduced outside VS Code.
    """
    # VS Code opens folders by absolute, normal paths.
    folder = os.path.normpath(str(workspace.absolute()))
    keys = _Keys(configuration, folder, env)
    _check_kind(keys)
    python, options = _interpreter(keys, default_python)
    # Extension: the default is the workspace.  Nobody documents what a relative one is relative to.
    cwd = str(pathlib.Path(folder) / (keys.text("cwd") or ""))
    return Invocation(python, _target(keys), _arguments(keys), _environment(keys, folder, env), cwd, options)


class _Absent:
    """The value of a key that is not there; null is a value."""


_ABSENT = _Absent()

_PLATFORM_KEYS = {"linux": "linux", "darwin": "osx", "win32": "windows"}

# Debug configuration and extension: "python" is the debugger's name of before 2023.
_TYPES = ("debugpy", "python")

# What a shell leaves alone: it splits this, as shlex does, and expands nothing ("!" is the history's).
_SPLIT_ONLY = re.compile(
    r"""(?: '[^']*'
          | "(?:[^"\\$`!]|\\[^$`!\r\n])*"
          | \\[^\r\n]
          | [^\s'"\\$`*?\[\]{}~;&|<>()\#!]
          | [ \t]
        )*""",
    re.VERBOSE,
)

_ENV_LINE = re.compile(r"\s*(?:export\s+)?(_*[A-Za-z]\w*)\s*=\s*(.*?)\s*", re.ASCII)
_ENV_SUBSTITUTION = re.compile(r"\\\$|\$\{([^}]*)\}")
_ENV_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


def _error(source: str, key: str, value: Any, what: str, hint: str) -> KitError:
    """Return an error at ``key`` (empty: the whole file) of the launch file."""
    shown = "absent" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
    if len(shown) > 200:
        shown = shown[:200] + "…"
    return KitError(what, where=f"{source}, {key} = {shown}" if key else f"{source}: {shown}", hint=hint)


class _Keys:
    """The keys of one configuration for this platform, checked and substituted as they are asked for.

    Keys that nobody asks for are not substituted: a ``${command:…}`` that only VS Code's display needs is
    no reason not to run.
    """

    def __init__(self, configuration: Configuration, folder: str, env: Mapping[str, str]) -> None:
        self.source = configuration.file
        self.prefix = f"configurations[{configuration.index}]."
        self.folder = folder
        self.env = env
        self.values = configuration.here
        self.paths = {key: self.prefix + key for key in self.values}
        platform = _PLATFORM_KEYS.get(sys.platform, "linux")
        override = configuration.body.get(platform, {})
        if not isinstance(override, dict):
            raise self.error(self.prefix + platform, override, "This must be an object.", "Put { … } there.")
        for key in override:
            self.paths[key] = f"{self.prefix}{platform}.{key}"

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str) -> Any:
        return self.values.get(key, _ABSENT)

    def path(self, key: str) -> str:
        return self.paths.get(key, self.prefix + key)

    def error(self, path: str, value: Any, what: str, hint: str) -> KitError:
        return _error(self.source, path, value, what, hint)

    def text(self, key: str) -> Optional[str]:
        """Return the string ``key``, or None where it is absent."""
        value = self.get(key)
        return None if value is _ABSENT else self.string(self.path(key), value)

    def strings(self, key: str) -> List[str]:
        """Return the list of strings ``key``, empty where it is absent."""
        value = [] if self.get(key) is _ABSENT else self.get(key)
        if not isinstance(value, list):
            raise self.error(self.path(key), value, f'"{key}" must be a list of strings.', "Put [ … ] there.")
        return [self.string(f"{self.path(key)}[{index}]", item) for index, item in enumerate(value)]

    def string(self, path: str, value: Any) -> str:
        """Return ``value``, which stands at ``path``, substituted.

        :raises KitError: it is no string, or not one that a process can be given.
        """
        if not isinstance(value, str):
            hint = f"Write {json.dumps(json.dumps(value))}, in quotes."
            if value is None or isinstance(value, (list, dict)):
                hint = "Write a string, in quotes."
            raise self.error(path, value, "This must be a string.", hint)

        def substitute(match: "re.Match[str]") -> str:
            return self.variable(match, path, value)

        # Variables reference; in one pass, so that what a variable holds stays as it is.
        text = re.sub(r"\$\{(.*?)\}", substitute, value)
        try:
            text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            what = "Half of a surrogate pair is not a character."
            raise self.error(path, value, what, "Write the character itself, or both halves.") from None
        if "\0" in text:
            raise self.error(path, value, "No process can be given a NUL character.", "Remove \\u0000.")
        return text

    def variable(self, match: "re.Match[str]", path: str, value: str) -> str:
        """Return the value of the ``${…}`` that was matched in the string at ``path``."""
        name, colon, argument = match.group(1).partition(":")
        # Variables reference: ${cwd} is the directory VS Code was started in; with a folder open, the folder.
        values = {
            "workspaceFolder": self.folder,
            "workspaceFolderBasename": pathlib.PurePath(self.folder).name,
            "cwd": self.folder,
            "pathSeparator": os.sep,
            "/": os.sep,
        }
        if not colon and name in values:
            return values[name]
        if not colon and name == "userHome":
            try:
                return self.env.get("HOME") or str(pathlib.Path.home())
            except (KeyError, RuntimeError):
                raise self.error(path, value, "You have no home directory.", "Set HOME.") from None
        if name == "env" and argument and not re.search(r"[:${\0]", argument):
            return self.env.get(argument, "")  # Variables reference: unset is empty
        if name in ("command", "input", "config", "extensionInstallFolder"):
            hint = "Only VS Code can find its value.  Write the value itself, or ${env:NAME} and set NAME."
        elif re.match(r"file|relativeFile|lineNumber|columnNumber|selectedText", name):
            hint = "It depends on what is open in VS Code's editor.  Write the value itself."
        elif name == "env":
            hint = "Write ${env:NAME}."
        else:
            known = [*values, "userHome", "env:NAME"]
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean ${{{near[0]}}}?\n" if near else ""
            hint += "The variables are " + ", ".join(f"${{{variable}}}" for variable in known) + "."
        raise self.error(path, value, f"{match.group()} has no value outside VS Code.", hint)


def _check_kind(keys: _Keys) -> None:
    """Raise unless the configuration starts a Python program as the user that runs make."""
    kind, request, sudo = keys.get("type"), keys.get("request"), keys.get("sudo")
    if kind not in _TYPES:
        what = "Only configurations of Python's debugger can be run."
        raise keys.error(keys.path("type"), kind, what, 'Set "type": "debugpy".')
    if request != "launch":
        what = "Only configurations that launch a program can be run."
        raise keys.error(keys.path("request"), request, what, 'Set "request": "launch".')
    if sudo is not _ABSENT and sudo is not False:
        what = "A configuration is not run as another user."
        raise keys.error(keys.path("sudo"), sudo, what, 'Remove "sudo".')


def _interpreter(keys: _Keys, default: str) -> Tuple[str, Tuple[str, ...]]:
    """Return the interpreter and its options."""
    # Debugpy: "pythonPath" is the old name of "python"; the two exclude each other.
    if "python" in keys and "pythonPath" in keys:
        what = '"python" and its old name "pythonPath" exclude each other.'
        raise keys.error(keys.path("pythonPath"), keys.get("pythonPath"), what, 'Remove "pythonPath".')
    key = "pythonPath" if "pythonPath" in keys else "python"
    value = keys.get(key)
    # Debugpy: a list is the interpreter and its options.
    words: List[Optional[str]] = [*keys.strings(key)] if isinstance(value, list) else [keys.text(key)]
    if value is _ABSENT:
        words = [default]
    if not words or not words[0]:
        raise keys.error(keys.path(key), value, "The interpreter's name is empty.", f'Remove "{key}".')
    # Python debugging and debugpy: "pythonArgs" follow those of "python".
    return words[0], (*(word for word in words[1:] if word is not None), *keys.strings("pythonArgs"))


def _target(keys: _Keys) -> Tuple[str, ...]:
    """Return what Python is to run."""
    given = [key for key in ("program", "module", "code") if key in keys]
    # Debugpy: exactly one of the three.
    if len(given) != 1:
        key = given[1] if given else "program"
        what = '"program", "module" and "code" exclude each other.' if given else "Nothing is to be run."
        hint = 'Set exactly one of "program", "module" and "code".'
        raise keys.error(keys.path(key), keys.get(key), what, hint)
    key = given[0]
    if key == "code":
        # Debugpy: a list holds the lines.
        lines = keys.strings(key) if isinstance(keys.get(key), list) else [keys.text(key) or ""]
        return "-c", "\n".join(lines)
    value = keys.text(key)
    if not value:
        raise keys.error(keys.path(key), keys.get(key), f'"{key}" is empty.', "Name what is to be run.")
    # Python opens a relative program from the directory it is started in; so it stays as written.
    return (value,) if key == "program" else ("-m", value)


def _arguments(keys: _Keys) -> Tuple[str, ...]:
    """Return the program's arguments."""
    if not isinstance(keys.get("args"), str):
        return tuple(keys.strings("args"))
    # Debugpy: the terminal's shell gets a string as it is, and may do more with it than split it.
    text = keys.text("args") or ""
    try:
        if _SPLIT_ONLY.fullmatch(text):
            return tuple(shlex.split(text))
    except ValueError:
        pass
    what = "A shell would expand these arguments, or cannot split them."
    raise keys.error(keys.path("args"), keys.get("args"), what, "Write a list, one string an argument.")


def _environment(keys: _Keys, folder: str, env: Mapping[str, str]) -> Dict[str, Optional[str]]:
    """Return the variables that the configuration sets (None: removes)."""
    own: Dict[str, Optional[str]] = {}
    entries = keys.get("env")
    if not isinstance(entries, dict) and entries is not _ABSENT:
        raise keys.error(keys.path("env"), entries, '"env" must be an object.', 'Put { "NAME": "…" } there.')
    for key, value in entries.items() if isinstance(entries, dict) else ():
        path = f"{keys.path('env')}.{key}"
        name = keys.string(path, key)  # VS Code substitutes in keys, too.
        if not name or "=" in name or name.startswith("-"):
            what = f"{name!r} cannot be the name of a variable."
            raise keys.error(path, value, what, "Name it with letters, digits and underscores.")
        own[name] = None if value is None else keys.string(path, value)  # Debugpy: null removes.
    # Environment files: without "envFile", .env in the workspace is read where there is one.
    file = keys.text("envFile")
    from_file: Dict[str, str] = {}
    if file is not None or (pathlib.Path(folder) / ".env").is_file():
        path = keys.path("envFile") + ("" if file is not None else " (absent: .env)")
        # Relative to the workspace, as "cwd"; in VS Code it would hang on where VS Code was started.
        from_file = _read_env_file(
            pathlib.Path(folder) / (".env" if file is None else file), f"{keys.source}, {path}", own
        )
    merged: Dict[str, Optional[str]] = {**from_file, **own}  # Extension: "env" wins.
    # Extension: these two are prepended to what is inherited, "envFile" first; a blank one changes nothing.
    for name in ("PATH", "PYTHONPATH"):
        if merged.get(name) is None:
            continue
        parts = [(value or "").strip() for value in (from_file.get(name), own.get(name))]
        if any(parts):
            merged[name] = os.pathsep.join(part for part in (*parts, env.get(name, "").strip()) if part)
        else:
            del merged[name]
    return merged


def _read_env_file(path: pathlib.Path, key: str, own: Mapping[str, Optional[str]]) -> Dict[str, str]:
    """Return the variables of an environment file.

    The extension passes over a missing file and over lines it does not understand; here they are errors,
    for a run that lacks a variable is another run.  Errors show no line: these files hold secrets.

    :param key: the launch file and the key that names the file, for errors.
    :param own: the configuration's ``env``; lines may refer to it, and to earlier lines, as ``${NAME}``.
    :raises KitError: the file cannot be read, or a line is neither empty, a comment nor ``NAME=VALUE``.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8"
        raise KitError(
            f"The environment file cannot be read: {reason}.",
            where=f"{key} = {path}",
            hint='Correct or remove "envFile".',
        ) from None
    variables: Dict[str, str] = {}

    def substitute(reference: "re.Match[str]") -> str:
        other = reference.group(1)
        return "$" if other is None else variables.get(other) or own.get(other) or ""

    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ENV_LINE.fullmatch(line)
        where = f"{path}, line {number}"
        if match is None or "\0" in line:
            raise KitError("This line sets no variable.", where=where, hint="Write NAME=VALUE or # comment.")
        name, value = match.groups()
        # Extension: quotes count only around the whole value; \n in them is a line end.
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1].replace("\\n", "\n")
        # Environment files: ${NAME} is replaced within quotes of either kind, and \$ is a plain $.
        for reference in _ENV_SUBSTITUTION.finditer(value):
            if reference.group(1) is not None and not _ENV_NAME.fullmatch(reference.group(1)):
                hint = "Write ${NAME}, or \\${ for the characters themselves."
                raise KitError(f"{reference.group()} in {name} is no variable.", where=where, hint=hint)
        variables[name] = _ENV_SUBSTITUTION.sub(substitute, value)
    return variables
