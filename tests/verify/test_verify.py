"""Trees that were tampered with: each is found, and the fault is named; whole trees pass.

Each tampering is done to a tree of the two-layer model, once as an accident does it (checksums as they were)
and once as somebody does it who writes the checksums anew: then it is the content that gives it away.
"""

import copy
import json
import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple
from unittest import mock

import numpy
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from launch.artifact import sums, trees
from launch.build import convert
from launch.core.errors import KitError
from launch.core.files import digest_file
from launch.model import variants
from launch.model.onnx_model import Graph
from launch.model.variants import VARIANTS, Spec
from launch.verify import ir, leaks, measuring
from launch.verify import tree as verification
from launch.verify.checks import Check
from launch.verify.degeneracy import find_degeneracy
from launch.verify.leaks import find_paths

from ..conftest import HYBRID, UNSTRUCTURED, Kit, assert_user_error, call, run

OTHER = "90pc_sparse-04_head-1024_ffnn"
QUERY = "bert.encoder.layer.0.attention.self.query.weight"
FEED_FORWARD = "bert.encoder.layer.1.output.dense.weight"


def onnx_of(tree: Path) -> Path:
    return tree / f"{tree.name}-8bit.onnx"


def ir_of(tree: Path, suffix: str) -> Path:
    return tree / "ir" / f"{tree.name}-8bit{suffix}"


def read_provenance(tree: Path) -> Dict[str, Any]:
    return json.loads((tree / trees.PROVENANCE).read_text())


def sign(tree: Path, change: Callable[[Dict[str, Any]], object] = lambda content: None) -> None:
    """Write provenance, changed, and checksums anew, so that they fit the files."""
    content = read_provenance(tree)
    change(content)
    content["files"] = trees.describe_files(tree, [n for n in content["files"] if (tree / n).is_file()])
    content["ir_key"]["onnx"] = digest_file(onnx_of(tree))
    (tree / trees.PROVENANCE).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    (tree / sums.NAME).unlink()
    sums.write_sums(tree, {})


@pytest.fixture(scope="module", autouse=True)
def _measured_once() -> Iterator[None]:
    """Remember what was measured in files by their bytes: a process that measures takes seconds."""
    ask, answers = measuring.measure_apart, {}

    def remember(python: Path, folder: Path, spec: Spec, *more: object) -> object:
        files = sorted(path for path in (folder / "ir").iterdir() if path.suffix != ".log")
        files.append(folder / f"{VARIANTS[spec.variant].stem}.onnx")
        key = repr((spec, [(file.name, digest_file(file)) for file in files]))
        if key not in answers:
            try:
                answers[key] = ask(python, folder, spec, *more)
            except KitError as error:
                answers[key] = error
        if isinstance(answers[key], KitError):
            raise answers[key]
        return copy.deepcopy(answers[key])

    with mock.patch.object(measuring, "measure_apart", remember):
        yield


def verify(tree: Path) -> verification.Result:
    return verification.verify_tree(tree, Path(sys.executable), lambda step: None)


def failed(result: verification.Result) -> Dict[str, str]:
    return {check.name: check.text for check in result.failed}


@pytest.fixture(scope="module")
def originals(built: Kit, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Copies of three trees: published ones are never written to."""
    folder = tmp_path_factory.mktemp("originals")
    for name in (HYBRID, OTHER, UNSTRUCTURED):
        shutil.copytree(str(built.tree(name)), str(folder / name))
    yield folder
    shutil.rmtree(str(folder), ignore_errors=True)


@pytest.fixture
def tree(originals: Path, tmp_path: Path) -> Iterator[Path]:
    """A hybrid's tree to do anything to."""
    copy = tmp_path / HYBRID
    shutil.copytree(str(originals / HYBRID), str(copy))
    yield copy
    shutil.rmtree(str(copy), ignore_errors=True)


# --- trees as they are published ---------------------------------------------------------------------------


def test_make_verify_passes_and_states_what_it_measured(originals: Path) -> None:
    done = call(["verify", f"--out={originals}"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    for name in (HYBRID, OTHER, UNSTRUCTURED):
        assert f"{name}: verified" in done.stdout
    for words in (
        "2 layers, 388 nodes",
        "45 FakeQuantize: 16 of weights, 29 of activations",
        "8 bits in each of 45 quantizers",
        "16 constants of 8 bits",
        "0.900000 of 6,291,456 dense block weights",
        "input_ids int64 1 × 384",
        "4 of 4 feed-forward matrices are all zero",
        "one threshold",
    ):
        assert words in done.stdout, words


def test_one_tolerance_is_said_of_one_figure() -> None:
    outputs, check = ir.check_agreement(0.001, None)
    assert check.text.endswith(f"(at most {outputs['as_run']['tolerance']})")


def test_what_is_zero_is_stated_layer_by_layer_of_the_variant_asked_for(originals: Path) -> None:
    done = call(["verify", f"--out={originals}", f"--v={HYBRID}"])
    assert UNSTRUCTURED not in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    stated = {line[0]: line[1:] for line in lines if len(line) == 5 and line[0].isdigit()}
    matrices = read_provenance(originals / HYBRID)["verification"]["matrices"]
    assert set(stated) == {"0", "1"}
    for layer, (weights, zeros, kept, share) in stated.items():
        rows = [row for row in matrices if row["parameter"].startswith(f"bert.encoder.layer.{layer}.")]
        assert len(rows) == 6
        left = sum(math.prod(row["shape"]) - row["zeros"] for row in rows)
        assert weights == f"{sum(math.prod(row['shape']) for row in rows):,}"
        assert zeros == f"{sum(row['zeros'] for row in rows):,}"
        assert kept == f"{sum(row['ir_zeros'] for row in rows):,}"
        assert share == f"{1 - left / 3_145_728:.6f}"  # 4 · 512² + 2 · 512 · 2048
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--v=90pc_sparse-06_head-1536_ffnn"], "There is no tree 90pc_sparse-06"),
        (["--v=90pc"], "Did you mean"),
        (["--out=/nowhere/at/all"], "There is no tree"),
    ],
)
def test_what_is_not_there_is_an_error(originals: Path, words: List[str], said: str) -> None:
    assert_user_error(call(["verify", f"--out={originals}", *words]), said)


def test_verifying_changes_nothing(originals: Path, hashes: Callable[[Path], Dict[str, str]]) -> None:
    before = hashes(originals / HYBRID)
    assert verify(originals / HYBRID).passed
    assert hashes(originals / HYBRID) == before


def test_what_was_published_says_what_is_measured(originals: Path) -> None:
    recorded = read_provenance(originals / HYBRID)["verification"]
    measured = verify(originals / HYBRID).measured
    assert measured is not None
    assert {**recorded, "checks": 0, "outputs": 0} == {**measured, "checks": 0, "outputs": 0}
    # Publishing checks all but what is only there after publishing.
    names = {check["name"] for check in recorded["checks"]}
    assert names == {check["name"] for check in measured["checks"]}
    zeros = [(row["zeros"], row["ir_zeros"]) for row in recorded["matrices"]]
    assert len(zeros) == 16
    assert all(0 <= onnx <= ir for onnx, ir in zeros)


# --- tampering ---------------------------------------------------------------------------------------------


def truncate(tree: Path) -> None:
    with onnx_of(tree).open("r+b") as handle:
        handle.truncate(onnx_of(tree).stat().st_size // 2)


def flip(path: Path, place: int, bit: int = 6) -> None:
    with path.open("r+b") as handle:
        handle.seek(place)
        (byte,) = handle.read(1)
        handle.seek(place)
        handle.write(bytes([byte ^ (1 << bit)]))


def flip_weight(tree: Path) -> None:
    """Flip one bit of one weight in the ONNX file: the highest of an exponent."""
    model = onnx.load(str(onnx_of(tree)))
    tensor = weight(model, QUERY)[1]
    values = bytearray(tensor.raw_data)
    values[4 * 1000 + 3] ^= 0x40
    tensor.raw_data = bytes(values)
    onnx.save(model, str(onnx_of(tree)))


def flip_ir_weight(tree: Path) -> None:
    """Flip one bit in the middle of the largest int8 constant."""
    flip(ir_of(tree, ".bin"), ir_of(tree, ".bin").stat().st_size // 2)


def remove_mapping(tree: Path) -> None:
    ir_of(tree, ".mapping").unlink()


def swap_onnx(tree: Path) -> None:
    shutil.copyfile(str(onnx_of(tree.parent.parent / "others" / OTHER)), str(onnx_of(tree)))


def swap_xml(tree: Path) -> None:
    shutil.copyfile(str(ir_of(tree.parent.parent / "others" / OTHER, ".xml")), str(ir_of(tree, ".xml")))


def quantizers(model) -> Iterator[Tuple[object, object, str]]:
    """Yield each FakeQuantize, the constant that it quantizes (None for activations) and its parameter."""
    graph = Graph(model.graph)
    for node in model.graph.node:
        if node.op_type == "FakeQuantize":
            source = graph.producer.get(node.input[0])
            is_weight = source is not None and source.op_type == "Constant"
            yield node, source if is_weight else None, graph.layer_name(node) if is_weight else ""


def weight(model, parameter: str):
    """Return the quantizer of a parameter's weights and the tensor that holds them."""
    ((node, constant),) = [
        (node, constant) for node, constant, name in quantizers(model) if name == parameter
    ]
    return node, constant.attribute[0].t


def unmask(tree: Path) -> None:
    """Put weights where a mask has made zeros."""
    model = onnx.load(str(onnx_of(tree)))
    tensor = weight(model, FEED_FORWARD)[1]
    values = numpy.frombuffer(tensor.raw_data, "float32").copy()
    values[values == 0] = 1e-3
    tensor.raw_data = values.tobytes()
    onnx.save(model, str(onnx_of(tree)))


def unquantize(tree: Path) -> None:
    """Take the quantizer away from one matrix."""
    model = onnx.load(str(onnx_of(tree)))
    quantizer = weight(model, FEED_FORWARD)[0]
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == quantizer.output[0]:
                node.input[place] = quantizer.input[0]
    model.graph.node.remove(quantizer)
    onnx.save(model, str(onnx_of(tree)))


def no_onnx(tree: Path) -> None:
    onnx_of(tree).write_text("This is no ONNX file.\n" * 1000)


def bomb(tree: Path) -> None:
    """Empty nodes, which take eighty times more memory than on disk."""
    nodes = b"\x0a\x00" * 300_000  # field 1 of GraphProto, of no bytes
    length, varint = len(nodes), b""
    while length:
        varint += bytes([length & 0x7F | (0x80 if length > 0x7F else 0)])
        length >>= 7
    onnx_of(tree).write_bytes(b"\x3a" + varint + nodes)  # field 7 of ModelProto


def activation(model):
    """Return the last quantizer of activations."""
    return [node for node, constant, _ in quantizers(model) if constant is None][-1]


def narrow(tree: Path) -> None:
    """Give one quantizer of activations four bits."""
    model = onnx.load(str(onnx_of(tree)))
    (levels,) = [attribute for attribute in activation(model).attribute if attribute.name == "levels"]
    levels.i = 16
    onnx.save(model, str(onnx_of(tree)))


def shift_range(tree: Path) -> None:
    """Halve the upper end of the range of one quantizer of activations."""
    model = onnx.load(str(onnx_of(tree)))
    node = activation(model)
    for constant in model.graph.node:
        if constant.op_type == "Constant" and constant.output[0] == node.input[2]:
            tensor = constant.attribute[0].t
            half = numpy_helper.to_array(tensor) / numpy.float32(2)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
            break
    else:
        raise AssertionError(node.input[2])
    onnx.save(model, str(onnx_of(tree)))


def change_bias(tree: Path) -> None:
    """Add a little to one bias that no output shows."""
    model = onnx.load(str(onnx_of(tree)))
    (tensor,) = [one for one in model.graph.initializer if one.name.endswith("0.attention.self.key.bias")]
    values = numpy_helper.to_array(tensor).copy()
    values[3] += 1e-4
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, str(onnx_of(tree)))


def change_scale(tree: Path) -> None:
    """Change the number by which one layer's attention scores are divided, which no other check looks at."""
    model = onnx.load(str(onnx_of(tree)))
    constants = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    divisor = next(
        constants[node.input[1]]
        for node in model.graph.node
        if node.op_type == "Div" and node.input[1] in constants
    )
    half = numpy_helper.to_array(divisor.attribute[0].t) / numpy.float32(4)
    assert half.size == 1
    divisor.attribute[0].t.CopyFrom(numpy_helper.from_array(half))
    onnx.save(model, str(onnx_of(tree)))


def keep_elsewhere(tree: Path) -> None:
    """Let one bias be what stands somewhere in the file."""
    model = onnx.load(str(onnx_of(tree)), load_external_data=False)
    (tensor,) = [one for one in model.graph.initializer if one.name.endswith("0.attention.self.key.bias")]
    length = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    for key, value in (("location", onnx_of(tree).name), ("offset", 100_000), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    onnx_of(tree).write_bytes(model.SerializeToString())


def lengthen_bin(tree: Path) -> None:
    with ir_of(tree, ".bin").open("ab") as handle:
        handle.write(b"\0" * 4096)


def break_report(tree: Path) -> None:
    """A byte that no CSV may hold."""
    flip(next(tree.glob("*.csv")), 0)
    path = next(tree.glob("*.csv"))
    path.write_bytes(path.read_bytes()[:700] + b"\0" + path.read_bytes()[701:])


TAMPERINGS = {
    # what is done, the files whose checksum tells, and the content's checks with words of what they say
    truncate: ("-8bit.onnx", {"ONNX: readable": "damaged"}),
    flip_weight: ("-8bit.onnx", {"IR: made of this ONNX file": QUERY}),
    flip_ir_weight: (".bin", {"IR: made of this ONNX file": "values differ"}),
    remove_mapping: (".mapping", {"files: complete": ".mapping is missing", "IR: mapping": "no .mapping"}),
    swap_onnx: (
        "-8bit.onnx",
        {"ONNX: matrix shapes": f"these are the shapes of {OTHER}", "IR: made of this ONNX file": QUERY},
    ),
    swap_xml: (".xml", {"IR: readable": ".bin of"}),
    unmask: (
        "-8bit.onnx",
        {
            "ONNX: block sparsity": "0.9000 ±",
            "ONNX: sparsity by matrix": FEED_FORWARD,
            "IR: made of this ONNX file": FEED_FORWARD,
            "sparsity report": FEED_FORWARD,
        },
    ),
    unquantize: (
        "-8bit.onnx",
        {
            "ONNX: quantizers": f"{FEED_FORWARD} is not quantized",
            "ONNX: matrix shapes": f"{FEED_FORWARD} is missing or not quantized",
        },
    ),
    no_onnx: ("-8bit.onnx", {"ONNX: readable": "no ONNX file"}),
    bomb: ("-8bit.onnx", {"ONNX: readable": "not complete"}),
    change_bias: ("-8bit.onnx", {"IR: biases and norms": "0.attention.self.key.bias"}),
    lengthen_bin: (".bin", {"IR: readable": "its last constant ends at byte"}),
    break_report: (".csv", {"sparsity report": "cannot be read"}),
    narrow: ("-8bit.onnx", {"ONNX: bit widths": "has 4 bits", "IR: activation ranges": "256 levels, 16"}),
    shift_range: ("-8bit.onnx", {"IR: activation ranges": "has the range"}),
    keep_elsewhere: ("-8bit.onnx", {"ONNX: readable": "in other files"}),
    change_scale: ("-8bit.onnx", {"outputs: agreement": "without rounding"}),
}


@pytest.fixture
def tampered(request, tree: Path, originals: Path, tmp_path: Path) -> Path:
    (tmp_path.parent / "others").exists() or (tmp_path.parent / "others").symlink_to(originals)
    request.param(tree)
    return tree


@pytest.mark.parametrize("tampered", TAMPERINGS, indirect=True, ids=lambda what: what.__name__)
def test_what_was_tampered_with_does_not_pass(request, tampered: Path) -> None:
    suffix, contents = TAMPERINGS[request.node.callspec.params["tampered"]]
    accident = failed(verify(tampered))
    assert suffix in accident["files: checksums"]
    sign(tampered)
    intent = failed(verify(tampered))
    assert "files: checksums" not in intent
    for name, words in contents.items():
        assert words in accident[name]
        assert words in intent[name], intent


def test_a_damaged_tree_ends_with_1_and_the_fault_in_the_terminal(tree: Path) -> None:
    flip_ir_weight(tree)
    done = call(["verify", f"--out={tree.parent}"])
    assert done.returncode == 1
    assert "NOT AS IT MUST BE" in done.stdout
    assert "FAIL  files: checksums" in done.stdout
    assert f"ir/{HYBRID}-8bit.bin has not the bytes" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_trees_under_each_others_names_do_not_pass(originals: Path, tmp_path: Path) -> None:
    shutil.copytree(str(originals / OTHER), str(tmp_path / HYBRID))
    for path in (tmp_path / HYBRID).rglob(f"{OTHER}*"):
        path.rename(path.with_name(path.name.replace(OTHER, HYBRID)))
    found = failed(verify(tmp_path / HYBRID))
    assert OTHER in found["provenance"] + found["ONNX: matrix shapes"]


def test_an_onnx_that_crashes_the_runtime_is_a_fault_and_no_crash(tree: Path) -> None:
    """A graph without the nodes that its outputs come from."""
    model = onnx.load(str(onnx_of(tree)))
    del model.graph.node[-40:]
    onnx.save(model, str(onnx_of(tree)))
    sign(tree)
    found = failed(verify(tree))
    assert "ONNX: layers and nodes" in found
    assert "IR: readable" in found


@pytest.mark.parametrize(
    "text",
    [
        '<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><net>&b;</net>',
        "<net",
        "",
        '<net version="11"><layers/></net>',
        '<net version="x"><layers><layer name="a" type="Const"/></layers></net>',
        '<net version="11"><layers><layer name="a" type="Const"><data offset="0" size="99999999999"/></layer>'
        "</layers></net>",
        '<net version="11"><layers><layer name="a" type="Parameter"><output><port id="0"><dim>99999999</dim>'
        "<dim>99999999</dim></port></output></layer></layers></net>",
    ],
)
def test_an_xml_that_is_no_ir_is_a_fault(tree: Path, text: str) -> None:
    ir_of(tree, ".xml").write_text(text)
    sign(tree)
    assert "no IR, or it is damaged" in failed(verify(tree))["IR: readable"]


def test_sums_that_the_provenance_does_not_give_are_a_fault(tree: Path) -> None:
    """A file and the list of checksums changed, in a place that no measurement looks at."""
    with (tree / "ir" / "mo.log").open("a") as log:
        log.write("one more line\n")
    (tree / sums.NAME).unlink()
    sums.write_sums(tree, {})
    text = "ir/mo.log has one sum in SHA256SUMS and another in provenance.json"
    assert failed(verify(tree)) == {"provenance": text}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.update(model_optimizer="2021.4"), "Model Optimizer 2021.4 does not make IR"),
        (lambda content: content["verification"]["checks"][3].update(passed=False), "was not passed"),
        (lambda content: content["verification"]["outputs"]["as_run"].update(tolerance=9), "tolerance"),
    ],
)
def test_claims_that_the_files_contradict_are_a_fault(tree: Path, change, words: str) -> None:
    sign(tree, change)
    found = failed(verify(tree))
    assert list(found) == ["provenance: as measured"]
    assert words in found["provenance: as measured"]


def test_a_provenance_with_one_fault_hides_no_other_check(tree: Path) -> None:
    """What the model is, is known all the same: nothing else fails."""
    sign(tree, lambda content: content.update(finished="yesterday"))
    found = failed(verify(tree))
    assert list(found) == ["provenance"]
    assert "$.finished" in found["provenance"]


def test_a_text_file_is_read_up_to_a_size(tree: Path) -> None:
    with (tree / "ir" / "mo.log").open("r+b") as log:
        log.truncate(leaks.MAX_BYTES + 1)
    assert "ir/mo.log has more than" in failed(verify(tree))["files: no machine paths"]


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_is_no_regular_file_is_not_opened(tree: Path, kind: str) -> None:
    path = next(tree.glob("*.csv"))
    path.unlink()
    if kind == "pipe":
        os.mkfifo(str(path))
    else:
        path.symlink_to("/dev/zero")
    found = failed(verify(tree))
    assert f"{path.name} is no regular file" in found["files: complete"]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".mapping", ".xml"])
def test_any_byte_in_a_text_file_is_a_fault_and_no_crash(tree: Path, suffix: str) -> None:
    """Checksums written anew: what is in the files is looked at, whatever it is."""
    path = next(tree.rglob(f"*{suffix}"))
    content = path.read_bytes()
    for place, byte in ((0, 0), (len(content) // 2, 0xFF), (len(content) - 2, 0x80)):
        path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
        (tree / sums.NAME).unlink()
        sums.write_sums(tree, {})
        assert not verify(tree).passed, (path, place)


def test_a_hybrid_under_the_unstructured_name_does_not_pass(originals: Path, tmp_path: Path) -> None:
    tree = tmp_path / UNSTRUCTURED
    shutil.copytree(str(originals / HYBRID), str(tree))
    for path in tree.rglob(f"{HYBRID}*"):
        path.rename(path.with_name(path.name.replace(HYBRID, UNSTRUCTURED)))
    provenance = tree / trees.PROVENANCE
    provenance.write_text(provenance.read_text().replace(HYBRID, UNSTRUCTURED))
    sign(tree)
    assert "all heads and rows" in failed(verify(tree))["model"]


def test_a_model_of_another_sparsity_is_none_of_the_kits(tree: Path) -> None:
    sign(tree, lambda content: content["model"].update(overall_sparsity=0.5))
    assert "90% sparse, not 50%" in failed(verify(tree))["model"]


def test_what_does_not_belong_to_a_tree_is_a_fault(tree: Path) -> None:
    (tree / "notes.txt").write_text("mine\n")
    found = failed(verify(tree))
    assert "notes.txt" in found["files: complete"]
    assert "notes.txt" in found["files: checksums"]


def test_a_provenance_that_says_something_else_is_a_fault(tree: Path) -> None:
    def count_more(content: Dict[str, Any], zeros: str) -> None:
        content["verification"]["matrices"][3][zeros] += 1
        content["verification"]["onnx"]["nodes"] -= 1

    sign(tree, lambda content: count_more(content, "ir_zeros"))
    found = failed(verify(tree))
    assert "matrices" in found["provenance: as measured"]
    assert "onnx" in found["provenance: as measured"]
    sign(tree, lambda content: count_more(content, "zeros"))
    assert "the matrices add up to" in failed(verify(tree))["provenance"]


def test_a_path_of_a_machine_is_a_fault(tree: Path) -> None:
    with (tree / "ir" / "mo.log").open("a") as log:
        log.write("read /home/somebody/kit/model.onnx\n")
    sign(tree)
    assert "/home/somebody/kit/model.onnx" in failed(verify(tree))["files: no machine paths"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("--model=/home/a/b", ["/home/a/b"]),
        ('"/usr/lib/x.so"', ["/usr/lib/x.so"]),
        ("PYTHONPATH=${workspaceFolder}/build/src:${workspaceFolder}", []),
        ("https://docs.openvino.ai/latest/a", []),
        ("</layer></layers>", []),
        ("a/b/c and 3/4", []),
        ("<tree>/ir <kit>/build/work <venv>/bin/python", []),
        ("<p>/home/a/b</p> [/home/a/c] |/home/a/d|", ["/home/a/b", "/home/a/c", "/home/a/d"]),
        ("file:///home/a/b", ["/home/a/b"]),
        ("/root/x/y\n/tmp/z/w", ["/root/x/y", "/tmp/z/w"]),
    ],
)
def test_paths_of_a_machine_are_told_from_others(text: str, found: List[str]) -> None:
    assert find_paths(text) == found


# --- what is measured beside -------------------------------------------------------------------------------


def test_a_process_beside_gives_its_result_or_says_why_not() -> None:
    def refuse() -> Iterator[int]:
        yield 1
        raise KitError("No.", where="here", hint="Go.")

    with measuring.run_beside(max, 3, 4) as result:
        assert result() == 4
    with measuring.run_beside(refuse) as result:
        assert result() == 1
        with pytest.raises(KitError, match="No") as refused:
            result()
    assert (refused.value.where, refused.value.hint) == ("here", "Go.")
    with measuring.run_beside(os._exit, 3) as result, pytest.raises(KitError, match="ended with status 3"):
        result()


def test_a_process_beside_ends_with_what_it_is_for(tmp_path: Path) -> None:
    def wait() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(600)

    with measuring.run_beside(wait):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


# --- any byte ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corruptible(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    copy = tmp_path_factory.mktemp("corruptible") / HYBRID
    shutil.copytree(str(originals / HYBRID), str(copy))
    yield copy
    shutil.rmtree(str(copy), ignore_errors=True)


def tree_files(tree: Path) -> List[Path]:
    return sorted(path for path in tree.rglob("*") if path.is_file())


def file_checks(tree: Path) -> List[Check]:
    """The part of `make verify` that looks at bytes; what it fails, `make verify` fails."""
    return verification.check_files(tree, variants.VARIANTS[tree.name], lambda step: None)[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_tree_passes_with_a_single_byte_changed(corruptible: Path, data) -> None:
    files = tree_files(corruptible)
    path = data.draw(st.sampled_from(files))
    place = data.draw(st.integers(0, path.stat().st_size - 1))
    change = data.draw(st.integers(1, 255))
    with path.open("r+b") as handle:
        handle.seek(place)
        (byte,) = handle.read(1)
        handle.seek(place)
        handle.write(bytes([byte ^ change]))
        handle.flush()
        try:
            assert not all(check.passed for check in file_checks(corruptible)), (path, place)
        finally:
            handle.seek(place)
            handle.write(bytes([byte]))
    assert all(check.passed for check in file_checks(corruptible))


@pytest.mark.parametrize("number", range(2))
def test_make_verify_does_not_pass_with_a_byte_changed(tree: Path, number: int) -> None:
    path = tree_files(tree)[2 * number]
    flip(path, path.stat().st_size // 3, bit=0)
    done = call(["verify", f"--out={tree.parent}"])
    assert done.returncode == 1, (path, done.stdout)
    assert path.name in done.stdout


# --- degenerate models -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spec(originals: Path) -> Spec:
    return Spec.from_model(HYBRID, read_provenance(originals / HYBRID)["model"])


def facts(spec: Spec) -> Dict[str, Any]:
    rows = [
        {"parameter": name, "shape": list(shape), "zeros": 0, "dense": math.prod(shape)}
        for name, shape in spec.matrices().items()
    ]
    return {"matrices": rows, "saturated": {}, "collapsed": [], "constant": []}


def test_weights_that_are_zero_in_the_ir_only_are_a_sign(spec: Spec) -> None:
    sizes = {name: math.prod(shape) for name, shape in spec.matrices().items()}
    found = find_degeneracy(spec, {**facts(spec), "ir_zeros": {FEED_FORWARD: sizes[FEED_FORWARD]}})
    assert [(one.kind, one.known) for one in found] == [("all-zero matrices", False), ("dead layers", False)]


@pytest.mark.parametrize(("factor", "words"), [(0.01, "beyond their range"), (1000, "vanish in its range")])
def test_a_weight_range_that_does_not_fit_is_a_sign(tree: Path, factor: float, words: str) -> None:
    """In ONNX file and IR alike, so that the two agree."""
    model = onnx.load(str(onnx_of(tree)))
    quantizer = weight(model, QUERY)[0]
    for name in quantizer.input[1:]:
        (constant,) = [node for node in model.graph.node if name in node.output]
        ends = numpy_helper.to_array(constant.attribute[0].t) * numpy.float32(factor)
        constant.attribute[0].t.CopyFrom(numpy_helper.from_array(ends))
    onnx.save(model, str(onnx_of(tree)))
    convert.convert_to_ir(Path(sys.executable), onnx_of(tree), dict(os.environ), lambda step: None)
    sign(tree)
    result = verify(tree)
    assert "IR: made of this ONNX file" not in failed(result)
    assert [(one.kind, one.known) for one in result.findings if words in one.text] == [
        ("saturated ranges", False)
    ]
    assert not result.passed


def test_a_model_without_signs_has_no_findings(spec: Spec) -> None:
    assert find_degeneracy(spec, facts(spec)) == []


def test_an_all_zero_matrix_that_no_threshold_explains_is_unknown(spec: Spec) -> None:
    content = facts(spec)
    for row in content["matrices"]:
        if row["parameter"] in (QUERY, FEED_FORWARD):
            row["zeros"] = math.prod(row["shape"])
    found = {finding.kind: finding for finding in find_degeneracy(spec, content)}
    assert not found["all-zero matrices"].known
    assert QUERY in found["all-zero matrices"].text
    assert FEED_FORWARD in found["all-zero matrices"].text
    assert "1 of 2 layers (1)" in found["dead layers"].text
    assert not found["dead layers"].known


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("constant", ["output 654 is 0 at every token"], "constant outputs"),
        ("saturated", {"300": 0.4}, "saturated ranges"),
        ("collapsed", ["quantizer 300 has the range 1 to 1"], "saturated ranges"),
    ],
)
def test_outputs_and_ranges_that_say_nothing_are_unknown(spec: Spec, key, value, kind) -> None:
    (found,) = find_degeneracy(spec, {**facts(spec), key: value})
    assert (found.kind, found.known) == (kind, False)


def test_only_the_recipes_own_findings_are_known(originals: Path) -> None:
    result = verify(originals / UNSTRUCTURED)
    assert [finding.kind for finding in result.findings] == ["all-zero matrices", "dead layers"]
    assert all(finding.known and finding.reason for finding in result.findings)
    assert result.passed


# --- publishing --------------------------------------------------------------------------------------------


def test_a_tree_that_is_not_what_it_must_be_is_not_published(
    built: Kit, kit: Kit, hashes: Callable[[Path], Dict[str, str]]
) -> None:
    """An ONNX file that has lost a quantizer, its key and its sums as they must be: its IR is made again."""
    tree = kit.tree(HYBRID)
    shutil.copytree(str(built.tree(HYBRID)), str(tree))
    unquantize(tree)
    sign(tree, lambda content: content["ir_key"].update(program="an earlier converter"))
    before = hashes(tree)
    done = kit.run("variant", HYBRID)
    assert done.stderr.count("unchanged, taken from the published tree") == 1
    assert_user_error(done, "ONNX: quantizers", f"{FEED_FORWARD} is not quantized", "(not published)")
    assert hashes(tree) == before, "the earlier tree stays"


def test_the_terminal_warns_of_known_findings(built: Kit) -> None:
    assert built.first is not None
    assert "warning: all-zero matrices: 4 of 4 feed-forward matrices are all zero" in built.first.stderr


def test_sha256sum_agrees(originals: Path) -> None:
    done = run(
        ["sha256sum", "--check", "--strict", sums.NAME],
        cwd=originals / HYBRID,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
