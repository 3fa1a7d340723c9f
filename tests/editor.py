"""What VS Code and its Python debugger extension make of a configuration before the debugger gets it.

Written for the tests from VS Code's documentation (*Variables reference*, *Debug configuration*, *Python
debugging*) and from the extension's behaviour, and not from :mod:`launch.vscode`, which it checks: nothing of
that module is used here.
"""

import re
from pathlib import Path
from typing import Any, Dict, Mapping

from launch.vscode.launch_file import parse_jsonc

ADDED = {"PYTHONIOENCODING": "UTF-8", "PYTHONUNBUFFERED": "1"}
"""Variables that the extension sets for every program where the configuration does not; a program's output
depends on them in its moment and encoding alone, and so make sets neither."""


def entries(launch_file: Path) -> Dict[str, Dict[str, Any]]:
    """Return the configurations of a launch file by name, as written."""
    document = parse_jsonc(launch_file.read_text(encoding="utf-8"), str(launch_file)).value
    return {entry["name"]: entry for entry in document["configurations"]}


def substituted(value: Any, folder: str, environment: Mapping[str, str]) -> Any:
    """Return ``value`` with VS Code's variables replaced wherever a string stands, in keys too."""
    if isinstance(value, dict):
        return {
            substituted(key, folder, environment): substituted(item, folder, environment)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [substituted(item, folder, environment) for item in value]
    if not isinstance(value, str):
        return value
    text = value.replace("${workspaceFolder}", folder)
    text = re.sub(r"\$\{env:(\w+)\}", lambda match: environment.get(match.group(1), ""), text)
    assert "${" not in text, f"{value} is a variable that no test needs yet"
    return text


def prepared(entry: Mapping[str, Any], folder: str, selected: str) -> Dict[str, Any]:
    """Return an entry as the extension hands it to VS Code, which then replaces variables and the platform's.

    The extension replaces ``${env:…}`` by nothing in two keys, and settles which interpreter is meant.
    """
    made = dict(entry)

    def replaced(text: str) -> str:
        return re.sub(r"\$\{env[.:][^}]*\}", "", text.replace("${workspaceFolder}", folder))

    old = made.pop("pythonPath", None)
    for value in (made.get("python"), old):
        if value:
            made["python"] = selected if value == "${command:python.interpreterPath}" else replaced(value)
            break
    else:
        made["python"] = selected
    # Adapter and launcher run in the selected interpreter, unless the old key names another.
    made["debugLauncherPython"] = made["python"] if old and not entry.get("python") else selected
    return made


def launch_request(
    entry: Mapping[str, Any], folder: Path, environment: Mapping[str, str], selected: str
) -> Dict[str, Any]:
    """Return the arguments of the launch request that F5 sends for a configuration.

    :param folder: the workspace.
    :param environment: what VS Code was started in.
    :param selected: the interpreter selected in VS Code.
    """
    made = prepared(entry, str(folder), selected)
    request: Dict[str, Any] = substituted({**made, **made.pop("linux", {})}, str(folder), environment)
    request.pop("pythonPath", None)  # the platform's: the extension has settled the interpreter by now
    assert not (folder / ".env").exists(), "make reads no environment file"
    variables = request["env"] = dict(request.get("env", {}))
    for name in ("PATH", "PYTHONPATH"):
        value = variables.pop(name, "").strip()
        inherited = environment.get(name, "").strip()
        if value:
            variables[name] = f"{value}:{inherited}" if inherited else value
    for name, value in ADDED.items():
        variables.setdefault(name, value)
    request.setdefault("cwd", str(folder))
    request.setdefault("console", "integratedTerminal")
    request.update(clientOS="unix", workspaceFolder=str(folder))
    request.setdefault("debugOptions", ["ShowReturnValue"])
    return request
