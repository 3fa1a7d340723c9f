"""What is looked for before anything starts: what a job runs and reads, memory and disk."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest

from launch.build import jobs, preflight
from launch.build.rules import Selection
from launch.core import machine, paths
from launch.core.errors import KitError
from launch.model import variants
from launch.model.variants import VARIANTS
from launch.sources.source import Registry
from launch.vscode.launch_file import parse_jsonc

from ..conftest import HYBRID, UNSTRUCTURED, Kit, assert_user_error, copy_checkout, run

MAKE = ["make", "--no-print-directory"]

GIVEN = {"input": None, "model": None, "train_file": None, "validation_file": None}


def edit(kit: Kit, name: str, keys: Dict[str, Any]) -> List[str]:
    """Change an entry of the launch file; return its lines as they are then."""
    content = parse_jsonc(kit.launch_file.read_text(encoding="utf-8"), "launch.json").value
    for entry in content["configurations"]:
        if entry["name"] == name:
            entry.update(keys)
    text = json.dumps(content, indent=1)
    kit.launch_file.write_text(text, encoding="utf-8")
    return text.splitlines()


WRONG = [
    ("cwd", "${workspaceFolder}/nope", "working directory is not there", 'Correct or remove "cwd"'),
    ("cwd", "${workspaceFolder}/README.md", "working directory is no folder", 'Correct or remove "cwd"'),
    ("python", "/nope/py", "interpreter is not there", "make setup"),
    ("python", "no-such-python", "interpreter is not there", "make setup"),
    ("python", "${workspaceFolder}/README.md", "cannot be run", "make setup"),
    ("program", "${workspaceFolder}/nope.py", "program is not there", "launch/qa/"),
    ("program", "${workspaceFolder}/launch", "program is no file", "launch/qa/"),
]


@pytest.mark.parametrize(("key", "value", "what", "hint"), WRONG)
@pytest.mark.parametrize("name", ["configs", "evaluate", HYBRID])
def test_what_is_not_there_is_named_with_its_place(
    kit: Kit, name: str, key: str, value: str, what: str, hint: str
) -> None:
    lines = edit(kit, name, {key: value})
    index = ["configs", *VARIANTS, "evaluate"].index(name)
    number = next(n for n, line in enumerate(lines, 1) if f'"{key}": "{value}"' in line)
    where = f'{kit.launch_file}, line {number}, configurations[{index}].{key} = "{value}"'
    command = ("variant", name) if name == HYBRID else (name, "")
    assert_user_error(kit.run(*command, **GIVEN), what, where, hint)
    assert not (kit.folder / "work").exists()
    assert not kit.out.exists()


def test_a_short_value_of_the_environment_is_not_shown(kit: Kit) -> None:
    edit(kit, "evaluate", {"cwd": "/nope/${env:PLANTED_PIN}"})
    argv = kit.argv("evaluate", "", **GIVEN)
    done = run(argv, env={**os.environ, "PLANTED_PIN": "4711"})
    assert_user_error(done, "not there: /nope/${env:PLANTED_PIN}.")
    assert "4711" not in done.stderr


def test_the_old_name_of_the_interpreters_key(kit: Kit) -> None:
    edit(kit, "configs", {"pythonPath": "/nope/py"})
    done = kit.run("configs", **GIVEN)
    assert_user_error(done, 'configurations[0].pythonPath = "/nope/py"')


def test_an_argument_that_names_a_pipe(kit: Kit) -> None:
    pipe = kit.folder / "pipe"
    os.mkfifo(str(pipe))
    words = ["--model_name_or_path", str(kit.model), "--validation_file", str(pipe), "--do_eval"]
    words += ["--output_dir", str(kit.folder)]
    edit(kit, "evaluate", {"args": words})
    done = kit.run("evaluate", **GIVEN)
    assert_user_error(done, "no regular file", f"--validation_file={pipe}", "configurations[6].args")


@pytest.mark.parametrize("name", ["configs", "evaluate", HYBRID])
def test_a_model_that_is_not_there_is_named_with_its_place(kit: Kit, name: str) -> None:
    text = kit.launch_file.read_text(encoding="utf-8")
    kit.launch_file.write_text(
        text.replace("${workspaceFolder}/launch/sample/model", "/nope"), encoding="utf-8"
    )
    index = ["configs", *VARIANTS, "evaluate"].index(name)
    command = ("variant", name) if name == HYBRID else (name, "")
    done = kit.run(*command, **GIVEN)
    assert_user_error(done, "not exist", f"configurations[{index}].args: --", "=/nope")
    assert "loading libraries" not in done.stderr


@pytest.mark.parametrize(
    ("old", "what"),
    [
        ("${workspaceFolder}/launch/qa/run_qa.py", "The program is not there"),
        ("${workspaceFolder}/launch/sample/train.json", "it does not exist"),
        ("${workspaceFolder}/launch/sample/model", "it does not exist"),
    ],
)
def test_a_printed_command_says_what_it_lacks(kit: Kit, old: str, what: str) -> None:
    text = kit.launch_file.read_text(encoding="utf-8")
    assert old in text
    kit.launch_file.write_text(text.replace(old, "/nope/run_qa.py"), encoding="utf-8")
    done = kit.run("command", UNSTRUCTURED, **GIVEN)
    assert done.returncode == 0
    assert "/nope/run_qa.py" in done.stdout
    assert "note: this would not run: " in done.stderr
    assert what in done.stderr
    assert f"{kit.launch_file}, line " in done.stderr


@pytest.mark.parametrize("command", ["evaluate", "variant"])
def test_a_program_that_fails_leaves_nothing_that_looks_like_a_result(kit: Kit, command: str) -> None:
    program = kit.folder / "run_qa.py"
    program.write_text("raise SystemExit(3)")
    edit(kit, UNSTRUCTURED if command == "variant" else command, {"program": str(program)})
    results = [kit.folder / "evaluate" / f"eval_{name}.json" for name in ("results", "predictions")]
    for path in results:
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    done = kit.run(command, UNSTRUCTURED if command == "variant" else "", **GIVEN)
    assert_user_error(done, "failed with exit status 3")
    assert not kit.out.exists()
    assert [path.exists() for path in results] == [command == "variant"] * 2


def test_what_is_there_starts(kit: Kit) -> None:
    for python in (sys.executable, "sh", str(paths.VENV_PYTHON)):
        edit(kit, UNSTRUCTURED, {"python": python})
        preflight.check_job(jobs.load_job(str(kit.launch_file), UNSTRUCTURED, Selection(), Registry()))


def test_the_environment_need_not_be_there_yet(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = paths.VENV.with_name("gone") / "bin/python"
    monkeypatch.setattr(paths, "VENV_PYTHON", gone)
    edit(kit, UNSTRUCTURED, {"python": str(gone)})
    job = jobs.load_job(str(kit.launch_file), UNSTRUCTURED, Selection(), Registry())
    preflight.check_job(job)
    assert preflight.find_missing(job) == (
        f"note: `make setup SOURCE=registry` comes first: {gone} is not there yet"
    )


def test_without_an_interpreter_of_its_own_an_entry_has_the_environments() -> None:
    """`make` and `python -m launch` print the same, whichever Python runs the kit."""
    other = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    done = run([other, "-m", "launch", "command", "--v", "configs"])
    assert done.stdout == run([*MAKE, "command", "V=configs"]).stdout
    assert f"{paths.VENV_PYTHON} {paths.PACKAGE}/qa/gen_hybrid_sparse_qa.py" in done.stdout


def test_a_command_that_nothing_is_set_up_for_says_so(tmp_path: Path) -> None:
    clone = copy_checkout(tmp_path / "clone")

    def make(*words: str) -> "subprocess.CompletedProcess[str]":
        argv = [*MAKE, *words]
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        return run(argv, cwd=clone, env=env)

    def note(path: str) -> str:
        return f"note: `make setup SOURCE=registry` comes first: {clone / path} is not there yet\n"

    done = make("command", f"V={HYBRID}")
    assert (done.returncode, done.stderr) == (0, note(".venv/bin/python"))
    assert done.stdout.startswith(f"cd {clone} && ")
    configs = make("command", "V=configs")  # any Python can
    assert (configs.returncode, configs.stderr) == (0, "")
    assert str(clone / ".venv") not in configs.stdout
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").symlink_to(sys.executable)
    done = make("command", f"V={HYBRID}")
    assert (done.returncode, done.stderr) == (0, note("build/src/registry"))
    (clone / "build/src/registry").mkdir(parents=True)
    assert make("command", f"V={HYBRID}").stderr == ""


# --- memory and disk --------------------------------------------------------------------------------------


def estimates() -> list:
    return [preflight.estimate_need(variants.make_bert_large(variant)) for variant in VARIANTS.values()]


def test_estimates_grow_with_the_variant() -> None:
    for smaller, larger in zip(estimates(), estimates()[1:]):
        assert smaller.memory < larger.memory
        assert smaller.disk < larger.disk
        assert smaller.seconds < larger.seconds


def test_the_set_fast_asks_for_less() -> None:
    for variant in variants.VARIANTS.values():
        shape = variants.make_bert_large(variant)
        with_it, without = (
            preflight.estimate_need(shape, fast=fast, upstreams_script=True) for fast in (True, False)
        )
        assert with_it.memory <= 0.5 * without.memory
        assert with_it.seconds < without.seconds
        assert with_it.disk <= without.disk


def test_too_little_memory_is_said_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    need = estimates()[-1]
    monkeypatch.setattr(preflight, "read_available_memory", lambda: need.memory - 1)
    with pytest.raises(KitError, match=r"needs about .* GB of memory"):
        preflight.check_memory("big", need)
    monkeypatch.setattr(preflight, "read_available_memory", lambda: need.memory)
    preflight.check_memory("big", need)
    monkeypatch.setattr(preflight, "read_available_memory", lambda: None)
    preflight.check_memory("big", need)


def test_too_little_disk_is_said_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "measure_free_disk", lambda folder: 10)
    with pytest.raises(KitError) as caught:
        machine.check_disk("Making it", tmp_path, 11)
    assert str(tmp_path) in caught.value.where
    machine.check_disk("Making it", tmp_path, 10)


def test_free_disk_of_a_folder_that_is_yet_to_be(tmp_path: Path) -> None:
    assert machine.measure_free_disk(tmp_path / "a" / "b") > 0


# --- limits of control groups ----------------------------------------------------------------------------

MB = 1_000_000
V2 = ("0::{path}\n", "31 1 0:28 {root} {top} rw,relatime shared:4 - cgroup2 cgroup rw,nsdelegate\n")
V1 = (
    "5:cpu,cpuacct:/other\n4:memory:{path}\n0::/\n",
    "30 1 0:27 / {top}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "31 1 0:28 {root} {top} rw,relatime - cgroup cgroup rw,memory\n",
)
NAMES = {V2: ("memory.max", "memory.current", "inactive_file")}
NAMES[V1] = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.fixture(params=[V2, V1], ids=["v2", "v1"])
def version(request: pytest.FixtureRequest) -> tuple:
    return request.param


def groups(
    patch: pytest.MonkeyPatch,
    folder: Path,
    version: tuple,
    path: str,
    limits: Dict[str, object],
    root: str = "/",
) -> None:
    """Make up a process in the group ``path``, with 100 MB used and 30 MB droppable in each group."""
    top, process = folder / "the groups", folder / "process"
    process.mkdir()
    (process / "cgroup").write_text(version[0].format(path=path))
    (process / "mountinfo").write_text(version[1].format(root=root, top=str(top).replace(" ", "\\040")))
    limit, used, droppable = NAMES[version]
    for name, most in limits.items():
        group = top / name
        group.mkdir(parents=True, exist_ok=True)
        (group / limit).write_text(f"{most}\n")
        (group / used).write_text(f"{100 * MB}\n")
        (group / "memory.stat").write_text(f"anon 5\n{droppable} {30 * MB}\n")
    patch.setattr(preflight, "_PROCESS", process)


@pytest.mark.parametrize(
    ("path", "limits", "left"),
    [
        ("/a/b", {"": "max", "a": "max", "a/b": 150 * MB}, 80 * MB),  # its own
        ("/a/b", {"": "max", "a": 140 * MB, "a/b": 150 * MB}, 70 * MB),  # that of the one around it
        ("/a/b", {"": 120 * MB, "a": "max", "a/b": "max"}, 50 * MB),  # the outermost
        ("/", {"": 90 * MB, "a": 10 * MB}, 20 * MB),  # a container's own; "a" is another process's
        ("/a", {"": "max", "a": 10 * MB}, 0),
    ],
)
def test_the_tightest_limit_around_this_process_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple, path: str, limits: dict, left: int
) -> None:
    groups(monkeypatch, tmp_path, version, path, limits)
    assert preflight.read_available_memory() == left


def test_a_container_sees_its_own_group_as_the_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple
) -> None:
    limits = {"": 150 * MB, "inner": 140 * MB}
    groups(monkeypatch, tmp_path, version, "/box/1/inner", limits, root="/box/1")
    assert preflight.read_available_memory() == 70 * MB


def test_without_a_limit_the_machine_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple
) -> None:
    groups(monkeypatch, tmp_path, version, "/a", {"": "max", "a": "max"})
    free = preflight.read_available_memory()
    assert free is not None
    assert free > 150 * MB


def test_a_real_limit_is_seen() -> None:
    """In a group that the kernel really limits; only where tests may make one."""
    own = next(((group, kind) for group, kind in preflight._groups()), None)
    if own is None:
        pytest.skip("this process is in no group for memory")
    group, limit = own[0] / f"kit-test-{os.getpid()}", preflight._CONTROLS[own[1]][0]
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no group can be made here")
    try:
        try:
            (group / limit).write_text(str(400 * MB))
        except OSError:
            pytest.skip("no group can be limited here")
        code = (
            "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()))\n"
            "from launch.build import preflight; print(preflight.read_available_memory())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(group / "cgroup.procs")],
            cwd=str(paths.REPOSITORY),
            stdout=subprocess.PIPE,
            check=True,
        )
        assert 300 * MB < int(done.stdout) <= 400 * MB
    finally:
        group.rmdir()
