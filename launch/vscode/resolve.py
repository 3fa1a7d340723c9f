"""What running a configuration means: its keys, as VS Code's Python debugger takes them.

Sources, by the names that the table uses:

* *Configuration*: https://code.visualstudio.com/docs/debugtest/debugging-configuration, *Launch.json
  attributes*
* *Python*: https://code.visualstudio.com/docs/python/debugging, *Set configuration options*
* *debugpy*: https://github.com/microsoft/debugpy/wiki/Debug-configuration-settings, and where that is
  silent what a launch request does there (``src/debugpy/adapter/clients.py``,
  ``src/debugpy/launcher/handlers.py``)
* *extension*: the Python debugger extension, which fills in defaults before debugpy sees the configuration
  (https://github.com/microsoft/vscode-python-debugger: ``package.json``;
  ``src/extension/debugger/configuration/resolvers/``)

===============================  ===========================================================================
``type``                         Python: ``debugpy``; ``python`` is its name of before 2023.  Others: an
                                 error.  For ``python``, where the interpreter is named, the Python extension
                                 activates that one's environment, too: EXPLAIN says so.
``request``                      Configuration: ``launch`` starts a program.  ``attach`` starts none: an
                                 error.
``program``, ``module``,         debugpy: exactly one.  ``code`` may be a list, of lines.  Extension: a
``code``                         relative ``program`` is opened from ``cwd``.
``args``                         debugpy: a list is taken word by word.  A string goes to the terminal's shell
                                 as it is: the kit splits it as a shell does, and what a shell would expand is
                                 an error.  So is one with ``"console": "internalConsole"``, which has no
                                 shell: debugpy refuses it; with ``externalTerminal``, which makes it one word
                                 (:mod:`.terminal`); and with ``${env:…}``, of which nobody can tell the
                                 words without showing the value.
``console``                      Extension: absent, ``integratedTerminal``.  Both terminals pass what runs
                                 through a shell: a word that comes out otherwise is an error
                                 (:mod:`.terminal`).  ``internalConsole`` has none.
``python``                       Python: a path.  Absent, or ``${command:python.interpreterPath}``, it is the
                                 interpreter selected in VS Code.  Extension: so is an empty or null one, but
                                 in a platform's object debugpy gets that as it is: an error.  debugpy takes a
                                 list, too; the extension fails at one before: an error.
``pythonPath``                   Extension: the old name of ``python``, passed over where that is given
                                 (``base.ts``: ``resolveAndUpdatePythonPath``): both at once are an error.
                                 In a platform's object it is passed over always: an error.
``pythonArgs``                   Python, debugpy: the interpreter's options.
``cwd``                          Python: the folder that is open.  Extension: also for null.  VS Code's
                                 terminals and debugpy take a relative one, or one with ``~``, from wherever
                                 VS Code was started, and fail: an error, as an empty one is.
``env``                          Configuration: null removes a variable.  debugpy: only strings and null; a
                                 number or a boolean is an error.
``envFile``                      Extension: absent or null, it is ``.env`` in the folder, where there is one;
                                 an empty one is no file at all (``launch.ts``: ``provideLaunchDefaults``).
                                 Make reads none: what is in such a file is often secret.  To name one is an
                                 error; that a ``.env`` is passed over is said (:mod:`launch.jobs`).
``PATH``, ``PYTHONPATH``         Extension (``helper.ts``: ``getDebugEnvironmentVariables``): the value of
                                 ``env``, then what is inherited.  A blank value changes nothing.  null, which
                                 by Configuration removes, does nothing there: an error.
``sudo``                         Python: runs as another user, as does ``"debugOptions": ["Sudo"]``
                                 (extension): an error.
``preLaunchTask``,               Configuration: tasks beside the program: not run.
``postDebugTask``
``gevent``                       Extension and debugpy: sets GEVENT_SUPPORT, which only the debugger reads.
                                 Not set.
``redirectOutput``               Python: where output goes.  Not looked at, nor are PYTHONUNBUFFERED and
                                 PYTHONIOENCODING set, which the extension adds where they are not set.
``stopOnEntry``, ``justMyCode``  Python: how to debug or to show a run, not what runs.  Not looked at, not
``subProcess``, ``django``,      even substituted: a ``${command:…}`` there is no reason not to run.
``jinja``, ``pyramid``,
``autoStartBrowser``,
``presentation``, ``purpose`` …
other keys                       VS Code underlines them in its editor and runs: not looked at.
===============================  ===========================================================================
"""

import json
import os
import pathlib
import re
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .. import hidden, jsonc
from ..errors import KitError
from . import terminal
from .file import ABSENT, PLATFORM, Configuration
from .invocation import Invocation
from .variables import NoValueError, Variables

_TYPES = ("debugpy", "python")

_SELECTED = "${command:python.interpreterPath}"
"""The interpreter selected in VS Code."""

_BEFORE_VSCODE = (("python",), ("pythonPath",))
"""Keys in which the extension replaces variables before VS Code does; in a platform's object it does not."""

_BLANK = "[\\t-\\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]"
"""What JavaScript's ``trim`` takes for white space; Python's idea of it differs."""

_BLANK_ENDS = re.compile(f"^{_BLANK}+|{_BLANK}+$")


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
    variables = variables_of(configuration, workspace=workspace, env=env)
    keys = _Keys(configuration, variables)
    _check_kind(keys)
    _check_env_file(keys)
    return Invocation(
        python=_interpreter(keys, default_python),
        target=_target(keys),
        args=_arguments(keys),
        env=_environment(keys, env),
        cwd=_working_directory(keys),
        options=tuple(keys.strings("pythonArgs")),
    )


def variables_of(
    configuration: Configuration, *, workspace: pathlib.Path, env: Mapping[str, str]
) -> Variables:
    """Return what the ``${…}`` variables of a configuration stand for; parameters as :func:`resolve`."""
    # VS Code opens folders by absolute, normal paths.
    return Variables(os.path.normpath(str(workspace.absolute())), env, configuration.inputs)


class _Keys:
    """The keys of one configuration for this platform, checked and substituted as they are asked for."""

    def __init__(self, configuration: Configuration, variables: Variables) -> None:
        self.configuration = configuration
        self.variables = variables
        self.values = configuration.here
        override = configuration.body.get(PLATFORM, {})
        if not isinstance(override, dict):
            raise configuration.error((PLATFORM,), override, "This must be an object.", "Put { … } there.")
        if "type" in override:
            what = '"type" cannot depend on the platform.'
            raise self.error("type", override["type"], what, f'Move it out of "{PLATFORM}".')

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str) -> Any:
        return self.values.get(key, ABSENT)

    def path(self, key: str) -> jsonc.KeyPath:
        return self.configuration.path(key)

    def depends_on_platform(self, key: str) -> bool:
        return len(self.path(key)) > 1

    def error(self, key: str, value: Any, what: str, hint: str) -> KitError:
        return self.configuration.error(self.path(key), value, what, hint)

    def text(self, key: str) -> Optional[str]:
        """Return the string ``key``, or None where it is absent."""
        value = self.get(key)
        return None if value is ABSENT else self.string(self.path(key), value)

    def optional(self, key: str) -> Optional[str]:
        """Return the string ``key``, or None where it is absent or null."""
        return None if self.get(key) is None else self.text(key)

    def strings(self, key: str) -> List[str]:
        """Return the list of strings ``key``, empty where it is absent."""
        value = [] if self.get(key) is ABSENT else self.get(key)
        if not isinstance(value, list):
            raise self.error(key, value, f'"{key}" must be a list of strings.', "Put [ … ] there.")
        return [self.string((*self.path(key), index), item) for index, item in enumerate(value)]

    def string(self, path: jsonc.KeyPath, value: Any) -> str:
        """Return ``value``, which stands at ``path``, substituted.

        :raises KitError: it is no string, or not one that a process can be given.
        """
        error = self.configuration.error
        if not isinstance(value, str):
            hint = "Write a string, in quotes."
            if isinstance(value, (bool, int, float)) and not self.configuration.hides(path):
                hint = f"Write {json.dumps(json.dumps(value))}, in quotes."
            raise error(path, value, "This must be a string.", hint)
        try:
            text = self.variables.substitute(value, env=path not in _BEFORE_VSCODE)
        except NoValueError as problem:
            raise error(path, value, problem.what, problem.hint) from None
        try:
            text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            what = "Half of a surrogate pair is not a character."
            raise error(path, value, what, "Write the character itself, or both halves.") from None
        if "\0" in text:
            raise error(path, value, "No process can be given a NUL character.", "Remove \\u0000.")
        return text


def _check_kind(keys: _Keys) -> None:
    """Raise unless the configuration starts a Python program as the user that runs make."""
    kind, request, sudo = keys.get("type"), keys.get("request"), keys.get("sudo")
    if kind not in _TYPES:
        what = "Only configurations of Python's debugger can be run."
        raise keys.error("type", kind, what, 'Set "type": "debugpy".')
    if request != "launch":
        what = "Only configurations that launch a program can be run."
        raise keys.error("request", request, what, 'Set "request": "launch".')
    what = "A configuration is not run as another user."
    if sudo is not ABSENT and sudo is not False:
        raise keys.error("sudo", sudo, what, 'Remove "sudo".')
    options = keys.get("debugOptions")
    if isinstance(options, list) and "Sudo" in options:
        raise keys.error("debugOptions", options, what, 'Remove "Sudo".')


def _interpreter(keys: _Keys, default: str) -> str:
    """Return the interpreter."""
    if "pythonPath" in keys:
        value, what = keys.get("pythonPath"), '"python" and its old name "pythonPath" exclude each other.'
        if keys.depends_on_platform("pythonPath"):
            what = f'The debugger extension passes over "pythonPath" in "{PLATFORM}".'
            raise keys.error("pythonPath", value, what, 'Write "python".')
        if "python" in keys:
            raise keys.error("pythonPath", value, what, 'Remove "pythonPath".')
    key = "pythonPath" if "pythonPath" in keys else "python"
    value = keys.get(key)
    if isinstance(value, list):
        what = "The debugger extension takes no list here, though debugpy does."
        raise keys.error(
            key, value, what, 'Write the interpreter as a string, and its options as "pythonArgs".'
        )
    python = default if value == _SELECTED else keys.optional(key)
    if not python and keys.depends_on_platform(key):
        raise keys.error(key, value, "The interpreter's name is empty.", f'Remove "{key}".')
    return python or default


def _target(keys: _Keys) -> Tuple[str, ...]:
    """Return what Python is to run."""
    given = [key for key in ("program", "module", "code") if key in keys]
    if len(given) != 1:
        key = given[1] if given else "program"
        what = '"program", "module" and "code" exclude each other.' if given else "Nothing is to be run."
        hint = 'Set exactly one of "program", "module" and "code".'
        raise keys.error(key, keys.get(key), what, hint)
    key = given[0]
    value = keys.get(key)
    if key == "code" and value != []:
        lines = keys.strings(key) if isinstance(value, list) else [keys.text(key) or ""]
        code = hidden.joined("\n", lines)
        _check_typed(keys, keys.path(key), value, code)
        return "-c", code
    text = keys.text(key) if value != [] else ""
    if not text:
        raise keys.error(key, value, f'"{key}" is empty.', "Name what is to be run.")
    _check_typed(keys, keys.path(key), value, text)
    # Python opens a relative program from the directory it is started in; so it stays as written.
    return (text,) if key == "program" else ("-m", text)


def _console(keys: _Keys) -> str:
    """Return where the program runs; what is none of VS Code's names is not this kit's to complain about."""
    found = keys.get("console")
    return found if found in (terminal.EXTERNAL, terminal.NONE) else terminal.INTEGRATED


def _check_typed(keys: _Keys, path: jsonc.KeyPath, value: Any, word: str) -> None:
    """Raise where a word does not reach the program as it is, for VS Code passes it through a shell."""
    console = _console(keys)
    if console == terminal.NONE:
        return
    if console == terminal.EXTERNAL:
        what = terminal.changed_as_it_is(word)
    elif isinstance(keys.get("args"), str):
        what = terminal.changed_as_it_is(word) or terminal.control(word)
        if what is not None:
            hint = 'Write "args" as a list, one string an argument: VS Code quotes the words then.'
            raise keys.configuration.error(path, value, what, hint)
    else:
        what = terminal.changed(word)
    if what is not None:
        hint = "Write the path itself, or begin it with ${userHome}." if "~" in word else "Leave that out."
        raise keys.configuration.error(path, value, what, f"{hint}\n{terminal.INSTEAD}")


def _working_directory(keys: _Keys) -> str:
    """Return the folder in which the program runs."""
    cwd = keys.optional("cwd")
    if cwd is None:
        return keys.variables.folder
    hint = "Begin it with ${workspaceFolder}, or ${userHome} for ~."
    if not pathlib.PurePath(cwd).is_absolute():
        what = "VS Code takes a relative working directory from where it was started itself."
        raise keys.error("cwd", keys.get("cwd"), what, hint)
    reason = terminal.control(cwd) if _console(keys) == terminal.INTEGRATED else None
    if reason is not None:
        raise keys.error("cwd", keys.get("cwd"), reason, f"Name another folder.\n{terminal.INSTEAD}")
    return hidden.mapped(lambda text: str(pathlib.PurePath(text)), cwd)


def _arguments(keys: _Keys) -> Tuple[str, ...]:
    """Return the program's arguments."""
    args = keys.get("args")
    if not isinstance(args, str):
        words = tuple(keys.strings("args"))
        for index, word in enumerate(words):
            _check_typed(keys, (*keys.path("args"), index), args[index], word)
        return words
    hint = "Write a list, one string an argument."
    console = _console(keys)
    if console == terminal.NONE:
        what = f'debugpy takes no string here with "console": "{console}", in which there is no shell.'
        raise keys.error("args", args, what, hint)
    text = keys.text("args") or ""
    if console == terminal.EXTERNAL and text:
        what = f'With "console": "{console}" VS Code makes one word of a string.'
        raise keys.error("args", args, what, hint)
    if hidden.shown(text) != text:
        what = "How a shell splits a value of the environment cannot be shown without showing the value."
        raise keys.error("args", args, what, hint)
    reason = terminal.control(text)
    if reason is not None:
        raise keys.error("args", args, reason, hint)
    split = terminal.split(text)
    if split is None:
        raise keys.error("args", args, "A shell would expand these arguments, or cannot split them.", hint)
    return tuple(split)


def _check_env_file(keys: _Keys) -> None:
    """Raise where an environment file is named."""
    file = keys.optional("envFile")
    if file:
        hint = (
            'Write what the program needs into "env", a secret as "NAME": "${env:NAME}" with NAME exported,\n'
            'and remove "envFile".'
        )
        raise keys.error("envFile", keys.get("envFile"), "Make reads no environment file.", hint)


def _environment(keys: _Keys, env: Mapping[str, str]) -> Dict[str, Optional[str]]:
    """Return the variables that the configuration sets (None: removes)."""
    own = _own_variables(keys)
    for name in ("PATH", "PYTHONPATH"):
        entries = [hidden.mapped(_trimmed, own.get(name) or "")]
        if not entries[0]:
            own.pop(name, None)
            continue
        inherited = _trimmed(env.get(name, ""))
        if inherited:
            entries.append(hidden.of_environment(name, inherited))
        own[name] = hidden.joined(os.pathsep, entries)
    return own


def _trimmed(text: str) -> str:
    """Return ``text`` without the white space at its ends, as JavaScript's ``trim`` does."""
    return _BLANK_ENDS.sub("", text)


def _own_variables(keys: _Keys) -> Dict[str, Optional[str]]:
    """Return what ``env`` sets (None: removes)."""
    own: Dict[str, Optional[str]] = {}
    entries = keys.get("env")
    if not isinstance(entries, dict) and entries is not ABSENT:
        raise keys.error("env", entries, '"env" must be an object.', 'Put { "NAME": "…" } there.')
    for key, value in entries.items() if isinstance(entries, dict) else ():
        path = (*keys.path("env"), key)
        name = keys.string(path, key)  # VS Code substitutes in keys, too.
        if not name or "=" in name or name.startswith("-") or hidden.shown(name) != name:
            # What stands behind = was meant for a value.
            named, equals, _ = key.partition("=")
            what = f"{named + equals!r} cannot be the name of a variable."
            hint = "Name it with letters, digits and underscores."
            place = keys.path("env") if equals else path
            raise keys.configuration.error(place, ABSENT if equals else value, what, hint)
        if value is None and name in ("PATH", "PYTHONPATH"):
            what = f"VS Code does not remove {name}: it runs with what it inherits."
            hint = "Remove the key; or unset the variable before VS Code or make is started."
            raise keys.configuration.error(path, value, what, hint)
        own[name] = None if value is None else hidden.of_entry(name, value, keys.string(path, value))
    return own
