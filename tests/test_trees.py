"""How a tree appears: linked or copied, by one rename, whatever was there before."""

import errno
import os
from pathlib import Path

import pytest

from launch import trees, variants
from launch.errors import KitError

VARIANT = variants.get("90pc_unstructured_sparse")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    (folder / "ir").mkdir(parents=True)
    for name in trees.all_files(VARIANT.stem):
        (folder / name).write_text(f"new {name}")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def old_tree(out: Path) -> Path:
    tree = out / VARIANT.name
    tree.mkdir()
    (tree / "old").write_text("old")
    return tree


def assert_published(out: Path) -> None:
    tree = out / VARIANT.name
    found = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
    assert found == sorted([*trees.all_files(VARIANT.stem), trees.PROVENANCE])
    assert (tree / f"{VARIANT.stem}.onnx").read_text() == f"new {VARIANT.stem}.onnx"
    assert [path.name for path in out.iterdir()] == [VARIANT.name]


def test_a_first_tree(work: Path, out: Path) -> None:
    assert trees.publish(work, out, VARIANT, {}) == out / VARIANT.name
    assert_published(out)


@pytest.mark.parametrize("exchange", [True, False])
def test_an_earlier_tree_is_replaced(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    old_tree(out)
    if not exchange:
        monkeypatch.setattr(trees, "_exchange", lambda first, second: False)
    trees.publish(work, out, VARIANT, {})
    assert_published(out)


def test_another_filesystem_is_copied_to(work: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    trees.publish(work, out, VARIANT, {})
    assert_published(out)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_full_disk_leaves_the_earlier_tree(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    tree = old_tree(out)

    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trees, "_exchange", lambda first, second: exchange)
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(KitError, match="No space left"):
        trees.publish(work, out, VARIANT, {})
    assert (tree / "old").read_text() == "old"
    assert [path.name for path in out.iterdir()] == [VARIANT.name]


def test_a_failing_rename_puts_the_earlier_tree_back(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = old_tree(out)
    rename = Path.rename

    def fail_for_the_new(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise OSError(errno.EIO, "Input/output error")
        rename(self, target)
        return target

    monkeypatch.setattr(trees, "_exchange", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(KitError):
        trees.publish(work, out, VARIANT, {})
    assert (tree / "old").exists()


def test_what_a_killed_run_left_is_cleared(out: Path) -> None:
    aside, staging = out / f".{VARIANT.name}.old", out / f".{VARIANT.name}.new"
    for folder in (aside, staging):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    assert trees.leftovers(out, VARIANT)
    trees.recover(out, VARIANT)
    assert (out / VARIANT.name / "file").read_text() == aside.name, (
        "set aside and not replaced: it comes back"
    )
    assert not trees.leftovers(out, VARIANT)
    staging.mkdir()
    aside.mkdir()
    trees.recover(out, VARIANT)
    assert [path.name for path in out.iterdir()] == [VARIANT.name]


def test_a_link_in_the_trees_place_is_replaced_and_not_followed(
    work: Path, out: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("mine")
    (out / VARIANT.name).symlink_to(elsewhere)
    trees.publish(work, out, VARIANT, {})
    assert_published(out)
    assert (elsewhere / "mine").read_text() == "mine"
