"""The benchmark: the arithmetic and the form of its table on made-up figures, and what it refuses."""

import contextlib
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from launch.build import preflight
from launch.core import child, machine, paths
from launch.core.errors import KitError
from launch.model import bert_config, variants
from launch.sources import patches
from launch.sources.source import Fork, Registry

from ..conftest import HYBRID, UNSTRUCTURED, assert_user_error, call
from . import plan, running, sides, table
from .figures import (
    ALL,
    EVERY,
    FLOOR,
    IR,
    MADE,
    ONNX,
    VERIFICATION,
    Figure,
    Row,
    Run,
    Value,
    as_json,
    differing,
    rows,
    value,
)
from .stopwatch import UNNAMED, Stopwatch

GB = 10**9
SAME = {"a.onnx": "1", "a.bin": "2"}


def made_up(variant: str, side: str, scale: float, outputs: Optional[Dict[str, str]] = None) -> Run:
    """A run of ``scale`` × (10 + 2) s; the kit's verifies for 1 s more."""
    stages = {
        ONNX: Figure(10 * scale, 15 * scale, int(4 * GB * scale)),
        IR: Figure(2 * scale, 3 * scale, int(GB * scale)),
    }
    steps = {}
    if side == "kit":
        stages[VERIFICATION] = Figure(1 * scale, 1 * scale, 3 * GB)
        steps = {ONNX: {"drawing": 4 * scale, "exporting": 6 * scale}}
    return Run(variant, side, stages, steps, SAME if outputs is None else outputs)


@pytest.fixture
def runs() -> List[Run]:
    """Two variants, two runs a side; the kit takes 0.4 of the hand's time, 0.5 in the second round."""
    return [
        made_up(variant, side, scale * size)
        for variant, size in ((HYBRID, 1), (UNSTRUCTURED, 3))
        for scales in ((1.0, 0.4), (1.2, 0.6))
        for side, scale in zip(("hand", "kit"), scales)
    ]


def find(found: List[Row], variant: str, stage: str, step: str = "") -> Row:
    (row,) = [row for row in found if (row.variant, row.stage, row.step) == (variant, stage, step)]
    return row


# --- arithmetic ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "minimum", "median"),
    [([3.0], 3, 3), ([3.0, 1.0], 1, 2), ([5.0, 1.0, 2.0], 1, 2), ([4.0, 1.0, 3.0, 2.0], 1, 2.5)],
)
def test_minimum_and_median(numbers: List[float], minimum: float, median: float) -> None:
    assert value(numbers) == Value(minimum, median)


def test_a_stage_has_minimum_and_median_of_its_runs(runs: List[Run]) -> None:
    row = find(rows(runs, ("hand", "kit")), HYBRID, ONNX)
    assert row.cells["hand"].seconds == Value(10, 11)
    assert row.cells["kit"].seconds == Value(4, 5)
    assert row.cells["kit"].cpu_seconds == Value(6, 7.5)
    assert row.cells["hand"].peak_bytes == Value(4 * GB, 4.4 * GB)
    assert row.ratio("seconds", "hand", "kit") == pytest.approx(0.4)
    assert row.ratio("seconds", "hand", "kit", "median") == pytest.approx(5 / 11)


def test_sums_add_times_and_take_the_largest_memory(runs: List[Run]) -> None:
    found = rows(runs, ("hand", "kit"))
    made = find(found, HYBRID, MADE)
    assert made.cells["hand"].seconds == Value(12, 13.2)
    assert made.cells["hand"].peak_bytes == Value(4 * GB, 4.4 * GB)
    # Only the kit verifies: its sum has that too, by hand there is no such stage.
    assert set(find(found, HYBRID, VERIFICATION).cells) == {"kit"}
    verified = find(found, HYBRID, ALL)
    assert verified.cells["hand"].seconds == Value(12, 13.2)
    assert verified.cells["kit"].seconds.minimum == pytest.approx(5.2)
    assert verified.cells["kit"].peak_bytes == Value(3 * GB, 3 * GB)


def test_the_floor_is_a_row_of_its_own_and_no_part_of_a_sum(runs: List[Run]) -> None:
    figures = {"hand": Figure(4, 6, GB), "kit": Figure(2, 3, GB)}
    with_floor = [replace(run, stages={**run.stages, FLOOR: figures[run.side]}) for run in runs]
    found, without = (rows(some, ("hand", "kit")) for some in (with_floor, runs))
    assert find(found, HYBRID, FLOOR).cells["kit"].seconds == Value(2, 2)
    assert find(found, HYBRID, FLOOR).ratio("seconds", "hand", "kit") == 0.5
    assert find(found, EVERY, FLOOR).cells["kit"].seconds.minimum == 4
    assert [row for row in found if row.stage != FLOOR] == without


def test_the_variants_are_added_up_where_there_are_several(runs: List[Run]) -> None:
    found = rows(runs, ("hand", "kit"))
    total = find(found, EVERY, MADE)
    assert total.cells["hand"].seconds.minimum == pytest.approx(12 * 4)
    assert total.cells["kit"].seconds.minimum == pytest.approx(12 * 4 * 0.4)
    assert total.cells["hand"].peak_bytes == Value(12 * GB, pytest.approx(13.2 * GB))
    assert total.ratio("seconds", "hand", "kit") == pytest.approx(0.4)
    assert not any(row.variant == EVERY for row in rows(runs[:4], ("hand", "kit")))


def test_steps_are_timed_where_a_program_states_them(runs: List[Run]) -> None:
    row = find(rows(runs, ("hand", "kit")), UNSTRUCTURED, ONNX, "exporting")
    assert set(row.cells) == {"kit"}
    assert row.cells["kit"].seconds.minimum == pytest.approx(6 * 3 * 0.4)
    assert row.cells["kit"].cpu_seconds is None
    assert row.ratio("seconds", "hand", "kit") is None


def test_a_step_that_a_run_had_no_need_of_took_no_time(runs: List[Run]) -> None:
    compiled = [replace(run, steps={ONNX: {"compiling": 9.0, **run.steps[ONNX]}}) for run in runs[1:2]]
    row = find(rows([runs[0], *compiled, *runs[2:]], ("hand", "kit")), HYBRID, ONNX, "compiling")
    assert row.cells["kit"].seconds == Value(0, 4.5)
    assert "hand" not in row.cells
    assert row.ratio("seconds", "kit", "kit") is None


def test_a_ratio_to_nothing_is_none() -> None:
    runs = [
        Run(HYBRID, side, {ONNX: Figure(seconds, 0, 0), IR: Figure(0, 0, 0)})
        for side, seconds in (("hand", 0.0), ("kit", 1.0))
    ]
    row = find(rows(runs, ("hand", "kit")), HYBRID, ONNX)
    assert row.ratio("seconds", "hand", "kit") is None


def test_bytes_are_the_same_only_if_every_run_of_both_sides_made_them() -> None:
    same = [made_up(HYBRID, side, 1) for side in ("hand", "kit", "hand", "kit")]
    assert differing(same) == []
    for other in ({**SAME, "a.bin": "3"}, {"a.onnx": "1"}):
        for number in range(4):
            changed = [*same[:number], made_up(HYBRID, same[number].side, 1, other), *same[number + 1 :]]
            assert differing(changed) == [(HYBRID, "a.bin")]
    # Another variant's files are other files.
    assert differing([*same, made_up(UNSTRUCTURED, "hand", 1, {"a.onnx": "9", "a.bin": "9"})]) == []


# --- form ------------------------------------------------------------------------------------------------


def test_the_table_is_aligned_markdown(runs: List[Run]) -> None:
    text = table.markdown(runs, "hand", "kit")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert len({line.count("|") for line in lines}) == 1
    assert re.sub(" +", " ", lines[0]) == (
        "| stage | hand s | kit s | ratio | hand CPU s | kit CPU s | ratio | hand GB | kit GB | ratio |"
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2] == [f"**{HYBRID}**", *[""] * 9]
    assert cells[3] == [
        *(ONNX, "10.0 (11.0)", "4.0 (5.0)", "0.40", "15.0 (16.5)", "6.0 (7.5)", "0.40"),
        *("4.00 (4.40)", "1.60 (2.00)", "0.40"),
    ]
    assert cells[4] == ["· drawing", "–", "1.6 (2.0)", *["–"] * 7]
    assert cells[-1][0] == ALL
    assert "2 runs of each: minimum (median)" in text
    assert text.count("the same bytes, 2 files (ONNX sha256 1)") == 2


def test_one_run_has_no_median_and_other_bytes_are_said(runs: List[Run]) -> None:
    text = table.markdown([runs[0], made_up(HYBRID, "kit", 1, {**SAME, "a.onnx": "9"})], "hand", "kit")
    assert "(11.0)" not in text
    assert "minimum" not in text
    assert f"* {HYBRID}: DIFFERENT BYTES in a.onnx" in text


def test_json_has_all_that_the_table_has(runs: List[Run]) -> None:
    found = as_json(rows(runs, ("hand", "kit")), "hand", "kit")
    assert json.loads(json.dumps(found)) == found
    (row,) = [one for one in found if one["variant"] == EVERY and one["stage"] == MADE]
    assert row["step"] is None
    assert row["sides"]["kit"]["seconds"]["minimum"] == pytest.approx(19.2)
    assert row["ratios"]["seconds"]["minimum"] == pytest.approx(0.4)
    (step,) = [one for one in found if one["variant"] == HYBRID and one["step"] == "drawing"]
    assert set(step["sides"]["kit"]) == {"seconds"}
    assert step["ratios"]["peak_bytes"] == {"minimum": None, "median": None}


def test_results_are_written_whole_and_name_the_sides(runs: List[Run], tmp_path: Path) -> None:
    made = plan.make(Registry(), "small", "", "2", tmp_path)
    renamed = {"hand": made.base.name, "kit": made.kit.name}
    done = [Run(r.variant, renamed[r.side], r.stages, r.steps, r.outputs) for r in runs]
    written = running.write(made, done)
    assert [path.name for path in written] == ["pipeline-small-registry.json", "pipeline-small-registry.md"]
    content = json.loads(written[0].read_text())
    assert content["planned"] == list(variants.VARIANTS)
    assert len(content["runs"]) == 8
    assert content["runs"][0]["stages"][ONNX] == {"seconds": 10.0, "cpu_seconds": 15.0, "peak_bytes": 4 * GB}
    assert "; without the fast set)" in content["sides"]["FAST=0"]
    assert written[1].read_text().startswith("FAST=0: registry (nncf 2.1.0, ")


def test_neither_side_always_runs_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: List[str] = []

    def one(_: Any, side: sides.Side, variant: variants.Variant, label: str, lock: int) -> Run:
        started.append(label)
        return made_up(variant.name, side.name, 1.0)

    monkeypatch.setattr(running, "workplace", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(running, "_one", one)
    done = running.run(plan.make(Registry(), "small", HYBRID, "3", tmp_path), lock=0)
    assert [run.side for run in done] == ["FAST=0", "FAST=1", "FAST=1", "FAST=0", "FAST=0", "FAST=1"]
    assert [label.split()[0] for label in started] == [f"[{number}/6]" for number in range(1, 7)]


# --- measuring -------------------------------------------------------------------------------------------


def test_a_stopwatch_gives_each_step_its_time() -> None:
    watch = Stopwatch("a stage", None)
    for step, seconds in ((None, 0.01), ("one", 0.05), ("one", 0.05), ("two", 0.02), ("one", 0.05)):
        watch.tick(step)
        time.sleep(seconds)
    steps = watch.steps()
    assert list(steps) == [UNNAMED, "one", "two"]
    assert 0.14 < steps["one"] < 1
    assert steps["two"] < steps["one"]
    assert sum(steps.values()) == pytest.approx(watch.elapsed, abs=0.02)


def test_a_stage_without_steps_has_none() -> None:
    watch = Stopwatch("a stage", None)
    watch.tick(None)
    assert watch.steps() == {}


def test_processor_time_is_that_of_the_child_and_its_children(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.4: pass"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n{burn}"
    usage = child.run_child(
        [str(paths.VENV_PYTHON), "-c", code],
        env={},
        cwd=tmp_path,
        log=tmp_path / "log",
        what="burning",
        tick=lambda step: None,
    )
    assert 0.75 < usage.cpu_seconds < 5
    both = child.sum_usages([usage, child.Usage(1.0, 7, 2.0)])
    assert both.seconds == pytest.approx(usage.seconds + 1)
    assert both.cpu_seconds == pytest.approx(usage.cpu_seconds + 2)
    assert both.peak_bytes == max(usage.peak_bytes, 7)


# --- what is compared ------------------------------------------------------------------------------------


def test_by_hand_is_the_pins_with_what_it_takes_to_run() -> None:
    for small, names in (
        (False, ["sparsify_params.patch", "squad_metric.patch"]),
        (True, ["dense_size.patch", "sparsify_params.patch", "squad_metric.patch"]),
    ):
        hand, kit = sides.pair(Fork(), small)
        assert (hand.name, kit.name, hand.launch, kit.launch) == ("hand", "kit", "upstream", "upstream")
        series = [patch.path.name for found in hand.source.series().values() for patch in found]
        assert sorted(series) == names
        assert not any(patch.fast for found in hand.source.series().values() for patch in found)
        assert kit.source.fast
        assert hand.kits is False
        assert hand.source.key() != kit.source.key()


def test_without_submodules_the_set_fast_is_compared_with_nothing() -> None:
    plain, fast = sides.pair(Registry(), small=False)
    assert (plain.name, fast.name) == ("FAST=0", "FAST=1")
    assert (plain.source.fast, fast.source.fast) == (False, True)


def test_the_sides_share_nothing_that_is_derived_and_leave_the_kits_trees_alone() -> None:
    for source in (Fork(), Registry()):
        base, kit = sides.pair(source, small=True)
        assert kit.source is source
        for ours, theirs in (
            (base.source.tree, kit.source.tree),
            (base.source.extensions, kit.source.extensions),
        ):
            assert sides.FOLDER in ours.parents
            assert sides.FOLDER not in theirs.parents
        assert base.folder != kit.folder


def test_a_patch_that_the_hand_needs_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = sides.Hand(small=False)
    found = {"nncf": patches.choose_patches("nncf", "fork"), "transformers": []}
    monkeypatch.setattr(Fork, "series", lambda self: found)
    with pytest.raises(KitError, match=r"in no series: squad_metric\.patch"):
        hand.series()


def test_both_sides_jobs_differ_only_in_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides, "WORK", tmp_path)
    monkeypatch.setattr(sides, "MODEL", tmp_path / "model")
    made = plan.make(Registry(), "small", "", "1", tmp_path)
    plan.write_model(made)
    for variant in variants.VARIANTS.values():
        words = []
        for side in made.sides:
            job = sides.job(side, variant)
            assert job.onnx_path == side.folder / variant.name / f"{variant.stem}.onnx"
            assert job.shape().layers == 2
            invocation = job.invocation
            assert invocation.env["PYTHONPATH"].startswith(f"{side.source.tree}:")
            assert invocation.env["TORCH_EXTENSIONS_DIR"] == str(side.source.extensions)
            words.append([word.replace(str(side.folder), "") for word in invocation.args])
        assert words[0] == words[1]
        assert not any(str(paths.BUILD / "work") in word for word in words[0])


def test_the_small_model_is_one_that_every_hybrid_can_be_cut_from(tmp_path: Path) -> None:
    made = plan.make(Registry(), "small", "", "1", tmp_path)
    dense = plan.config(made)
    words = (paths.SAMPLE / "model" / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert dense["vocab_size"] == len(words)
    for variant in variants.VARIANTS.values():
        config = bert_config.make_hybrid(dense, variant, "") if variant.hybrid else dense
        assert bert_config.read_shape(config, "").layers == 2


# --- the command -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size=tiny"], ["no size 'tiny'", "SIZE=tiny", "full or small"]),
        (["--repeat=0"], ["REPEAT=0", "1 to 100"]),
        (["--repeat=many"], ["REPEAT=many"]),
        (["--repeat=²"], ["REPEAT=²"]),
        (["--v=90pc"], ["no variant '90pc'", "V=90pc"]),
        (["--source=pypi"], ["no source 'pypi'"]),
    ],
)
def test_the_command_refuses(options: List[str], words: List[str]) -> None:
    assert_user_error(call(["bench-pipeline", "--source=registry", *options]), *words)


def test_memory_and_disk_are_checked_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan.make(Registry(), "full", UNSTRUCTURED, "1", tmp_path)
    monkeypatch.setattr(preflight, "read_available_memory", lambda: 2 * GB)
    with pytest.raises(KitError, match=r"90pc_unstructured_sparse \(FAST=0\) needs about .* GB of memory"):
        plan.check_machine(made)
    monkeypatch.setattr(preflight, "read_available_memory", lambda: None)
    monkeypatch.setattr(machine, "measure_free_disk", lambda folder: GB)
    with pytest.raises(KitError, match=r"The benchmark needs about .* GB of disk; 1\.0 GB are free"):
        plan.check_machine(made)


def test_by_hand_needs_more_memory_than_the_kit(tmp_path: Path) -> None:
    made = plan.make(Fork(), "full", "", "1", tmp_path)
    for variant in made.variants:
        hand, kit = (plan.need(made, side, variant).memory for side in made.sides)
        assert hand > kit
    # 13.7 GB were measured.
    assert 13.7 * GB < plan.need(made, made.base, variants.find_variant(UNSTRUCTURED)).memory < 16 * GB
