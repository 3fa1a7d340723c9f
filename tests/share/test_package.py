"""What a package holds, that it appears whole, and that nothing else is touched."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Dict, List

import pytest
import yaml

from launch.artifact import sums
from launch.core import machine, paths
from launch.core.errors import KitError
from launch.model.variants import VARIANTS
from launch.share import package
from launch.share import tree as share_tree

from .. import sample_trees
from ..conftest import HYBRID, UNSTRUCTURED, Kit, assert_user_error, call, run

ONNX = f"{HYBRID}-8bit.onnx"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with the tree of one hybrid."""
    sample_trees.write(tmp_path / "out", VARIANTS[HYBRID])
    return tmp_path / "out"


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "packages"


def make(out: Path, to: Path, form: str = "folder", name: str = HYBRID) -> Path:
    """Package a tree that has no model in it, and could not be verified."""
    tree, target = package.find_place(name, out, to, form)
    package.make_package(tree, target, lambda tree: None)
    return target


def argv(out: Path, to: Path, form: str, name: str = HYBRID) -> List[str]:
    return ["package", f"--v={name}", f"--out={out}", f"--to={to}", f"--format={form}"]


def contents(folder: Path) -> Dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in sums.list_files(folder)}


def blocks(card: str) -> List[str]:
    return re.findall(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)


# ---- what is in it


def test_a_package_holds_the_tree_and_what_explains_it(out: Path, to: Path) -> None:
    made = make(out, to)
    assert made == to / HYBRID
    names = sums.list_files(made)
    assert names == sorted(
        ["LICENSE", "README.md", "SHA256SUMS", "report.html"]
        + [f"{HYBRID}/{name}" for name in sums.list_files(out / HYBRID)]
    )
    assert contents(made / HYBRID) == contents(out / HYBRID)
    assert (made / "LICENSE").read_bytes() == (paths.REPOSITORY / "LICENSE").read_bytes()
    assert list(to.iterdir()) == [made]
    for name in names:
        assert (made / name).stat().st_nlink == 1
        assert not (made / name).is_symlink()
    page = (made / "report.html").read_text(encoding="utf-8")
    assert HYBRID in page
    assert "Not in this folder" not in page
    assert UNSTRUCTURED not in page


def test_anybody_can_check_its_files(out: Path, to: Path) -> None:
    made = make(out, to)
    listed = sums.read_sums(made)
    assert sorted(listed) == [name for name in sums.list_files(made) if name != "SHA256SUMS"]
    for folder in (made, made / HYBRID):
        done = subprocess.run(
            ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"],
            cwd=str(folder),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    before = (made / "SHA256SUMS").read_bytes()
    sums.write_sums(made, {})
    assert (made / "SHA256SUMS").read_bytes() == before


def test_a_package_is_a_folder_of_trees(out: Path, to: Path) -> None:
    made = make(out, to)
    assert share_tree.find_trees(made) == [made / HYBRID]
    assert share_tree.check_tree(made / HYBRID).faults == []
    assert make(made, to / "again").is_dir()


def test_the_model_card_says_what_it_is(out: Path, to: Path) -> None:
    card = (make(out, to) / "README.md").read_text(encoding="utf-8")
    _, head, body = card.split("---\n", 2)
    front = yaml.safe_load(head)
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "openvino"
    assert front["pipeline_tag"] == "question-answering"
    assert "random-weights" in front["tags"]
    assert card.startswith("---\n")
    content = json.loads((out / HYBRID / "provenance.json").read_text())
    for words in (
        f"\n# {HYBRID}\n",
        "with 90.00 % of its transformer-block weights zero or\nremoved",
        "a hybrid",
        "**Its weights are random** (seed 42)",
        "No sign of a degenerate model was found.",
        "| attention heads in a layer | 2 of 16, 64 wide |",
        "| rows of the feed-forward matrices | 512 |",
        "| query | 128 × 1024 | 12.00 % | 89.00 % |",
        "| intermediate | 512 × 1024 | 24.00 % | 90.50 % |",
        "| transformer blocks | | | 90.00 % |",
        f"| `{HYBRID}/{ONNX}` | {content['files'][ONNX]['bytes']:,} |",
        f"| `LICENSE` | {(paths.REPOSITORY / 'LICENSE').stat().st_size:,} |",
        f"    git checkout {content['kit']['commit']}\n",
        f"    make variant V={HYBRID} SOURCE=registry SEED=42 THREADS=2 INPUT=sample MO=2022.1\n",
        "| source | registry, nncf `2.1.0`, transformers `4.9.1` |",
        f"| patch | nncf/sparsify_params.patch, sha256 `{'1' * 64}` |",
        f"| input | train_file `file:{'c' * 64}` |",
        "numpy 1.19.5, onnx 1.10.2, ",
        "Apache-2.0, see `LICENSE`.",
    ):
        assert words in body, words
    assert str(out.parent) not in card
    assert "\n\n\n" not in card
    assert len(blocks(card)) == 2


def test_the_model_card_warns_of_findings(out: Path, to: Path) -> None:
    sample_trees.write(out, VARIANTS[UNSTRUCTURED])
    card = (make(out, to, name=UNSTRUCTURED) / "README.md").read_text(encoding="utf-8")
    known = sample_trees.KNOWN
    line = f"- **Warning: {known['kind']}.** {known['text']} (known, because: {known['reason']})\n"
    assert line in card
    assert "unstructured: single weights" in card


def test_what_a_tree_says_is_no_markup_in_the_card(out: Path, to: Path) -> None:
    evil = "*bold* <b>x [a](https://example.org) `code`\n# title | `"
    content = sample_trees.document(VARIANTS[HYBRID])
    content["verification"]["findings"] = [
        {"kind": "dead layers", "text": evil, "known": True, "reason": evil}
    ]
    content["host"]["processor"] = content["versions"]["x"] = evil
    content["inputs"][evil] = content["onnx_key"]["arguments"][evil] = evil
    content["source"]["patches"][0]["name"] = evil
    sample_trees.write(out, VARIANTS[HYBRID], content)
    card = (make(out, to) / "README.md").read_text(encoding="utf-8")
    shown = r"\*bold\* \<b\>x \[a\](https:\//example.org) \`code\` # title \| \`"
    assert card.count(shown) == 6
    assert evil.split("\n")[0] not in card.replace("file:", "")
    assert "\n# title" not in card


def test_the_cards_snippets_run_on_a_real_tree(built: Kit, to: Path) -> None:
    """They are what a reader of the card pastes, run in the package's folder."""
    made = make(built.out, to)
    shown = []
    for block in blocks((made / "README.md").read_text(encoding="utf-8")):
        argv = [sys.executable, "-c", block]
        done = run(argv, cwd=made)
        assert done.returncode == 0, done.stderr
        shown.append(done.stdout)
    assert shown == ["(1, 384) (1, 384)\n", "[(1, 384), (1, 384)]\n"]


# ---- as an archive


def test_an_archive_holds_the_same_files_and_nothing_of_the_machine(out: Path, to: Path) -> None:
    folder, made = make(out, to), make(out, to, "tar")
    assert made == to / f"{HYBRID}.tar"
    found = {}
    with tarfile.open(str(made)) as opened:
        members = opened.getmembers()
        for member in members:
            if member.isfile():
                handle = opened.extractfile(member)
                assert handle is not None
                found[member.name[len(HYBRID) + 1 :]] = handle.read()
    assert found == contents(folder)
    assert [member.name for member in members] == sorted(member.name for member in members)
    for member in members:
        assert member.isfile() or member.isdir()
        assert member.mode == (0o755 if member.isdir() else 0o644)
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "root", "root")
        assert time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(member.mtime)) == "2026-03-04T05:06:07Z"
        assert set(member.pax_headers) <= {"path"}
    assert sorted(path.name for path in to.iterdir()) == sorted([HYBRID, f"{HYBRID}.tar"])


def test_two_archives_have_the_same_bytes(out: Path, to: Path, tmp_path: Path) -> None:
    first = make(out, to, "tar").read_bytes()
    again = tmp_path / "elsewhere"
    shutil.copytree(str(out), str(again))
    for path in again.rglob("*"):
        os.utime(str(path), (1, 1))
        path.chmod(0o700)
    old = os.umask(0o077)
    try:
        assert make(again, tmp_path / "other", "tar").read_bytes() == first
    finally:
        os.umask(old)


def test_tar_unpacks_it(out: Path, to: Path, tmp_path: Path) -> None:
    made = make(out, to, "tar")
    subprocess.run(["tar", "-xf", str(made), "-C", str(tmp_path)], check=True)
    assert sums.find_faults(tmp_path / HYBRID, sums.read_sums(tmp_path / HYBRID), lambda name: None) == []


# ---- what is not packaged


def test_nothing_is_packaged_that_does_not_verify(out: Path, to: Path) -> None:
    seen: List[Path] = []

    def refuse(tree: Path) -> None:
        seen.append(tree)
        raise KitError("It does not pass.")

    for form in package.FORMATS:
        with pytest.raises(KitError, match="It does not pass"):
            package.make_package(*package.find_place(HYBRID, out, to, form), refuse)
    assert seen == [out / HYBRID] * 2
    assert not to.exists()


def test_the_command_verifies_a_real_tree_before_it_packages_it(built: Kit, to: Path, tmp_path: Path) -> None:
    shutil.copytree(str(built.tree(HYBRID)), str(tmp_path / "out" / HYBRID))
    words = argv(tmp_path / "out", to, "tar")
    done = call(words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"package  {to / HYBRID}.tar\n"
    before = contents(to)
    sample_trees.damage(tmp_path / "out" / HYBRID / ONNX)
    # The sums are those of the damaged file: only a look at what is in it tells.
    sample_trees.finish(
        tmp_path / "out" / HYBRID,
        {
            name: value
            for name, value in json.loads((built.tree(HYBRID) / "provenance.json").read_text()).items()
            if name != "files"
        },
    )
    assert_user_error(call(words), f"{HYBRID} is not what it must be")
    assert contents(to) == before


@pytest.mark.parametrize("form", package.FORMATS)
def test_a_tree_that_changes_meanwhile_is_not_packaged(out: Path, to: Path, form: str) -> None:
    earlier = make(out, to, form)
    before = contents(to)

    def change(tree: Path) -> None:
        sample_trees.damage(tree / ONNX)

    with pytest.raises(KitError, match="has not the bytes") as raised:
        package.make_package(*package.find_place(HYBRID, out, to, form), change)
    assert ONNX in raised.value.where
    assert contents(to) == before
    assert list(to.iterdir()) == [earlier]


@pytest.mark.parametrize("form", package.FORMATS)
def test_what_a_link_leads_to_is_not_packaged(out: Path, to: Path, tmp_path: Path, form: str) -> None:
    def lead_away(tree: Path) -> None:
        (tree / ONNX).rename(tmp_path / "elsewhere")
        (tree / ONNX).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(KitError, match="has not the bytes"):
        package.make_package(*package.find_place(HYBRID, out, to, form), lead_away)
    assert list(to.iterdir()) == []


# ---- where it goes


@pytest.mark.parametrize("form", package.FORMATS)
def test_an_earlier_package_is_replaced_as_a_whole(out: Path, to: Path, form: str) -> None:
    made = make(out, to, form)
    first = contents(made) if form == "folder" else {"": made.read_bytes()}
    sample_trees.write(out, VARIANTS[HYBRID], sample_trees.document(VARIANTS[HYBRID], seed=7))
    assert make(out, to, form) == made
    second = contents(made) if form == "folder" else {"": made.read_bytes()}
    assert sorted(second) == sorted(first)
    assert second != first
    assert list(to.iterdir()) == [made]


@pytest.mark.parametrize("change", ["added", "edited"])
def test_a_package_that_somebody_has_worked_on_is_not_replaced(out: Path, to: Path, change: str) -> None:
    made = make(out, to, "folder")
    mine = made / (".git" if change == "added" else package.CARD)
    mine.write_text("mine")
    with pytest.raises(KitError, match="changed since"):
        make(out, to, "folder")
    assert mine.read_text() == "mine"


def something(kind: str, target: Path) -> None:
    """Put something there that is no package."""
    target.parent.mkdir(parents=True)
    if kind == "a folder":
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    elif kind == "a file":
        target.write_text("mine")
    elif kind == "a tar":
        with tarfile.open(str(target), "w") as opened:
            opened.addfile(tarfile.TarInfo("mine"), io.BytesIO())
    else:
        target.symlink_to(target.parent.parent)


@pytest.mark.parametrize("form", package.FORMATS)
@pytest.mark.parametrize("kind", ["a folder", "a file", "a tar", "a link"])
def test_what_is_no_package_is_not_touched(out: Path, to: Path, kind: str, form: str) -> None:
    target = to / (HYBRID if form == "folder" else f"{HYBRID}.tar")
    something(kind, target)
    before = target.lstat()
    assert_user_error(
        call(argv(out, to, form)),
        "something that the kit did not put there",
        target.name,
    )
    after = target.lstat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_size,
    )
    assert list(to.iterdir()) == [target]


def test_a_tree_is_not_replaced_by_its_package(out: Path) -> None:
    before = contents(out / HYBRID)
    with pytest.raises(KitError, match="something that the kit did not put there"):
        make(out, out)
    with pytest.raises(KitError, match="in the tree itself"):
        make(out, out / HYBRID / "ir")
    assert contents(out / HYBRID) == before
    assert list(out.iterdir()) == [out / HYBRID]


def test_a_tree_that_a_killed_run_set_aside_is_not_replaced(out: Path) -> None:
    """Where trees are published, the same names stand for what a killed run left."""
    (out / "from").mkdir()
    shutil.copytree(str(out / HYBRID), str(out / "from" / HYBRID))
    (out / HYBRID).rename(out / f".{HYBRID}.old")
    with pytest.raises(KitError, match="something that the kit did not put there"):
        make(out / "from", out)
    assert contents(out / HYBRID) == contents(out / "from" / HYBRID)


@pytest.mark.parametrize("form", package.FORMATS)
def test_a_killed_run_leaves_the_earlier_package_and_the_next_clears_up(
    out: Path, to: Path, tmp_path: Path, form: str
) -> None:
    made = make(out, to, form)
    before = contents(to)
    # A file that takes long enough to copy, and no space: it holds nothing.  It is the first to be copied.
    big = sample_trees.write(tmp_path / "big", VARIANTS[HYBRID])
    with (big / sums.list_files(big)[0]).open("wb") as handle:
        handle.truncate(1 << 30)
    program = (
        "import sys; from pathlib import Path; from launch.share import package;"
        f"place = package.find_place({HYBRID!r}, Path(sys.argv[1]), Path(sys.argv[2]), {form!r});"
        "package.make_package(*place, lambda tree: None)"
    )
    words = [sys.executable, "-c", program, str(big.parent), str(to)]
    started = subprocess.Popen(words, cwd=str(paths.REPOSITORY), stderr=subprocess.DEVNULL)
    staging = to / (f".{HYBRID}.new" if form == "folder" else f".{HYBRID}.tar.new")
    while not staging.exists():
        assert started.poll() is None
        time.sleep(0.002)
    started.kill()
    started.wait()
    assert staging.exists()
    assert {name: content for name, content in contents(to).items() if staging.name not in name} == before
    assert make(out, to, form) == made
    assert contents(to) == before


def test_a_full_disk_is_known_before_anything_is_written(
    out: Path, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "measure_free_disk", lambda folder: 1000)
    with pytest.raises(KitError, match=r"needs about 0\.0 GB of disk") as raised:
        make(out, to)
    assert "TO=" in raised.value.hint
    assert "OUT=" not in raised.value.hint
    assert not to.exists()


def test_a_place_that_cannot_be_written_to_is_said(out: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for form in package.FORMATS:
        with pytest.raises(KitError, match="The package cannot be made"):
            make(out, tmp_path / "file", form)
    assert (tmp_path / "file").read_text() == ""


# ---- the command


@pytest.mark.parametrize(
    ("name", "below", "form", "words"),
    [
        ("90pc_sparse-02", "", "folder", "There is no variant '90pc_sparse-02'."),
        (UNSTRUCTURED, "", "folder", f"make variant V={UNSTRUCTURED}"),
        (HYBRID, "", "zip", "Set FORMAT= to one of: folder, tar."),
        (HYBRID, "nowhere", "tar", f"There is no tree of {HYBRID}."),
    ],
)
def test_mistakes_are_explained(out: Path, to: Path, name: str, below: str, form: str, words: str) -> None:
    assert_user_error(call(argv(out / below, to, form, name)), words)
    assert not to.exists()
