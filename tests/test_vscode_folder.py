"""What VS Code reads in `.vscode`: what is named there exists, and what make passes over changes no run."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any, Dict, List

import pytest

from launch import git, inputs, jobs, jsonc, paths, vscode
from launch.source_registry import Registry
from launch.variants import VARIANTS

from .conftest import UNSTRUCTURED, Kit, run
from .editor import entries

FOLDER = paths.REPOSITORY / ".vscode"
FILES = ("extensions.json", "launch.json", "settings.json", "tasks.json")
VSCODES_OWN = {
    "presentation": {"hidden": True},
    "preLaunchTask": "${defaultBuildTask}",
    "postDebugTask": "${command:no.such}",
    "console": "internalConsole",
    "justMyCode": True,
    "internalConsoleOptions": "${config:no.such}",
}
"""Keys that make passes over, each with a value that no run could follow or that would show."""


def load(name: str) -> Dict[str, Any]:
    found = jsonc.loads((FOLDER / name).read_text(encoding="utf-8"), name)
    assert isinstance(found, dict)
    return found


def tasks() -> Dict[str, Dict[str, Any]]:
    return {task["label"]: task for task in load("tasks.json")["tasks"]}


def resolve(entry: Dict[str, Any]) -> vscode.Invocation:
    configuration = vscode.Configuration(entry["name"], "launch.json", entry)
    return vscode.resolve(
        configuration, workspace=paths.REPOSITORY, env=os.environ, default_python="/selected/python"
    )


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_json_with_comments_and_git_has_them(name: str) -> None:
    assert load(name)
    relative = f".vscode/{name}"
    assert git.run(["ls-files", relative], paths.REPOSITORY).stdout.split() == [relative]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", "--quiet", relative], cwd=str(paths.REPOSITORY), check=False
    )
    assert ignored.returncode == 1


def test_the_menu_has_the_variants_first_and_every_job() -> None:
    found = entries(paths.LAUNCH_FILE)
    assert paths.LAUNCH_FILE == FOLDER / "launch.json"
    shown = sorted(
        found, key=lambda name: (found[name]["presentation"]["group"], found[name]["presentation"]["order"])
    )
    assert shown == [*VARIANTS, "configs", "evaluate", "tests"]
    places = {tuple(sorted(entry["presentation"].items())) for entry in found.values()}
    assert len(places) == len(found)
    for entry in found.values():
        assert (entry["type"], entry["request"]) == ("debugpy", "launch")
        assert entry["console"] == "integratedTerminal"
        assert entry["justMyCode"] is False  # else no breakpoint in NNCF and transformers holds


def test_what_a_program_runs_on_is_set_up_before_it() -> None:
    for name, entry in entries(paths.LAUNCH_FILE).items():
        if name == "configs":
            assert "preLaunchTask" not in entry  # any Python can
            continue
        words = tasks()[entry["preLaunchTask"]]["args"]
        assert words[:2] == ["setup", "SOURCE=registry"]
        assert ("MO=2021.4" in words) == (name == "tests")
        assert resolve(entry).python == str(paths.VENV_PYTHON)


def test_tasks_are_targets_of_the_makefile() -> None:
    makefile = (paths.REPOSITORY / "Makefile").read_text()
    variables = set(re.findall(r"^export LAUNCH_\w+ := \$\((\w+)\)$", makefile, re.M))
    assert {"setup", "all", "variant", "verify", "report"} <= set(tasks())
    for task in tasks().values():
        assert (task["type"], task["command"]) == ("process", "make")
        target, *words = task["args"]
        dry = run(["make", "--dry-run", target])
        assert dry.returncode == 0, dry.stderr
        assert f"./launch/kit.sh {target}" in dry.stdout
        assert {word.split("=")[0] for word in words} <= variables
    assert run(["make", "--dry-run", "no-such-target"]).returncode != 0


def test_the_task_that_asks_offers_the_variants() -> None:
    document = load("tasks.json")
    offered: Dict[str, List[str]] = {entry["id"]: entry["options"] for entry in document["inputs"]}
    asked = re.findall(r"\$\{input:(\w+)\}", (FOLDER / "tasks.json").read_text())
    assert set(asked) == set(offered) == {"variant"}
    assert offered["variant"] == list(VARIANTS)


def test_settings_and_extensions_lead_to_what_the_kit_makes() -> None:
    settings = load("settings.json")

    def path(text: str) -> Path:
        return Path(text.replace("${workspaceFolder}", str(paths.REPOSITORY)))

    assert path(settings["python.defaultInterpreterPath"]) == paths.VENV_PYTHON
    assert [path(text) for text in settings["python.analysis.extraPaths"]] == [Registry().tree]
    assert settings["python.testing.pytestEnabled"] is True
    assert set(load("extensions.json")["recommendations"]) == {"ms-python.python", "ms-python.debugpy"}


@pytest.mark.parametrize("name", list(entries(paths.LAUNCH_FILE)))
def test_keys_that_are_for_vscode_alone_change_no_run(name: str) -> None:
    entry = entries(paths.LAUNCH_FILE)[name]
    bare = {key: value for key, value in entry.items() if key not in VSCODES_OWN}
    assert bare != entry
    assert resolve(bare) == resolve(entry) == resolve({**entry, **VSCODES_OWN})


def test_a_configuration_of_another_program_is_printed_as_it_stands(kit: Kit) -> None:
    words = ["make", "--no-print-directory", "command", "V=tests"]
    plain = run(words)
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout == f"cd {paths.REPOSITORY} && \\\n{paths.VENV_PYTHON} -m pytest\n"
    own = ["INPUT=files", f"MODEL={kit.model}", "SEED=7"]
    assert run([*words, *own]).stdout == plain.stdout
    explained = run([*words, "EXPLAIN=1"]).stdout
    assert explained.startswith("'tests' in .vscode/launch.json\n\ncwd")
    assert "program -m pytest" in explained


def test_a_copy_of_a_job_under_another_name_is_still_a_job(kit: Kit) -> None:
    text = kit.launch_file.read_text(encoding="utf-8")
    kit.launch_file.write_text(text.replace(f'"name": "{UNSTRUCTURED}"', '"name": "mine"'), encoding="utf-8")
    found = jobs.find(str(kit.launch_file), "mine", inputs.Selection(seed=7), Registry())
    assert isinstance(found, jobs.Job)
    assert found.arguments.seed == 7
