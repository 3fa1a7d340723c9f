"""The patch set `fast`: runs with it and without it give the same bytes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

from launch import digests, patches, trees
from launch.source_registry import Registry

from .conftest import HYBRID, UNSTRUCTURED, Kit, run


@pytest.fixture(scope="module")
def without(built: Kit, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two of the trees, made without the set; the derived tree is as it was afterwards."""
    kit = Kit(tmp_path_factory.mktemp("without"), built.model)
    try:
        for name in (HYBRID, UNSTRUCTURED):
            done = kit.run("variant", name, fast=0)
            assert done.returncode == 0, done.stderr
            assert "without the fast set" in done.stderr
        yield kit.out
    finally:
        assert run([*Kit.MODULE, "setup", "--source=registry", "--fast=1"]).returncode == 0


@pytest.mark.parametrize("name", [HYBRID, UNSTRUCTURED])
def test_the_set_changes_no_byte(built: Kit, without: Path, name: str) -> None:
    for file in trees.onnx_files(f"{name}-8bit"):
        assert digests.of_file(without / name / file) == digests.of_file(built.tree(name) / file), file


def test_the_set_is_on_by_default() -> None:
    fast = [patch for patch in Registry().series()["nncf"] if patch.fields.get(patches.OPTIONAL_SET)]
    assert len(fast) >= 6


THRESHOLD = """
import torch
from nncf.torch.sparsity.magnitude.algo import MagnitudeSparsityController as Controller
from nncf.torch.sparsity.magnitude.functions import normed_magnitude

class Info:
    def __init__(self, weight):
        self.module = torch.nn.Module()
        self.module.weight = torch.nn.Parameter(weight)

controller = Controller.__new__(Controller)
controller._weight_importance_fn = normed_magnitude
torch.manual_seed(0)
ties = torch.randint(-3, 4, (40, 30)).float()
for weights in (
    [torch.randn(64, 32), torch.randn(128, 64)],
    [ties, torch.randn(7, 5)],
    [torch.zeros(3, 4), torch.ones(5, 5)],  # the norm of zeros is zero: not a number
    [torch.randn(1, 1)],
    [torch.full((4, 4), 1e-42), torch.randn(4, 4)],  # subnormal
):
    infos = [Info(weight) for weight in weights]
    everything = torch.cat([normed_magnitude(weight).view(-1) for weight in weights]).sort()[0]
    for level in (0, 0.1, 0.5, 0.77, 0.9, 0.999, 0.99999):
        wanted = everything[int((everything.numel() - 1) * level)].item()
        found = controller._select_threshold(level, infos)
        assert found == wanted or found != found and wanted != wanted, (weights, level, found, wanted)
assert controller._select_threshold(0.5, []) == 0.0
"""


def test_the_threshold_is_that_of_a_sort(derived_source: Path) -> None:
    """Bit for bit: with ties, values that are no number, subnormal ones, and a single weight."""
    done = subprocess.run(
        [sys.executable, "-c", THRESHOLD],
        env={**os.environ, "PYTHONPATH": str(derived_source)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
