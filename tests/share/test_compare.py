"""What counts as the same and what is said of a difference, on trees that the real pipeline made."""

import re
import shutil
from pathlib import Path
from typing import Any, Callable, Iterable, List, Tuple

import numpy
import pytest

from launch.core.errors import KitError
from launch.share import compare
from launch.share.compare import Result

from ..conftest import HYBRID, UNSTRUCTURED, Kit, assert_user_error, call

QUERY = "bert.encoder.layer.0.attention.self.query"
MATRICES, ACTIVATIONS = 16, 29  # of the two-layer model: 45 quantizers in all
IR = [f"ir/{HYBRID}-8bit{suffix}" for suffix in (".bin", ".mapping", ".xml")]

Change = Callable[[Any], None]


def onnx_of(tree: Path) -> Path:
    return next(tree.glob("*-8bit.onnx"))


@pytest.fixture
def tree(built: Kit) -> Path:
    """A tree of the kit's; read only."""
    return built.tree(HYBRID)


@pytest.fixture
def changed(tree: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that copies the tree and changes the model in its ONNX file."""
    import onnx

    def copy(*changes: Change, name: str = "changed") -> Path:
        other = tmp_path / name / HYBRID
        shutil.copytree(str(tree), str(other))
        if changes:
            model = onnx.load(str(onnx_of(tree)))
            for change in changes:
                change(model)
            onnx_of(other).write_bytes(model.SerializeToString())
        return other

    return copy


def only(results: Iterable[Result]) -> Result:
    (result,) = results
    assert "\n" not in result.text
    return result


def verdicts(a: Path, b: Path) -> Tuple[Result, Result, Result]:
    """The results at the three levels, the strictest first."""
    found = [only(compare.compare_paths(a, b, level)) for level in ("bytes", "weights", "structure")]
    return found[0], found[1], found[2]


def quantizers(model: Any, *, activations: bool) -> List[Any]:
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    return [
        node
        for node in model.graph.node
        if node.op_type == "FakeQuantize" and (producers[node.input[0]] != "Constant") == activations
    ]


def tensor(model: Any, name: str) -> Any:
    """The constant that the edge ``name`` comes from."""
    node = next(node for node in model.graph.node if name in node.output)
    assert node.op_type == "Constant"
    return node.attribute[0].t


def edit(constant: Any, change: Callable[[numpy.ndarray], None]) -> None:
    from onnx import numpy_helper

    values = numpy_helper.to_array(constant).copy()
    change(values)
    constant.CopyFrom(numpy_helper.from_array(values, constant.name))


def query(model: Any) -> Any:
    """The quantizer of the first layer's query matrix: the fourth, after the three of the embeddings."""
    return quantizers(model, activations=False)[3]


def edit_query(change: Callable[[numpy.ndarray], None]) -> Change:
    return lambda model: edit(tensor(model, query(model).input[0]), change)


def named(model: Any, op_type: str) -> Any:
    return next(node for node in model.graph.node if node.op_type == op_type)


# ---- the same


def test_a_tree_and_its_copy_have_the_same_bytes_whatever_lies_beside(tree: Path, changed) -> None:
    other = changed()
    (other / "provenance.json").unlink()
    (other / "ir" / "mo.log").write_text("another day")
    next(other.glob("*.csv")).write_text("another table")
    (other / "notes.txt").write_text("mine")
    assert verdicts(tree, other)[0] == Result(HYBRID, True, "same bytes (4 files)")
    assert all(result.same for result in verdicts(tree, other))
    assert only(compare.compare_paths(tree, tree, "bytes")).text == "same bytes (4 files)"


def test_where_a_file_is_named_the_ir_does_not_count(tree: Path, changed) -> None:
    other = changed()
    shutil.rmtree(str(other / "ir"))
    for pair in ((onnx_of(tree), other), (tree, onnx_of(other)), (onnx_of(tree), onnx_of(other))):
        assert only(compare.compare_paths(*pair, "bytes")) == Result(HYBRID, True, "same bytes (1 file)")


def test_an_ir_that_one_side_lacks_counts_as_bytes_only(tree: Path, changed) -> None:
    other = changed()
    shutil.rmtree(str(other / "ir"))
    for pair, side in (((tree, other), "A"), ((other, tree), "B")):
        as_bytes, as_weights, as_structure = verdicts(*pair)
        assert not as_bytes.same
        assert f"in {side} only: {', '.join(IR)}" in as_bytes.text
        assert "the ONNX files have the same bytes" in as_bytes.text
        assert as_weights.same
        assert as_structure.same
    again = changed(name="neither")
    shutil.rmtree(str(again / "ir"))
    assert only(compare.compare_paths(again, other, "bytes")).text == "same bytes (1 file)"


@pytest.mark.parametrize("name", IR)
def test_every_file_of_the_ir_counts(tree: Path, changed, name: str) -> None:
    other = changed()
    content = bytearray((other / name).read_bytes())
    content[len(content) // 2] ^= 1
    (other / name).write_bytes(bytes(content))
    as_bytes, as_weights, _ = verdicts(tree, other)
    assert as_bytes.text == f"differs: other bytes in {name}; the ONNX files have the same bytes"
    assert not as_bytes.same
    assert as_weights.same


def in_typed_fields(model: Any) -> None:
    values = tensor(model, query(model).input[0])
    values.float_data.extend(numpy.frombuffer(values.raw_data, numpy.float32).tolist())
    values.ClearField("raw_data")


def with_other_words(model: Any) -> None:
    model.producer_name = "another exporter"
    model.graph.node[5].doc_string = "a remark"


@pytest.mark.parametrize("change", [in_typed_fields, with_other_words])
def test_other_bytes_may_mean_the_same(tree: Path, changed, change: Change) -> None:
    as_bytes, as_weights, as_structure = verdicts(tree, changed(change))
    assert not as_bytes.same
    assert as_bytes.text.startswith(f"differs: other bytes in {HYBRID}-8bit.onnx; ")
    assert as_bytes.text.endswith("same graph and values; the files differ in other bytes")
    assert as_weights == Result(HYBRID, True, "same graph and values; the files differ in other bytes")
    assert as_structure == as_weights


# ---- activation ranges


def widen(node: Any, share: float) -> Change:
    """Move the high end of a quantizer's range by a share of the width."""

    def change(model: Any) -> None:
        low, high = (tensor(model, name) for name in node.input[1:3])
        from onnx import numpy_helper

        width = numpy_helper.to_array(high) - numpy_helper.to_array(low)
        edit(high, lambda values: values.__iadd__(share * width))

    return change


def test_activation_ranges_may_differ_in_the_same_weights(tree: Path, changed) -> None:
    import onnx

    active = quantizers(onnx.load(str(onnx_of(tree))), activations=True)
    assert len(active) == ACTIVATIONS
    # By a quarter of the old width, which is a fifth of the new one; and the other way a fifth of the old.
    for other in (
        changed(widen(active[2], 0.25), widen(active[7], 0.05)),
        changed(widen(active[2], -0.2), widen(active[7], 0.05), name="narrower"),
    ):
        text = f"same graph, weights and masks; 2 of {ACTIVATIONS} activation ranges differ, by at most 20 %"
        as_bytes, as_weights, as_structure = verdicts(tree, other)
        assert as_weights == Result(HYBRID, True, text)
        assert as_structure == as_weights
        assert not as_bytes.same
        assert as_bytes.text == f"differs: other bytes in {HYBRID}-8bit.onnx; {text}"


def test_a_tiny_difference_of_ranges_is_not_rounded_away(tree: Path, changed) -> None:
    def nudge(model: Any) -> None:
        high = tensor(model, quantizers(model, activations=True)[0].input[2])
        edit(high, lambda values: numpy.nextafter(values, numpy.float32(numpy.inf), out=values))

    result = only(compare.compare_paths(tree, changed(nudge), "weights"))
    assert result.same
    assert f"1 of {ACTIVATIONS} activation ranges differ" in result.text
    assert "at most 0 %" not in result.text


@pytest.mark.parametrize("end", [numpy.nan, numpy.inf])
def test_a_range_that_is_no_number_differs_without_bound(tree: Path, changed, end: float) -> None:
    def spoil(model: Any) -> None:
        edit(tensor(model, quantizers(model, activations=True)[0].input[2]), lambda values: values.fill(end))

    assert "by at most inf %" in only(compare.compare_paths(tree, changed(spoil), "weights")).text


def test_a_weights_range_is_not_free(tree: Path, changed) -> None:
    def scale(model: Any) -> None:
        edit(tensor(model, query(model).input[1]), lambda values: values.__imul__(2))

    other = changed(scale)
    _, as_weights, as_structure = verdicts(tree, other)
    assert not as_weights.same
    assert f"0 of {MATRICES} weight matrices differ" in as_weights.text
    assert f"1 other constant differs, first {QUERY}.weight, low end of its range: value: " in as_weights.text
    assert "activation ranges" not in as_weights.text
    assert as_structure.same


def test_a_constant_that_is_a_range_and_something_else_is_not_free(tree: Path, changed) -> None:
    """It is computed with elsewhere, so that another value is another network."""

    def share(model: Any) -> None:
        square = named(model, "Pow")
        square.input[1] = quantizers(model, activations=True)[0].input[2]

    def scale(model: Any) -> None:
        edit(tensor(model, quantizers(model, activations=True)[0].input[2]), lambda v: v.__imul__(2))

    result = only(compare.compare_paths(changed(share, name="one"), changed(share, scale), "weights"))
    assert not result.same
    assert "1 other constant differs" in result.text
    assert f"1 of {ACTIVATIONS} activation ranges differ, by at most" in result.text


# ---- weights


def test_one_weight(tree: Path, changed) -> None:
    def double(values: numpy.ndarray) -> None:
        row, column = (int(index[1]) for index in numpy.nonzero(values))
        places.append(f"at [{row}, {column}] {values[row, column]!s} in A")
        values[row, column] *= 2
        places.append(f"{values[row, column]!s} in B")
        sizes.append(f"1 of {values.size:,} elements")

    places: List[str] = []
    sizes: List[str] = []
    as_bytes, as_weights, as_structure = verdicts(tree, changed(edit_query(double)))
    text = (
        f"same graph and shapes; 1 of {MATRICES} weight matrices differ (no masks), first {QUERY}.weight:"
        f" value: {sizes[0]} differ, {', '.join(places)}"
    )
    assert as_structure == Result(HYBRID, True, text)
    assert as_weights == Result(HYBRID, False, f"differs: {text}")
    assert as_bytes == Result(HYBRID, False, f"differs: other bytes in {HYBRID}-8bit.onnx; {text}")


def test_masks_are_told_apart_from_values(tree: Path, changed) -> None:
    def prune_and_regrow(values: numpy.ndarray) -> None:
        flat = values.reshape(-1)
        zeros, kept = numpy.flatnonzero(flat == 0), numpy.flatnonzero(flat)
        flat[zeros[:3]] = 1
        flat[kept[:2]] = 0

    result = only(compare.compare_paths(tree, changed(edit_query(prune_and_regrow)), "weights"))
    assert not result.same
    assert f"1 of {MATRICES} weight matrices differ (the masks of 1), first {QUERY}.weight" in result.text
    assert "masks differ: 3 zeros of A are not zero in B, 2 zeros of B not in A" in result.text


def test_a_negative_zero_has_other_bits_and_the_same_mask(tree: Path, changed) -> None:
    def negate_zeros(values: numpy.ndarray) -> None:
        values[values == 0] = -0.0

    result = only(compare.compare_paths(tree, changed(edit_query(negate_zeros)), "weights"))
    assert not result.same
    assert "(no masks)" in result.text
    assert "0.0 in A, -0.0 in B" in result.text


def test_a_bias(tree: Path, changed) -> None:
    def shift(model: Any) -> None:
        bias = next(one for one in model.graph.initializer if one.name.endswith(f"{QUERY}.bias"))
        edit(bias, lambda values: values.__iadd__(1))

    result = only(compare.compare_paths(tree, changed(shift), "weights"))
    assert not result.same
    assert f"1 other constant differs, first {QUERY}.bias: value: " in result.text


def test_a_constant_that_is_no_parameter_is_placed(tree: Path, changed) -> None:
    def scale(model: Any) -> None:
        epsilon = named(model, "Sqrt").input[0]
        adder = next(node for node in model.graph.node if epsilon in node.output)
        edit(tensor(model, adder.input[1]), lambda values: values.fill(1e-5))

    result = only(compare.compare_paths(tree, changed(scale), "weights"))
    assert not result.same
    assert "1 other constant differs, first Constant_" in result.text
    assert "(near bert.embeddings" in result.text
    assert "value: 1 of 1 elements differ, 1e-12 in A, 1e-05 in B" in result.text


# ---- structure


def rename_a_node(model: Any) -> None:
    named(model, "Softmax").name = "another"


def replace_an_operator(model: Any) -> None:
    named(model, "Softmax").op_type = "LogSoftmax"


def move_a_domain(model: Any) -> None:
    quantizers(model, activations=True)[0].domain = "elsewhere"


def rewire_an_edge(model: Any) -> None:
    first, second = (node for node in model.graph.node if node.op_type == "Softmax")
    second.input[0] = first.input[0]


def rename_an_edge(model: Any) -> None:
    model.graph.node[-1].output[0] = "another"


def set_an_attribute(model: Any) -> None:
    query(model).attribute[0].i = 255


def drop_an_attribute(model: Any) -> None:
    del named(model, "Softmax").attribute[:]


def raise_the_opset(model: Any) -> None:
    model.opset_import[0].version = 11


def lengthen_an_input(model: Any) -> None:
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 512


def retype_an_output(model: Any) -> None:
    model.graph.output[0].type.tensor_type.elem_type = 11


def drop_an_output(model: Any) -> None:
    del model.graph.output[1]


def drop_the_last_node(model: Any) -> None:
    del model.graph.node[-1]


def drop_a_bias(model: Any) -> None:
    names = [one.name for one in model.graph.initializer]
    del model.graph.initializer[next(i for i, name in enumerate(names) if name.endswith(f"{QUERY}.bias"))]


def reshape_a_bias(model: Any) -> None:
    bias = next(one for one in model.graph.initializer if one.name.endswith(f"{QUERY}.bias"))
    bias.dims.append(1)


def transpose_a_matrix(model: Any) -> None:
    dims = tensor(model, query(model).input[0]).dims
    dims[0], dims[1] = dims[1], dims[0]


def retype_a_matrix(model: Any) -> None:
    tensor(model, query(model).input[0]).data_type = 6  # the same bytes, taken as integers


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            rename_a_node,
            r"other graph: Softmax_\d+ \(near bert\S+\): name: 'Softmax_\d+' in A, 'another' in B",
        ),
        (replace_an_operator, r"near bert\S+\): op type: 'Softmax' in A, 'LogSoftmax' in B"),
        (move_a_domain, r"FakeQuantize_\d+ .*: domain: 'org.openvinotoolkit' in A, 'elsewhere' in B"),
        (rewire_an_edge, r"Softmax_\d+ \(near bert\.encoder\.layer\.1\S+\): edge, input 0: '\d+' in A"),
        (rename_an_edge, r"edge, output 0: '\d+' in A, 'another' in B"),
        (set_an_attribute, rf"near {QUERY}\): attribute levels: 25[46] in A, 255 in B"),
        (drop_an_attribute, r"attribute axis: in A only"),
        (raise_the_opset, r"other graph: opset: ai.onnx 10 in A, ai.onnx 11 in B"),
        (lengthen_an_input, r"input: \S+ int64 \[1, 384\] in A, \S+ int64 \[1, 512\] in B"),
        (retype_an_output, r"output: \S+ float \[1, 384\] in A, \S+ double \[1, 384\] in B"),
        (drop_an_output, r"output: \S+ float \[1, 384\] in A, none in B"),
        (drop_the_last_node, r"in A only \(388 nodes in A, 387 in B\)"),
        (drop_a_bias, rf"{QUERY}\.bias: in A only"),
        (reshape_a_bias, rf"{QUERY}\.bias: shape: \[64\] in A, \[64, 1\] in B"),
        (transpose_a_matrix, rf"{QUERY}\.weight: shape: \[64, 512\] in A, \[512, 64\] in B"),
        (retype_a_matrix, rf"{QUERY}\.weight: type: float in A, int32 in B"),
    ],
)
def test_another_graph_differs(tree: Path, changed, change: Change, text: str) -> None:
    result = only(compare.compare_paths(tree, changed(change), "structure"))
    assert not result.same
    assert result.text.startswith("differs: ")
    assert re.search(text, result.text), result.text


def test_another_graph_differs_at_every_level(tree: Path, changed) -> None:
    for result in verdicts(tree, changed(rename_a_node)):
        assert not result.same
        assert "other graph: Softmax_" in result.text


def test_two_variants_differ_in_the_first_shape(built: Kit) -> None:
    result = only(compare.compare_paths(built.tree(HYBRID), built.tree(UNSTRUCTURED), "structure"))
    assert result.name == HYBRID
    assert not result.same
    assert f"{QUERY}.weight: shape: [64, 512] in A, [512, 512] in B" in result.text


# ---- the command


def command(a: object, b: object = "", level: str = "") -> Any:
    return call(["compare", f"--a={a}", f"--b={b}", f"--level={level}"])


def test_folders_of_trees_are_compared_by_name(built: Kit, changed, tmp_path: Path) -> None:
    done = command(built.out, built.out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("same bytes (4 files)") == len(done.stdout.splitlines()) == 5
    # The bytes are the default, and what is not asked for is not looked at.
    assert done.stdout == command(built.out, built.out, "bytes").stdout
    other = changed(with_other_words).parent
    (other / "notes").mkdir()
    shutil.copytree(str(built.tree(UNSTRUCTURED)), str(other / f".{UNSTRUCTURED}.new"))
    shutil.copytree(str(built.tree(UNSTRUCTURED)), str(other / "mine"))
    onnx_of(other / "mine").rename(other / "mine" / "mine-8bit.onnx")
    done = command(built.out, other, "weights")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert f"{HYBRID}: same graph and values; the files differ in other bytes" in lines
    assert f"{UNSTRUCTURED}: differs: it is in A only" in lines
    assert "mine: differs: it is in B only" in lines
    assert f"{HYBRID}: reading both ONNX files" in done.stderr


def test_the_status_is_that_of_the_level(tree: Path, changed) -> None:
    other = changed(edit_query(lambda values: values.__imul__(2)))
    for level, code in (("bytes", 1), ("weights", 1), ("structure", 0)):
        done = command(tree, other, level)
        assert done.returncode == code, done.stderr
        assert len(done.stdout.splitlines()) == 1


def test_equal_files_are_not_parsed(tree: Path, changed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "Model", None)
    assert only(compare.compare_paths(tree, changed(), "bytes")).text == "same bytes (4 files)"


def test_bad_arguments(built: Kit, tree: Path, tmp_path: Path) -> None:
    assert_user_error(command(tree, tree, "bits"), "'bits'", "bytes, weights, structure")
    assert_user_error(command(tree, tmp_path / "missing"), "no such file", "B=", "missing")
    assert_user_error(command(tmp_path, tree), "no tree", f"A={tmp_path}")
    assert_user_error(command(tree), "B was not named")
    assert_user_error(command("", tree), "A was not named")
    assert_user_error(command(tree, built.out), "B is a folder of trees", "e.g. B=")
    both = tmp_path / "both"
    both.mkdir()
    for name in ("one", "two"):
        (both / f"{name}-8bit.onnx").touch()
    assert_user_error(command(tree, both), "holds 2 files", str(both / "one-8bit.onnx"))


def test_what_is_no_onnx_file_is_named(tree: Path, changed) -> None:
    path = onnx_of(changed())
    content = path.read_bytes()
    size = len(content)
    broken = [content[:cut] for cut in (0, 1, 100, 5000, size // 2, size - 40, size - 3)]
    for bad in (*broken, b"hello, world\n", bytes(1000), content[::-1], content + b"\x04more"):
        path.write_bytes(bad)
        with pytest.raises(KitError, match="no ONNX file") as caught:
            only(compare.compare_paths(tree, path, "bytes"))
        assert path.name in caught.value.where
    for level in compare.LEVELS:
        assert_user_error(command(path, tree, level), "no ONNX file", str(path))


def test_a_damaged_name_or_node_is_no_traceback(tree: Path, changed) -> None:
    path = onnx_of(changed())
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Softmax", b"Soft\xffax", 1))
    with pytest.raises(KitError, match="not UTF-8"):
        only(compare.compare_paths(tree, path, "weights"))

    def cut_a_quantizer(model: Any) -> None:
        del query(model).input[1:]

    with pytest.raises(KitError, match="not complete"):
        only(compare.compare_paths(tree, changed(cut_a_quantizer, name="cut"), "weights"))

    def lose_an_output(model: Any) -> None:
        del model.graph.node[5].output[:]

    with pytest.raises(KitError, match="not complete"):
        only(compare.compare_paths(tree, changed(lose_an_output, name="lost"), "weights"))

    def empty_a_constant(model: Any) -> None:
        tensor(model, query(model).input[0]).raw_data = b"too few"

    with pytest.raises(KitError, match="type and shape need"):
        only(compare.compare_paths(tree, changed(empty_a_constant, name="empty"), "weights"))


def test_values_in_other_files_are_not_taken_for_equal(tree: Path, changed) -> None:
    def move_out(model: Any) -> None:
        weight = tensor(model, query(model).input[0])
        weight.ClearField("raw_data")
        weight.data_location = weight.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", "weights.bin"

    with pytest.raises(KitError, match="in other files"):
        only(compare.compare_paths(tree, changed(move_out), "weights"))
