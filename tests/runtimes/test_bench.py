"""Measuring models: what is measured, in which order, what follows from it, and what is refused."""

import copy
import json
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy
import pytest

from launch.artifact.provenance import read_provenance
from launch.build import preflight
from launch.core import machine, paths
from launch.core.errors import KitError
from launch.core.progress import Progress
from launch.model.variants import VARIANTS, Spec, find_variant, make_bert_large
from launch.runtimes import bench, bench_figures, bench_models, bench_plots, publish, running, worker
from launch.runtimes.bench_figures import Figures
from launch.verify import ir

from ..conftest import HYBRID, UNSTRUCTURED, Built, assert_user_error, call
from ..sample_bench import make_cell, make_content

PRODUCTS = ((32, 64, 64),)


def link_trees(folder: Path, built: Built, *names: str) -> Path:
    (folder / "out").mkdir()
    for name in names:
        (folder / "out" / name).symlink_to(built.tree(name))
    return folder / "out"


# ---- real runtimes


@pytest.fixture(scope="module")
def measured(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one tree that was measured, on inputs of another shape, and what was said."""
    folder = tmp_path_factory.mktemp("bench")
    out = link_trees(folder, built, HYBRID)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_models, "PRODUCTS", PRODUCTS)
        words = ["--runtimes=openvino-2022.1 onnxruntime", "--seq=64", "--batch=2", "--seconds=0.05"]
        done = call(["bench", f"--out={out}", *words, "--threads=1"])
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder


@pytest.fixture(scope="module")
def content(measured: Path) -> Dict[str, Any]:
    return dict(json.loads((measured / "out/bench/bench.json").read_text()))


def test_each_cell_is_measured(content: Dict[str, Any]) -> None:
    own = [
        (name, "own", mode)
        for mode in ("latency", "throughput")
        for name in ("openvino-2022.1", "onnxruntime")
    ]
    others = [("openvino-2022.1", "filled", "latency")]
    products = [(name, "product", "latency") for name in ("openvino-2022.1", "onnxruntime")]
    found = [(cell["runtime"], cell["kind"], cell["mode"]) for cell in content["cells"]]
    assert sorted(found) == sorted([*own, *others, *products])
    for cell in content["cells"]:
        measured = cell["measured"]
        assert cell["error"] == ""
        assert measured["memory"] > 10**7
        if cell["mode"] == "latency":
            assert len(measured["turns"]) == bench.ROUNDS
            assert all(min(turn) > 0 for turn in measured["turns"])
        else:
            assert measured["rate"] > 0
        if cell["kind"] == "own":
            assert cell["shape"] == ([1, 64] if cell["mode"] == "latency" else [2, 64])
            assert 0 <= measured["difference"] <= ir.AS_RUN_TOLERANCE
    (tree,) = content["trees"]
    assert tree["zeros"] == pytest.approx(0.52, abs=0.01)
    assert tree["kept"] == pytest.approx(0.208, abs=0.001)


def test_openvino_names_the_kernels_of_products(content: Dict[str, Any]) -> None:
    for cell in content["cells"]:
        kernels = cell["measured"]["kernels"]
        assert bool(kernels) == cell["runtime"].startswith("openvino")
        if cell["kind"] == "product" and kernels:
            assert [("8" in name, count) for name, count in kernels.items()] == [(True, 1)]


def test_what_is_said(measured: Path, content: Dict[str, Any]) -> None:
    table = (measured / "stdout").read_text()
    assert "Latency (ms) and throughput" in table
    assert "Structure against zeros" in table
    assert "Arithmetic" in table
    assert "no dense int8: make variant V=00pc_sparse-16_head-2048_ffnn\n" in table
    assert "no dense fp32: make variant V=00pc_sparse-16_head-2048_ffnn PRECISION=fp32\n" in table
    if "amx_int8" not in content["host"]["instructions"]:
        assert "no effect on this processor: no AMX" in table
    progress = (measured / "stderr").read_text()
    assert progress.index("bench  takes about 0:") < progress.index("reference of")
    assert f"turn 3 of 3: {HYBRID} latency in ONNX Runtime 1.32.0" in progress
    assert sorted(path.name for path in (measured / "out/bench").iterdir()) == sorted(bench.NAMES)
    assert str(measured) not in (measured / "out/bench/bench.json").read_text()


def test_the_results_are_of_their_schema(measured: Path, content: Dict[str, Any], tmp_path: Path) -> None:
    path = measured / "out/bench/bench.json"
    assert bench_figures.read_results(path, "BASE").content == content
    for spoil in (
        lambda found: found.update(format=2),
        lambda found: found["trees"].clear(),
        lambda found: found["cells"][0].pop("measured"),
        lambda found: found["cells"][0]["measured"].update(turns="many"),
        lambda found: found["cells"][0]["measured"].pop("memory"),
    ):
        spoiled = copy.deepcopy(content)
        spoil(spoiled)
        (tmp_path / "bench.json").write_text(json.dumps(spoiled))
        with pytest.raises(KitError, match="none of make bench's"):
            bench_figures.read_results(tmp_path / "bench.json", "BASE")


def test_the_report_shows_them(measured: Path, built: Built, tmp_path: Path) -> None:
    out = link_trees(tmp_path, built, HYBRID)
    shutil.copytree(str(measured / "out/bench"), str(out / "bench"))
    done = call(["report", f"--out={out}"])
    assert done.returncode == 0, done.stderr
    text = (out / "report.html").read_text()
    assert '<h2 id="speed">Speed</h2>' in text
    assert text.count('<svg class="plot"') == 2
    assert "no dense int8" in text
    (out / "bench/bench.json").write_text("{}")
    assert_user_error(call(["report", f"--out={out}"]), "bench/bench.json", "none of make bench's")


def test_a_model_that_a_runtime_refuses_is_said_and_the_rest_goes_on(
    built: Built, measured: Path, content: Dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tree's own ONNX file has an operator that ONNX Runtime does not know."""
    out = link_trees(tmp_path, built, HYBRID)
    monkeypatch.setattr(bench_models, "PRODUCTS", PRODUCTS)
    monkeypatch.setattr(bench.Bench, "_find_onnx", lambda self, subject, progress: (subject.onnx, ""))
    base, to = tmp_path / "base.json", tmp_path / "to"
    base.write_text(json.dumps({**content, "host": {**content["host"], "processor": "another"}}))
    words = ["--runtimes=onnxruntime", "--seconds=0.05", "--threads=2", f"--base={base}", f"--to={to}"]
    done = call(["bench", f"--out={out}", *words])
    assert done.returncode == 1, done.stderr
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED: ")]
    assert len(failed) == 2
    assert all("FakeQuantize" in line and HYBRID in line for line in failed)
    assert "of one int8 product" in done.stdout  # the next was measured
    assert "BASE has none of these measurements" in done.stdout
    assert "warning: another processor than in BASE" in done.stdout
    for name in ("threads", "batch", "length"):
        assert f"warning: another {name} than in BASE" in done.stdout
    found = json.loads((to / "bench.json").read_text())
    assert sum(bool(cell["error"]) for cell in found["cells"]) == 2
    assert [path.name for path in to.iterdir()] == ["bench.json"]  # no figures of nothing


def test_other_outputs_than_the_references_are_not_timed(built: Built) -> None:
    spec = Spec.from_model(HYBRID, read_provenance(built.tree(HYBRID))["model"])
    feeds = ir.make_feeds(spec)[-1:]
    path = built.tree(HYBRID) / "ir" / f"{HYBRID}-8bit.xml"
    runtime = running.BENCHED["openvino-2022.1"]
    wanted = running.run_model(runtime, path, feeds, lambda _: None).outputs
    other = [{name: values[:, ::-1] for name, values in wanted[0].items()}]
    timing = {"mode": "throughput", "seconds": 0.01, "tolerance": 0.25}
    answer = running.run_model(runtime, path, feeds, lambda _: None, timing=timing, reference=other)
    assert "of a standard deviation from the reference's" in answer.error
    assert "rate" not in answer.measured


def test_the_newest_openvino_takes_the_setting_for_sparse_weights(built: Built) -> None:
    spec = Spec.from_model(HYBRID, read_provenance(built.tree(HYBRID))["model"])
    path = built.tree(HYBRID) / "ir" / f"{HYBRID}-8bit.xml"
    timing = {"mode": "throughput", "seconds": 0.01, "settings": bench.SPARSE}
    runtime = running.BENCHED["openvino"]
    answer = running.run_model(runtime, path, ir.make_feeds(spec)[-1:], lambda _: None, timing=timing)
    assert (answer.error, answer.measured["rate"] > 0) == ("", True)
    other = {**timing, "settings": {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": "2.5"}}
    answer = running.run_model(runtime, path, ir.make_feeds(spec)[-1:], lambda _: None, timing=other)
    assert "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE" in answer.error


@pytest.mark.parametrize("seed", range(5))
def test_the_worker_compares_as_verification_does(seed: int) -> None:
    drawn = numpy.random.RandomState(seed)
    one, other = ([{"a": drawn.rand(1, 9), "b": drawn.rand(1, 9)}] for _ in range(2))
    other[0]["b"][0, seed] = (1, numpy.nan, numpy.inf, 0, 5)[seed]
    for pair in ((one, other), (one, one), (one, [{"a": one[0]["a"]}]), ([{"a": numpy.ones(3)}], one)):
        assert worker.measure_difference(*pair) == ir.measure_difference(*pair)


def read_constants(xml: Path) -> List[Tuple[str, bytes]]:
    content = xml.with_suffix(".bin").read_bytes()
    found = ElementTree.parse(str(xml)).iterfind("layers/layer[@type='Const']/data")
    places = [
        (one.get("element_type") or "", *(int(one.get(name) or 0) for name in ("offset", "size")))
        for one in found
    ]
    return [(kind, content[start : start + size]) for kind, start, size in places]


def test_a_copy_without_zeros_has_the_same_other_values(built: Built, tmp_path: Path) -> None:
    source = built.tree(UNSTRUCTURED) / "ir" / f"{UNSTRUCTURED}-8bit.xml"
    before, after = read_constants(source), read_constants(bench_models.fill_zeros(source, tmp_path))
    assert [kind for kind, _ in before] == [kind for kind, _ in after]
    matrices = []
    for (kind, old), (_, new) in zip(before, after):
        if kind != "i8":
            assert old == new
            continue
        was, now = numpy.frombuffer(old, "i1"), numpy.frombuffer(new, "i1")
        assert now.all()
        assert (now == was)[was != 0].all()
        matrices.append(new)
    assert len(set(matrices)) == len(matrices)  # though the tree stores equal ones once
    assert len({old for kind, old in before if kind == "i8"}) < len(matrices)


# ---- what follows from figures


@pytest.fixture
def figures() -> Figures:
    return Figures(make_content())


def test_speed_ups_are_over_the_dense_references(figures: Figures) -> None:
    hybrid, unstructured = (figures.trees[name] for name in (HYBRID, UNSTRUCTURED))
    assert figures.speed_up(hybrid, "openvino", True) == pytest.approx(6)
    assert figures.speed_up(hybrid, "openvino", False) == pytest.approx(24)
    assert figures.speed_up(unstructured, "openvino", True) == pytest.approx(1, abs=1e-3)
    assert figures.split_gain(hybrid, "openvino") == pytest.approx((5, 1.2))
    assert figures.split_gain(unstructured, "openvino") == (None, None)  # not measured without zeros
    assert figures.speed_up(hybrid, "onnxruntime", True) is None  # the dense one failed
    assert figures.peak("openvino") == pytest.approx(4e11)
    assert figures.speed(hybrid, "openvino") == pytest.approx(hybrid["macs"] / 0.05)


def test_the_tables_have_a_row_for_each_tree_and_runtime(figures: Figures) -> None:
    tables = figures.tables()
    assert list(tables) == ["Latency (ms) and throughput", "Structure against zeros", "Arithmetic"]
    speed = {tuple(row[:2]): row[2:] for row in tables["Latency (ms) and throughput"][1:]}
    assert len(speed) == 8
    macs = figures.trees[HYBRID]["macs"] / 0.05
    share = f"{macs / 4e11:.0%}"
    assert speed[HYBRID, "OpenVINO 1"] == [
        *("50", "0", "50", "2", "120", "200", "6.00", "24.00", f"{macs / 1e9:.0f}", share)
    ]
    assert speed["dense", "ONNX Runtime 1"] == ["–"] * 10
    assert speed["dense-fp32", "OpenVINO 1"][-1] == "–"  # no share of an int8 peak
    assert tables["Structure against zeros"][1:] == [[HYBRID, "OpenVINO 1", "5.00", "1.20", "–"]]
    text = bench_figures.write_text(figures, None)
    assert "FAILED: dense latency in ONNX Runtime 1: too large" in text
    assert "no dense" not in text
    assert "no effect on this processor: no AMX" in text
    assert "peak 400 GMAC/s, of one int8 product" in text
    assert "scattered zeros in OpenVINO 1: × 1.20 to 1.20" in text


def test_a_reference_of_another_model_is_none(figures: Figures) -> None:
    for tree in figures.content["trees"]:
        if tree["dense"]:
            tree["model"] = {**tree["model"], "hidden": 512}
    assert figures.speed_up(figures.trees[HYBRID], "openvino", True) is None
    assert "no dense int8: make variant V=00pc_sparse-16_head-4096_ffnn" in figures.notes()
    assert "no dense fp32: make variant V=00pc_sparse-16_head-4096_ffnn PRECISION=fp32" in figures.notes()


def test_a_busy_machine_is_told(figures: Figures) -> None:
    (line,) = figures.warnings()
    assert "of 1 of 8 measurements the spread is over 10% of the median" in line
    assert f"{HYBRID} latency in ONNX Runtime 1, 33%" in line
    figures.content["load"]["before"][0] = 3.0
    assert "load before was 3.00" in figures.warnings()[0]


def test_an_earlier_run_is_compared(figures: Figures) -> None:
    content = copy.deepcopy(figures.content)
    content["cells"] = [make_cell(HYBRID, [[0.1], [0.1]]), content["cells"][-2]]
    content["cells"][1]["measured"]["rate"] = 20.0
    content["host"]["instructions"] = ["avx2", "amx_int8"]
    content["runtimes"]["openvino"]["label"] = "OpenVINO 0"
    rows, warnings = figures.compare(Figures(content))
    assert rows[1:] == [
        [HYBRID, "OpenVINO 1", "latency", "100", "50", "2.00"],
        [HYBRID, "OpenVINO 1", "throughput", "20", "30", "1.50"],
    ]
    assert [line.split(" than")[0] for line in warnings] == [
        "warning: another instructions",
        "warning: another openvino",
    ]


def test_the_figures_are_svg_alone_and_in_a_page(figures: Figures) -> None:
    figures.runtimes["openvino"] = "<OpenVINO> & 1"
    alone = bench_plots.draw_files(figures)
    assert set(alone) == set(bench.NAMES[1:])
    for name, text in alone.items():
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "50 ms" in (root.get("aria-label") or "")
        assert "prefers-color-scheme: dark" in text
        part = ElementTree.fromstring(bench_plots.draw_figures(figures)[name])
        assert len(part) == len(root) - 1  # all but the style
    bars = ElementTree.fromstring(bench_plots.draw_figures(figures)["runtimes.svg"])
    assert len(bars.findall("rect")) == 2 + 5  # the legend's, and one for each latency
    figures.content["cells"].clear()
    assert bench_plots.draw_figures(Figures(figures.content)) == {}


def test_arithmetic_of_bert_large() -> None:
    spec = make_bert_large(VARIANTS[UNSTRUCTURED])
    weights = 24 * (4 * 1024**2 + 2 * 1024 * 4096) + 2 * 1024
    assert bench_figures.count_weights(spec) == weights
    assert bench_figures.count_macs(spec, 384) == 384 * weights + 24 * 2 * 384**2 * 1024
    hybrid = make_bert_large(VARIANTS[HYBRID])
    kept = 24 * (4 * 1024 * 128 + 2 * 1024 * 512) + 2 * 1024
    assert bench_figures.count_macs(hybrid, 10) == 10 * kept + 24 * 2 * 100 * 128


def test_a_summary_is_of_all_turns() -> None:
    cell = make_cell(HYBRID, [[1.0, 2, 3], [1, 2, 3.3]])
    assert bench_figures.summarize(cell) == pytest.approx((2, 1.5, 3.285, 6, 2 * 10**8))
    assert bench_figures.summarize(make_cell(HYBRID, [])) is None


def test_a_machine_that_becomes_slower_does_not_change_factors(figures: Figures) -> None:
    for cell in figures.content["cells"]:
        turns = cell["measured"].get("turns", [[]])
        turns[-1] = [3 * one for one in turns[-1]]
    assert figures.speed_up(figures.trees[HYBRID], "openvino", True) == pytest.approx(6)
    assert figures.split_gain(figures.trees[HYBRID], "openvino") == pytest.approx((5, 1.2))


def test_zeros_without_effect_are_said(figures: Figures) -> None:
    (cell,) = (one for one in figures.content["cells"] if one["kind"] == "filled")
    cell["measured"]["turns"] = [[0.052], [0.052]]
    text = "\n".join(figures.notes())
    assert "scattered zeros in OpenVINO 1: no effect on this processor, × 1.04 to 1.04" in text


@pytest.mark.parametrize("broken", [None, 1])
def test_models_run_in_turn_and_one_that_ends_holds_up_none(
    monkeypatch: pytest.MonkeyPatch, broken: Optional[int]
) -> None:
    """Each round begins with another one; a process that ends early is passed over."""
    done: List[int] = []

    def answer(_: object, cell: bench.Cell, progress: object, turn: int, send: int) -> None:
        os.write(send, b".")
        while os.read(turn, 1) and cell.macs != broken:
            done.append(int(cell.macs))
            os.write(send, b".")

    monkeypatch.setattr(bench.Bench, "_measure", answer)
    cells = [bench.Cell("", "openvino", "own", "latency", (1, 1), number, Path(), []) for number in range(5)]
    made = bench.Bench([], bench.read_settings("", "", "", "", ""), Path())
    made._take_turns(cells, Progress("bench", None))
    order = [(start + number) % 5 for start in (0, 1, 3) for number in range(5)]
    assert done == [number for number in order if number != broken]


def test_the_defaults_take_under_ten_minutes_on_two_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The five and both dense references in all runtimes, with no QDQ file there, without VNNI."""
    subjects = []
    dense = [find_variant("00pc_sparse-16_head-4096_ffnn", one) for one in ("8bit", "fp32")]
    sizes = (280e6, 431e6, 582e6, 733e6, 1338e6, 1338e6, 1338e6)
    for variant, size in zip([*VARIANTS.values(), *dense], sizes):
        subject = bench.Subject(
            tmp_path / variant.name, variant, make_bert_large(variant), 384, variant.percent
        )
        subject.folder.mkdir()
        with subject.onnx.open("wb") as handle:
            handle.truncate(int(size))
        subjects.append(subject)
    monkeypatch.setattr(machine, "read_instructions", lambda: ["avx2"])
    monkeypatch.setattr(publish, "is_current", lambda *_: False)
    prepare, measure = bench.Bench(subjects, bench.read_settings("", "", "", "2", ""), tmp_path).estimate()
    assert 300 < prepare + measure < 600
    monkeypatch.setattr(machine, "read_instructions", lambda: ["avx2", "avx512_vnni"])
    assert sum(bench.Bench(subjects, bench.read_settings("", "", "", "2", ""), tmp_path).estimate()) < 400


def test_the_key_of_a_qdq_file_names_the_modules_that_make_it() -> None:
    """What ``publish`` imports of its room, and what runs as a process; not what measures."""
    room = paths.PACKAGE / "runtimes"
    found, todo = set(), ["publish", "worker"]
    while todo:
        name = todo.pop()
        found.add(name)
        text = (room / f"{name}.py").read_text()
        todo += [one for one in re.findall(r"^from \.(\w+) import", text, re.M) if one not in found]
    assert found == set(publish.MADE_BY)


# ---- what is refused


def test_models_that_do_not_fit_into_memory(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "read_available_memory", lambda: 10**8)
    out = link_trees(tmp_path, built, HYBRID)
    assert_user_error(call(["bench", f"--out={out}"]), "need about", "100.0 MB are free", "V=")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--runtimes=openvino tensorflow"],
            ("no runtime 'tensorflow'", "openvino-2022.1, openvino, onnxruntime"),
        ),
        (["--threads=0"], ("THREADS=0", "1 to 1024")),
        (["--threads=1025"], ("THREADS=1025", "1 to 1024")),
        (["--batch=2000"], ("BATCH=2000", "1 to 1024")),
        (["--seconds=3601"], ("SECONDS=3601", "up to 3600")),
        (["--seq=many"], ("SEQ=many",)),
        (["--batch=1.5"], ("BATCH=1.5",)),
        (["--seconds=-1"], ("SECONDS=-1",)),
        (["--v=90pc_sparse"], ("no variant '90pc_sparse'",)),
        ([f"--v={UNSTRUCTURED}"], (f"no tree {UNSTRUCTURED}",)),
        (["--seq=1000"], ("512 positions", "SEQ=1000")),
        (["--base=/dev/null"], ("BASE=/dev/null", "no regular file")),
        (["--base=/dev/null/none"], ("BASE=/dev/null/none", "cannot be read")),
    ],
)
def test_bad_input_is_refused(built: Built, tmp_path: Path, words: List[str], said: Tuple[str, ...]) -> None:
    out = link_trees(tmp_path, built, HYBRID)
    assert_user_error(call(["bench", f"--out={out}", *words]), *said)
    assert [path.name for path in out.iterdir()] == [HYBRID]


def test_no_trees_are_an_error(tmp_path: Path) -> None:
    assert_user_error(call(["bench", f"--out={tmp_path}"]), "There is no tree")
    assert_user_error(call(["bench", f"--out={tmp_path / 'none'}"]), "There is no tree")


def test_what_is_not_the_kits_is_not_replaced(built: Built, tmp_path: Path) -> None:
    out = link_trees(tmp_path, built, HYBRID)
    (out / "bench").mkdir()
    (out / "bench/latency.svg").write_text("<svg/>")
    assert_user_error(call(["bench", f"--out={out}"]), "no earlier result", "latency.svg")
    assert_user_error(call(["bench", f"--out={out}", f"--to={out / HYBRID / 'x'}"]), "in a tree")
    (tmp_path / "file").write_text("")
    assert_user_error(call(["bench", f"--out={out}", f"--to={tmp_path / 'file'}"]), "TO is not a folder")
    spoiled = tmp_path / HYBRID
    spoiled.mkdir()
    for path in built.tree(HYBRID).iterdir():
        (spoiled / path.name).symlink_to(path)
    with pytest.raises(KitError, match="not as it was published"):
        bench.read_subject(spoiled, None)
