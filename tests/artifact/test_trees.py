"""How a tree appears: linked or copied, by one rename, whatever was there before."""

import errno
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict

import pytest

from launch.artifact import sums, trees
from launch.core.errors import KitError
from launch.core.files import digest_file
from launch.model import variants

from .. import sample_trees

VARIANT = variants.find_variant("90pc_unstructured_sparse")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    (folder / "ir").mkdir(parents=True)
    for name in trees.list_files(VARIANT.stem):
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
    assert found == sorted([*trees.list_files(VARIANT.stem), trees.PROVENANCE, sums.NAME])
    assert (tree / f"{VARIANT.stem}.onnx").read_text() == f"new {VARIANT.stem}.onnx"
    assert [path.name for path in out.iterdir()] == [VARIANT.name]


def test_a_first_tree(work: Path, out: Path) -> None:
    assert trees.publish_tree(work, out, VARIANT, {}) == out / VARIANT.name
    assert_published(out)


@pytest.mark.parametrize("exchange", [True, False])
def test_an_earlier_tree_is_replaced(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    old_tree(out)
    if not exchange:
        monkeypatch.setattr(trees, "_exchange", lambda first, second: False)
    trees.publish_tree(work, out, VARIANT, {})
    assert_published(out)


def test_another_filesystem_is_copied_to(work: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    trees.publish_tree(work, out, VARIANT, {})
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
        trees.publish_tree(work, out, VARIANT, {})
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
        trees.publish_tree(work, out, VARIANT, {})
    assert (tree / "old").exists()


# --- what says what a tree is ----------------------------------------------------------------------------


def described(work: Path) -> Dict[str, Any]:
    return {"variant": VARIANT.name, "files": trees.describe_files(work, trees.list_files(VARIANT.stem))}


def test_a_tree_lists_all_its_files(work: Path, out: Path) -> None:
    tree = trees.publish_tree(work, out, VARIANT, described(work))
    assert sums.find_faults(tree, sums.read_sums(tree), lambda name: None) == []
    assert set(sums.read_sums(tree)) == {*trees.list_files(VARIANT.stem), trees.PROVENANCE}
    found = trees.read_some_provenance(tree)
    assert found == {"format": trees.FORMAT, **described(work)}
    assert trees.is_as_listed(tree, found)


def test_files_whose_sums_are_known_are_not_read_again(work: Path, out: Path) -> None:
    provenance = described(work)
    big = f"{VARIANT.stem}.onnx"
    provenance["files"][big]["sha256"] = "0" * 64
    assert sums.read_sums(trees.publish_tree(work, out, VARIANT, provenance))[big] == "0" * 64


def _no_list(tree: Path) -> None:
    (tree / sums.NAME).unlink()


def _list_without_a_file(tree: Path) -> None:
    lines = (tree / sums.NAME).read_text().splitlines(keepends=True)
    (tree / sums.NAME).write_text("".join(lines[1:]))


def _another_provenance(tree: Path) -> None:
    content = json.loads((tree / trees.PROVENANCE).read_text())
    (tree / trees.PROVENANCE).write_text(json.dumps({**content, "variant": "another"}))


def _no_file(tree: Path) -> None:
    (tree / "ir" / "mo.log").unlink()


def _shorter_file(tree: Path) -> None:
    (tree / "ir" / "mo.log").write_text("")


def _linked_file(tree: Path) -> None:
    (tree / "ir" / "mo.log").rename(tree.parent / "mo.log")
    (tree / "ir" / "mo.log").symlink_to(tree.parent / "mo.log")


@pytest.mark.parametrize(
    "spoil", [_linked_file, _no_list, _list_without_a_file, _another_provenance, _no_file, _shorter_file]
)
def test_a_tree_that_is_not_as_listed_is_seen(work: Path, out: Path, spoil: Callable[[Path], None]) -> None:
    tree = trees.publish_tree(work, out, VARIANT, described(work))
    spoil(tree)
    found = trees.read_some_provenance(tree)
    assert found
    assert not trees.is_as_listed(tree, found)


@pytest.mark.parametrize(
    "files", [None, [], "x", {"a": None}, {"a": {}}, {"a": {"sha256": "0" * 64}}, {"../x": {"sha256": "0"}}]
)
def test_a_provenance_of_any_form_is_compared(tmp_path: Path, files: Any) -> None:
    provenance = {"format": trees.FORMAT, "files": files}
    (tmp_path / trees.PROVENANCE).write_text(json.dumps(provenance))
    own = {trees.PROVENANCE: digest_file(tmp_path / trees.PROVENANCE)}
    (tmp_path / sums.NAME).write_text(sums.format_sums({**own, "a": "0" * 64}))
    assert not trees.is_as_listed(tmp_path, provenance)


def test_only_this_formats_provenance_is_current(tmp_path: Path) -> None:
    path = tmp_path / trees.PROVENANCE
    for version, current, usable in ((0, False, False), (2, False, True), (3, True, True), (4, False, False)):
        content = {**sample_trees.document(VARIANT), "files": {"a": {"bytes": 1, "sha256": "0" * 64}}}
        path.write_text(json.dumps({**content, "format": version}))
        assert (trees.read_provenance(tmp_path) is not None) == current
        assert bool(trees.read_some_provenance(tmp_path)) == usable


@pytest.mark.parametrize("text", ["", "{", "[]", "2", "null", "{}", '{"format": "2"}', "[" * 100_000])
def test_what_is_no_provenance_is_none(tmp_path: Path, text: str) -> None:
    assert trees.read_provenance(tmp_path) is None
    (tmp_path / trees.PROVENANCE).write_text(text)
    assert trees.read_provenance(tmp_path) is None
    assert trees.read_some_provenance(tmp_path) == {}


def test_no_provenance_is_waited_for_or_read_without_end(tmp_path: Path) -> None:
    path = tmp_path / trees.PROVENANCE
    os.mkfifo(str(path))
    assert trees.read_provenance(tmp_path) is None
    path.unlink()
    path.symlink_to("/dev/zero")
    assert trees.read_provenance(tmp_path) is None
    path.unlink()
    path.write_text(json.dumps({"format": trees.FORMAT, "long": "x" * trees.MAX_BYTES}))
    assert trees.read_provenance(tmp_path) is None


# --- what a killed run leaves ----------------------------------------------------------------------------


def test_what_a_killed_run_left_is_cleared(out: Path) -> None:
    aside, staging = out / f".{VARIANT.name}.old", out / f".{VARIANT.name}.new"
    for folder in (aside, staging):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    assert trees.has_leftovers(out, VARIANT)
    trees.recover_tree(out, VARIANT)
    assert (out / VARIANT.name / "file").read_text() == aside.name, (
        "set aside and not replaced: it comes back"
    )
    assert not trees.has_leftovers(out, VARIANT)
    staging.mkdir()
    aside.mkdir()
    trees.recover_tree(out, VARIANT)
    assert [path.name for path in out.iterdir()] == [VARIANT.name]


def test_a_link_in_the_trees_place_is_replaced_and_not_followed(
    work: Path, out: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("mine")
    (out / VARIANT.name).symlink_to(elsewhere)
    trees.publish_tree(work, out, VARIANT, {})
    assert_published(out)
    assert (elsewhere / "mine").read_text() == "mine"
