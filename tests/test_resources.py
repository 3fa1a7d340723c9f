from pathlib import Path

import pytest

from launch import inputs, jobs, paths, pipeline, resources, spec, variants
from launch.errors import KitError
from launch.source_registry import Registry


def estimates() -> list:
    return [resources.estimate(spec.bert_large(variant)) for variant in variants.VARIANTS.values()]


def test_estimates_grow_with_the_variant() -> None:
    for smaller, larger in zip(estimates(), estimates()[1:]):
        assert smaller.memory < larger.memory
        assert smaller.disk < larger.disk
        assert smaller.seconds < larger.seconds


def test_the_set_fast_asks_for_less() -> None:
    for variant in variants.VARIANTS.values():
        shape = spec.bert_large(variant)
        with_it, without = (
            resources.estimate(shape, fast=fast, upstreams_script=True) for fast in (True, False)
        )
        assert with_it.memory <= 0.5 * without.memory
        assert with_it.seconds < without.seconds
        assert with_it.disk <= without.disk


def test_one_of_several_needs_what_their_process_keeps() -> None:
    for variant, alone in zip(variants.VARIANTS.values(), estimates()):
        beside = resources.estimate(spec.bert_large(variant), several=True)
        assert beside.memory >= alone.memory + 0.3 * resources.GB
        assert (beside.disk, beside.seconds) == (alone.disk, alone.seconds)


def test_several_jobs_are_asked_for_more_memory_than_one(
    tmp_path: Path, derived_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = paths.SAMPLE / "train.json", paths.SAMPLE / "validation.json"
    selection = inputs.Selection("files", paths.SAMPLE / "model", *questions)
    names = ("90pc_sparse-02_head-0512_ffnn", "90pc_sparse-04_head-1024_ffnn")
    made = [
        jobs.load_tree(str(paths.LAUNCH_FILE), variants.get(name), selection, Registry()) for name in names
    ]
    largest = resources.estimate(made[-1].shape()).memory
    monkeypatch.setattr(resources, "available_memory", lambda: largest)
    monkeypatch.setattr(resources, "check_disk", lambda *_: None)
    build = pipeline.Build(made, tmp_path / "out", lambda: None)
    build._preflight(made[-1:])
    with pytest.raises(KitError, match=r"needs about .* GB of memory"):
        build._preflight(made)


def test_too_little_memory_is_said_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    need = estimates()[-1]
    monkeypatch.setattr(resources, "available_memory", lambda: need.memory - 1)
    with pytest.raises(KitError, match=r"needs about .* GB of memory"):
        resources.check_memory("big", need)
    monkeypatch.setattr(resources, "available_memory", lambda: need.memory)
    resources.check_memory("big", need)
    monkeypatch.setattr(resources, "available_memory", lambda: None)
    resources.check_memory("big", need)


def test_too_little_disk_is_said_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "free_disk", lambda folder: 10)
    with pytest.raises(KitError) as caught:
        resources.check_disk("Making it", tmp_path, 11)
    assert str(tmp_path) in caught.value.where
    resources.check_disk("Making it", tmp_path, 10)


def test_free_disk_of_a_folder_that_is_yet_to_be(tmp_path: Path) -> None:
    assert resources.free_disk(tmp_path / "a" / "b") > 0
