"""Evaluation: spans out of logits, scores, and the program itself on a tiny BERT of random weights.

The fixture ``derived_source`` (session scope) is the folder that holds transformers and nncf.
"""

import importlib
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from launch.core import paths
from launch.core.errors import EXIT_USER_ERROR, KitError
from launch.model import metric, model_folder, squad
from launch.qa.arguments import Arguments, parse_arguments
from launch.qa.evaluate import NO_ANSWER, find_best_spans

from .. import checkpoints as made

VALIDATION = paths.SAMPLE / "validation.json"
PROGRAM = paths.PACKAGE / "qa" / "run_qa.py"
TOKENS = 384
SEED = 7


@pytest.fixture(scope="module")
def transformers(derived_source):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(derived_source))
        yield importlib.import_module("transformers")


def make_model(folder):
    """Make the sample's model folder again, two layers of 32."""
    folder.mkdir()
    source = paths.SAMPLE / "model"
    for name in ("vocab.txt", "tokenizer_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config.update(num_hidden_layers=2, hidden_size=32, num_attention_heads=4, intermediate_size=64)
    config["vocab_size"] = len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    # Large weights: scores of different tokens are then well apart.
    config["initializer_range"] = 0.5
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model folder without weights."""
    return make_model(tmp_path_factory.mktemp("evaluate") / "tiny")


@pytest.fixture(scope="module")
def saved(tmp_path_factory, transformers):
    """A model folder with a checkpoint."""
    folder = make_model(tmp_path_factory.mktemp("evaluate") / "saved")
    transformers.set_seed(123)
    config = transformers.AutoConfig.from_pretrained(str(folder))
    transformers.BertForQuestionAnswering(config).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def run(derived_source, tmp_path_factory, loaded):
    """Run the program on a model; return the finished process."""
    home = tmp_path_factory.mktemp("home")

    def start(model, output, *options, launcher=()):
        words = [str(PROGRAM), "--model_name_or_path", str(model), "--do_eval"]
        words += ["--train_file", str(paths.SAMPLE / "train.json"), "--validation_file", str(VALIDATION)]
        words += ["--max_seq_length", str(TOKENS), "--doc_stride", "128", "--seed", str(SEED)]
        words += ["--output_dir", str(output), *options]
        if not launcher:
            return loaded.run("transformers.models.bert.modeling_bert", words, output.parent)
        environment = {
            **os.environ,
            "PYTHONPATH": f"{derived_source}{os.pathsep}{paths.REPOSITORY}",
            "TRANSFORMERS_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HOME": str(home),
        }
        return subprocess.run(
            [sys.executable, *launcher, *words],
            env=environment,
            cwd=str(output.parent),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return start


@pytest.fixture(scope="module")
def random_run(run, tiny, tmp_path_factory):
    """Evaluate random weights once for several tests; return the process and the output folder."""
    output = tmp_path_factory.mktemp("random") / "out"
    return run(tiny, output, "--weights", "random", "--per_device_eval_batch_size", "3"), output


def results(output):
    return json.loads((output / "eval_results.json").read_text(encoding="utf-8"))


def predictions(output):
    return json.loads((output / "eval_predictions.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def examples():
    return squad.read_questions(VALIDATION, "VALIDATION_FILE")


@pytest.fixture(scope="module")
def features(transformers, tiny, examples):
    from launch.qa.features import tokenize_examples

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tiny), use_fast=True)
    args = Arguments(str(tiny), "unused", max_seq_length=TOKENS, doc_stride=128)
    return tokenize_examples(examples, tokenizer, args, None)


# Spans


def question(identity="q", context="alpha beta gamma delta", answers=(("beta", 6),)):
    return squad.Example(identity, "", context, "?", tuple(answers))


# [CLS] ? [SEP] alpha beta gamma delta
OFFSETS = [[], [], [], [0, 5], [6, 10], [11, 16], [17, 22]]


def window(identity="q", offsets=OFFSETS):
    return {"example_id": identity, "offset_mapping": offsets}


def logits(*rows):
    return np.array(rows, dtype=np.float32)


def span(starts, ends, n_best_size=20, max_answer_length=30, windows=None, context=None):
    examples = [question() if context is None else question(context=context)]
    found = find_best_spans(examples, windows or [window()], starts, ends, n_best_size, max_answer_length)
    return found["q"]


def test_the_best_sum_wins():
    starts, ends = logits([9, 9, 9, 1, 3, 0, 0]), logits([9, 9, 9, 0, 0, 2, 1])
    assert span(starts, ends) == "beta gamma"


def test_a_span_does_not_end_before_it_begins():
    starts, ends = logits([0, 0, 0, 0, 0, 0, 9]), logits([0, 0, 0, 9, 0, 0, 1])
    assert span(starts, ends) == "delta"


def test_length_is_limited_in_tokens():
    starts, ends = logits([0, 0, 0, 5, 0, 0, 0]), logits([0, 0, 0, 0, 1, 2, 5])
    assert span(starts, ends) == "alpha beta gamma delta"
    assert span(starts, ends, max_answer_length=3) == "alpha beta gamma"
    assert span(starts, ends, max_answer_length=1) == "alpha"


def test_only_the_n_best_are_combined():
    # The question's tokens are among the n best, though no candidate may use them.
    starts, ends = logits([9, 8, 0, 5, 4, 0, 0]), logits([9, 8, 0, 0, 5, 4, 0])
    assert span(starts, ends, n_best_size=3) == "alpha beta"
    assert span(starts, ends, n_best_size=2) == NO_ANSWER


def test_none_marks_tokens_outside_as_well():
    starts, ends = logits([9, 9, 9, 1, 3, 0, 0]), logits([9, 9, 9, 0, 0, 2, 1])
    assert span(starts, ends, windows=[window(offsets=[pair or None for pair in OFFSETS])]) == "beta gamma"


def test_windows_of_a_question_compete():
    starts = logits([0, 0, 0, 2, 0, 0, 0], [0, 0, 0, 0, 0, 3, 0])
    ends = logits([0, 0, 0, 2, 0, 0, 0], [0, 0, 0, 0, 0, 3, 0])
    windows = [window(), window()]
    assert span(starts, ends, windows=windows) == "gamma"
    assert span(starts[::-1], ends[::-1], windows=windows) == "gamma"


def test_the_earlier_of_equal_windows_wins():
    starts = ends = logits([0, 0, 0, 2, 0, 0, 0], [0, 0, 0, 0, 0, 0, 2])
    assert span(starts, ends, windows=[window(), window()]) == "alpha"


def test_no_context_in_the_window_is_no_answer():
    starts = ends = logits([1, 2, 3, 4, 5, 6, 7])
    assert span(starts, ends, windows=[window(offsets=[[]] * 7)]) == NO_ANSWER


def test_a_question_without_a_window_has_no_answer():
    # --max_eval_samples cuts features as well, as upstream does.
    scores = logits([0, 0, 0, 0, 9, 0, 0])
    found = find_best_spans([question("a"), question("b")], [window("b")], scores, scores, 20, 30)
    assert found == {"a": NO_ANSWER, "b": "beta"}
    assert list(found) == ["a", "b"]


def test_perfect_logits_give_full_marks(examples, features):
    by_id = {example.id: example for example in examples}
    starts = np.zeros((len(features), TOKENS), dtype=np.float32)
    ends = np.zeros_like(starts)
    for row, feature in enumerate(features):
        text, first = by_id[feature["example_id"]].answers[0]
        for token, pair in enumerate(feature["offset_mapping"]):
            if pair and pair[0] == first:
                starts[row, token] = 10
            if pair and pair[1] == first + len(text):
                ends[row, token] = 10
    answers = find_best_spans(examples, features, starts, ends, 20, 30)
    assert answers == {example.id: example.answers[0][0] for example in examples}
    assert metric.score_answers({example.id: example.gold for example in examples}, answers) == {
        "exact_match": 100.0,
        "f1": 100.0,
    }


# The program


def test_random_weights_are_scored_and_named(random_run, examples):
    process, output = random_run
    assert process.returncode == 0, process.stderr
    found = results(output)
    assert set(found) == {
        "eval_exact_match",
        "eval_f1",
        "eval_samples",
        "eval_questions",
        "seed",
        "weights",
    }
    assert found["weights"] == f"random, seed {SEED}"
    assert found["seed"] == SEED
    assert found["eval_questions"] == len(examples)
    assert found["eval_samples"] >= len(examples)
    assert 0 <= found["eval_exact_match"] <= found["eval_f1"] <= 100
    answers = predictions(output)
    assert list(answers) == [example.id for example in examples]
    assert all(answers[example.id] in example.context for example in examples)
    assert len(set(answers.values())) > 1
    lines = process.stdout.splitlines()
    assert len(lines) == 1
    assert f"random, seed {SEED}" in lines[0]
    assert "drawing random weights" in process.stderr
    assert sorted(path.name for path in output.iterdir()) == ["eval_predictions.json", "eval_results.json"]


def test_two_processes_give_the_same_files(random_run, run, tiny, tmp_path):
    _, output = random_run
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launcher += ["--master_addr", "127.0.0.1", "--master_port", str(port)]
    shared = tmp_path / "out"
    process = run(tiny, shared, "--weights", "random", "--per_device_eval_batch_size", "3", launcher=launcher)
    assert process.returncode == 0, process.stderr
    for name in ("eval_predictions.json", "eval_results.json"):
        assert (shared / name).read_bytes() == (output / name).read_bytes(), name
    assert len([line for line in process.stdout.splitlines() if "exact match" in line]) == 1


def test_a_checkpoint_is_used_and_named(random_run, run, saved, tmp_path):
    process = run(saved, tmp_path / "out")
    assert process.returncode == 0, process.stderr
    found = results(tmp_path / "out")
    assert found["weights"] == "checkpoint"
    assert predictions(tmp_path / "out") != predictions(random_run[1])


def test_a_broken_checkpoint_ends_in_three_parts(run, saved, tmp_path):
    model = make_model(tmp_path / "broken")
    (model / "pytorch_model.bin").write_bytes((saved / "pytorch_model.bin").read_bytes()[:5000])
    process = run(model, tmp_path / "out")
    assert process.returncode == EXIT_USER_ERROR
    assert "Traceback" not in process.stderr
    where = f"where: {model / 'pytorch_model.bin'}"
    for part in ("error: The checkpoint cannot be loaded", where, "to do: "):
        assert part in process.stderr
    assert not (tmp_path / "out" / "eval_results.json").exists()


# Weights


def load(transformers, folder, weights=None, say=None):
    from launch.qa import model

    config = transformers.AutoConfig.from_pretrained(str(folder))
    args = Arguments(str(folder), "unused", seed=SEED, weights=weights)
    return model.load_model(args, config, say or (lambda text: None))


def save_changed(folder, source, change):
    import torch

    weights = torch.load(str(source / "pytorch_model.bin"))
    torch.save(change(weights), str(folder / "pytorch_model.bin"))


def test_random_weights_follow_the_seed(transformers, tiny):
    import torch

    first, _ = load(transformers, tiny, "random")
    torch.rand(3)
    second, weights = load(transformers, tiny, "random")
    assert weights == f"random, seed {SEED}"
    for one, other in zip(first.parameters(), second.parameters()):
        assert torch.equal(one, other)


def test_a_checkpoint_without_a_head_is_noted(transformers, saved, tmp_path):
    model = make_model(tmp_path / "headless")
    save_changed(model, saved, lambda w: {name: w[name] for name in w if "qa_outputs" not in name})
    said = []
    _, weights = load(transformers, model, say=said.append)
    assert weights == f"checkpoint, qa_outputs random, seed {SEED}"
    assert f"drawn from seed {SEED}: qa_outputs.bias, qa_outputs.weight" in said[-1]


def test_what_is_not_used_of_a_checkpoint_is_said(transformers, saved, tmp_path):
    model = make_model(tmp_path / "more")
    save_changed(model, saved, lambda w: {**w, **{f"cls.{name}": w["qa_outputs.bias"] for name in "abcde"}})
    said = []
    weights = load(transformers, model, say=said.append)[1]
    assert weights == "checkpoint, 5 of its tensors not used"
    assert said[-1] == "not used of the checkpoint: cls.a, cls.b, cls.c and 2 more"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: {f"other.{name}": value for name, value in w.items()}, "lacks"),
        (lambda w: {name: value for name, value in w.items() if "layer.1." not in name}, "lacks"),
        (lambda w: {**w, "qa_outputs.weight": w["qa_outputs.weight"][:, :8]}, "size mismatch"),
        (lambda w: ["no", "weights"], "cannot be loaded"),
    ],
    ids=["another model's", "a layer missing", "another size", "no dictionary"],
)
def test_a_checkpoint_of_something_else_is_refused(transformers, saved, tmp_path, change, complaint):
    model = make_model(tmp_path / "foreign")
    save_changed(model, saved, change)
    with pytest.raises(KitError, match=complaint) as caught:
        load(transformers, model)
    assert str(model) in caught.value.where
    assert caught.value.hint


def test_weights_that_are_not_there_are_drawn_only_where_asked_for(transformers, run, tiny, tmp_path):
    process = run(tiny, tmp_path / "out")
    assert process.returncode == EXIT_USER_ERROR
    for part in (
        "error: The model folder holds no weights",
        f"where: {tiny}\n",
        "to do: ",
        "--weights random",
    ):
        assert part in process.stderr
    model = make_model(tmp_path / "other")
    (model / "tf_model.h5").write_bytes(b"")
    with pytest.raises(KitError, match="under a name that is read") as caught:
        load(transformers, model)
    assert "tf_model.h5" in caught.value.where
    for place in ("pytorch_model.bin", "model.safetensors"):
        (model / place).write_bytes(b"broken")
    assert load(transformers, model, "random")[1] == f"random, seed {SEED}"  # and what is there is not read


def test_the_names_that_are_read_are_those_that_are_looked_for(transformers):
    from transformers import checkpoints

    assert checkpoints.NAMES == model_folder.CHECKPOINTS


def changed(tensors, how):
    """Return the tensors as old or smaller checkpoints have them."""
    if how == "no prefix":
        # Of a BERT that was not trained for questions yet: with the head, transformers refuses it.
        return {name[len("bert.") :]: tensor for name, tensor in tensors.items() if name.startswith("bert.")}
    if how == "old names":
        for new, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
            tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
        return tensors
    kind = {"as it is": "float", "float16": "half", "bfloat16": "bfloat16"}[how]
    return {n: getattr(t, kind)() if t.is_floating_point() else t for n, t in tensors.items()}


@pytest.mark.parametrize("how", ["as it is", "no prefix", "old names", "float16", "bfloat16"])
@pytest.mark.parametrize("form", made.FORMS)
def test_a_checkpoint_is_read_in_each_form(transformers, saved, tmp_path, form, how):
    import torch

    tensors = torch.load(str(saved / "pytorch_model.bin"))
    model = make_model(tmp_path / "model")
    form(changed(tensors, how), model)
    loaded, weights = load(transformers, model)
    assert weights == ("checkpoint" if how != "no prefix" else f"checkpoint, qa_outputs random, seed {SEED}")
    assert set(loaded.state_dict()) == set(tensors)
    for name, tensor in loaded.state_dict().items():
        if how == "no prefix" and name.startswith("qa_outputs."):
            continue
        kind = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(how, torch.float32)
        expected = tensors[name].to(kind).float() if tensor.is_floating_point() else tensors[name]
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected), name


def test_one_file_of_safetensors_goes_before_one_that_runs_code(transformers, saved, tmp_path):
    import torch

    model = make_model(tmp_path / "both")
    made.safetensors(torch.load(str(saved / "pytorch_model.bin")), model)
    (model / "pytorch_model.bin").write_bytes(b"not even read")
    assert load(transformers, model)[1] == "checkpoint"


INDEX = "model.safetensors.index.json"


def cut(folder, name, count):
    (folder / name).write_bytes((folder / name).read_bytes()[:count])


def misplace(folder, shard):
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["qa_outputs.bias"] = shard
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("form", "damage", "complaint"),
    [
        (made.safetensors, lambda f: cut(f, "model.safetensors", -1), "IncompleteBuffer"),
        (made.safetensors, lambda f: cut(f, "model.safetensors", 100), "Header"),
        (made.safetensors, lambda f: cut(f, "model.safetensors", 0), "HeaderTooSmall"),
        (made.several_safetensors, lambda f: cut(f, "model-1.safetensors", -1), "IncompleteBuffer"),
        (made.several_safetensors, lambda f: (f / "model-1.safetensors").unlink(), "model-1.safetensors"),
        (made.several_safetensors, lambda f: cut(f, INDEX, 50), "cannot be loaded"),
        (made.several_safetensors, lambda f: (f / INDEX).write_text("[]"), "cannot be loaded"),
        (made.several_safetensors, lambda f: misplace(f, "../m.bin"), "another folder: ../m.bin"),
        (made.several_safetensors, lambda f: misplace(f, "model-1.safetensors"), "lacks qa_outputs.bias"),
    ],
)
def test_a_damaged_checkpoint_is_named(transformers, saved, tmp_path, form, damage, complaint):
    import torch

    model = make_model(tmp_path / "damaged")
    form(torch.load(str(saved / "pytorch_model.bin")), model)
    damage(model)
    with pytest.raises(KitError, match="cannot be loaded") as caught:
        load(transformers, model)
    assert complaint in caught.value.what
    assert caught.value.where.startswith(f"{model}/model.safetensors")
    assert "--weights random" in caught.value.hint


def test_a_config_without_a_model_is_an_error(transformers, tmp_path):
    model = make_model(tmp_path / "unknown")
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "hidden_act": "none such"}), encoding="utf-8")
    with pytest.raises(KitError, match="none such") as caught:
        load(transformers, model, "random")
    assert str(model) in caught.value.where


def test_questions_on_a_hub_are_refused():
    words = [
        "--model_name_or_path",
        "some/model",
        "--output_dir",
        "x",
        "--do_eval",
        "--dataset_name",
        "squad",
    ]
    with pytest.raises(KitError, match="INPUT=hub"):
        parse_arguments("run_qa.py", words)


# What cannot be evaluated


def evaluate_examples(examples, output):
    from launch.qa.evaluate import evaluate_model

    evaluate_model(Arguments("unused", str(output), validation_file="v.json"), None, examples, None)


def test_ids_must_differ(tmp_path):
    with pytest.raises(KitError, match="same id") as caught:
        evaluate_examples([question("a"), question("a")], tmp_path)
    assert '"a"' in caught.value.where


def test_questions_need_answers(tmp_path):
    with pytest.raises(KitError, match="no answer") as caught:
        evaluate_examples([question("a", answers=())], tmp_path)
    assert caught.value.where == '(question "a")'


def test_an_output_folder_that_cannot_be_is_refused_first(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(KitError, match="cannot be written") as caught:
        evaluate_examples([question()], tmp_path / "file" / "out")
    assert "--output_dir" in caught.value.hint
