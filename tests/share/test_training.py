"""Curves of a training in the report: whose they are, what is drawn, and what is passed over."""

import json
from pathlib import Path
from typing import Any, Dict

import pytest

from launch.core import files
from launch.model.variants import VARIANTS
from launch.share import page, training
from launch.share import tree as share_tree

from .. import sample_trees
from ..conftest import HYBRID

REPORT: Dict[str, Any] = {
    "scores": {
        "teacher": {"exact_match": 80.0, "f1": 88.5},
        "cut": {"exact_match": 10.0, "f1": 20.25},
        "result": {"exact_match": 75.0, "f1": 84.125},
    },
    "steps": {"all": 400},
    "curve": [
        {"step": 100, "loss": 4.0, "sparsity": 0.0, "learning_rate": 1e-5},
        {"step": 400, "loss": 1.0, "sparsity": 0.5, "learning_rate": 1e-6},
    ],
    "evaluations": [{"step": 200, "exact_match": 40.0, "f1": 50.0}],
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "trained" / "mine"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "training.json").write_text(json.dumps(REPORT))
    return folder


def weights(folder: Path) -> Dict[str, Any]:
    return {"kind": "trained", "sha256": files.digest_file(folder / "model.safetensors")}


def test_the_training_is_found_by_its_weights(checkpoint: Path) -> None:
    for folder in (checkpoint, checkpoint.parent):
        found = training.find_training(weights(checkpoint), [folder / "none", folder])
        assert found is not None
        assert list(found.curves.values()) == [
            [(100, 4), (400, 1)],
            [(100, 0), (400, 50)],
            [(200, 50), (400, 84.125)],
        ]
        assert found.scores["trained"] == (75, 84.125)
    assert training.find_training({"kind": "trained", "sha256": "0" * 64}, [checkpoint]) is None
    assert training.find_training({**weights(checkpoint), "kind": "random"}, [checkpoint]) is None
    (checkpoint / "model.safetensors").write_bytes(b"others")
    assert training.find_training({"kind": "trained", "sha256": "0" * 64}, [checkpoint]) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"curve": 1e999}', '{"curve": [1]}', json.dumps({"steps": {}})])
def test_a_file_of_another_form_is_passed_over(checkpoint: Path, text: str) -> None:
    (checkpoint / "training.json").write_text(text)
    assert training.find_training(weights(checkpoint), [checkpoint]) is None


def test_a_curve_fills_its_drawing() -> None:
    drawn = training.draw_curve("Loss", [(100, 4), (400, 1)])
    assert drawn["line"] == "75.0,0.0 300.0,67.5"
    assert (drawn["low"], drawn["high"], drawn["last"]) == ("0", "4", "400")
    assert drawn["label"] == "Loss, over 400 steps: from 4 to 1, at least 1, at most 4."
    assert training.draw_curve("F1", [(0, 0)])["line"].count(" ") == 1  # a line of one point is still a line


def test_the_page_draws_three_curves(checkpoint: Path, tmp_path: Path) -> None:
    folder = sample_trees.write(tmp_path / "out", VARIANTS[HYBRID])
    tree = share_tree.check_tree(folder)
    text = page.draw_page([tree], [])
    assert "polyline" not in text.split("</style>")[1]
    found = training.find_training(weights(checkpoint), [checkpoint])
    text = page.draw_page([share_tree.Tree(folder, tree.sums, [], tree.provenance, training=found)], [])
    body = " ".join(text.split("</style>")[1].split())
    assert body.count("<polyline") == 3
    assert "dense model: exact match 80.00, F1 88.50; cut, not trained: exact match 10.00, F1 20.25;" in body
    assert 'aria-label="F1, in percent, over 400 steps: from 50 to 84.1' in body
