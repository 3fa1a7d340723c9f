"""The sparsity report: the bytes that pandas would write, and counts of what is in the file."""

import contextlib
import csv
import io
import sys
from pathlib import Path
from typing import Any, List, Sequence, Tuple

import numpy
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from launch.core import paths
from launch.core.errors import KitError
from launch.model import sparsity
from launch.model.onnx_model import Model, read_outline
from launch.model.sparsity import COLUMNS, Row

from ..conftest import HYBRID, UNSTRUCTURED, Kit, run


def quantized(*weights: Any, others: Sequence[TensorProto] = ()) -> onnx.ModelProto:
    """A model that quantizes each of ``weights``, tensors or arrays, and an input."""
    nodes = []
    for number, values in enumerate(weights):
        tensor = values if isinstance(values, TensorProto) else numpy_helper.from_array(values)
        nodes += [
            helper.make_node("Constant", [], [f"w{number}"], name=f"Constant_{number}", value=tensor),
            helper.make_node("FakeQuantize", [f"w{number}", "l", "h", "l", "h"], [f"q{number}"]),
            helper.make_node("Transpose", [f"q{number}"], [f"t{number}"]),
            helper.make_node("MatMul", ["x", f"t{number}"], [f"p{number}"]),
            helper.make_node("Add", [f"p{number}", f"nncf_module.a.{number}.bias"], [f"y{number}"]),
        ]
    nodes.append(helper.make_node("FakeQuantize", ["x", "l", "h", "l", "h"], ["x8"]))
    biases = [
        numpy_helper.from_array(numpy.zeros(200, numpy.float32), f"nncf_module.a.{number}.bias")
        for number in range(len(weights))
    ]
    graph = helper.make_graph(nodes, "g", [], [], [*biases, *others])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made-8bit.onnx"


def counted(path: Path, model: onnx.ModelProto) -> List[int]:
    path.write_bytes(model.SerializeToString())
    return [row.nnz for row in sparsity.measure_rows(path)]


# --- what is counted -------------------------------------------------------------------------------------

ODD = numpy.array([0.0, -0.0, 1e-45, -1e-45, 1e-38, numpy.inf, -numpy.inf, numpy.nan, 1.0], numpy.float32)


@pytest.mark.parametrize("size", [1, 9, 64, 65, 70, 65536, 65537, 200_003])
def test_what_is_not_zero_is_counted(path: Path, size: int) -> None:
    values = numpy.resize(ODD, size)
    assert counted(path, quantized(values)) == [numpy.count_nonzero(values)]
    assert numpy.count_nonzero(ODD) == 7, "a negative zero is zero, what is subnormal is not"


@pytest.mark.parametrize("kind", ["float16", "float64", "int8", "uint8", "int32", "int64", "bool"])
def test_every_type_is_counted(path: Path, kind: str) -> None:
    values = numpy.arange(70_000).reshape(7, -1) % 3
    assert counted(path, quantized(values.astype(kind))) == [numpy.count_nonzero(values)]


def test_values_that_are_no_raw_data_are_counted(path: Path) -> None:
    numbers = [0.0, 1.0, -0.0, 2.0] * 100
    assert counted(path, quantized(helper.make_tensor("", TensorProto.FLOAT, [20, 20], numbers))) == [200]


@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=6),
    text=st.text(max_size=600),
    seed=st.integers(0, 1000),
)
def test_whatever_the_file_holds_besides(
    sizes: List[int], text: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    draw = numpy.random.RandomState(seed)
    weights = [(draw.randint(0, 3, (size, 3)) / 2).astype(numpy.float32) for size in sizes]
    model = quantized(*weights, others=[numpy_helper.from_array(draw.rand(300), text[:20])])
    model.doc_string = model.graph.doc_string = text
    for node in model.graph.node:
        node.doc_string = text[: draw.randint(600)]
    path = tmp_path_factory.getbasetemp() / "any-8bit.onnx"
    assert counted(path, model) == [numpy.count_nonzero(values) for values in weights]
    rows = list(sparsity.measure_rows(path))
    assert [row.layer_id for row in rows] == [f"Constant_{number}" for number in range(len(sizes))]
    assert [row.layer for row in rows] == [f"a.{number}.weight" for number in range(len(sizes))]
    assert [row.shape for row in rows] == [(size, 3) for size in sizes]


def test_everything_but_large_raw_data_is_read(path: Path) -> None:
    model = quantized(numpy.ones((30, 30), numpy.float32), numpy.ones((3, 3), numpy.float32))
    path.write_bytes(model.SerializeToString())
    found = Model(path)
    assert len(found.proto.SerializeToString()) < path.stat().st_size - 900 * 4
    for _, tensor in found.constants:
        found.restore(tensor)
    assert found.proto == model


# --- damage ----------------------------------------------------------------------------------------------


def test_no_part_of_a_file_is_a_report(path: Path) -> None:
    path.write_bytes(quantized(numpy.ones((30, 30), numpy.float32)).SerializeToString())
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        found: List[Row] = []
        with contextlib.suppress(KitError):
            found = list(sparsity.measure_rows(path))
        assert found == [], length  # a message may end where a field ends


def test_more_values_than_there_are_is_damage(path: Path) -> None:
    model = quantized(numpy.ones((30, 30), numpy.float32))
    model.graph.node[0].attribute[0].t.dims[0] = 31
    path.write_bytes(model.SerializeToString())
    with pytest.raises(KitError, match="has not the values"):
        list(sparsity.measure_rows(path))


@given(content=st.binary(min_size=1, max_size=400))
def test_any_bytes_end_in_a_model_or_an_error(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes-8bit.onnx"
    path.write_bytes(content)
    with contextlib.suppress(KitError):
        assert isinstance(read_outline(path)[0], onnx.ModelProto)


# --- the report ------------------------------------------------------------------------------------------


def with_pandas(rows: Sequence[Row]) -> Tuple[str, str]:
    import pandas

    table = pandas.DataFrame(
        [(row.layer_id, row.layer, list(row.shape), row.nparam, row.nnz, row.sparsity) for row in rows],
        columns=COLUMNS,
    )
    text = io.StringIO()
    table.to_csv(text)
    return text.getvalue(), table.to_markdown() + "\n"


def written(path: Path) -> Tuple[str, str]:
    sparsity.write_report(path)
    csv_path, markdown_path = sparsity.list_report_paths(path)
    return csv_path.read_bytes().decode(), markdown_path.read_bytes().decode()


@pytest.mark.parametrize("name", [HYBRID, UNSTRUCTURED])
def test_a_trees_report_is_what_pandas_writes(built: Kit, name: str, path: Path) -> None:
    path.symlink_to(built.tree(name) / f"{name}-8bit.onnx")
    rows = list(sparsity.measure_rows(path))
    assert len(rows) > 10
    assert written(path) == with_pandas(rows)


SHARES = (0, 1, 2, 3, 7, 1000, 33_331, 99_990, 99_991, 99_999, 100_000)
"""Zeros of 100,000: sparsities from 1e-05, which is written with an exponent, to 1."""


def test_any_report_is_what_pandas_writes(path: Path) -> None:
    weights = []
    for zeros in SHARES:
        values = numpy.ones((100, 1000), numpy.float32)
        values.ravel()[:zeros] = 0
        weights.append(values)
    weights += [numpy.ones(1000, numpy.float32), numpy.zeros((4, 5, 6), numpy.float32)]
    model = quantized(*weights)
    model.graph.node[0].name = 'a, "quoted" | näme'
    model.graph.node[4].input[1] = "unknown"
    path.write_bytes(model.SerializeToString())
    rows = list(sparsity.measure_rows(path))
    assert [rows[0].layer, rows[1].layer] == ["", "a.1.weight"]
    assert {row.sparsity for row in rows} >= {share / 100_000 for share in (0, 33_331, 100_000)}
    assert written(path) == with_pandas(rows)
    assert sparsity.read_report(sparsity.list_report_paths(path)[0]) == rows
    with sparsity.list_report_paths(path)[0].open(newline="") as handle:
        assert next(csv.reader(handle)) == ["", *COLUMNS]


def test_a_report_on_nothing_is_what_pandas_writes(path: Path) -> None:
    path.write_bytes(quantized().SerializeToString())
    assert written(path) == with_pandas([])


def test_a_report_that_cannot_be_written_is_an_error(path: Path) -> None:
    path.write_bytes(quantized().SerializeToString())
    sparsity.list_report_paths(path)[1].mkdir()
    with pytest.raises(KitError, match="cannot be written"):
        sparsity.write_report(path)


def test_a_report_takes_neither_the_files_size_in_memory_nor_pandas(path: Path) -> None:
    path.write_bytes(quantized(*[numpy.ones((4096, 4096), numpy.float32)] * 4).SerializeToString())
    code = f"""
import resource, sys
from pathlib import Path
from launch.model import sparsity
limit = resource.getrlimit(resource.RLIMIT_DATA)[1]
import numpy, onnx, tabulate
with open("/proc/self/statm") as file:
    used = int(file.read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (used + 30_000_000, limit))
sparsity.write_report(Path({str(path)!r}))
assert "pandas" not in sys.modules
"""
    done = run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(paths.REPOSITORY), "OPENBLAS_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert path.stat().st_size > 4 * 4096 * 4096 * 4
