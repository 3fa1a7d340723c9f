"""The derived tree: by hash, patched with zero fuzz, whole or not at all."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from launch import paths, sources
from launch.errors import KitError

PATCH = """Subject: Say goodbye

Output-bytes: unchanged

diff --git a/nncf/greet.py b/nncf/greet.py
--- a/nncf/greet.py
+++ b/nncf/greet.py
@@ -1,2 +1,2 @@
 first
-hello
+goodbye
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout with two wheels and a patch; the real code works on it."""
    folders = {"ENVIRONMENT_DATA": "env", "PATCHES": "patches", "WHEELS": "wheels", "BUILD": "build"}
    for name, folder in folders.items():
        (tmp_path / folder).mkdir()
        monkeypatch.setattr(paths, name, tmp_path / folder)
    monkeypatch.setattr(paths, "VENV_PYTHON", Path("/bin/false"))
    monkeypatch.setattr(sources, "TREE", tmp_path / "build" / "src" / "registry")
    lock = ""
    for package, content in (("nncf", "first\nhello\n"), ("transformers", "nothing\n")):
        wheel = tmp_path / "wheels" / f"{package}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{package}/greet.py", content)
        lock += f"{package}==1.0 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    (tmp_path / "env" / "sources.lock").write_text(lock)
    (tmp_path / "patches" / "nncf").mkdir()
    (tmp_path / "patches" / "nncf" / "series").write_text("goodbye.patch  # order\n")
    (tmp_path / "patches" / "nncf" / "goodbye.patch").write_text(PATCH)
    return tmp_path


def test_the_tree_is_patched_once_and_again_when_a_patch_changes(checkout: Path) -> None:
    assert not sources.is_ready()
    assert sources.ensure()
    greet = sources.TREE / "nncf" / "greet.py"
    assert greet.read_text() == "first\ngoodbye\n"
    assert sources.is_ready()
    assert not sources.ensure()
    patch = checkout / "patches" / "nncf" / "goodbye.patch"
    patch.write_text(PATCH.replace("+goodbye", "+farewell"))
    assert not sources.is_ready()
    assert sources.ensure()
    assert greet.read_text() == "first\nfarewell\n"
    assert [path.name for path in sources.TREE.parent.iterdir()] == ["registry"]


def test_a_patch_that_does_not_apply_is_named_and_the_earlier_tree_stays(checkout: Path) -> None:
    sources.ensure()
    patch = checkout / "patches" / "nncf" / "goodbye.patch"
    patch.write_text(PATCH.replace(" first", " last"))
    with pytest.raises(KitError) as caught:
        sources.ensure()
    assert "nncf/greet.py:1" in caught.value.what
    assert "goodbye.patch" in caught.value.where
    assert (sources.TREE / "nncf" / "greet.py").read_text() == "first\ngoodbye\n"
    assert not sources.is_ready()


def test_a_missing_patch_is_named(checkout: Path) -> None:
    (checkout / "patches" / "nncf" / "goodbye.patch").unlink()
    with pytest.raises(KitError, match="does not exist"):
        sources.ensure()


def test_a_wheel_with_other_bytes_is_not_taken(checkout: Path) -> None:
    wheel = next((checkout / "wheels").glob("nncf-*"))
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(KitError) as caught:
        sources.ensure()
    assert "cannot be fetched" in caught.value.what
    assert not sources.TREE.exists()


def test_every_real_patch_says_why_it_is_there() -> None:
    patches = sources.series()
    assert patches
    for patch in patches:
        head = patch.read_text(encoding="utf-8").split("\ndiff --git ")[0]
        for field in ("Subject: ", "Output-bytes: ", "Upstream-status: ", "Remove-when: "):
            assert field in head, (patch, field)
