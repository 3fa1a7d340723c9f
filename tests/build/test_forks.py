"""Upstream's own code on the two-layer BERT: `make test-forks`, for checkouts with the submodules.

Not part of `make test`: without the submodules there is nothing to run, and a test that skips says nothing.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from launch.build import upstream
from launch.core import git, paths
from launch.model import bert_config
from launch.model.variants import VARIANTS
from launch.share import compare
from launch.sources import patch_work, third_party

from .. import checkpoints
from ..conftest import HYBRID, TINY, UNSTRUCTURED, Kit, assert_user_error, call, run, write_model
from ..hub_server import Place

pytestmark = pytest.mark.forks


@pytest.fixture(autouse=True, scope="module")
def _submodules():
    third_party.require_forks()
    yield
    for fork in third_party.read_forks():
        third_party.check_pin(fork)  # nothing that ran here has touched them
        assert git.run_git(["status", "--porcelain"], fork.folder).stdout == ""


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Kit:
    """The variants, made at once by upstream's scripts from the kit's launch file."""
    kit = Kit(tmp_path_factory.mktemp("forked"), tiny_model)
    done = kit.run("all", "", source="fork")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("source  fork (nncf 9c2845eeb38b, transformers b8d2f4382295, ")
    return kit


def test_every_patch_applies_and_exports_unchanged() -> None:
    assert all("no difference" in line for line in patch_work.check_patches())


def test_weights_and_masks_are_those_of_the_registry(forked: Kit, built: Kit) -> None:
    for name in (HYBRID, UNSTRUCTURED):
        (result,) = compare.compare_paths(forked.tree(name), built.tree(name), "weights")
        assert result.same, result.text
        assert re.search(r"\d+ of \d+ activation ranges differ", result.text), result.text


def test_upstreams_launch_file_gives_the_same_bytes(forked: Kit, tmp_path: Path) -> None:
    """Each variant alone, too: what `make all` made had its libraries imported by another process."""
    for name in (HYBRID, UNSTRUCTURED):
        argv = forked.argv("variant", name, source="fork", launch="upstream", out=tmp_path)
        done = run(argv)
        assert done.returncode == 0, done.stderr
        (result,) = compare.compare_paths(forked.tree(name), tmp_path / name, "bytes")
        assert result.same, result.text


def test_upstreams_launch_file_reads_the_hub(forked: Kit, place: Place, tmp_path: Path) -> None:
    """The names in it are files by then, and the run is that of INPUT=files."""
    none = {"model": None, "train_file": None, "validation_file": None}
    options = {"source": "fork", "launch": "upstream", "input": "hub", "hub": place.list, "out": tmp_path}
    done = run(forked.argv("variant", HYBRID, **options, **none))
    assert done.returncode == 0, done.stderr
    (result,) = compare.compare_paths(forked.tree(HYBRID), tmp_path / HYBRID, "bytes")
    assert result.same, result.text
    assert place.server.asked("GET", "train.json")


def test_upstreams_scripts_make_other_variants(kit: Kit, tmp_path: Path) -> None:
    """In 32 bits, of another percentage, and with nothing left to prune: the weights are the kit's own."""
    names = [
        "80pc_sparse-02_head-0512_ffnn-fp32",
        "20pc_unstructured_sparse",
        "50pc_sparse-08_head-1024_ffnn",
    ]
    for source, more in (("fork", {"launch": "upstream"}), ("registry", {})):
        done = kit.run("variant", " ".join(names), source=source, out=tmp_path / source, **more)
        assert done.returncode == 0, done.stderr
    results = list(compare.compare_paths(tmp_path / "fork", tmp_path / "registry", "weights"))
    assert [(result.name, result.same) for result in results] == [(name, True) for name in sorted(names)]


def test_the_real_launch_file_offers_every_variant() -> None:
    for name in (*VARIANTS, "configs", "evaluate"):
        for source in ("fork", "registry"):
            done = call(["command", "--launch=upstream", f"--source={source}", f"--v={name}"])
            assert done.returncode == 0, done.stderr
            assert not re.search(r"vscode-runs|/data\d|workspaceFolder|DEVICES=1", done.stdout)
    assert upstream.find_upstream_file().is_file()


@pytest.mark.parametrize("launch", ["kit", "upstream"])
def test_configs_are_the_committed_ones(launch: str, tmp_path: Path) -> None:
    options = ["--launch=upstream"] if launch == "upstream" else []
    done = call(["configs", "--source=fork", *options])
    assert done.returncode == 0, done.stderr
    written = [Path(line) for line in done.stdout.split()]
    assert len(written) == 4
    examples = third_party.find_fork("transformers").folder / "examples/pytorch/question-answering"
    for path in written:
        name = path.parent.name
        committed = examples / "gen-hybrid-sparse/generated_cfg" / name / "config.json"
        assert json.loads(path.read_text()) == json.loads(committed.read_text())
    assert git.run_git(["status", "--porcelain", "launch/configs"], paths.REPOSITORY).stdout == ""


@pytest.mark.parametrize("case", ["drawn", "headless", *checkpoints.FORMS])
def test_both_sources_evaluate_alike(case: Any, kit: Kit, derived_source: Path) -> None:
    """Drawn weights, a checkpoint without a head, and one in each form."""
    tensors = checkpoints.draw(kit.model)
    kit.model = write_model(kit.folder / "model", **TINY)
    weights = "checkpoint"
    if case == "drawn":
        weights = "random, seed 42"
    elif case == "headless":
        checkpoints.safetensors({k: v for k, v in tensors.items() if "qa_outputs" not in k}, kit.model)
        weights = "checkpoint, qa_outputs random, seed 42"
    else:
        case(tensors, kit.model)
    found = []
    for source in ("fork", "registry"):
        done = kit.run("evaluate", source=source, weights="random" if case == "drawn" else None)
        assert done.returncode == 0, done.stderr
        results, answers = (
            json.loads((kit.folder / "evaluate" / f"eval_{name}.json").read_text())
            for name in ("results", "predictions")
        )
        assert results["weights"] == weights
        questions = f"--validation-file={paths.SAMPLE / 'validation.json'}"
        predictions = f"--predictions={kit.folder / 'evaluate' / 'eval_predictions.json'}"
        scored = call(["evaluate", predictions, questions])
        assert json.loads(scored.stdout)["f1"] == results["eval_f1"], scored.stderr
        found.append([answers, *(results[f"eval_{key}"] for key in ("exact_match", "f1", "samples"))])
    if case != "headless":  # each program draws the head at another place of the random stream
        assert found[0] == found[1]


def test_upstreams_script_is_kept_from_what_it_would_pass_over(kit: Kit) -> None:
    assert_user_error(
        kit.run("evaluate", source="fork"), "holds no weights", str(kit.model), "WEIGHTS=random"
    )
    kit.model = write_model(kit.folder / "broken", **TINY)
    (kit.model / "model.safetensors").write_bytes(b"{}")
    done = kit.run("evaluate", source="fork")
    assert_user_error(done, "cannot be loaded", "HeaderTooSmall", str(kit.model / "model.safetensors"))
    assert not (kit.folder / "evaluate" / "eval_results.json").exists()


def test_odd_config_values_and_a_tokenizer_without_token_types(kit: Kit) -> None:
    """The config changes nothing, and without token types upstream's model takes zeros, as the kit's does."""
    odd = {key: "odd" for key, form in bert_config.KEYS.items() if form is None}
    odd.update(gradient_checkpointing=True, hidden_dropout_prob=0.3, model_max_length=384)
    found = []
    for source, changes in (("registry", {}), ("fork", odd)):
        kit.model = write_model(kit.folder / source, **{**TINY, **changes})
        tokenizer = kit.model / "tokenizer_config.json"
        content = json.loads(tokenizer.read_text())
        tokenizer.write_text(json.dumps({**content, "tokenizer_class": "DistilBertTokenizer"}))
        done = kit.run("evaluate", source=source, weights="random")
        assert done.returncode == 0, done.stderr
        found.append((kit.folder / "evaluate" / "eval_predictions.json").read_text())
    assert json.loads(found[0]) == json.loads(found[1])
    done = kit.run("variant", HYBRID, source="fork")
    assert done.returncode == 0, done.stderr


def test_a_question_that_does_not_fit_is_named(kit: Kit, tmp_path: Path) -> None:
    content = json.loads((paths.SAMPLE / "validation.json").read_text())
    content["data"][1]["question"] = "the " * 400
    questions = tmp_path / "long.json"
    questions.write_text(json.dumps(content))
    identity = content["data"][1]["id"]
    done = kit.run("evaluate", source="fork", validation_file=questions, weights="random")
    where = f"VALIDATION_FILE={questions}: data[1] (article "
    assert_user_error(done, "it has 400 tokens", where, f'question "{identity}"')
