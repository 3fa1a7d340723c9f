"""ONNX files that nobody knows: what is damaged, or asks for much, ends in an error and not in the memory."""

import sys
from pathlib import Path
from typing import Any, Callable, Tuple

import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from launch.core.errors import KitError
from launch.model.onnx_model import read_outline
from launch.share import compare
from launch.verify import measuring

from ..conftest import assert_user_error, run


def small() -> ModelProto:
    """A model with a constant that stays in the file, one that does not, and a tensor in an attribute."""
    import numpy

    large, little = (numpy.arange(size, dtype=numpy.float32) for size in (100, 2))
    nodes = [
        helper.make_node("Constant", [], ["a"], value=numpy_helper.from_array(large)),
        helper.make_node("Add", ["a", "b"], ["c"], table=numpy_helper.from_array(large)),
    ]
    graph = helper.make_graph(nodes, "g", [], [], [numpy_helper.from_array(little, "b")])
    return helper.make_model(graph)


def within(content: bytes, *numbers: int) -> bytes:
    """Return a field with the last number, in one with the number before, and so on."""
    for number in reversed(numbers):
        size, length = len(content), b""
        while size > 127:
            size, length = size >> 7, length + bytes([size & 127 | 128])
        content = bytes([number << 3 | 2]) + length + bytes([size]) + content
    return content


GRAPH, NODE, ATTRIBUTE, INITIALIZER, RAW_DATA = 7, 1, 5, 5, 9


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes, name: str = "model.onnx") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


WHOLE = small().SerializeToString()

DAMAGED = {
    "empty": b"",
    "text": b"hello, world\n",
    "zeros": bytes(1000),
    "backwards": WHOLE[::-1],
    "an end of a group": WHOLE + b"\4more",
    "a length without its bytes": WHOLE + b"\x32\x7f",
    "a number without end": WHOLE + b"\x08" + b"\xff" * 10,
    **{f"the first {size} bytes": WHOLE[:size] for size in range(1, len(WHOLE) - 1, 37)},
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=list(DAMAGED))
def test_what_is_damaged_is_refused_or_is_another_whole_model(written, content: bytes) -> None:
    """Some beginnings of a file are a whole message; a model they are not."""
    whole = written(WHOLE, "whole.onnx")
    with pytest.raises(KitError) as caught:
        list(compare.compare_paths(written(content), whole, "weights"))
    assert "no ONNX file, or it is damaged" in caught.value.what
    assert "model.onnx" in caught.value.where
    assert caught.value.hint


def say_elsewhere(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def say_two_places(tensor: TensorProto) -> None:
    tensor.external_data.add(key="offset", value="no number")


def say_nothing(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL


PLACES = {
    "constant": lambda model: model.graph.node[0].attribute[0].t,
    "attribute": lambda model: model.graph.node[1].attribute[0].t,
    "initializer": lambda model: model.graph.initializer[0],
}


@pytest.mark.parametrize("change", [say_elsewhere, say_two_places, say_nothing])
@pytest.mark.parametrize("place", PLACES)
def test_values_in_other_files_are_refused_wherever_they_are(written, place: str, change: Any) -> None:
    model = small()
    change(PLACES[place](model))
    with pytest.raises(KitError, match="keeps its values in other files") as caught:
        read_outline(written(model.SerializeToString()))
    assert "onnx.save_model" in caught.value.hint


def test_a_large_tensor_in_an_attribute_counts(written) -> None:
    other = small()
    table = other.graph.node[1].attribute[0].t
    table.raw_data = table.raw_data[:-1] + b"\1"
    both = written(WHOLE, "a.onnx"), written(other.SerializeToString(), "b.onnx")
    (found,) = compare.compare_paths(*both, "weights")
    assert "attribute table" in found.text
    other.doc_string = "the tensors lie elsewhere in the file"
    table.CopyFrom(small().graph.node[1].attribute[0].t)
    both[1].write_bytes(other.SerializeToString())
    (found,) = compare.compare_paths(*both, "weights")
    assert found.same


MANY = 300_000
BOMBS = {
    "attributes": within(within(b"", ATTRIBUTE) * MANY, GRAPH, NODE),
    "tensors": within(within(b"", INITIALIZER) * MANY, GRAPH),
}
"""A message of 2 bytes takes more than 200 once it is parsed."""


def memory_of_this() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmData")))


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_comparison_has_a_limit_on_its_memory(written, bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = written(BOMBS[bomb]), written(WHOLE, "whole.onnx")
    with pytest.raises(KitError, match="not complete"):  # a limit that suffices
        list(compare.compare_paths(*pair, "weights"))
    monkeypatch.setattr(measuring, "MAX_BYTES", memory_of_this() + 30_000_000)
    with pytest.raises(KitError, match="damaged, or takes more than") as caught:
        list(compare.compare_paths(*pair, "weights"))
    assert "model.onnx" in caught.value.where
    assert "Name a whole file" in caught.value.hint
    assert next(
        compare.compare_paths(pair[1], written(small().SerializeToString(), "again.onnx"), "weights")
    ).same


def test_the_command_says_so_without_a_traceback(written) -> None:
    content = within(within(b"", INITIALIZER) * 4 * MANY, GRAPH)
    pair = written(content), written(WHOLE, "whole.onnx")
    limits = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (200_000_000, 200_000_000)); "
    words = ["compare", f"--a={pair[0]}", f"--b={pair[1]}", "--level=weights"]
    code = f"{limits}from launch import cli, core; core.errors.exit_with_message(lambda: cli.main({words!r}))"
    done = run([sys.executable, "-c", code])
    assert_user_error(done, "takes more than", "model.onnx", "Name a whole file")


def test_weights_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    inner = bytes([RAW_DATA << 3 | 2]) + b"\x80\x80\x80\x80\x04"  # 1 GiB
    sizes: Tuple[int, ...] = (1 << 30, (1 << 30) + len(inner))
    head = inner
    for number in (INITIALIZER, GRAPH):
        size, length = sizes[-1], b""
        while size > 127:
            size, length = size >> 7, length + bytes([size & 127 | 128])
        head = bytes([number << 3 | 2]) + length + bytes([size]) + head
        sizes = (*sizes, sizes[-1] + 1 + len(length) + 1)
    with path.open("wb") as handle:
        handle.write(head)
        handle.truncate(len(head) + (1 << 30))
    before = memory_of_this()
    model, _ = read_outline(path)
    assert len(model.graph.initializer) == 1
    assert memory_of_this() - before < 10_000_000
