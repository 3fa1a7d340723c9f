"""Training on a BERT of two layers: what it leaves, and that it resumes and shares work exactly."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest

from launch.core import files, paths
from launch.model import bert_config
from launch.model.variants import find_variant
from launch.qa.checkpoint import HEAD, read_checkpoint

from .. import checkpoints
from ..conftest import assert_user_error

torch = pytest.importorskip("torch")

PROGRAM = paths.PACKAGE / "train" / "train_qa.py"
VARIANT = "75pc_sparse-02_head-0064_ffnn"  # half of the structure, half of what is left
UNSTRUCTURED = "80pc_unstructured_sparse"
CURRENT = [python for python in os.environ.get("TRAIN_PYTHON", "").split(os.pathsep) if python]

USUAL = {
    "variant": VARIANT,
    "train_file": paths.SAMPLE / "train.json",
    "validation_file": paths.SAMPLE / "validation.json",
    "max_seq_length": 96,
    "doc_stride": 32,
    "max_train_samples": 20,
    "max_eval_samples": 6,
    "batch_size": 8,
    "max_steps": 12,
    "epochs": 6,
    "dense_epochs": 1,
    "fixed_epochs": 2,
    "prune_every": 2,
    "save_steps": 5,
    "eval_steps": 6,
    "learning_rate": 1e-3,
    "hardness": 0.5,
}

FEW = {"max_train_samples": 8, "max_eval_samples": 1}


def make_dense(folder: Path, head: bool, **changes: Any) -> Path:
    """Make a model folder of two layers, 4 heads and 128 neurons."""
    shutil.copytree(str(paths.SAMPLE / "model"), str(folder))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    words = len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    config.update(num_hidden_layers=2, hidden_size=32, num_attention_heads=4, intermediate_size=128)
    config.update(vocab_size=words, initializer_range=0.2, **changes)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = checkpoints.draw(folder)
    checkpoints.safetensors({n: one for n, one in tensors.items() if head or n not in HEAD}, folder)
    return folder


@pytest.fixture(scope="module")
def transformers(derived_source):
    return importlib.import_module("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def headless(transformers, folder):
    """A model that was trained for no task."""
    return make_dense(folder / "headless", head=False, torch_dtype="float16", dtype="float16")


@pytest.fixture(scope="module")
def exact(transformers, folder):
    """A model with a head, and without dropout, whose random numbers depend on how work is shared."""
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return make_dense(folder / "exact", head=True, **rates)


def words_of(model: Path, out: Path, **options: Any) -> List[str]:
    given = {**USUAL, "model_name_or_path": model, "output_dir": out, **options}
    words = [str(PROGRAM)]
    for name, value in given.items():
        if value is not None:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def start(words: List[str], launcher: List[str], python: str = sys.executable) -> subprocess.Popen:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TRANSFORMERS_OFFLINE": "1"}
    env.pop("PYTHONPATH", None)
    if python == sys.executable:
        env["PYTHONPATH"] = str(paths.DERIVED_SOURCES / "registry")
    return subprocess.Popen(
        [python, *launcher, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(words: List[str], launcher: List[str], python: str = sys.executable) -> str:
    process = start(words, launcher, python)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def train(loaded, model: Path, out: Path, **options: Any) -> str:
    done = loaded.run("transformers.models.bert.modeling_bert", words_of(model, out, **options), out.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def report(out: Path) -> Dict[str, Any]:
    return json.loads((out / "training.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(loaded, headless, folder):
    """One run with all parts; the output folder and what it said."""
    out = folder / "whole"
    options = {"teacher_epochs": 2, "hidden_weight": 0.1, "work_dir": folder / "work", "threshold": "global"}
    return out, train(loaded, headless, out, **options)


def zeros_of(state: Dict[str, Any]) -> int:
    return sum(int((one == 0).sum()) for name, one in state.items() if is_block(name))


def is_block(name: str) -> bool:
    return name.startswith("bert.encoder.layer.") and name.endswith("weight") and "LayerNorm" not in name


def test_the_result_is_a_checkpoint_of_the_variant(whole, headless, transformers):
    out, said = whole
    config = bert_config.read_config(out)
    shape = bert_config.read_shape(config, str(out))
    assert (shape.heads, shape.intermediate_size) == ((2, 2), 64)
    assert config["tx_block_overall_sparsity"] == find_variant(VARIANT).overall_sparsity
    assert {path.name for path in out.iterdir()} == {
        *(path.name for path in headless.iterdir()),
        "training.json",
    }
    assert (out / "vocab.txt").read_bytes() == (headless / "vocab.txt").read_bytes()
    state = read_checkpoint(out)
    # transformers 4.9 reads which heads have gone, and the weights as they are.
    model = transformers.BertForQuestionAnswering.from_pretrained(str(out))
    assert model.bert.encoder.layer[0].attention.self.query.weight.shape == (16, 32)
    assert all(torch.equal(state[name], one) for name, one in model.state_dict().items() if is_block(name))
    assert {config[name] for name in ("torch_dtype", "dtype") if name in config} == {"float32"}
    assert "exact match" in said
    assert "keeps the teacher for other variants" in said


def test_exactly_the_zeros_that_the_compression_would_prune_are_there(whole):
    out, _ = whole
    shape = bert_config.read_shape(bert_config.read_config(out), str(out))
    wanted = int((shape.kept_weights - 1) * shape.unstructured_sparsity) + 1
    assert zeros_of(read_checkpoint(out)) == wanted
    assert report(out)["zeros"]["wanted"] == report(out)["zeros"]["found"] == wanted


def test_the_report_has_curves_and_scores_and_no_path(whole, folder):
    content = report(whole[0])
    assert set(content["scores"]) == {"teacher", "cut", "pruned", "result"}
    sparsity = [point["sparsity"] for point in content["curve"]]
    assert sparsity[0] == 0
    assert sparsity == sorted(sparsity)
    begin, fixed = content["steps"]["pruning_begins"], content["steps"]["mask_fixed"]
    assert (begin, fixed, content["steps"]["all"]) == (2, 8, 12)
    assert len(set(sparsity[fixed:])) == 1
    assert [one["step"] for one in content["evaluations"]] == [6]
    assert all(point["loss"] > 0 and point["learning_rate"] > 0 for point in content["curve"])
    assert str(folder) not in json.dumps(content)
    assert str(paths.REPOSITORY) not in json.dumps(content)


def test_progress_says_loss_sparsity_and_time_left(whole):
    line = next(line for line in whole[1].splitlines() if "training: step" in line)
    assert all(word in line for word in ("loss", "sparsity", "learning rate", "left")), line


def await_state(process: subprocess.Popen, work: Path, name: str) -> None:
    deadline = time.monotonic() + 600
    while not list(work.glob(name)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]
    assert list(work.glob(name))


def check_resumed(
    model: Path, out: Path, python: str, whole: Path, meanwhile: Any = None, **options: Any
) -> None:
    """Kill a run as it trains, run it again twice at once, and compare with one that nobody killed."""
    words = words_of(model, out, **options)
    process = start(words, [], python)
    await_state(process, out.with_name(".work"), "75pc*/step-*")
    process.send_signal(signal.SIGSTOP)
    try:
        if meanwhile:
            meanwhile()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not out.exists()
    both = [start(words, [], python) for _ in range(2)]
    texts = [one.communicate(timeout=600)[0] for one in both]
    made, refused = sorted(zip([one.returncode for one in both], texts))
    assert (made[0], refused[0]) == (0, 2), texts
    assert "going on at step" in made[1]
    assert "nothing is overwritten" in refused[1]
    assert not list(out.with_name(".work").glob("*/step-*"))
    assert files.digest_file(out / "model.safetensors") == files.digest_file(whole / "model.safetensors")
    for key in ("curve", "evaluations", "scores", "zeros"):
        assert report(out)[key] == report(whole)[key]


def test_a_killed_run_goes_on_to_the_same_bytes(whole, loaded, headless, folder):
    """Also: while it trains, another variant does, with its teacher."""

    def train_another() -> None:
        out = folder / "second"
        said = train(loaded, headless, out, variant=UNSTRUCTURED, teacher_epochs=2, threshold="layer")
        assert "reading the teacher, which" in said
        assert "reading the teacher's answers" in said
        assert "evaluating (teacher)" not in said
        assert report(out)["scores"]["teacher"] == report(whole[0])["scores"]["teacher"]
        state = read_checkpoint(out)
        shares = [float((one == 0).float().mean()) for name, one in state.items() if is_block(name)]
        assert max(shares) - min(shares) < 0.002  # one threshold for each matrix
        assert "pruned_heads" not in bert_config.read_config(out)

    options = {"teacher_epochs": 2, "hidden_weight": 0.1, "meanwhile": train_another}
    check_resumed(headless, folder / "killed", sys.executable, whole[0], **options)


FAILING = f"""
import sys
sys.path.insert(0, {str(paths.REPOSITORY)!r})
from launch.core.errors import KitError
from launch.train import loop, program

evaluate, train = program.Run._evaluate, loop.Trainer.train

def fail(run, model, what):
    if what == "result":
        raise KitError("It cannot be evaluated.", where="a test", hint="Leave it.")
    return evaluate(run, model, what)

def look(trainer, model, phase):
    train(trainer, model, phase)
    print("dropout of the teacher:", any(part.training for part in phase.teacher.modules()))

program.Run._evaluate, loop.Trainer.train = fail, look
program.start_program()
"""


def test_nothing_is_published_that_cannot_be_evaluated(whole, loaded, headless, folder):
    """Also: the next run computes nothing of what is there, and the teacher has no dropout."""
    out, work = folder / "evaluated", folder / "work"
    options = {"teacher_epochs": 2, "hidden_weight": 0.1, "work_dir": work, "save_steps": 6}
    answers = [(path, path.stat().st_mtime_ns) for path in work.glob("teacher-*/logits.npy")]
    words = ["-c", FAILING, *words_of(headless, out, **options)[1:]]
    done = loaded.run("transformers.models.bert.modeling_bert", words, folder)
    assert_user_error(done, "It cannot be evaluated.")
    assert "dropout of the teacher: False" in done.stdout
    assert not out.exists()
    assert not list(folder.glob(".evaluated*"))
    said = train(loaded, headless, out, **options)
    assert "going on at step 12 of 12" in said
    assert "evaluating (teacher)" not in said
    assert "evaluating (cut" not in said
    assert "evaluating (pruned" not in said
    assert files.digest_file(out / "model.safetensors") == files.digest_file(whole[0] / "model.safetensors")
    assert report(out)["scores"] == report(whole[0])["scores"]
    assert [(path, path.stat().st_mtime_ns) for path in work.glob("teacher-*/logits.npy")] == answers
    assert len(answers) == 1


@pytest.fixture(scope="module")
def one_process(loaded, exact, folder):
    out = folder / "one"
    train(loaded, exact, out)
    return out


def check_close(out: Path, other: Path) -> None:
    """The same training, but for the order of additions."""
    for one, two in zip(report(out)["curve"], report(other)["curve"]):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)
        assert one["sparsity"] == two["sparsity"]
    first, second = read_checkpoint(out), read_checkpoint(other)
    assert zeros_of(first) == zeros_of(second)
    gaps = torch.cat([(first[name] - second[name]).flatten().abs() for name in first])
    # Adam makes a step of the learning rate of a gradient that is nearly zero, whichever sign it has.
    assert float(gaps.median()) < 1e-6
    assert float((gaps > 1e-4).float().mean()) < 0.01


LAUNCH = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1", "--multi_gpu"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]


def test_two_processes_give_the_result_of_one(one_process, exact, folder):
    out = folder / "two"
    said = run(words_of(exact, out), [*LAUNCH, "--main_process_port", "29517"])
    assert said.count("result: exact match") == 1  # one of them speaks
    assert report(out)["processes"] == 2
    check_close(out, one_process)


@pytest.mark.parametrize("option", ["gradient_accumulation_steps", "gradient_checkpointing"])
def test_what_saves_memory_gives_the_same_result(one_process, loaded, exact, folder, option):
    out = folder / option
    train(loaded, exact, out, **{option: 2 if "steps" in option else True})
    check_close(out, one_process)


def test_no_epochs_prune_at_once(loaded, headless, folder):
    out = folder / "at_once"
    none = dict.fromkeys(("teacher_epochs", "epochs", "dense_epochs", "fixed_epochs"), 0)
    assert "nothing is trained" in train(loaded, headless, out, **none, **FEW)
    assert report(out)["steps"]["all"] == 0
    assert report(out)["zeros"]["found"] == report(out)["zeros"]["wanted"]


# Bad input


def questions(folder: Path, change: Any) -> Path:
    content = json.loads((paths.SAMPLE / "train.json").read_text(encoding="utf-8"))
    change(content["data"][1]["answers"])
    path = folder / "questions.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_question_without_answer(loaded, exact, tmp_path):
    path = questions(tmp_path, lambda answers: answers.update(text=[], answer_start=[]))
    refuse(loaded, exact, tmp_path, "has no answer", "data[1]", train_file=path)


def test_an_answer_that_is_not_in_its_context(loaded, exact, tmp_path):
    path = questions(tmp_path, lambda answers: answers.update(text=["no such words"]))
    refuse(loaded, exact, tmp_path, "not in its context", "data[1]", train_file=path)


def refuse(loaded, model: Path, tmp_path: Path, *expected: str, **options: Any) -> None:
    out = tmp_path / "out"
    words = words_of(model, out, **options)
    done = loaded.run("transformers.models.bert.modeling_bert", words, tmp_path)
    assert_user_error(done, *expected)
    assert not (out / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"variant": "40pc_sparse-02_head-0064_ffnn"}, "removing structure alone"),
        ({"variant": "90pc_sparse-8_head-0064_ffnn"}, "There is no variant"),
        ({"max_train_samples": 2, "batch_size": 64}, "fewer than a batch"),
        ({"max_seq_length": 1024}, "positions"),
        ({"max_seq_length": 40}, "A question cannot be tokenized"),
        ({"learning_rate": 0}, "learning_rate must be above 0"),
        ({"learning_rate": "nan"}, "learning_rate must be a number"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"dense_epochs": 5}, "more than all together"),
        ({"threshold": "local"}, "invalid choice"),
        ({"gradient_accumulation_steps": 3}, "equal parts"),
        ({"save_steps": 0}, "--save_steps 0 is less than 1"),
        ({"mixed_precision": "bf16"}, "accelerate cannot be started"),
        ({"train_file": "nowhere.json"}, "does not exist"),
    ],
)
def test_wrong_values(loaded, exact, tmp_path, options, expected):
    refuse(loaded, exact, tmp_path, expected, **options)


def test_no_state_is_saved_that_is_not_finite(loaded, exact, tmp_path):
    options = {"learning_rate": 1, "warmup": 0, "weight_decay": 1e39, "save_steps": 1}
    refuse(loaded, exact, tmp_path, "not finite at step 1", "has diverged", **{**FEW, **options})
    assert not list((tmp_path / ".work").glob("*/step-*"))


def test_a_teacher_must_have_a_head(loaded, headless, tmp_path):
    refuse(loaded, headless, tmp_path, "no question-answering head", "teacher_epochs", teacher_epochs=0)


def test_a_dense_model_has_no_more_zeros_than_the_variant(loaded, exact, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(str(exact), str(model))
    state = read_checkpoint(exact)
    for name, one in state.items():
        if is_block(name):
            one.masked_fill_(torch.rand(one.shape, generator=torch.Generator().manual_seed(0)) < 0.9, 0.0)
    checkpoints.safetensors(state, model)
    refuse(loaded, model, tmp_path, "more zeros than the variant", "are wanted", VARIANT, **FEW)


def test_a_compiled_model_is_refused(loaded, exact, tmp_path):
    words = words_of(exact, tmp_path / "out")
    given = {"ACCELERATE_DYNAMO_BACKEND": "EAGER"}
    done = loaded.run("transformers.models.bert.modeling_bert", words, tmp_path, **given)
    assert_user_error(done, "set up to compile the model (eager)", "dynamo_backend")


@pytest.mark.parametrize(("limit", "name"), [(10_000, "logits.npy"), (100_000, "out")])
def test_a_full_disk_is_no_traceback(loaded, exact, tmp_path, limit, name):
    """A limit on the size of files has the system refuse as a full disk does."""
    script = (
        f"import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
    )
    words = ["-c", script, *words_of(exact, tmp_path / "out", **{**FEW, "max_steps": 1})[1:]]
    done = loaded.run("transformers.models.bert.modeling_bert", words, tmp_path)
    assert_user_error(done, "cannot be written", f"{name}: ", "GB free")
    assert not (tmp_path / "out").exists()


def test_a_model_without_tokenizer(loaded, exact, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(str(exact), str(model))
    (model / "vocab.txt").unlink()
    refuse(loaded, model, tmp_path, "tokenizer")


def test_a_model_that_was_cut(loaded, whole, tmp_path):
    refuse(loaded, whole[0], tmp_path, "is not dense")


def test_an_output_folder_that_exists(loaded, exact, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    refuse(loaded, exact, tmp_path, "nothing is overwritten")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_file_of_hyperparameters(loaded, exact, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"epochs": 3, "lerning_rate": 1}')
    refuse(loaded, exact, tmp_path, "no hyperparameter 'lerning_rate'", hyperparameters=path)
    path.write_text('{"warmup": 2}')
    refuse(loaded, exact, tmp_path, "warmup must be from 0 to 1", hyperparameters=path)


# Another environment


@pytest.mark.long
@pytest.mark.skipif(not CURRENT, reason="TRAIN_PYTHON names no Python with a current torch and transformers")
@pytest.mark.parametrize("python", CURRENT)
def test_a_current_environment(python, whole, one_process, headless, exact, folder, tmp_path):
    """The same training, resumed and shared, by torch 2 and transformers 4 or 5."""
    one, two = tmp_path / "one", tmp_path / "two"
    run(words_of(exact, one, gradient_checkpointing=True), [], python)
    check_close(one, one_process)
    run(words_of(exact, two), [*LAUNCH, "--main_process_port", "29518"], python)
    check_close(two, one)
    options = {"teacher_epochs": 2, "hidden_weight": 0.1, "mixed_precision": "bf16"}
    options.update(epochs=20, max_steps=40)  # twelve steps are over in 0.4 s: a busy machine kills too late
    run(words_of(headless, tmp_path / "half", **options), [], python)
    check_resumed(headless, tmp_path / "killed", python, tmp_path / "half", **options)
    # What it has left is read by the kit's environment.
    assert zeros_of(read_checkpoint(tmp_path / "half")) == report(tmp_path / "half")["zeros"]["wanted"]
