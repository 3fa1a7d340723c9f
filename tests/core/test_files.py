"""Files are written whole; a stamp is whole or it is none."""

import json
import os
import threading
from pathlib import Path
from typing import List

import pytest

from launch.artifact import trees
from launch.core import files
from launch.core.files import Stamp


def watched(monkeypatch: pytest.MonkeyPatch, base: Path) -> List[str]:
    """Return a list that grows with each flush and each rename below ``base``, by name, in order."""
    seen: List[str] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def shown(path: object) -> str:
        name = os.path.relpath(str(path), str(base))
        return ".part" if name.endswith(".part") else name

    def flushed(descriptor: int) -> None:
        fsync(descriptor)
        seen.append(f"flush {shown(os.readlink(f'/proc/self/fd/{descriptor}'))}")

    def replaced(self: Path, target: Path) -> Path:
        seen.append(f"rename {shown(self)} {shown(target)}")
        replace(self, target)
        return target

    def renamed(self: Path, target: Path) -> Path:
        seen.append(f"rename {shown(self)} {shown(target)}")
        rename(self, target)
        return target

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(Path, "rename", renamed)
    return seen


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    target, texts, failures = tmp_path / "config.json", ["a" * 200_000, "b" * 300_000], []
    files.write_text(target, texts[0])

    def many(text: str) -> None:
        try:
            for _ in range(30):
                files.write_text(target, text)
        except OSError as error:
            failures.append(error)

    writers = [threading.Thread(target=many, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert target.read_text() in texts
    assert not failures
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watched(monkeypatch, tmp_path)
    files.write_text(tmp_path / "stamp", "made")
    assert seen == ["flush .part", "rename .part stamp", "flush ."]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_tree_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    for name in ("new", "tree"):
        (tmp_path / name / "ir").mkdir(parents=True)
        (tmp_path / name / "ir" / "x.bin").write_text(name)
    (tmp_path / "new" / "link").symlink_to("nowhere")
    if not exchange:
        monkeypatch.setattr(trees, "_exchange", lambda first, second: False)
    seen = watched(monkeypatch, tmp_path)
    trees.replace_tree(tmp_path / "tree", tmp_path / "new", tmp_path / "old")
    renames = [] if exchange else ["rename tree old", "rename new tree"]
    assert seen == ["flush new", "flush new/ir/x.bin", "flush new/ir", *renames, "flush ."]
    assert (tmp_path / "tree" / "ir" / "x.bin").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_what_cannot_be_flushed_does_not_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    files.write_text(tmp_path / "stamp", "old")
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        files.write_text(tmp_path / "stamp", "new")
    assert (tmp_path / "stamp").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["stamp"]


def test_a_written_file_has_the_mode_that_the_person_wants(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


MADE = Stamp({"lock": "a"}, {"files": {"b": [1, "c"]}, "seconds": 1.5})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "stamp.json"
    MADE.write(path)
    return path


def test_it_is_read_as_it_was_written(path: Path) -> None:
    assert Stamp.read(path) == MADE
    assert Stamp.read(path) == MADE
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_without_a_file_there_is_none(tmp_path: Path) -> None:
    assert Stamp.read(tmp_path / "stamp.json") is None
    assert Stamp.read(tmp_path) is None


def test_a_changed_one_is_none(path: Path) -> None:
    """So whoever reads one need not check its form."""
    written = path.read_text()
    content = json.loads(written)
    for name in content:
        path.write_text(json.dumps({key: value for key, value in content.items() if key != name}))
        assert Stamp.read(path) is None, name
        for value in (None, [], {}, "text", 7, {"files": {}}):
            path.write_text(json.dumps({**content, name: value}))
            assert Stamp.read(path) is None, (name, value)
    for text in ("", "{", "[]", "null", "[" * 100_000, written[:-10], written.replace("1.5", "NaN")):
        path.write_text(text)
        assert Stamp.read(path) is None, text[:20]
    path.write_bytes(b"\xff")
    assert Stamp.read(path) is None
    path.write_text(json.dumps(content))
    assert Stamp.read(path) == MADE, "however it is laid out"


def test_one_of_another_form_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "STAMP_FORMAT", files.STAMP_FORMAT + 1)
    assert Stamp.read(path) is None
