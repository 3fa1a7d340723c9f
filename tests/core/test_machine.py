"""What a provenance says of the machine, where a checkout may lie, and what a program gets of the shell."""

import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Set

import pytest

from launch.build import jobs, rules
from launch.core import machine, paths
from launch.core.errors import KitError
from launch.model import variants
from launch.sources.source import Registry

from ..conftest import HYBRID, Kit, assert_user_error, copy_checkout, run

CPUINFO = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: A Processor (R) @ 2.20GHz\ncores\t: 2\n"


def test_facts_are_the_systems() -> None:
    found = machine.describe_host(str(paths.VENV_PYTHON))
    assert set(found) == {"system", "machine", "processor", "cores", "memory_bytes", "python"}
    assert found["system"].split() == [platform.system(), platform.release()]
    assert found["machine"] == platform.machine()
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    total = next(
        line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")
    )
    # The kernel's own part is in neither.
    assert found["memory_bytes"] == pytest.approx(int(total.split()[1]) * 1024, rel=0.01)
    done = subprocess.run(
        [str(paths.VENV_PYTHON), "-c", "import platform; print(platform.python_version())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found["python"] == done.stdout.strip()
    assert platform.node() not in found.values(), "the machine's name is nobody's business"


def test_cores_are_those_that_the_process_may_use() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from launch.core import machine; print(machine.describe_host('')['cores'])"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=str(paths.REPOSITORY), capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_the_processor_is_named_where_the_system_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    assert machine.read_processor() == ""
    cpuinfo.write_text(CPUINFO * 2)
    assert machine.read_processor() == "A Processor (R) @ 2.20GHz"
    cpuinfo.write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    assert machine.read_processor() == ""


def test_the_version_is_that_of_an_environments_interpreter(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    assert machine.read_python_version(str(python)) == ""
    assert machine.read_python_version("python3") == ""
    # As uv writes it, of a Python of its own.
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\nversion_info = 3.8\n")
    assert machine.read_python_version(str(python)) == ""
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    assert machine.read_python_version(str(python)) == platform.python_version()


UNFIT = {
    "two words": ("a space", "unquoted"),
    "it's": ('"\'"', "unquoted"),
    'a"b': ("'\"'", "unquoted"),
    "a\nb": ("a line end", "unquoted"),
    "a\tb": ("a tab", "unquoted"),
    "a\x01b": ("U+0001", "unquoted"),
    "$HOME": ("'$'", "unquoted"),
    "a\\b": (repr("\\"), "unquoted"),
    "a;b": ("';'", "unquoted"),
    "(a)": ("'('", "unquoted"),
    "🤗": ("'🤗'", "unquoted"),
    os.fsdecode(b"caf\xe9"): ("not UTF-8 (0xe9)", "unquoted"),
    "a:b": ("':'", "PYTHONPATH"),
    "a,b": ("','", "Model Optimizer"),
}


@pytest.mark.parametrize("name", list(UNFIT))
def test_what_a_build_cannot_stand_is_named_with_the_reason(name: str, monkeypatch) -> None:
    monkeypatch.setattr(paths, "REPOSITORY", Path("/srv") / name / "kit")
    with pytest.raises(KitError) as caught:
        machine.check_place()
    for word in UNFIT[name]:
        assert word in caught.value.what
    assert caught.value.where == f"/srv/{name}/kit"
    assert "clone" in caught.value.hint


@pytest.mark.parametrize("name", ["kit", "a@b%41c+d=e.g-h_1", "naïve", "e\u0301", "模型", "हिन्दी", "Ω٣"])
def test_letters_of_any_language_and_some_signs_are_fit(name: str, monkeypatch) -> None:
    monkeypatch.setattr(paths, "REPOSITORY", Path("/srv") / name / "kit")
    machine.check_place()


def make(clone: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    env = {"PATH": os.environ["PATH"], "HOME": str(clone.parent), "LAUNCH_SOURCE": "registry"}
    argv: List[str] = ["make", "--no-print-directory", *words]
    return run(argv, cwd=clone, env=env)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("place") / "my kit")


@pytest.mark.parametrize("words", [["setup"], ["variant", f"V={HYBRID}"], ["evaluate"], ["test"], ["all"]])
def test_what_builds_refuses_at_once(clone: Path, words: List[str]) -> None:
    done = make(clone, *words)
    assert done.returncode == 2
    assert_user_error(done, "a space", str(clone), "clone the checkout")
    assert not (clone / ".venv").exists()
    assert not (clone / "build/src").exists()


@pytest.mark.parametrize("words", [["help"], ["command", f"V={HYBRID}"], ["configs"]])
def test_what_builds_nothing_works(clone: Path, words: List[str]) -> None:
    done = make(clone, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout


NUMBER = "torch.get_num_threads()"
NORM = "(torch.manual_seed(0), (torch.rand(1024, 1024) - 0.5).norm(2).item())[1]"
"""The norm of a full-size attention matrix, on which a threshold stands."""

HOSTILE = {
    **{"OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1", "MKL_CBWR": "COMPATIBLE", "MKL_DYNAMIC": "FALSE"},
    **{"ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41", "KMP_AFFINITY": "compact"},
    **{"PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error", "PYTHONINSPECT": "1", "PYTORCH_JIT": "0"},
    **{"USE_TF": "1", "USE_TORCH": "0", "LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"},
}
"""Variables that change what a program computes, or keep it from running."""

HARMLESS = {
    **{"LC_ALL": "C", "TZ": "Asia/Tokyo", "XDG_CACHE_HOME": "/nowhere", "OPENBLAS_NUM_THREADS": "1"},
    **{"TOKENIZERS_PARALLELISM": "true", "MPLBACKEND": "none", "HF_HOME": "/nowhere", "HOME": "/nowhere"},
}
"""Variables that are inherited."""


def torch_says(expression: str, env: Mapping[str, str], processors: Optional[Set[int]] = None) -> Any:
    """Return what an expression gives in a new process with torch."""
    done = subprocess.run(
        [str(paths.VENV_PYTHON), "-c", f"import json, torch; print(json.dumps({expression}))"],
        env=dict(env),
        stdout=subprocess.PIPE,
        preexec_fn=(lambda: os.sched_setaffinity(0, processors or ())) if processors else None,
        check=True,
    )
    return json.loads(done.stdout)


def clean() -> Dict[str, str]:
    return machine.inherit_variables(os.environ)


def job(kit: Kit, threads: Optional[int] = None) -> jobs.TreeJob:
    questions = paths.SAMPLE / "train.json"
    selection = rules.Selection("files", kit.model, questions, threads=threads)
    return jobs.load_tree(str(kit.launch_file), variants.find_variant(HYBRID), selection, Registry())


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"OMP_NUM_THREADS": "1"},
        {"OMP_NUM_THREADS": "64"},
        {"OMP_NUM_THREADS": "64", "MKL_NUM_THREADS": "1"},
        {"OMP_NUM_THREADS": " 3,2", "MKL_DYNAMIC": "FALSE"},
        {"OMP_NUM_THREADS": "0"},
    ],
)
def test_the_default_is_what_torch_takes(given: Dict[str, str]) -> None:
    env = {**clean(), **given}
    assert machine.count_torch_threads(env) == torch_says(NUMBER, env)


def test_the_default_is_what_torch_takes_on_one_processor() -> None:
    before = os.sched_getaffinity(0)
    one = {min(before)}
    os.sched_setaffinity(0, one)
    try:
        assert machine.count_torch_threads(clean()) == torch_says(NUMBER, clean(), one) == 1
    finally:
        os.sched_setaffinity(0, before)


def test_threads_of_one_core_count_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for processor in range(4):
        place = tmp_path / f"cpu{processor}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(f"{processor % 2},{processor % 2 + 2}\n")
    monkeypatch.setattr(machine, "_CORES", tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for processors, cores in (({0, 1, 2, 3}, 2), ({0, 2}, 1), ({1, 2}, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, found=processors: found)
        assert machine.count_torch_threads({}) == cores
    assert machine.count_torch_threads({"OMP_NUM_THREADS": "4"}) == 2


def test_a_program_takes_the_number_that_was_asked_for(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    most = 1 + max(2, os.cpu_count() or 1)
    norms = {}
    for threads in (1, 2, most):
        env = job(kit, threads).invocation.environment(os.environ)
        number, norms[threads] = torch_says(f"[{NUMBER}, {NORM}]", env)
        assert number == threads
    assert norms[1] != norms[2], "masks would not depend on the number of threads"


def test_a_key_has_the_number_of_threads_wherever_it_comes_from(
    kit: Kit, derived_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in HOSTILE:
        monkeypatch.delenv(name, raising=False)
    one, two = (jobs.make_onnx_key(job(kit, threads)) for threads in (1, 2))
    assert one != two
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert jobs.make_onnx_key(job(kit)) == one
    assert jobs.make_onnx_key(job(kit, 2)) == two, "THREADS= counts more than the shell"
    monkeypatch.delenv("OMP_NUM_THREADS")
    text = kit.launch_file.read_text(encoding="utf-8")
    kit.launch_file.write_text(
        text.replace('"PYTHONHASHSEED"', '"OMP_NUM_THREADS": "1", "PYTHONHASHSEED"'), encoding="utf-8"
    )
    assert jobs.make_onnx_key(job(kit)) == one, "the launch file counts more than the machine"
    assert job(kit).invocation.env[machine.THREADS[0]] == "1"


def test_what_changes_the_run_is_neither_inherited_nor_in_the_key(
    kit: Kit, derived_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*HOSTILE, *HARMLESS]:
        monkeypatch.delenv(name, raising=False)
    plain, base = job(kit, 2), jobs.make_onnx_key(job(kit, 2))
    for name, value in {**HOSTILE, **HARMLESS}.items():
        monkeypatch.setenv(name, value)
    hostile = job(kit, 2)
    assert jobs.make_onnx_key(hostile) == base
    env = hostile.invocation.environment(os.environ)
    assert {name for name in HOSTILE if name in env} == {"OMP_NUM_THREADS"}
    assert env == {**plain.invocation.environment(clean()), **HARMLESS}
    assert "not from the shell" in hostile.explain()
    # What is printed gives the same in the shell that it was printed for.
    printed = hostile.invocation.shell()
    before = printed[: printed.index(f"{paths.VENV_PYTHON} ")]
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    line = before + shlex.join([sys.executable, "-c", code])
    shown = subprocess.run(["sh", "-c", line], stdout=subprocess.PIPE, check=True)
    passed_on = json.loads(shown.stdout)
    shells = {"PWD", "OLDPWD", "SHLVL", "_"}  # that a shell sets for itself
    assert {name: passed_on.get(name) for name in env if name not in shells} == {
        name: value for name, value in env.items() if name not in shells
    }
    assert {name for name in HOSTILE if name in passed_on} == {"OMP_NUM_THREADS"}


def test_a_hostile_shell_makes_the_same_bytes(
    built: Kit, tmp_path: Path, hashes: Callable[[Path], Dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**HOSTILE, **HARMLESS}.items():
        if not name.startswith("PYTHON"):  # which are the kit's own, too
            monkeypatch.setenv(name, value)
    kit = Kit(tmp_path, built.model)
    before = os.umask(0o077)
    try:
        done = kit.run("variant", HYBRID, threads=machine.count_torch_threads(clean()))
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    first, second = hashes(built.tree(HYBRID)), hashes(kit.tree(HYBRID))
    assert {name for name in first if first[name] != second[name]} <= {"provenance.json", "SHA256SUMS"}


def test_the_configs_need_no_threads(kit: Kit) -> None:
    selection = rules.Selection("sample", threads=3)
    run = jobs.load_job(str(kit.launch_file), "configs", selection, Registry())
    assert not set(run.invocation.env) & set(machine.THREADS)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "1025", "99999", "\u00b2"])
def test_what_is_no_number_of_threads_is_a_user_error(text: str) -> None:
    with pytest.raises(KitError, match="whole number from 1 to 1024") as error:
        machine.parse_threads(text)
    assert error.value.where == f"THREADS={text}"


def test_the_command_takes_threads(kit: Kit) -> None:
    assert_user_error(kit.run("command", HYBRID, threads="many"), "THREADS=many")
    done = kit.run("command", HYBRID, threads=7)
    assert "OMP_NUM_THREADS=7" in done.stdout
    assert "MKL_NUM_THREADS=7" in done.stdout
