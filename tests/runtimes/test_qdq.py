"""The form that every runtime reads: what is in it, what is refused, and that it appears whole."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, List, Set, Tuple

import numpy
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from launch.artifact import sums
from launch.artifact.provenance import read_provenance
from launch.build import preflight
from launch.core import machine
from launch.core.errors import KitError
from launch.core.progress import Progress
from launch.model.onnx_model import Model
from launch.model.variants import Spec
from launch.runtimes import file_checks, publish, qdq, running
from launch.verify.checks import Check

from ..conftest import HYBRID, UNSTRUCTURED, Built, assert_user_error, call

NAME = f"{HYBRID}-8bit-qdq.onnx"
LABELS = ["ONNX Runtime 1.32.0", "ONNX Runtime 1.6.0", "OpenVINO 2022.1.0", "OpenVINO 2026.4.1"]


def source_path(built: Built, name: str = HYBRID) -> Path:
    return built.tree(name) / f"{name}-8bit.onnx"


@pytest.fixture(scope="module")
def source(built: Built) -> Model:
    """The ONNX file of a tree."""
    return Model(source_path(built))


@pytest.fixture(scope="module")
def converted(source: Model) -> bytes:
    return bytes(qdq.convert_to_qdq(source).SerializeToString())


class Proto:
    """A QDQ file to be spoiled."""

    def __init__(self, content: bytes) -> None:
        self.model = onnx.ModelProto.FromString(content)
        self.graph = self.model.graph
        self.producer = {name: node for node in self.graph.node for name in node.output}
        self.tensors = {tensor.name: tensor for tensor in self.graph.initializer}

    def find(self, kind: str, place: int = 0) -> Any:
        return [node for node in self.graph.node if node.op_type == kind][place]

    def constant(self, name: str) -> Any:
        return numpy_helper.to_array(self.tensors[name]).copy()

    def put(self, name: str, values: Any) -> str:
        """Replace a constant, or add one."""
        made = numpy_helper.from_array(values, name)
        if name in self.tensors:
            self.tensors[name].CopyFrom(made)
        else:
            self.graph.initializer.append(made)
        return name

    def weights(self) -> Any:
        """The ``DequantizeLinear`` of the first product's weights."""
        return self.producer[self.find("MatMul").input[1]]

    def save(self, path: Path) -> Path:
        path.write_bytes(self.model.SerializeToString())
        return path


def failed(checks: List[Check]) -> Dict[str, str]:
    return {check.name: check.text for check in checks if not check.passed}


# ---- what is in it


@pytest.fixture(scope="module")
def made(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes of two trees, and says."""
    folder = tmp_path_factory.mktemp("qdq")
    (folder / "out").mkdir()
    for name in (HYBRID, UNSTRUCTURED):
        (folder / "out" / name).symlink_to(built.tree(name))
    done = call(["qdq", f"--out={folder / 'out'}", f"--to={folder / 'to'}"])
    assert done.returncode == 0, done.stderr
    (folder / "said").write_text(done.stdout + done.stderr)
    return folder


def test_all_trees_are_made_and_tried_in_four_runtimes(made: Path, built: Built) -> None:
    assert sorted(path.name for path in (made / "to").iterdir()) == [HYBRID, UNSTRUCTURED]
    said = (made / "said").read_text()
    for name in (HYBRID, UNSTRUCTURED):
        target = made / "to" / name
        assert sums.list_files(target) == [f"{name}-8bit-qdq.onnx", "SHA256SUMS", "qdq.json"]
        assert sums.find_faults(target, sums.read_sums(target), lambda _: None) == []
        record = json.loads((target / "qdq.json").read_text())
        assert record["variant"] == name
        assert record["key"]["tree"] == sums.read_sums(built.tree(name))
        assert all(check["passed"] for check in record["checks"])
        outputs = record["measured"]["outputs"]
        assert sorted(outputs) == LABELS
        assert all(0 < one["difference"] <= one["tolerance"] == 0.25 for one in outputs.values())
        assert str(made) not in (target / "qdq.json").read_text()
        assert f"qdq  {target}\n" in said
        assert f"{name} qdq" in said  # the progress
        assert "running" in said


def test_what_is_current_is_not_made_again(made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (made / "to").rglob("*")}
    done = call(["qdq", f"--v={HYBRID}", f"--out={made / 'out'}", f"--to={made / 'to'}"])
    assert done.stdout == f"qdq  {made / 'to' / HYBRID}  up to date\n"
    assert {path: path.stat().st_mtime_ns for path in (made / "to").rglob("*")} == before


def test_two_conversions_have_the_same_bytes(made: Path, converted: bytes) -> None:
    assert (made / "to" / HYBRID / NAME).read_bytes() == converted


def test_its_operators_are_standard_and_its_weights_int8(source: Model, converted: bytes) -> None:
    proto = Proto(converted)
    assert [(entry.domain, entry.version) for entry in proto.model.opset_import] == [("", 13)]
    assert {node.domain for node in proto.graph.node} == {""}
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("QuantizeLinear") == len(source.activations)
    assert kinds.count("DequantizeLinear") == len(source.activations) + len(source.matrices)
    stored = {name: tensor for name, tensor in proto.tensors.items() if tensor.data_type == TensorProto.INT8}
    tables = [name for name in stored if name.endswith(".weight_int8")]
    assert len(tables) == len(source.matrices)
    query = "bert.encoder.layer.1.attention.self.query.weight_int8"
    assert list(stored[query].dims) == [512, 64]  # as the product takes it
    dequantize = proto.weights()
    assert len(proto.constant(dequantize.input[1])) == 64  # a scale for each channel


def test_a_product_keeps_its_int8_weights_in_onnx_runtime(converted: bytes, tmp_path: Path) -> None:
    """Of a bias with one dimension it makes a Gemm in 32 bits, where no quantizer follows."""
    path, optimized = tmp_path / "model.onnx", tmp_path / "optimized.onnx"
    proto = Proto(converted)
    kinds = []
    for flat in (False, True):
        if flat:
            for name, tensor in proto.tensors.items():
                if name.endswith(".bias") and list(tensor.dims)[:2] == [1, 1]:
                    proto.put(name, proto.constant(name).ravel())
        proto.save(path)
        code = (
            "import sys, onnxruntime; options = onnxruntime.SessionOptions();"
            " options.optimized_model_filepath = sys.argv[2]; options.log_severity_level = 3;"
            " onnxruntime.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])"
        )
        python = str(running.NEWEST.python)
        subprocess.run([python, "-I", "-c", code, str(path), str(optimized)], check=True)
        found = onnx.load(str(optimized)).graph.node
        kinds.append({node.op_type for node in found} & {"Gemm", "MatMul"})
    assert kinds == [set(), {"Gemm"}]


@given(
    scale=st.floats(2.0**-20, 2.0**20, width=32),
    parts=st.lists(st.floats(-1.25, 1.25, width=32), min_size=1, max_size=30),
)
def test_a_weight_is_what_fake_quantize_gives(scale: float, parts: List[float]) -> None:
    step = numpy.float32(scale)
    low, high = numpy.array([[-128 * step]], "f4"), numpy.array([[127 * step]], "f4")
    values = numpy.array([[0, *parts]], "f4") * low
    levels = qdq.find_levels(values, low, high)
    width = high - low
    fake = levels / numpy.float32(255) * width + low
    own = (levels - 128) * ((high.astype("f8") - low) / 255).astype("f4")
    assert (abs(own - fake) <= file_checks.ROUNDING * width).all()
    assert own[0, 0] == 0
    assert ((levels >= 0) & (levels <= 255)).all()
    assert (abs(fake - numpy.clip(values, low, high)) <= 0.501 * step).all()


# ---- what is refused

Spoil = Callable[[Proto], None]
SPOILED: Dict[str, Tuple[Spoil, Set[str]]] = {}


def spoils(*checks: str) -> Callable[[Spoil], Spoil]:
    """Declare what these checks find."""

    def declare(spoil: Spoil) -> Spoil:
        SPOILED[spoil.__name__] = spoil, set(checks)
        return spoil

    return declare


@spoils("weights")
def one_weight(proto: Proto) -> None:
    name = proto.weights().input[0]
    values = proto.constant(name)
    place = tuple(axis[0] for axis in values.nonzero())
    values[place] += 1
    proto.put(name, values)


@spoils("zeros", "weights")
def one_zero(proto: Proto) -> None:
    name = proto.weights().input[0]
    values = proto.constant(name)
    values[tuple(axis[0] for axis in (values == 0).nonzero())] = 1
    proto.put(name, values)


@spoils("weights")
def one_scale(proto: Proto) -> None:
    node = proto.weights()
    scale = proto.constant(node.input[1])
    scale[3] *= 1.0001
    node.input[1] = proto.put("another scale", scale)


@spoils("weights")
def scale_of_the_tensor(proto: Proto) -> None:
    node = proto.weights()
    for place in (1, 2):
        node.input[place] = proto.put(f"first {place}", proto.constant(node.input[place])[0])


@spoils("weights")
def other_axis(proto: Proto) -> None:
    proto.weights().attribute[0].i = 0


@spoils("weights")
def zero_point(proto: Proto) -> None:
    node = proto.weights()
    node.input[2] = proto.put("another zero", proto.constant(node.input[2]) + numpy.int8(1))


@spoils("weights")
def weights_of_32_bits(proto: Proto) -> None:
    node = proto.weights()
    levels, scale = proto.constant(node.input[0]), proto.constant(node.input[1])
    name = node.output[0]
    proto.graph.node.remove(node)
    proto.put(name, levels * scale)


@spoils("weights")
def other_shape(proto: Proto) -> None:
    name = "bert.embeddings.position_embeddings.weight_int8"
    proto.put(name, proto.constant(name)[:-1])


@spoils("ranges")
def other_range(proto: Proto) -> None:
    node = proto.find("QuantizeLinear")
    node.input[1] = proto.put("another scale", proto.constant(node.input[1]) * numpy.float32(1.001))


@spoils("ranges")
def other_zero(proto: Proto) -> None:
    node = proto.producer[proto.find("MatMul").input[0]]
    node.input[2] = proto.put("another zero", proto.constant(node.input[2]) + numpy.uint8(1))


@spoils("ranges")
def no_quantizer(proto: Proto) -> None:
    quantize = proto.find("QuantizeLinear")
    back = next(node for node in proto.graph.node if quantize.output[0] in node.input)
    identity = helper.make_node("Identity", [quantize.input[0]], [back.output[0]])
    place = list(proto.graph.node).index(quantize)
    proto.graph.node.remove(back)
    proto.graph.node[place].CopyFrom(identity)


@spoils("biases and norms")
def one_bias(proto: Proto) -> None:
    name = next(name for name in proto.tensors if name.endswith("query.bias"))
    values = proto.constant(name)
    values[0] = numpy.nextafter(values[0], numpy.float32(9))
    proto.put(name, values)


@spoils("standard operators")
def custom_operator(proto: Proto) -> None:
    proto.model.opset_import.append(helper.make_opsetid("com.example", 1))
    proto.find("Erf").domain = "com.example"


@spoils("onnx.checker", "standard operators")
def unknown_operator(proto: Proto) -> None:
    proto.find("Erf").op_type = "Urf"


@spoils("onnx.checker", "standard operators")
def older_opset(proto: Proto) -> None:
    proto.model.opset_import[0].version = 12


@spoils("inputs and outputs")
def other_output(proto: Proto) -> None:
    value = proto.graph.output[0]
    proto.producer[value.name].output[0] = value.name = "another"


@spoils("onnx.checker")
def no_order(proto: Proto) -> None:
    last = proto.graph.node[-1]
    copy = onnx.NodeProto.FromString(last.SerializeToString())
    proto.graph.node.remove(last)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([copy, *nodes])


@spoils("size")
def too_large(proto: Proto) -> None:
    proto.put("filling", numpy.zeros(1_500_000, "i1"))


@pytest.mark.parametrize("what", SPOILED)
def test_each_check_finds_its_fault(what: str, source: Model, converted: bytes, tmp_path: Path) -> None:
    proto = Proto(converted)
    spoil, checks = SPOILED[what]
    spoil(proto)
    found = failed(file_checks.check_file(source, proto.save(tmp_path / "spoiled.onnx"))[0])
    assert set(found) == checks, found


def test_a_whole_file_passes(source: Model, converted: bytes, tmp_path: Path) -> None:
    path = Proto(converted).save(tmp_path / "whole.onnx")
    checks, facts = file_checks.check_file(source, path)
    assert failed(checks) == {}
    assert facts["weights"]["matrices"] == len(source.matrices)
    assert facts["weights"]["zeros"] >= facts["weights"]["float_zeros"] > 0
    assert facts["weights"]["apart"] < 1e-4
    path.write_bytes(converted[:-1000])
    assert set(failed(file_checks.check_file(source, path)[0])) == {"readable"}


def test_outputs_are_compared_in_each_runtime(built: Built, converted: bytes, tmp_path: Path) -> None:
    """Why the rows of positions are taken after they are dequantized: see :func:`qdq._add_weights`."""
    proto = Proto(converted)
    tables = {name for name, node in proto.producer.items() if node.op_type == "DequantizeLinear"}
    (gather,) = [node for node in proto.graph.node if node.op_type == "Gather" and node.input[0] in tables]
    dequantize = proto.producer[gather.input[0]]
    gather.input[0], dequantize.input[0] = dequantize.input[0], "rows"
    gather.output[0], dequantize.output[0] = "rows", gather.output[0]
    nodes = list(proto.graph.node)
    nodes.remove(dequantize)
    nodes.insert(nodes.index(gather) + 1, dequantize)
    moved = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(moved)
    path = proto.save(tmp_path / NAME)
    spec = Spec.from_model(HYBRID, read_provenance(built.tree(HYBRID))["model"])
    with Progress("outputs", None) as progress:
        checks, facts = publish.check_outputs(
            built.tree(HYBRID) / "ir" / f"{HYBRID}-8bit.xml", path, spec, progress
        )
    assert set(failed(checks)) == {"outputs in OpenVINO 2022.1.0"}
    assert facts["OpenVINO 2022.1.0"]["difference"] > 1
    assert sorted(facts) == LABELS


def test_a_runtime_says_what_it_does_not_take(built: Built) -> None:
    feed = {"input_ids": numpy.zeros((1, 384), "i8")}
    for runtime in running.RUNTIMES:
        if runtime.module == "onnxruntime":
            answer = running.run_model(runtime, source_path(built), [feed], lambda _: None)
            assert "FakeQuantize" in answer.error
            with pytest.raises(KitError, match=r"does not run the model: .*FakeQuantize"):
                running.require_answer(answer, runtime, source_path(built))


def quantizer(low: Any, high: Any, levels: int = 256, weights: bool = True) -> onnx.ModelProto:
    """Return a model of one quantizer."""
    constants = [
        numpy_helper.from_array(numpy.asarray(end, "f4"), name) for name, end in (("l", low), ("h", high))
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])]
    if weights:
        constants.append(numpy_helper.from_array(numpy.ones((2, 2), "f4"), "w"))
    nodes = [
        helper.make_node("FakeQuantize", ["w" if weights else "x", "l", "h", "l", "h"], ["q"], levels=levels),
        helper.make_node("Transpose", ["q"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])]
    graph = helper.make_graph(nodes, "one", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (quantizer(-1.28, 1.27, levels=255), "it has not 256 levels"),
        (quantizer(-1.285, 1.265), "it has not 256 levels, 0 among them"),
        (quantizer(1.0, 2.0), "0 among them"),
        (quantizer(0.5, 0.5), "0 among them"),
        (quantizer(0.0, 2.55), "range of a weight matrix is not that of int8: 0 is level 0"),
        (quantizer(-1.28, 1.27, weights=False), "no quantized weights"),
    ],
)
def test_what_has_no_such_form_is_refused(model: onnx.ModelProto, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    with pytest.raises(KitError, match=words) as caught:
        qdq.convert_to_qdq(Model(path))
    assert "model.onnx" in caught.value.where
    assert caught.value.hint


# ---- that it appears whole


@pytest.fixture
def tree(built: Built, tmp_path: Path) -> Path:
    """A tree to be spoiled."""
    return Path(shutil.copytree(str(built.tree(HYBRID)), str(tmp_path / "out" / HYBRID)))


def qdq_argv(tree: Path, to: Path) -> List[str]:
    return ["qdq", f"--v={tree.name}", f"--out={tree.parent}", f"--to={to}"]


def test_a_tree_that_is_not_as_published_is_refused(tree: Path, tmp_path: Path) -> None:
    path = tree / f"{HYBRID}-8bit.onnx"
    content = bytearray(path.read_bytes())
    content[-5000] ^= 1
    path.write_bytes(content)
    done = call(qdq_argv(tree, tmp_path / "to"))
    assert_user_error(done)
    assert f"{path.name} has not the bytes that SHA256SUMS says" in done.stderr
    assert sums.list_files(tmp_path / "to") == []


def test_a_file_that_fails_is_not_kept_and_an_earlier_one_stays(
    tree: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "to"
    shutil.copytree(str(made / "to" / HYBRID), str(to / HYBRID))
    record = json.loads((to / HYBRID / "qdq.json").read_text())
    record["key"] = "of an earlier kit"
    (to / HYBRID / "qdq.json").write_text(json.dumps(record))
    sums.write_sums(to / HYBRID, {})
    before = {name: (to / HYBRID / name).read_bytes() for name in sums.list_files(to / HYBRID)}
    monkeypatch.setattr(publish, "check_outputs", lambda *_: ([Check("outputs", False, "far apart")], {}))
    done = call(qdq_argv(tree, to))
    assert_user_error(done)
    assert "is not kept:\n" in done.stderr
    assert "outputs: far apart" in done.stderr
    assert {name: (to / HYBRID / name).read_bytes() for name in sums.list_files(to / HYBRID)} == before
    assert [path.name for path in to.iterdir()] == [HYBRID]
    monkeypatch.setattr(publish, "check_outputs", lambda *_: ([Check("outputs", True, "near")], {}))
    assert call(qdq_argv(tree, to)).returncode == 0
    assert json.loads((to / HYBRID / "qdq.json").read_text())["key"] != "of an earlier kit"


def test_what_is_not_the_kits_is_not_replaced(tree: Path, made: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    shutil.copytree(str(made / "to" / HYBRID), str(to / HYBRID))
    with (to / HYBRID / NAME).open("ab") as handle:
        handle.write(b"mine")
    for _ in range(2):
        done = call(qdq_argv(tree, to))
        assert_user_error(done)
        assert "did not put there, or that was changed since" in done.stderr
        shutil.rmtree(str(to / HYBRID))
        (to / HYBRID).mkdir()
        (to / HYBRID / "mine").touch()
    for place in (tree, tree / "ir", tree.parent):
        assert_user_error(call(qdq_argv(tree, place)))
    assert not sums.find_faults(tree, sums.read_sums(tree), lambda _: None)


def test_where_it_does_not_fit_nothing_is_started(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(machine, "measure_free_disk", lambda _: 2_000_000)
        done = call(qdq_argv(tree, tmp_path / "to"))
        assert_user_error(done)
        assert "set TO= to a folder on another disk" in done.stderr
    monkeypatch.setattr(preflight, "read_available_memory", lambda: 200_000_000)
    done = call(qdq_argv(tree, tmp_path / "to"))
    assert_user_error(done)
    assert "GB of memory; 0.2 GB are free" in done.stderr
    assert not (tmp_path / "to").exists()


def test_without_a_tree_it_is_an_error(tmp_path: Path) -> None:
    done = call(["qdq", f"--out={tmp_path}"])
    assert_user_error(done)
    assert "There is no tree." in done.stderr
