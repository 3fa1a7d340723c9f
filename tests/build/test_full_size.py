"""One tree at full BERT-large size, made by the command that users run, against numbers measured upstream."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from launch.artifact import trees
from launch.core import paths
from launch.model import sparsity, variants

from ..conftest import HYBRID, run, write_launch_file

# sha256 over the 148 weight constants in the graph's order, from upstream's own scripts run by hand at the
# pinned commits (seed 42, 2 threads, x86-64).  Weights and masks follow from the seed and the number of
# threads alone; the calibrated activation ranges, which depend on the processor's arithmetic, are left out.
WEIGHTS = "ddb4a9f24748d22c5086b9c361615193cc17fdaa0283aea0578bcfff4727e595"


@pytest.mark.long
def test_the_smallest_variant_at_full_size(tmp_path: Path, derived_source: Path) -> None:
    import onnx
    from onnx import numpy_helper

    argv = [str(paths.VENV_PYTHON), "-m", "launch", "variant", "--v", HYBRID, "--threads", "2"]
    argv += ["--launch", str(write_launch_file(tmp_path)), "--out", str(tmp_path / "out")]
    done = run(argv)
    assert done.returncode == 0, done.stderr
    tree = tmp_path / "out" / HYBRID
    path = tree / f"{HYBRID}-8bit.onnx"
    assert path.stat().st_size == 279_641_008
    assert (tree / "ir" / f"{HYBRID}-8bit.bin").stat().st_size == 69_827_600
    model = onnx.load(str(path))
    kinds = Counter(node.op_type for node in model.graph.node)
    assert len(model.graph.node) == 3974
    assert kinds["FakeQuantize"] == 463
    assert [value.name for value in model.graph.input] == ["input_ids", "attention_mask.1", "input.1"]
    assert [value.name for value in model.graph.output] == ["6704", "6705"]
    report = sparsity.read_report(sparsity.list_report_paths(path)[0])
    left = sum(row.nnz for row in report if row.layer.startswith(variants.BLOCK_PREFIX))
    assert 1 - left / 301_989_888 == pytest.approx(0.9, abs=5e-7)
    attention = [row for row in report if ".attention." in row.layer]
    feed_forward = [
        row for row in report if row.layer.startswith(variants.BLOCK_PREFIX) and row not in attention
    ]
    assert len(attention) == 96
    assert len(feed_forward) == 48
    for rows, expected in ((attention, 0.12), (feed_forward, 0.24)):
        share = 1 - sum(row.nnz for row in rows) / sum(row.nparam for row in rows)
        assert share == pytest.approx(expected, abs=0.005)
    digest = hashlib.sha256()
    constants = {row.layer_id for row in report}
    for node in model.graph.node:
        if node.name in constants:
            digest.update(numpy_helper.to_array(node.attribute[0].t).tobytes())
    assert digest.hexdigest() == WEIGHTS
    xml = (tree / "ir" / f"{HYBRID}-8bit.xml").read_text()
    assert xml.count('type="MatMul"') == 193
    assert 'version="11"' in xml
    provenance = trees.read_provenance(tree)
    assert provenance is not None
    assert json.dumps(provenance).count(str(paths.REPOSITORY)) == 0
