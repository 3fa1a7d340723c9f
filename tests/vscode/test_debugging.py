"""F5 for real: debugpy runs what stands in a launch file, and it is what `make command` prints.

The entries are those of the kit's launch file, at two layers: the model, the configs and the folders that
receive products are others, as a person may change them.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence

import pytest

from launch.build import upstream
from launch.build.rules import ALLOCATOR
from launch.core import files, machine, paths
from launch.core.errors import KitError
from launch.model import bert_config
from launch.model.variants import VARIANTS
from launch.sources import third_party
from launch.vscode.launch_file import parse_launch_file
from launch.vscode.resolve import Variables, resolve_configuration

from ..conftest import HYBRID, UNSTRUCTURED, Kit, run, write_launch_file
from ..dap import Session
from ..editor import ADDED, entries, launch_request

PYTHON = str(paths.VENV_PYTHON)
QA = paths.PACKAGE / "qa"
SCRIPTS = {UNSTRUCTURED: "run_qa.py", "evaluate": "run_qa.py", "train": "train_qa.py"}

VSCODE = {
    "PATH": ":".join(
        folder for folder in os.environ["PATH"].split(":") if folder and folder != str(paths.VENV / "bin")
    ),
    "HOME": os.environ.get("HOME", "/"),
    "LC_ALL": "C.UTF-8",
    "PYTHONPATH": "/inherited",
}
"""What VS Code, and the shell that the printed command is pasted into, were started in."""

DEBUGGERS = {"DEBUGPY_RUNNING": "true", "PYDEVD_USE_FRAME_EVAL": "NO"}
"""Variables that the debugger sets in the program it runs."""

SHELLS = {"PWD", "OLDPWD", "SHLVL", "_"}
"""Variables that a shell sets for itself."""

STATE = "__import__('json').dumps([__import__('sys').argv, __import__('os').getcwd(),"
STATE += " dict(__import__('os').environ), __import__('sys').executable])"

Debug = Callable[..., Session]


@pytest.fixture
def debug(tmp_path: Path) -> Iterator[Debug]:
    """A function that presses F5; whatever it has started is ended after the test."""
    sessions: List[Session] = []

    def start(
        request: Dict[str, Any],
        breakpoints: Mapping[Path, Sequence[int]],
        environment: Mapping[str, str] = VSCODE,
        seconds: float = 240.0,
        python: str = PYTHON,
    ) -> Session:
        sessions.append(Session(python, environment, tmp_path / f"session-{len(sessions)}", seconds))
        sessions[-1].launch(request, breakpoints)
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()
        assert session.processes() == []


@pytest.fixture(scope="module")
def launch_file(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, derived_source: Path) -> Path:
    """The kit's launch file, for the two-layer model."""
    folder = tmp_path_factory.mktemp("debugged")
    path = write_launch_file(folder)
    text = path.read_text(encoding="utf-8")
    for was, is_now in (
        ("${workspaceFolder}/launch/sample/model", str(tiny_model)),
        ("${workspaceFolder}/launch/configs/90pc", f"{folder}/configs/90pc"),
        ('"${workspaceFolder}/launch/configs"', f'"{folder}/written"'),
        ('"args": [],', '"args": ["-p", "no:cacheprovider", "tests/model/test_variants.py"],'),
    ):
        assert was in text
        text = text.replace(was, is_now)
    path.write_text(text, encoding="utf-8")
    bert_config.write_hybrids(tiny_model, folder / "configs")
    return path


def line_of(file: Path, text: str) -> int:
    """Return the number of the one line that holds ``text``."""
    found = [number for number, line in enumerate(file.read_text().splitlines(), 1) if text in line]
    assert len(found) == 1, f"{text!r} is in lines {found} of {file}"
    return found[0]


def first_line(file: Path) -> int:
    """Return the number of a module's first line that does anything: nothing has changed the process yet."""
    body = ast.parse(file.read_text()).body
    return next(node.lineno for node in body if not isinstance(node, ast.Expr))


def printed(folder: Path, name: str, *words: str, environment: Mapping[str, str] = VSCODE) -> List[Any]:
    """Start what `make command` prints; return the arguments, the folder and the environment of its program.

    Everything in the command is as printed but the interpreter, whose place a probe takes.
    """
    done = run(["make", "--no-print-directory", "command", f"V={name}", *words], env=environment)
    assert done.returncode == 0, done.stderr
    probe, found = folder / "probe", folder / "probe.json"
    lines = ["#!" + PYTHON + " -I", "import json, os, sys"]
    lines += [f"json.dump([sys.argv[1:], os.getcwd(), dict(os.environ)], open({str(found)!r}, 'w'))"]
    probe.write_text("\n".join(lines) + "\n")
    probe.chmod(0o755)
    command, count = re.subn(rf"(?m)^( *){re.escape(PYTHON)} ", rf"\1{shlex.quote(str(probe))} ", done.stdout)
    assert count == 1, done.stdout
    subprocess.run(["/bin/sh", "-c", command], env=dict(environment), check=True, timeout=60)
    state: List[Any] = json.loads(found.read_text())
    return state


def assert_same(started: List[Any], expected: List[Any], argv: Sequence[str]) -> None:
    """Assert that the debugged program has what the printed command gives it, and say what it has besides.

    :param argv: the words that Python itself takes: the program, or ``-m`` and the module.
    """
    words, folder, environment, python = started
    # For a module Python puts its file's path in place of both words.
    assert words[1:] == expected[0][len(argv) :]
    assert expected[0][: len(argv)] == (words[:1] if len(argv) == 1 else list(argv)) == list(argv)
    assert (folder, python) == (expected[1], PYTHON)
    own = {n: v for n, v in environment.items() if n != "KIT_BUILD" and not is_added(n, v)}
    # F5 leaves the number of threads to torch, which takes what make says.
    passed_over = {*SHELLS, *machine.THREADS, "KIT_BUILD"}
    assert own == {name: value for name, value in expected[2].items() if name not in passed_over}


def is_added(name: str, value: str) -> bool:
    """Return whether a variable is one that F5 sets and make does not; there are four, and no others pass."""
    return {**ADDED, **DEBUGGERS}.get(name) == value


def f5(launch_file: Path, name: str) -> Dict[str, Any]:
    """Return the launch request for an entry of a launch file of the kit."""
    return launch_request(entries(launch_file)[name], paths.REPOSITORY, VSCODE, PYTHON)


def started_as(session: Session, program: Path) -> List[Any]:
    """Wait for the stop at the program's first line; return what it was started with, and let it run on."""
    stop = session.stop()
    assert (stop.reason, stop.file.resolve(), stop.line) == (
        "breakpoint",
        program.resolve(),
        first_line(program),
    )
    state: List[Any] = json.loads(session.evaluate(STATE, stop))
    session.resume(stop)
    return state


@pytest.mark.parametrize("name", ["configs", "evaluate", "train", *VARIANTS])
def test_f5_starts_what_make_command_prints(
    name: str, launch_file: Path, debug: Debug, tmp_path: Path
) -> None:
    folder = paths.PACKAGE / "train" if name == "train" else QA
    program = folder / SCRIPTS.get(name, "gen_hybrid_sparse_qa.py")
    session = debug(f5(launch_file, name), {program: [first_line(program)]})
    started = started_as(session, program)
    assert_same(started, printed(tmp_path, name, f"LAUNCH={launch_file}", "SOURCE=registry"), [str(program)])
    if name == "configs":  # the others take long, and one is gone through below
        assert session.exit_code() == 0
        assert (launch_file.parent / f"written/{HYBRID}/config.json").is_file()


@pytest.mark.parametrize("resolved", [True, False])
def test_the_debugger_itself_runs_in_another_python(
    resolved: bool, launch_file: Path, debug: Debug, tmp_path: Path
) -> None:
    """As in a window that was opened before setup: VS Code selects a Python of the machine, an entry its own.

    Where F5 itself asks whether the folder is trusted, the extension starts too late to say what the launcher
    runs in.
    """
    words = ["python3", "-c", "import sys; print(sys.version_info >= (3, 9) and sys.executable)"]
    selected = subprocess.run(
        words, env=VSCODE, stdout=subprocess.PIPE, text=True, check=False
    ).stdout.strip()
    if selected in ("", "False"):
        pytest.skip("python3 is missing here, or older than today's debugger wants")
    request = launch_request(entries(launch_file)[HYBRID], paths.REPOSITORY, VSCODE, selected)
    assert request["debugLauncherPython"] == selected != request["python"]
    if not resolved:
        del request["debugLauncherPython"]
    program = QA / "gen_hybrid_sparse_qa.py"
    session = debug(request, {program: [first_line(program)]}, python=selected)
    started = started_as(session, program)
    assert_same(
        started, printed(tmp_path, HYBRID, f"LAUNCH={launch_file}", "SOURCE=registry"), [str(program)]
    )


def test_a_person_steps_through_the_compression_and_gets_makes_bytes(
    launch_file: Path, debug: Debug, derived_source: Path, built: Kit
) -> None:
    transformers = derived_source / "transformers/models/bert/modeling_bert.py"
    nncf = derived_source / "nncf/torch/sparsity/magnitude/algo.py"
    kit = QA / "compress.py"
    lines = {
        transformers: line_of(transformers, "self.qa_outputs = nn.Linear"),
        nncf: line_of(nncf, "def sparsify_params") + 2,
        kit: line_of(kit, "with files.replace_file(path) as part:"),
    }
    # What the extension brings is compiled for later Pythons alone; in 3.8 the debugger is pure Python.
    session = debug(
        f5(launch_file, HYBRID),
        {file: [line] for file, line in lines.items()},
        environment={**VSCODE, "PYDEVD_USE_CYTHON": "NO"},
    )
    for _ in range(2):  # two models are drawn, the first of which is thrown away
        stop = session.stop()
        assert (stop.file, stop.line, stop.function) == (transformers, lines[transformers], "__init__")
        assert session.evaluate("config.num_hidden_layers", stop) == 2
        session.resume(stop)
    stop = session.stop()
    assert (stop.file, stop.line, stop.function) == (nncf, lines[nncf], "sparsify_params")
    zeros = "sum(int((m.module.weight == 0).sum()) for m in self.sparsified_module_info)"
    pruned = "sum(int((m.operand.binary_mask == 0).sum()) for m in self.sparsified_module_info)"
    masked = session.evaluate(pruned, stop)
    assert session.evaluate(zeros, stop) == 0 < masked
    for line in (1, 2):
        stop = session.step(stop)
        assert (stop.reason, stop.function, stop.line) == ("step", "sparsify_params", lines[nncf] + line)
    session.resume(stop)
    stop = session.stop()
    assert (stop.file, stop.line, stop.function) == (kit, lines[kit], "export_onnx")
    pruning = "next(c for c in controller.child_ctrls if hasattr(c, 'sparsify_params'))"
    assert session.evaluate(zeros.replace("self", pruning), stop) == masked
    session.resume(stop)
    assert session.exit_code() == 0
    name = f"{HYBRID}/{HYBRID}-8bit.onnx"
    assert files.digest_file(launch_file.parent / "work" / name) == files.digest_file(built.out / name)


def test_the_tests_have_an_entry(launch_file: Path, debug: Debug, tmp_path: Path) -> None:
    pytests = Path(pytest.__file__).parent / "__main__.py"
    session = debug(f5(launch_file, "tests"), {pytests: [first_line(pytests)]})
    started = started_as(session, pytests)
    assert_same(started, printed(tmp_path, "tests", f"LAUNCH={launch_file}"), ["-m", "pytest"])
    assert session.exit_code() == 0
    assert re.search(r"\d+ passed", session.output.read_text())


DUMP = """
import json, os, sys
state = [sys.argv, os.getcwd(), dict(os.environ), sys.executable, sys.flags.optimize]
json.dump(state, open(os.environ["FOUND"], "w"))
"""


@pytest.mark.parametrize(
    "keys",
    [
        # A blank search path; words that a shell splits; the platform's own keys.
        {
            "env": {"FOUND": "${workspaceFolder}/found.json", "PYTHONPATH": " ", "HOME_TOO": "${env:HOME}"},
            "args": "--a 'b  c' \"${workspaceFolder}\" d\\ e",
            "linux": {"python": "${env:TOOLS}/python"},
            "pythonArgs": ["-O"],
        },
        # A search path, put before the inherited one; the old name of the interpreter.
        {
            "env": {"FOUND": "${workspaceFolder}/found.json", "PYTHONPATH": "/own", "PATH": ""},
            "pythonPath": PYTHON,
            "args": ["two words", "$HOME"],
        },
        # No environment file; the interpreter that is selected.
        {
            "envFile": "",
            "env": {"FOUND": "${workspaceFolder}/found.json"},
            "python": "${command:python.interpreterPath}",
        },
    ],
)
def test_f5_starts_any_entry_as_the_kit_does(keys: Dict[str, Any], debug: Debug, tmp_path: Path) -> None:
    (tmp_path / "dump.py").write_text(DUMP)
    entry = {"name": "n", "type": "debugpy", "request": "launch", "program": "dump.py", **keys}
    environment = {**VSCODE, "TOOLS": str(paths.VENV / "bin")}
    found = tmp_path / "found.json"
    session = debug(launch_request(entry, tmp_path, environment, PYTHON), {}, environment)
    assert session.exit_code() == 0, session.output.read_text()
    started = json.loads(found.read_text())
    found.unlink()
    configuration = parse_launch_file(json.dumps({"configurations": [entry]}), "f").configurations[0]
    invocation = resolve_configuration(Variables(configuration, tmp_path, environment), PYTHON)
    subprocess.run(
        invocation.argv(), cwd=invocation.cwd, env=invocation.environment(environment), check=True, timeout=60
    )
    expected = json.loads(found.read_text())
    for state in (started, expected):
        state[2] = {
            name: value
            for name, value in state[2].items()
            if name not in SHELLS and not is_added(name, value)
        }
    started[0][0] = Path(started[0][0]).name  # the debugger makes it absolute
    assert started == expected


def test_what_the_extension_empties_or_cannot_start_is_an_error(tmp_path: Path) -> None:
    """The request that F5 would send is another than the file says, or there is none."""
    entry = {"name": "n", "type": "debugpy", "request": "launch", "program": "p.py"}
    for keys, python in (
        ({"python": "${env:HOME}/venv/bin/python"}, "/venv/bin/python"),
        ({"linux": {"pythonPath": "/other"}}, PYTHON),
        ({"python": "/a", "pythonPath": "/b"}, "/a"),
        ({"python": [PYTHON, "-O"]}, None),
    ):
        changed = {**entry, **keys}
        if python is None:
            with pytest.raises(AttributeError):
                launch_request(changed, tmp_path, VSCODE, PYTHON)
        else:
            assert launch_request(changed, tmp_path, VSCODE, PYTHON)["python"] == python
        with pytest.raises(KitError):
            resolve_configuration(
                Variables(
                    parse_launch_file(json.dumps({"configurations": [changed]}), "f").configurations[0],
                    tmp_path,
                    VSCODE,
                ),
                PYTHON,
            )


def test_a_program_that_fails_says_so(launch_file: Path, debug: Debug) -> None:
    request = f5(launch_file, "evaluate")
    session = debug({**request, "args": [*request["args"], "--do_evil"]}, {})
    assert session.exit_code() == 2
    assert "error: " in session.output.read_text()


def upstreams(name: str, entry: Mapping[str, Any], model: Path) -> Dict[str, Any]:
    """Return an entry of upstream's launch file as a person would have to edit it to run it here.

    What the rules in launch/build/ do, written down again; everything else stands as it is in the file.
    """
    tree = paths.DERIVED_SOURCES / "fork"
    examples = tree / "transformers/examples/pytorch/question-answering"
    device = entry["env"]["CUDA_VISIBLE_DEVICES"]
    edited: Dict[str, Any] = {**entry, "python": PYTHON, "justMyCode": False, "args": list(entry["args"])}
    edited["env"] = {
        **entry["env"],
        "CUDA_VISIBLE_DEVICES": device if Path(f"/dev/nvidia{device}").exists() else "",
        "PYTHONPATH": f"{tree}/nncf:{tree}/transformers/src:{examples}:{paths.REPOSITORY}",
        "PATH": str(paths.VENV / "bin"),
        "TORCH_EXTENSIONS_DIR": str(paths.EXTENSIONS / "fork"),
        "PYTHONHASHSEED": "0",
        "GLIBC_TUNABLES": ALLOCATOR,
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(paths.BUILD / "cache/huggingface"),
    }
    words = edited["args"]

    def value(option: str, now: str) -> None:
        words[words.index(option) + 1] = now

    value("--model_name_or_path", str(model))
    dataset = words.index("--dataset_name")
    del words[dataset : dataset + 2]
    output = words[words.index("--output_dir") + 1]
    questions = {split: str(paths.SAMPLE / f"{split}.json") for split in ("train", "validation")}
    if name == "configs":
        # Upstream's script writes into its own folder, whatever --output_dir says.
        edited["cwd"] = str(paths.BUILD / "configs/fork")
        edited["program"] = str(examples / entry["program"])
        value("--output_dir", str(paths.BUILD / "configs/user"))
    else:
        here = paths.BUILD / ("evaluate" if name == "evaluate" else "work")
        home = output if name != UNSTRUCTURED else str(Path(output).parent)
        words[:] = [word.replace(home, str(here)) for word in words]
    if name == HYBRID:
        config = bert_config.make_hybrid(bert_config.read_config(model, "MODEL"), VARIANTS[name], str(model))
        own = paths.BUILD / "configs" / files.digest_value(config)[:12] / name / "config.json"
        value("--config_name", str(own))
    if name == "evaluate":
        words += ["--weights", "random"]
    for split, path in questions.items():
        words += [f"--{split}_file", path]
    return edited


@pytest.fixture
def work_folder() -> Iterator[Path]:
    """The folder that the rules give upstream's trees; what is new in it goes again."""
    folder = paths.BUILD / "work"
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    yield folder
    for path in set(folder.iterdir()) - before:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.forks
@pytest.mark.parametrize("name", ["configs", HYBRID, UNSTRUCTURED, "evaluate"])
def test_upstreams_configurations_run_in_the_debugger(
    name: str, debug: Debug, tiny_model: Path, tmp_path: Path, work_folder: Path
) -> None:
    """Each of the four, `type: python` as it is, edited as the kit's rules say: F5 is what make prints."""
    third_party.require_forks()
    # VS Code prepends to a PYTHONPATH that it was started with; the kit takes upstream's scripts' alone.
    vscode = {name: value for name, value in VSCODE.items() if name != "PYTHONPATH"}
    own = [f"{split.upper()}_FILE={paths.SAMPLE}/{split}.json" for split in ("train", "validation")]
    words = ["LAUNCH=upstream", "SOURCE=fork", "INPUT=files", f"MODEL={tiny_model}", *own]
    words += ["WEIGHTS=random"] if name == "evaluate" else []
    here = {**vscode, "KIT_BUILD": os.environ["KIT_BUILD"]}
    expected = printed(tmp_path, name, *words, environment=here)
    entry = entries(upstream.find_upstream_file())[upstream.name_upstream(name)]
    tree = paths.DERIVED_SOURCES / "fork"
    request = launch_request(upstreams(name, entry, tiny_model), tree, vscode, PYTHON)
    program = tree / "transformers/examples/pytorch/question-answering" / Path(entry["program"]).name
    nncf = tree / "nncf/nncf/torch/sparsity/magnitude/algo.py"
    inside = line_of(nncf, "def sparsify_params") + 2
    before = time.time() - 1
    session = debug(
        request, {program: [first_line(program)], nncf: [inside]}, environment=vscode, seconds=480
    )
    assert_same(started_as(session, program), expected, [request["program"]])
    if name in VARIANTS:
        stop = session.stop()
        assert (stop.file, stop.line, stop.function) == (nncf, inside, "sparsify_params")
        session.resume(stop)
    assert session.exit_code() == 0
    if name in VARIANTS:
        made = (work_folder / name / f"{name}-8bit.onnx").stat()
        assert made.st_size > 10**6
        assert made.st_mtime > before
