"""What the report says of trees: in the page, in the terminal, and by its exit status."""

import errno
import json
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import jsonschema
import pytest

from launch import cli, share
from launch.artifact import sums
from launch.core import paths
from launch.core.errors import KitError
from launch.model import hub_list
from launch.model.variants import VARIANTS, Variant
from launch.share import page, tables
from launch.share import tree as share_tree

from .. import sample_trees
from ..conftest import HYBRID, UNSTRUCTURED, Kit, assert_user_error, call, run

VOID = {"meta", "wbr", "br", "path"}
BLOCKS = {"dt", "dd", "td", "th", "li", "p", "h1", "h2", "h3", "summary", "pre"}
"""Elements between which a reader sees a space."""

PRINTED = VARIANTS[HYBRID]


class Page(HTMLParser):
    """A page taken apart; elements that are not closed in their order are an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: List[Tuple[str, Dict[str, Optional[str]]]] = []
        self.elements: List[Tuple[str, Dict[str, Optional[str]]]] = []
        self.texts: List[Tuple[List[str], str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        assert tag == "rect"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag
        if tag in BLOCKS:
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        self.texts.append(([tag for tag, _ in self.open], data))

    def all(self, tag: str) -> List[Dict[str, Optional[str]]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, *inside: str) -> str:
        """The text within elements of these kinds, white space as one space; style rules excepted."""
        words = [
            text for tags, text in self.texts if "style" not in tags and all(kind in tags for kind in inside)
        ]
        return " ".join("".join(words).split())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The five trees."""
    folder = tmp_path / "out"
    for variant in VARIANTS.values():
        sample_trees.write(folder, variant)
    return folder


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A folder with the tree of one variant."""
    sample_trees.write(tmp_path / "out", PRINTED)
    return tmp_path / "out"


def command(out: Path, to: str = "") -> int:
    return cli.main(["report", "--out", str(out), "--to", to])


def make(out: Path, to: str = "") -> Tuple[int, Page]:
    status = command(out, to)
    return status, Page((Path(to) if to else out / "report.html").read_text(encoding="utf-8"))


def changed(out: Path, change: Callable[[Dict[str, Any]], None], variant: Variant = PRINTED) -> Path:
    """Write a tree whose provenance was changed before its files were listed."""
    content = sample_trees.document(variant)
    change(content)
    return sample_trees.write(out, variant, content)


# ---- what stands in it


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_the_sample_documents_are_of_format_2(tmp_path: Path, variant: Variant) -> None:
    tree = sample_trees.write(tmp_path, variant)
    content = json.loads((tree / "provenance.json").read_text())
    jsonschema.Draft7Validator(
        json.loads((paths.PACKAGE / "artifact" / "schema" / "provenance.json").read_text())
    ).validate(content)
    assert content["verification"]["block_sparsity"] == pytest.approx(0.9, abs=1e-6)


def test_five_trees_one_page(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = make(out)
    assert status == 0
    said = capsys.readouterr().out
    assert f"report  {out / 'report.html'}" in said
    text = found.text()
    for variant in VARIANTS.values():
        assert variant.name in found.text("h2")
        assert variant.name in said
    assert "Not in this folder" not in text
    assert "Damaged" not in text
    assert "The bytes of every file are those that SHA256SUMS lists." in text
    assert "Random: drawn from a generator and not trained." in text
    for word in ("missing", "DAMAGED"):
        assert word not in said


def test_what_is_known_of_a_tree_is_in_its_section(one: Path) -> None:
    _, found = make(one)
    content = json.loads((one / HYBRID / "provenance.json").read_text())
    text = found.text()
    for name, digest in sums.read_sums(one / HYBRID).items():
        assert f"{name}{(one / HYBRID / name).stat().st_size:,}{digest}" in text.replace(" ", "")
    for check in content["verification"]["checks"]:
        assert f"{check['name']} passed: {check['text']}" in text
    for patch in content["source"]["patches"]:
        assert f"{patch['name']} {patch['sha256']}" in text
    for package, version in {**content["versions"], **content["source"]["packages"]}.items():
        assert f"{package} {version}" in text
    for entry in content["verification"]["matrices"]:
        assert f"{entry['zeros']:,}" in text
        assert f"{entry['ir_zeros']:,}" in text
    for word in (
        "2 layers, 2 of 16 attention heads in each (64 wide)",
        "seed 42",
        "random",
        content["kit"]["commit"],
        content["source"]["digest"],
        "2026-03-04 05:06:07 UTC",
        "A Processor of 2 GHz",
        "version 11, 16 int8 constants; layers by type: Const 200, MatMul 17, Gelu 2",
        "HF_HOME=(unset)",
        "weights and ONNX 1:54 with 2.57 GB, IR 0:06 with 824.9 MB, checks 0:21 with 1.40 GB",
        f"make variant V={HYBRID} SOURCE=registry SEED=42 THREADS=2 INPUT=sample MO=2022.1",
    ):
        assert word in text, word


def test_the_terminal_has_the_cells_of_the_page(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = make(out)
    said, text = capsys.readouterr().out, found.text("table").replace(" ", "")
    trees = [share_tree.check_tree(out / name) for name in VARIANTS]
    for columns in tables.TABLES.values():
        for tree in trees:
            cells = [column.cell(tree) for column in columns]
            assert "".join(cells).replace(" ", "") in text
            assert any(re.split(r"\s{2,}", line.strip()) == cells for line in said.splitlines()), cells


def test_the_overview_says_what_was_measured(out: Path) -> None:
    trees = {name: share_tree.check_tree(out / name) for name in VARIANTS}

    def row(name: str, title: str) -> List[str]:
        columns = next(columns for name, columns in tables.TABLES.items() if name.startswith(title))
        return [column.cell(trees[name]) for column in columns[1:]]

    assert row(HYBRID, "Dimensions") == ["hybrid", "random", "2", "2", "512", "90.00 %", "12.00 %", "24.00 %"]
    assert row(UNSTRUCTURED, "Dimensions") == [
        *("unstructured", "random", "2", "16", "4,096"),
        *("90.00 %", "70.00 %", "100 %"),
    ]
    assert row(HYBRID, "Quantizers") == ["16", "29", "8", "388", "11", "219", "17", "16"]
    assert row(HYBRID, "ONNX")[:3] == ["0.032 ≤ 0.1", "0.00042 ≤ 0.01", "none"]
    assert row(UNSTRUCTURED, "ONNX")[2:] == ["1 known", "2:21", "2.57 GB"]


def test_findings_are_warnings_or_not_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def find(content: Dict[str, Any]) -> None:
        content["verification"]["findings"] = [sample_trees.KNOWN, sample_trees.UNKNOWN]
        content["verification"]["checks"][0]["passed"] = False

    changed(tmp_path, find)
    _, found = make(tmp_path)
    text, said = found.text(), capsys.readouterr().out
    known, unknown = sample_trees.KNOWN, sample_trees.UNKNOWN
    assert f"Warning: {known['kind']}. {known['text']} Known, because: {known['reason']}" in text
    assert f"Not expected: {unknown['kind']}. {unknown['text']}" in text
    assert "structure failed: 388 nodes" in text
    assert "2, 1 not known" in text
    assert f"warning: {HYBRID}: {known['kind']}: {known['text']}" in said
    assert f"NOT EXPECTED: {HYBRID}: {unknown['kind']}: {unknown['text']}" in said


def test_local_changes_and_no_commit_are_said(tmp_path: Path) -> None:
    changed(tmp_path, lambda content: content["kit"].update(changed=True))
    text = make(tmp_path)[1].text()
    assert "with local changes" in text
    assert "which the commit does not have" in text
    changed(tmp_path, lambda content: content.update(kit={"changed": None, "commit": None}))
    text = make(tmp_path)[1].text()
    assert "kit at no commit" in text
    assert "git checkout" not in text


# ---- damage


def delete(name: str) -> Callable[[Path], None]:
    return lambda tree: (tree / name).unlink()


def rewrite(change: Callable[[Dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(tree: Path) -> None:
        content = json.loads((tree / "provenance.json").read_text())
        change(content)
        (tree / "provenance.json").write_text(json.dumps(content))
        (tree / sums.NAME).unlink()
        sums.write_sums(tree, {})

    return damage


def lead_away(tree: Path) -> None:
    content = (tree / "provenance.json").read_text()
    (tree / "provenance.json").unlink()
    (tree.parent.parent / "elsewhere.json").write_text(content)
    (tree / "provenance.json").symlink_to(tree.parent.parent / "elsewhere.json")


ONNX = f"{HYBRID}-8bit.onnx"
DAMAGES = {
    "a byte": (
        lambda tree: sample_trees.damage(tree / ONNX) and None,
        f"{ONNX} has not the bytes that SHA256SUMS says",
    ),
    "a file gone": (delete("ir/mo.log"), "ir/mo.log is missing"),
    "a file more": (lambda tree: (tree / "notes.txt").write_text("mine"), "notes.txt is not in SHA256SUMS"),
    "no list": (delete(sums.NAME), "SHA256SUMS: There is no list of checksums."),
    "no provenance": (
        delete("provenance.json"),
        "provenance.json: There is no provenance, so this is no tree of the kit's.",
    ),
    "a provenance elsewhere": (lead_away, "provenance.json: The provenance is a link."),
    "format 1": (
        rewrite(lambda content: content.update(format=1)),
        "provenance.json: The tree is an earlier kit's: its provenance is of format 1, not 3.",
    ),
    "half a provenance": (
        rewrite(lambda content: content.pop("verification")),
        "provenance.json: $: 'verification' is a required property",
    ),
    "a folder of somebody's": (
        rewrite(lambda content: content["host"].update(system="/home/somebody/x")),
        "provenance.json: $.host.system: a path of the machine: '${elsewhere}/x'",
    ),
    "a provenance of another": (
        rewrite(lambda content: content.update(variant=UNSTRUCTURED)),
        f"provenance.json: $.files: {ONNX} is no file of a tree",
    ),
    "a file and its sum": (
        lambda tree: (
            sample_trees.damage(tree / ONNX),
            (tree / sums.NAME).unlink(),
            sums.write_sums(tree, {}),
        ),
        f"{ONNX} has one sum in SHA256SUMS and another in provenance.json",
    ),
    "a file that is listed": (
        lambda tree: ((tree / "more").write_text(""), (tree / sums.NAME).unlink(), sums.write_sums(tree, {})),
        "more is in SHA256SUMS and not in provenance.json",
    ),
}


@pytest.mark.parametrize(("damage", "fault"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_tree_is_shown_with_its_faults(
    out: Path, damage: Callable[[Path], object], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(out / HYBRID)
    status, found = make(out)
    said = capsys.readouterr().out
    assert status == 1
    assert f"DAMAGED: {HYBRID}: {fault}" in said
    text = found.text()
    assert "5 artifact trees, 1 damaged." in text
    assert f"{HYBRID} is not what was published: " in text
    assert text.count(fault) >= 2  # at the top and in the tree's section
    assert text.count("Damaged: the files are not as listed.") == 1
    assert text.count("All files are as listed.") == 4
    for name in VARIANTS:
        assert name in found.text("h2")


def test_what_a_link_leads_to_is_not_shown(one: Path, tmp_path: Path) -> None:
    lead_away(one / HYBRID)
    status, found = make(one)
    assert status == 1
    assert "2026-03-04" not in found.text()


def test_missing_trees_are_named(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = [name for name in VARIANTS if name != HYBRID]
    for name in gone:
        shutil.rmtree(str(out / name))
    status, found = make(out)
    said = capsys.readouterr().out
    assert status == 0
    assert f"Not in this folder: {', '.join(gone)}." in found.text()
    for name in gone:
        assert f"missing: {name}\n" in said


def test_other_folders_count_where_they_are_trees(one: Path) -> None:
    shutil.copytree(str(one / HYBRID), str(one / "a copy"))
    shutil.copytree(str(one / HYBRID), str(one / f".{HYBRID}.old"))
    (one / "notes").mkdir()
    assert [tree.name for tree in share_tree.find_trees(one)] == [HYBRID, "a copy"]
    status, found = make(one)
    assert status == 1
    assert f"a copy is not what was published: provenance.json is that of {HYBRID}" in found.text()


# ---- where it goes


def test_the_page_goes_where_it_is_told(one: Path, tmp_path: Path) -> None:
    done = call(["report", f"--out={one}", f"--to={tmp_path}/new/page.html"])
    assert done.returncode == 0, done.stderr
    assert f"report  {tmp_path / 'new' / 'page.html'}  (" in done.stdout
    assert Page((tmp_path / "new" / "page.html").read_text(encoding="utf-8"))
    assert not (one / "report.html").exists()


def test_where_there_is_no_tree_there_is_no_report(one: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, words in (
        (tmp_path / "empty", "There is no tree in this folder."),
        (tmp_path / "nowhere", "There is no such folder."),
        (one / HYBRID, "There is no tree in this folder."),
    ):
        assert_user_error(call(["report", f"--out={folder}"]), words, str(folder))
    assert not (tmp_path / "nowhere").exists()
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("place", [HYBRID, f"{HYBRID}/report.html", f"{HYBRID}/ir/new/report.html"])
def test_no_page_is_written_into_a_tree(one: Path, place: str) -> None:
    before = sums.list_files(one / HYBRID)
    with pytest.raises(KitError, match="would be in a tree"):
        command(one, str(one / place))
    assert sums.list_files(one / HYBRID) == before


def test_what_is_no_page_is_not_replaced(one: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.html"
    mine.write_text("<!DOCTYPE html><title>mine</title>")
    os.mkfifo(str(tmp_path / "pipe"))
    for target in (mine, tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(KitError, match="no earlier page"):
            command(one, str(target))
    assert mine.read_text() == "<!DOCTYPE html><title>mine</title>"
    assert not Path(os.devnull).is_file()
    for _ in range(2):  # the second time it is a page that is there
        command(one, str(tmp_path / "page.html"))


def test_a_folder_is_no_page(one: Path, tmp_path: Path) -> None:
    with pytest.raises(KitError, match="TO is a folder") as raised:
        command(one, str(tmp_path))
    assert "report.html" in raised.value.hint


def test_an_earlier_page_stays_where_the_new_one_cannot_be_written(
    one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    make(one)
    earlier = (one / "report.html").read_bytes()
    there = sorted(one.iterdir())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        command(one)
    assert (one / "report.html").read_bytes() == earlier
    assert sorted(one.iterdir()) == there


def test_a_long_check_says_how_far_it_is(
    one: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(one)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(share, "SILENCE", -1.0)
    make(one)
    assert f"{HYBRID}: checking {ONNX}" in capsys.readouterr().err


# ---- the page as a page


def test_the_page_is_sound_html_and_needs_nothing_beside_it(out: Path) -> None:
    sample_trees.damage(out / HYBRID / ONNX)
    _, found = make(out)
    kinds = {tag for tag, _ in found.elements}
    assert not kinds & {"script", "link", "img", "iframe", "object", "embed", "base", "use", "image"}
    assert found.all("html") == [{"lang": "en"}]
    assert found.text("title")
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in found.all("meta")
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in found.elements:
        assert not {"src", "srcset", "style", "background"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        href = attributes.get("href")
        assert href is None or (href.startswith("#") and href[1:] in ids)
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name) is None or attributes[name] in ids
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "://" not in text
    assert "@import" not in text
    assert "url(" not in text


def test_the_page_names_no_folder_of_the_machine(out: Path) -> None:
    sample_trees.damage(out / HYBRID / ONNX)
    (out / UNSTRUCTURED / sums.NAME).unlink()
    (out / UNSTRUCTURED / "provenance.json").unlink()
    make(out)
    text = (out / "report.html").read_text(encoding="utf-8")
    for folder in (out, out.parent, paths.REPOSITORY, Path(sys.executable).parent):
        assert str(folder) not in text


def test_what_trees_say_is_text_and_not_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # No slash: a provenance with what looks like a path is not read at all.
    evil = "<script>alert('x')<b title=\"y\">&amp;"

    def spoil(content: Dict[str, Any]) -> None:
        found = content["verification"]
        found["findings"] = [{"kind": "dead layers", "text": evil + "\x1b[2J", "known": True, "reason": evil}]
        found["checks"] = [{"name": evil, "passed": True, "text": evil}]
        found["matrices"][0]["parameter"] = evil
        found["onnx"]["inputs"][0]["name"] = evil
        found["ir"]["layers"][evil] = 1
        found["onnx"]["quantizers"]["bits"] = {evil: 3, "8": 4}
        content["command"]["argv"].append(evil)
        content["command"]["environment"][evil] = evil
        content["inputs"][evil] = content["onnx_key"]["arguments"][evil] = evil
        content["versions"][evil] = evil
        content["host"]["processor"] = evil
        content["source"]["patches"][0]["name"] = evil

    tree = changed(tmp_path, spoil)
    assert share_tree.check_tree(tree).faults == []
    (tree / "<img src=x onerror=alert(1)>").write_text("")
    tree.rename(tmp_path / "<i>tree")
    status, found = make(tmp_path)
    assert status == 1
    assert {tag for tag, _ in found.elements}.isdisjoint({"script", "b", "img", "i"})
    text = found.text()
    assert text.count(evil) >= 14
    assert "<img src=x onerror=alert(1)> is not in SHA256SUMS" in text
    assert "<i>tree" in found.text("h1")
    assert "\x1b" not in capsys.readouterr().out


def test_equal_trees_give_equal_pages(out: Path, tmp_path: Path) -> None:
    pages = []
    for seed in ("0", "7"):
        to = tmp_path / f"{seed}.html"
        argv = [*Kit.MODULE, "report", f"--out={out}", f"--to={to}"]
        done = run(argv, env={**os.environ, "PYTHONHASHSEED": seed})
        assert done.returncode == 0, done.stderr
        pages.append(to.read_bytes())
    assert pages[0] == pages[1]


# ---- heat maps


def drawn(tree: share_tree.Tree) -> List[str]:
    """The heat maps in the page of a tree."""
    return re.findall("<svg.*?</svg>", page.draw_page([tree], []), re.DOTALL)


def cells(svg: str) -> List[Dict[str, Optional[str]]]:
    return Page(svg).all("rect")


def labels(svg: str) -> List[str]:
    return [text for tags, text in Page(svg).texts if tags[-1:] == ["text"]]


def test_a_tree_has_two_heat_maps_with_a_cell_for_each_matrix(tmp_path: Path) -> None:
    own, overall = drawn(share_tree.check_tree(sample_trees.write(tmp_path, PRINTED)))
    columns = ["layer", "query", "key", "value", "attention", "output", "inter-", "mediate", "output"]
    rows = [[str(layer), *["12.0"] * 4, *["24.0"] * 2] for layer in range(2)]
    assert labels(own) == [*columns, *rows[0], *rows[1]]
    assert labels(overall)[-6:] == [*["89.0"] * 4, *["90.5"] * 2]
    for svg in (own, overall):
        assert len(cells(svg)) == 12
        root = Page(svg).all("svg")[0]
        assert root["role"] == "img"
        assert str(root["aria-label"]).startswith(f"Heat map of {HYBRID}. ")
        assert "id=" not in svg
    assert [cell["fill"] for cell in cells(own)[:5]] == [
        *[page.choose_colour(0.12)] * 4,
        page.choose_colour(0.24),
    ]
    assert "on-light" in own
    assert "on-dark" in overall


def test_a_layer_that_the_model_has_not_is_no_row(tmp_path: Path) -> None:
    def spoil(content: Dict[str, Any]) -> None:
        content["verification"]["matrices"][3]["parameter"] = (
            "bert.encoder.layer.999999999.output.dense.weight"
        )

    tree = share_tree.check_tree(changed(tmp_path, spoil))
    grid = tree.grid(lambda matrix: matrix.own)
    assert [len([share for share in row if share is not None]) for row in grid] == [5, 6]
    assert [len(cells(svg)) for svg in drawn(tree)] == [11, 11]
    assert "bert.encoder.layer" not in make(tmp_path)[1].text("svg")


def test_the_scale_has_the_colours_of_the_cells(tmp_path: Path) -> None:
    tree = share_tree.check_tree(sample_trees.write(tmp_path, PRINTED))
    assert f"linear-gradient(to right, {', '.join(page.COLOURS)})" in page.draw_page([tree], [])
    assert tuple(page.choose_colour(place / 8) for place in range(9)) == page.COLOURS
    assert page.choose_colour(-1e-9) == page.choose_colour(0)
    assert page.choose_colour(1 + 1e-9) == page.choose_colour(1)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_numbers_stand_out_from_every_colour_and_lightness_falls() -> None:
    shares = [number / 100 for number in range(101)]
    tones = [luminance(page.choose_colour(share)) for share in shares]
    kinds = [page.choose_ink(share) for share in shares]
    for tone, kind in zip(tones, kinds):
        lighter, darker = (tone, 0.0) if kind == "on-light" else (1.0, tone)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (tone, kind)
    assert all(after < before for before, after in zip(tones, tones[1:]))
    assert {"on-light", "on-dark"} == set(kinds)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0"), (1, "100"), (0.12, "12.0"), (1e-9, "0.1"), (1 - 1e-9, "99.9"), (0.9996, "99.9")],
)
def test_only_none_and_all_are_round_numbers(share: float, text: str) -> None:
    assert tables.format_percent(share) == text


# ---- how to make it again


def commands(**changes: Any) -> List[str]:
    content = sample_trees.document(PRINTED)
    content["command"] = {**content["command"], **changes.pop("command", {})}
    return page.list_commands({**content, **changes})


def test_the_commands_name_what_the_provenance_says() -> None:
    commit = sample_trees.document(PRINTED)["kit"]["commit"]
    assert commands() == [
        f"git checkout {commit}",
        f"make variant V={HYBRID} SOURCE=registry SEED=42 THREADS=2 INPUT=sample MO=2022.1",
    ]
    weights = {"kind": "random", "seed": 7, "threads": 4}
    assert commands(weights=weights, model_optimizer="2021.4")[1].endswith(
        "SEED=7 THREADS=4 INPUT=sample MO=2021.4"
    )


def test_the_commands_name_other_inputs() -> None:
    listed = hub_list.read_hub_list(hub_list.LIST)
    read = {"repository": listed.repository, "revision": listed.revision}
    for train, words in ((listed.train.sha256, "INPUT=hub"), ("0" * 64, "INPUT=hub 'HUB=<list>'")):
        files = {"config.json": "1" * 64, "train.json": train}
        made = commands(hub={**read, "files": files}, command={"argv": ["python"]})[1]
        assert made.endswith(f"SEED=42 THREADS=2 {words} MO=2022.1")
    model, questions = "${workspaceFolder}/launch/sample/model", "${workspaceFolder}/launch/sample/train.json"
    for argv, sample in (
        (["--model_name_or_path", model, "--train_file", questions], True),
        ([f"--model_name_or_path={model}", f"--train_file={questions}"], True),
        (["--model_name_or_path", "${elsewhere}/mine", "--train_file", questions], False),
        (["--model_name_or_path", model, "--train_file=${elsewhere}/mine.json"], False),
        ([], False),
    ):
        made = commands(command={"argv": ["python", *argv]})[1]
        own = "INPUT=files 'MODEL=<folder>' 'TRAIN_FILE=<questions.json>'"
        assert ("INPUT=sample" in made) == sample
        assert (own in made) != sample


def test_the_commands_name_other_launch_files() -> None:
    upstream = f"'x' in third_party/transformers/{'vscode'}-launch.json"
    assert commands(command={"launch": upstream})[1].endswith(" LAUNCH=upstream")
    for launch in ("${elsewhere}/launch.json", "own_launch/launch.json", "other/.vscode/launch.json"):
        made = commands(command={"launch": f"'x' in {launch}"})[1]
        assert made.endswith(" 'LAUNCH=<the launch file>'")
    for launch in (".vscode/launch.json", "launch/launch.json"):  # here, and where earlier commits have it
        for place in ("", "${workspaceFolder}/"):
            assert "LAUNCH" not in "".join(commands(command={"launch": f"'x' in {place}{launch}"}))
