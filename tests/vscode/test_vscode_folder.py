"""What VS Code reads in `.vscode`: what is named there exists, and what make passes over changes no run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest

from launch.build import jobs, rules
from launch.cli import COMMANDS
from launch.core import git, paths
from launch.core.errors import KitError
from launch.model.variants import VARIANTS
from launch.sources.source import Registry
from launch.vscode.invocation import Invocation
from launch.vscode.launch_file import PLATFORM, parse_jsonc, parse_launch_file
from launch.vscode.resolve import Variables, resolve_configuration

from ..conftest import HYBRID, UNSTRUCTURED, Kit, run
from ..editor import entries

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
    found = parse_jsonc((FOLDER / name).read_text(encoding="utf-8"), name).value
    assert isinstance(found, dict)
    return found


def tasks() -> Dict[str, Dict[str, Any]]:
    return {task["label"]: task for task in load("tasks.json")["tasks"]}


def resolve(entry: Dict[str, Any]) -> Invocation:
    file = parse_launch_file(json.dumps({"configurations": [entry]}), "launch.json")
    return resolve_configuration(
        Variables(file.configurations[0], paths.REPOSITORY, os.environ), "/selected/python"
    )


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_json_with_comments_and_git_has_them(name: str) -> None:
    assert load(name)
    relative = f".vscode/{name}"
    assert git.run_git(["ls-files", relative], paths.REPOSITORY).stdout.split() == [relative]
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
    assert shown == [*VARIANTS, "configs", "evaluate", "train", "tests"]
    places = {tuple(sorted(entry["presentation"].items())) for entry in found.values()}
    assert len(places) == len(found)
    for entry in found.values():
        assert (entry["type"], entry["request"]) == ("debugpy", "launch")
        assert entry["console"] == "integratedTerminal"
        assert entry["justMyCode"] is False  # else no breakpoint in NNCF and transformers holds


def test_what_a_program_runs_on_is_set_up_before_it() -> None:
    for name, entry in entries(paths.LAUNCH_FILE).items():
        assert ("preLaunchTask" in entry) == ("python" in entry) == (name != "configs")
        if name == "configs":
            continue  # any Python can
        words = tasks()[entry["preLaunchTask"]]["args"]
        assert words[:2] == ["setup", "SOURCE=registry"]
        assert ("MO=2021.4" in words) == ("INPUT=hub" in words) == (name == "tests")
        assert resolve(entry).python == str(paths.VENV_PYTHON)


def test_tasks_are_targets_of_the_makefile() -> None:
    assert {"setup", "all", "variant", "verify", "report"} <= set(tasks())
    for task in tasks().values():
        assert (task["type"], task["command"]) == ("process", "make")
        target, *words = task["args"]
        dry = run(["make", "--dry-run", target])
        assert dry.returncode == 0, dry.stderr
        assert f"./launch/kit.sh '{target}'" in dry.stdout
        taken = {name.upper() for name in COMMANDS[target].options}
        assert {word.split("=")[0] for word in words} <= taken


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

    assert [path(text) for text in settings["python.analysis.extraPaths"]] == [Registry().tree]
    assert not [key for key in settings if "testing" in key], "before setup there is no pytest to ask"
    assert set(load("extensions.json")["recommendations"]) == {"ms-python.python", "ms-python.debugpy"}


def test_no_setting_names_an_interpreter() -> None:
    """VS Code reads it before the first setup, and takes what is missing then for invalid ever after."""
    settings = load("settings.json")
    assert not [key for key in settings if re.search("interpreterpath|pythonpath", key, re.I)]
    assert "/bin/" not in json.dumps(settings)


def test_what_needs_no_setup_runs_in_a_python_with_nothing_installed(tmp_path: Path) -> None:
    entry = entries(paths.LAUNCH_FILE)["configs"]
    assert "python" not in entry
    invocation = resolve(entry)
    words = [sys.executable, "-S", *invocation.target, *invocation.args]
    words[words.index("--output_dir") + 1] = str(tmp_path)
    done = run(words, cwd=invocation.cwd, env=invocation.environment({}))
    assert done.returncode == 0, done.stderr
    for name in [name for name, variant in VARIANTS.items() if variant.hybrid]:
        made = (tmp_path / name / "config.json").read_bytes()
        assert made == (paths.PACKAGE / "configs" / name / "config.json").read_bytes()


def test_nothing_starts_after_a_failed_setup() -> None:
    """VS Code's default asks, and offers to go on."""
    assert load("settings.json")["debug.onTaskErrors"] == "abort"


def test_the_name_of_what_f5_starts_is_shown_in_full() -> None:
    """The menu in Run and Debug cuts the variants' names where they are still the same: `90pc_spar…`."""
    assert load("settings.json")["debug.showInStatusBar"] == "always"


def test_vscode_passes_over_what_the_kit_makes() -> None:
    settings = load("settings.json")
    made = (".venv", "build")
    assert settings["search.exclude"] == dict.fromkeys(made, True)
    assert settings["files.watcherExclude"] == {f"{name}/**": True for name in made}
    assert settings["task.autoDetect"] == "off"  # packages in .venv bring files of npm and the like
    kept = git.run_git(["ls-files"], paths.REPOSITORY).stdout.splitlines()
    assert not [path for path in kept if path.split("/")[0] in made]


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


def write_entry(folder: Path, **keys: Any) -> str:
    """Write a launch file with one entry; return its path."""
    entry = {"name": "mine", "type": "debugpy", "request": "launch", "cwd": "${workspaceFolder}", **keys}
    entry = {key: value for key, value in entry.items() if value is not ...}
    path = folder / "own.json"
    path.write_text(json.dumps({"configurations": [entry]}))
    return str(path)


OTHERS_ARGS = ["--model_name_or_path", "m", "--output_dir", "o", "--do_eval", "--learning_rate", "3e-5"]


@pytest.mark.parametrize(
    "target",
    [
        {"program": "/opt/hf/run_qa.py"},
        {"program": "launch/run_qa.py"},
        {"program": "launch/qa/answers.py"},
        {"module": "run_qa.py"},
        {"code": "run_qa.py"},
    ],
)
def test_a_program_that_is_called_as_the_kits_is_another_one(tmp_path: Path, target: Dict[str, str]) -> None:
    file = write_entry(tmp_path, args=OTHERS_ARGS, **target)
    found = jobs.run_of(file, "mine", rules.Selection(seed=7), Registry())
    assert not isinstance(found, jobs.Job)
    assert found.invocation.args == tuple(OTHERS_ARGS)


@pytest.mark.parametrize(
    "program", ["launch/qa/run_qa.py", "${workspaceFolder}/launch/../launch/qa/run_qa.py"]
)
def test_the_kits_program_is_known_by_its_path(tmp_path: Path, program: str) -> None:
    file = write_entry(tmp_path, program=program, args=OTHERS_ARGS)
    with pytest.raises(KitError) as caught:
        jobs.run_of(file, "mine", rules.Selection(), Registry())
    assert "--learning_rate" in caught.value.what
    assert caught.value.where == f"{file}, line 1, configurations[0].args"


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ({"module": "pytest"}, "module = pytest"),
        ({"code": "print()"}, "code = print()"),
        ({"program": "/opt/hf/run_qa.py"}, "program = /opt/hf/run_qa.py"),
        ({PLATFORM: {"module": "run_qa.py"}}, f"{PLATFORM}.module = run_qa.py"),
    ],
)
def test_a_job_that_runs_another_program_is_an_error_there(
    tmp_path: Path, target: Dict[str, Any], where: str
) -> None:
    file = write_entry(tmp_path, name="evaluate", args=["--no-such"], **target)
    for load in (jobs.load_job, jobs.run_of):
        with pytest.raises(KitError) as caught:
            load(file, "evaluate", rules.Selection(), Registry())
        assert caught.value.where == f"{file}, line 1, configurations[0].{where}"
        assert "question-answering program" in caught.value.what


def test_the_arguments_of_the_platform_are_the_ones_that_are_wrong(tmp_path: Path) -> None:
    platform = {PLATFORM: {"args": ["--no-such"]}}
    file = write_entry(tmp_path, name="evaluate", program="launch/qa/run_qa.py", args=[], **platform)
    with pytest.raises(KitError) as caught:
        jobs.load_job(file, "evaluate", rules.Selection(), Registry())
    assert caught.value.where.endswith(f"configurations[0].{PLATFORM}.args")


def shown(file: str) -> List[str]:
    """Return the table of EXPLAIN=1."""
    return jobs.run_of(file, "mine", rules.Selection(), Registry()).explain().splitlines()[2:]


def test_explain_shows_each_part_as_it_stands_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAME", "named")
    file = write_entry(
        tmp_path,
        module="${env:NAME}",
        args="${workspaceFolderBasename} --a b",
        env={
            "K_${pathSeparator}": "v",
            "GONE": None,
            "PLAIN": "${env:NAME}",
            "HF_HOME": "${env:NAME}/${cwd}",
        },
        pythonArgs=["-X", "${env:NAME}"],
    )
    resolved = "  rule  as VS Code resolves it"
    assert shown(file) == [
        *("cwd     '${workspaceFolder}'", f"  runs  {paths.REPOSITORY}", resolved),
        *("env     'K_${pathSeparator}=(not shown)'", "  runs  'K_/=(not shown)'", resolved),
        *("env     -u GONE",),
        *("env     'PLAIN=${env:NAME}'",),
        *(
            "env     'HF_HOME=${env:NAME}/${cwd}'",
            f"  runs  'HF_HOME=${{env:NAME}}/{paths.REPOSITORY}'",
            resolved,
        ),
        *("python  -X '${env:NAME}'", f"  runs  {sys.executable} -X '${{env:NAME}}'", resolved),
        *("program -m '${env:NAME}'",),
        *("args    '${workspaceFolderBasename} --a b'", f"  runs  {paths.REPOSITORY.name}", resolved),
        *("args    '${workspaceFolderBasename} --a b'", "  runs  --a b", resolved),
    ]


def test_explain_shows_code_and_split_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "named")
    file = write_entry(tmp_path, code="${env:NAME}:${cwd}", args="'b  c' --d e", cwd=...)
    assert shown(file)[3:] == [
        *("python  (not in the file)", f"  runs  {sys.executable}", "  rule  as VS Code resolves it"),
        *(
            "program -c '${env:NAME}:${cwd}'",
            f"  runs  -c '${{env:NAME}}:{paths.REPOSITORY}'",
            "  rule  as VS Code resolves it",
        ),
        *("args    'b  c'", "args    --d e"),
    ]


def test_the_jobs_on_the_releases_have_one_environment_and_the_same_common_arguments() -> None:
    """What is written six times in the file, for VS Code has no way to write it once."""
    found = entries(paths.LAUNCH_FILE)
    jobs_there = [found[name] for name in (*VARIANTS, "evaluate")]
    first = jobs_there[0]
    for entry in jobs_there:
        for key in ("env", "python", "cwd", "preLaunchTask"):
            assert entry[key] == first[key]
    # An option counts with its value; those that name a variant, its folder or one job's own are not common.
    own = {"--config_name", "--gen_hybrid_sparse_model", "--to_onnx", "--nncf_config", "--output_dir"}
    own |= {"--per_device_eval_batch_size", "--weights"}

    def common(entry: Dict[str, Any]) -> List[List[str]]:
        pairs: List[List[str]] = []
        for word in entry["args"]:
            if word.startswith("--"):
                pairs.append([])
            pairs[-1].append(word)
        return [pair for pair in pairs if pair[0] not in own]

    assert len(common(first)) == 8
    assert all(common(entry) == common(first) for entry in jobs_there)
    hybrids = [found[name] for name, variant in VARIANTS.items() if variant.hybrid]
    for name, entry in zip(VARIANTS, hybrids):
        assert json.loads(json.dumps(entry["args"]).replace(name, HYBRID)) == hybrids[0]["args"]
    assert {entry["args"][entry["args"].index("--nncf_config") + 1] for entry in jobs_there[:-1]} == {
        "${workspaceFolder}/launch/configs/nncf.json"
    }


def test_a_copy_of_a_job_under_another_name_is_still_a_job(kit: Kit) -> None:
    text = kit.launch_file.read_text(encoding="utf-8")
    kit.launch_file.write_text(text.replace(f'"name": "{UNSTRUCTURED}"', '"name": "mine"'), encoding="utf-8")
    found = jobs.run_of(str(kit.launch_file), "mine", rules.Selection(seed=7), Registry())
    assert isinstance(found, jobs.Job)
    assert found.arguments.seed == 7
