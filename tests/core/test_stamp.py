"""A stamp says what something was made from, or there is none."""

import json
from pathlib import Path

import pytest

from launch.core import files
from launch.core.files import Stamp

MADE = Stamp({"lock": "a"}, {"files": {"b": [1, "c"]}, "seconds": 1.5})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "stamp.json"
    MADE.write(path)
    return path


def test_it_is_read_as_it_was_written(path: Path) -> None:
    assert Stamp.read(path) == MADE
    assert MADE.matches(path)
    assert not Stamp(MADE.key).matches(path)
    assert not Stamp({"lock": "b"}, MADE.made).matches(path)
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
