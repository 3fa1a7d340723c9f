"""``make train``: what the entry becomes by its variables, what is refused first, and a whole training."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest

from launch.build import hub, preflight, training
from launch.core import child, paths
from launch.core.errors import KitError
from launch.model.variants import find_variant, make_bert_large
from launch.share.training import read_training

from ..conftest import assert_user_error, call, write_launch_file, write_model

VARIANT = "75pc_sparse-08_head-0064_ffnn"
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 256,
    "num_attention_heads": 16,
    "vocab_size": 2048,
}


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory, derived_source: Path) -> Path:
    """A dense model with a head, of weights that were drawn."""
    folder = write_model(tmp_path_factory.mktemp("dense") / "model", **SMALL)
    script = (
        "import pathlib, sys; from tests import checkpoints; folder = pathlib.Path(sys.argv[1]);"
        "checkpoints.safetensors(checkpoints.draw(folder), folder)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(derived_source), str(paths.REPOSITORY)])}
    subprocess.run([sys.executable, "-c", script, str(folder)], env=env, check=True)
    return folder


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight of the sample's questions."""
    content = json.loads((paths.SAMPLE / "validation.json").read_text())
    content["data"] = content["data"][:8]
    path = tmp_path_factory.mktemp("questions") / "few.json"
    path.write_text(json.dumps(content))
    return path


def short_launch_file(folder: Path) -> Path:
    """Write the launch file with short windows and small steps."""
    path = write_launch_file(folder)
    text = path.read_text()
    at = text.index('"name": "train"')
    entry = text[at:].replace('"384"', '"64"', 1).replace('"128"', '"16"', 1)
    path.write_text(text[:at] + entry.replace('"--seed", "42",', '"--seed", "42", "--batch_size", "4",', 1))
    return path


Argv = Callable[..., List[str]]


@pytest.fixture
def argv(tmp_path: Path, dense: Path, questions: Path) -> Argv:
    """A function that returns the command; an option of None is left out."""
    launch = short_launch_file(tmp_path)

    def make(**options: object) -> List[str]:
        values = {
            "v": VARIANT,
            "model": dense,
            "train_file": questions,
            "validation_file": questions,
            "to": tmp_path / "to",
            "epochs": 6,
            "launch": launch,
            "threads": 1,
            **options,
        }
        words = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]
        return ["train", *words]

    return make


def read(argv: Argv, **options: object) -> training.Training:
    words = dict(word[2:].split("=", 1) for word in argv(**options)[1:])
    texts = {name.replace("-", "_").upper(): value for name, value in words.items()}
    return training.read_training(texts.pop("LAUNCH"), texts, 1)


# ---- what runs


def test_a_variants_checkpoint_is_made_once(argv: Argv, tmp_path: Path) -> None:
    done = call(argv())
    assert done.returncode == 0, done.stderr
    assert f"train {VARIANT}  0:" in done.stderr
    assert "sparsity 0." in done.stderr
    assert ".work keeps the teacher for other variants" in done.stderr
    to = tmp_path / "to"
    assert {"config.json", "model.safetensors", "training.json", "vocab.txt"} <= {
        p.name for p in to.iterdir()
    }
    scores = json.loads((to / "training.json").read_text())["scores"]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[4] == ["trained", f"{scores['result']['exact_match']:.2f}", f"{scores['result']['f1']:.2f}"]
    assert [words[0] for words in lines[1:4]] == ["dense", "cut,", "cut"]
    assert f"make variant V={VARIANT} WEIGHTS=" in done.stdout
    curves = read_training(to / "training.json").curves
    assert [len(points) > 1 for points in curves.values()] == [True] * 3
    before = (to / "training.json").stat().st_mtime_ns
    again = call(argv())
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "up to date" in again.stderr
    assert (to / "training.json").stat().st_mtime_ns == before
    assert_user_error(call(argv(seed=7)), "TO=", "nothing is overwritten")


def test_accelerate_launch_runs_it(argv: Argv, tmp_path: Path) -> None:
    done = call(argv(accelerate="--cpu --num_processes 1 --mixed_precision no"))
    assert done.returncode == 0, done.stderr
    (log,) = re.findall("log: (.*)", done.stderr)  # the terminal need not show each line of three seconds
    assert "training: step" in (paths.REPOSITORY / log).read_text(encoding="utf-8")
    assert (tmp_path / "to" / "training.json").is_file()


def test_an_error_behind_accelerate_is_the_kits(argv: Argv, dense: Path, tmp_path: Path) -> None:
    model = tmp_path / "spoilt"
    shutil.copytree(str(dense), str(model))
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    done = call(argv(model=model, accelerate="--cpu --num_processes 1"))
    assert_user_error(done, "The checkpoint cannot be read", f"where: {path}")


def test_each_variable_is_a_rule(argv: Argv, tmp_path: Path) -> None:
    (tmp_path / "h.json").write_text('{"learning_rate": 1e-4}')
    own = {"threshold": "layer", "seed": 7, "hyperparameters": tmp_path / "h.json"}
    others = {"train_python": str(hub.ENVIRONMENT.python), "accelerate": "--num_processes 2"}
    found = {part.after[0]: part.rules for part in read(argv, **own, **others).parts if part.after}
    for name, option in training._OPTIONS.items():
        assert name in found[option], option
    done = call(argv(**own, **others, explain=1))
    assert done.returncode == 0, done.stderr
    launch = f"-m accelerate.commands.launch --num_processes 2 {paths.PACKAGE}/train/train_qa.py"
    for rule in (
        f"  runs  {launch}\n  rule  ACCELERATE\n",
        f"  runs  {hub.ENVIRONMENT.python!s}\n  rule  TRAIN_PYTHON\n",
        "  runs  -u PYTHONPATH\n  rule  TRAIN_PYTHON: its own transformers\n",
        f"  runs  --variant {VARIANT}\n  rule  V\n",
    ):
        assert rule in done.stdout


def test_command_prints_it(argv: Argv, dense: Path) -> None:
    done = call(["command", "--v=train", f"--launch={argv()[7][9:]}", "--threads=1"])
    assert done.returncode == 0, done.stderr
    assert "launch/train/train_qa.py" in done.stdout
    assert "--variant 90pc_sparse-08_head-2048_ffnn" in done.stdout
    assert "OMP_NUM_THREADS=1" in done.stdout


def test_accelerate_shares_the_cores_itself(argv: Argv) -> None:
    words = {"accelerate": "--num_processes 2"}
    launch = read(argv).invocation
    assert launch.env["OMP_NUM_THREADS"] == "1"
    texts = {"ACCELERATE": words["accelerate"]}
    alone = training.read_training(argv()[7][9:], texts).invocation
    assert "OMP_NUM_THREADS" not in alone.env
    assert "PYTHONPATH" in alone.env


def test_a_config_file_is_named_to_accelerate(argv: Argv, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("num_processes: 2\n")
    found = read(argv, accelerate=tmp_path / "two.yaml").invocation.target
    assert found[:4] == ("-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "two.yaml"))


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"threshold": "none"}, ("invalid choice: 'none'", "THRESHOLD=none")),
        ({"seed": "-1"}, ("SEED=-1",)),
        ({"epochs": "-2"}, ("epochs must be at least 0", "EPOCHS=-2")),
        ({"v": "sparse"}, ("There is no variant 'sparse'", "V=sparse")),
        ({"v": "10pc_sparse-08_head-0064_ffnn"}, ("removing structure alone takes",)),
        ({"train_file": None}, ("A training of your model needs TRAIN_FILE", "TRAIN_FILE is empty")),
        ({"launch": "upstream"}, ("no configuration that trains", "LAUNCH=upstream")),
        ({"accelerate": "'"}, ("These are no arguments", "ACCELERATE='")),
        ({"accelerate": "no-file.yaml"}, ("neither an argument", "ACCELERATE=no-file.yaml")),
        ({"train_python": "/nowhere/python"}, ("There is no such program", "TRAIN_PYTHON=/nowhere/python")),
        ({"model": paths.SAMPLE / "model", "v": None}, ("holds no weights", "launch/sample/model")),
        ({"hyperparameters": "/nowhere.json"}, ("does not exist", "HYPERPARAMETERS=/nowhere.json")),
    ],
)
def test_what_is_wrong_is_said_first(
    argv: Argv, options: Dict[str, Any], parts: Tuple[str, ...], tmp_path: Path
) -> None:
    assert_user_error(call(argv(**options)), *parts)
    assert not (tmp_path / "to").exists()


def test_questions_must_have_answers(argv: Argv, tmp_path: Path, questions: Path) -> None:
    content = json.loads(questions.read_text())
    content["data"][3]["answers"] = {"text": [], "answer_start": []}
    (tmp_path / "open.json").write_text(json.dumps(content))
    for name in ("train_file", "validation_file"):
        done = call(argv(**{name: tmp_path / "open.json"}))
        assert_user_error(done, "has no answer", f"{name.upper()}={tmp_path / 'open.json'}: data[3]")


def test_another_python_must_have_the_packages(argv: Argv) -> None:
    python = hub.ENVIRONMENT.python
    done = call(argv(train_python=python), {**os.environ, "PLANTED": "a secret value"})
    assert_user_error(done, "torch is not there, transformers is not there", f"TRAIN_PYTHON={python}")
    assert "torch 1.9" in done.stderr
    assert "a secret value" not in done.stderr


def test_old_packages_are_named(argv: Argv, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = {**training.OLDEST, "torch": (9, 0), "python": (4, 0)}
    monkeypatch.setattr(training, "OLDEST", newer)
    with pytest.raises(KitError, match=r"python is 3\.8\.[0-9]+, torch is 1\.9\.1"):
        training.ask_python(read(argv))


def test_too_little_memory_is_said_first(argv: Argv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "read_available_memory", lambda: 10**8)
    assert_user_error(call(argv()), f"Training {VARIANT} needs about", "a smaller batch_size")


def test_a_teacher_that_stays_takes_memory() -> None:
    """Its weights, in 32 bits, in each process: BERT-large's are 1.3 GB."""
    shape = make_bert_large(find_variant("90pc_unstructured_sparse"))
    for processes in (1, 2):
        without, kept = (
            training.estimate_memory(shape, 4, 384, processes, teacher=teacher) for teacher in (False, True)
        )
        assert kept - without == pytest.approx(processes * 1.335e9, rel=0.01)


def test_an_error_is_found_in_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    wanted = KitError("Two\nlines.", where="a place", hint="do this\nand that")
    log.write_text(f"[   1.0 s] step one\n{wanted}\nTraceback: launcher\n")
    found = child._find_error(log)
    assert found is not None
    assert found.as_dict() == wanted.as_dict()
    assert training.read_step(log) == "step one"
    log.write_text("nothing")
    assert child._find_error(log) is None
    assert training.read_step(log) is None


def test_what_accelerate_has_started_ends_with_the_kit(argv: Argv, tmp_path: Path) -> None:
    words = argv(accelerate="--cpu --num_processes 1", epochs=500)
    with subprocess.Popen(
        [sys.executable, "-m", "launch", *words], cwd=str(paths.REPOSITORY), stderr=subprocess.PIPE, text=True
    ) as kit:
        assert kit.stderr is not None
        assert any("training: step" in line for line in kit.stderr)
        assert find_programs(tmp_path)
        kit.kill()
    deadline = time.monotonic() + 20
    while find_programs(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not find_programs(tmp_path)
    assert not (tmp_path / "to").exists()


def find_programs(folder: Path) -> List[str]:
    """The processes whose command line names a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [text for text in [path.read_bytes().decode("utf-8", "replace")] if f"{folder}/" in text]
    return found
