"""SHA256SUMS: written as coreutils write it, and no change of a file or of the list goes unseen."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.artifact import sums, trees
from launch.core import files
from launch.core.errors import KitError

from ..conftest import HYBRID, UNSTRUCTURED, Kit, run

FILES = {"a.onnx": b"one", "ir/a.bin": b"two", "ir/a b.xml": b"", "\u00e4.csv": b"four"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = write_files(tmp_path / "folder")
    sums.write_sums(made, {})
    return made


def write_files(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def faults(folder: Path) -> List[str]:
    return sums.find_faults(folder, sums.read_sums(folder), lambda name: None)


def coreutils(folder: Path) -> "subprocess.CompletedProcess[str]":
    argv = ["sha256sum", "--check", "--strict", sums.NAME]
    return run(argv, cwd=folder)


def test_the_list_is_what_sha256sum_writes_and_accepts(folder: Path) -> None:
    written = subprocess.run(
        ["sha256sum", *sorted(FILES, key=str.encode)], cwd=str(folder), capture_output=True, check=True
    )
    assert (folder / sums.NAME).read_bytes() == written.stdout
    done = coreutils(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK\n") == len(FILES)
    assert faults(folder) == []


def test_known_sums_are_not_computed_again(folder: Path) -> None:
    sums.write_sums(folder, {"a.onnx": "0" * 64})
    assert sums.read_sums(folder)["a.onnx"] == "0" * 64
    assert sums.read_sums(folder)["ir/a.bin"] == files.digest_file(folder / "ir/a.bin")


def test_each_file_is_named_before_it_is_read(folder: Path) -> None:
    named: List[str] = []
    assert sums.find_faults(folder, sums.read_sums(folder), named.append) == []
    assert named == sorted(FILES)


def _missing(folder: Path) -> None:
    (folder / "a.onnx").unlink()


def _changed(folder: Path) -> None:
    (folder / "a.onnx").write_bytes(b"eno")


def _added(folder: Path) -> None:
    (folder / "ir" / "more").write_bytes(b"")


def _link(folder: Path) -> None:
    # To the very bytes that are listed.
    shutil.move(str(folder / "a.onnx"), str(folder.parent / "a.onnx"))
    (folder / "a.onnx").symlink_to(folder.parent / "a.onnx")


def _broken_link(folder: Path) -> None:
    (folder / "nowhere").symlink_to("nothing")


def _linked_folder(folder: Path) -> None:
    shutil.move(str(folder / "ir"), str(folder.parent / "ir"))
    (folder / "ir").symlink_to(folder.parent / "ir")


def _pipe(folder: Path) -> None:
    (folder / "a.onnx").unlink()
    os.mkfifo(str(folder / "a.onnx"))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (_missing, ["a.onnx is missing"]),
        (_changed, ["a.onnx has not the bytes that SHA256SUMS says"]),
        (_added, ["ir/more is not in SHA256SUMS"]),
        (_link, ["a.onnx is no regular file"]),
        (_broken_link, ["nowhere is not in SHA256SUMS"]),
        (_linked_folder, ["ir/a b.xml is missing", "ir/a.bin is missing", "ir is not in SHA256SUMS"]),
        (_pipe, ["a.onnx is no regular file"]),
    ],
)
def test_what_differs_is_named(folder: Path, spoil: Callable[[Path], None], found: List[str]) -> None:
    spoil(folder)
    assert faults(folder) == found


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "a.onnx").chmod(0)
    assert faults(folder) == ["a.onnx cannot be read: Permission denied"]


# --- the list itself -------------------------------------------------------------------------------------


def _no_list(path: Path) -> None:
    path.unlink()


def _linked_list(path: Path) -> None:
    path.rename(path.parent.parent / "list")
    path.symlink_to(path.parent.parent / "list")


def _endless_list(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _piped_list(path: Path) -> None:
    path.unlink()
    os.mkfifo(str(path))


def _long_list(path: Path) -> None:
    path.write_bytes(b"0" * (sums.MAX_BYTES + 1))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_no_list, "no list"),
        (_linked_list, "no regular file"),
        (_endless_list, "no regular file"),
        (_piped_list, "no regular file"),
        (_long_list, "longer than 1,048,576 bytes"),
    ],
)
def test_a_list_that_is_no_file_of_the_folder_is_refused(
    folder: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(folder / sums.NAME)
    with pytest.raises(KitError, match=words) as refused:
        sums.read_sums(folder)
    assert sums.NAME in refused.value.where
    assert refused.value.hint


SUM = files.digest_file(Path(__file__))


@pytest.mark.parametrize(
    "text",
    [
        "0",
        f"{SUM} a\n",  # one space
        f"{SUM} *a\n",  # sha256sum --binary
        f"{SUM.upper()}  a\n",
        f"{SUM}  a",
        f"{SUM}  b\n{SUM}  a\n",
        f"{SUM}  a\n{SUM}  a\n",
        f"{SUM}  a\n\n",
        f"# list\n{SUM}  a\n",
        f"\\{SUM}  a\\\\b\n",
        f"SHA256 (a) = {SUM}\n",
    ],
)
def test_a_list_in_another_form_is_refused(folder: Path, text: str) -> None:
    (folder / sums.NAME).write_text(text)
    with pytest.raises(KitError, match="form in which the kit writes it"):
        sums.read_sums(folder)


def test_line_ends_are_not_another_systems(folder: Path) -> None:
    (folder / sums.NAME).write_bytes((folder / sums.NAME).read_bytes().replace(b"\n", b"\r\n"))
    assert "a.onnx\r is missing" in faults(folder), "a name may end so"


def test_a_list_leads_nowhere_outside_its_folder(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.write_bytes(b"mine")
    for name in ("../outside", str(outside), "./a.onnx"):
        (folder / sums.NAME).write_text(sums.format_sums({name: files.digest_file(outside)}))
        assert f"{name} is missing" in faults(folder)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_files(tmp_path_factory.mktemp("listed"))
    sums.write_sums(made, {})
    return made


def assert_seen(folder: Path, content: bytes) -> None:
    """Assert that the folder with ``content`` for its list is refused, or a fault is named."""
    before = (folder / sums.NAME).read_bytes()
    try:
        (folder / sums.NAME).write_bytes(content)
        assert faults(folder)
    except KitError:
        pass
    finally:
        (folder / sums.NAME).write_bytes(before)


@given(st.data())
def test_no_byte_of_the_list_changes_unseen(listed: Path, data: st.DataObject) -> None:
    content = bytearray((listed / sums.NAME).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1), label="position")
    content[position] ^= data.draw(st.integers(1, 255), label="change")
    assert_seen(listed, bytes(content))


def test_no_byte_goes_or_comes_unseen(listed: Path) -> None:
    content = (listed / sums.NAME).read_bytes()
    for position in range(len(content)):
        assert_seen(listed, content[:position] + content[position + 1 :])
        assert_seen(listed, content[:position] + b" " + content[position:])
        assert_seen(listed, content[:position])


# --- published trees -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [HYBRID, UNSTRUCTURED])
def test_published_trees_are_as_listed(
    built: Kit, name: str, hashes: Callable[[Path], Dict[str, str]]
) -> None:
    tree = built.tree(name)
    done = coreutils(tree)
    assert done.returncode == 0, done.stderr
    entries = sums.read_sums(tree)
    assert set(entries) == {*trees.list_files(f"{name}-8bit"), trees.PROVENANCE}
    assert entries == {file: digest for file, digest in hashes(tree).items() if file != sums.NAME}
    assert faults(tree) == []
