"""What VS Code and its Python debugger extension make of a configuration before the debugger gets it.

Written for the tests from VS Code's documentation (*Variables reference*, *Debug configuration*, *Python
debugging*) and from the extension's behaviour, and not from :mod:`launch.vscode`, which it checks: nothing of
that module is used here.
"""

import re
from pathlib import Path
from typing import Any, Dict, Mapping

from launch import jsonc

ADDED = {"PYTHONIOENCODING": "UTF-8", "PYTHONUNBUFFERED": "1"}
"""Variables that the extension sets for every program where the configuration does not; a program's output
depends on them in its moment and encoding alone, and so make sets neither."""


def entries(launch_file: Path) -> Dict[str, Dict[str, Any]]:
    """Return the configurations of a launch file by name, as written."""
    document = jsonc.loads(launch_file.read_text(encoding="utf-8"), str(launch_file))
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


def launch_request(
    entry: Mapping[str, Any], folder: Path, environment: Mapping[str, str], selected: str
) -> Dict[str, Any]:
    """Return the arguments of the launch request that F5 sends for a configuration.

    :param folder: the workspace.
    :param environment: what VS Code was started in.
    :param selected: the interpreter selected in VS Code.
    """
    assert not {"envFile", "linux", "pythonPath"} & set(entry), "no test needs these yet"
    request: Dict[str, Any] = substituted(dict(entry), str(folder), environment)
    variables = request.setdefault("env", {})
    for name in ("PATH", "PYTHONPATH"):
        if variables.get(name):  # extension: what is inherited follows
            variables[name] = ":".join(filter(None, (variables[name], environment.get(name))))
    for name, value in ADDED.items():
        variables.setdefault(name, value)
    request.setdefault("cwd", str(folder))
    request.setdefault("python", selected)
    request.setdefault("console", "integratedTerminal")
    # Extension: adapter and launcher run in the selected interpreter, whatever runs the program.
    request.update(debugLauncherPython=selected, clientOS="unix", workspaceFolder=str(folder))
    request.setdefault("debugOptions", ["ShowReturnValue"])
    return request
