"""The benchmark run for real on the two-layer model, both kinds: `make test-forks`."""

import json
from pathlib import Path

import pytest

from launch.sources import third_party

from ..conftest import HYBRID, UNSTRUCTURED, Kit, run
from . import sides
from .figures import FLOOR, IR, ONNX, VERIFICATION

pytestmark = pytest.mark.forks


@pytest.mark.parametrize(
    ("source", "variant", "base", "kit"),
    [
        ("fork", HYBRID, "hand", "kit"),
        ("fork", UNSTRUCTURED, "hand", "kit"),
        ("registry", HYBRID, "FAST=0", "FAST=1"),
    ],
)
def test_both_sides_are_measured_and_make_the_same_bytes(
    source: str, variant: str, base: str, kit: str, tmp_path: Path
) -> None:
    third_party.require_forks()
    done = run(
        [
            *Kit.MODULE,
            "bench-pipeline",
            "--size=small",
            f"--source={source}",
            f"--v={variant}",
            f"--to={tmp_path}",
        ]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"* {variant}: the same bytes, 4 files" in done.stdout
    (result,) = tmp_path.glob("*.json")
    (page,) = tmp_path.glob("*.md")
    assert page.read_text(encoding="utf-8") in done.stdout
    content = json.loads(result.read_text(encoding="utf-8"))
    assert [one["side"] for one in content["runs"]] == [base, kit]
    assert [sorted(one["stages"]) for one in content["runs"]] == [
        sorted([ONNX, FLOOR, IR]),
        sorted([ONNX, FLOOR, IR, VERIFICATION]),
    ]
    for one in content["runs"]:
        for stage, figure in one["stages"].items():
            assert figure["seconds"] > (0.05 if stage == FLOOR else 0.5), stage
            assert figure["cpu_seconds"] > (0.05 if stage == FLOOR else 0.5), stage
            assert figure["peak_bytes"] > 50_000_000, stage
        steps = one["steps"].get(ONNX, {})
        assert bool(steps) != (one["side"] == "hand"), "upstream's scripts tell no steps"
        assert sum(steps.values()) <= one["stages"][ONNX]["seconds"] * 1.2 + 1
    # Nothing large stays.
    assert not sides.WORK.exists()
