"""ONNX to IR by each Model Optimizer, and the environment of the one that has one to itself."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import List
from xml.etree import ElementTree

import numpy
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from launch.artifact import trees
from launch.build import convert
from launch.core import files, paths
from launch.core.errors import KitError
from launch.setup import installer, requirements
from launch.setup.environment import Venv
from launch.setup.steps import Steps

from ..conftest import HYBRID, Kit

STEM = "small-8bit"
OLD = convert.find_optimizer("2021.4")


# --- which there are -------------------------------------------------------------------------------------


def test_the_default_is_the_kits_own() -> None:
    assert convert.DEFAULT is convert.find_optimizer("2022.1")
    kits = Path("/some/bin/python")
    assert convert.DEFAULT.separate is None
    assert convert.DEFAULT.python(kits) == kits
    assert OLD.python(kits) == paths.ENVIRONMENTS / "mo-2021.4" / "bin" / "python"


@pytest.mark.parametrize("text", ["2020.1", "2021", "latest", " "])
def test_an_unknown_one_is_a_user_error_that_names_those_there_are(text: str) -> None:
    with pytest.raises(KitError, match=repr(text)) as error:
        convert.find_optimizer(text)
    assert error.value.where == f"MO={text}"
    assert "2022.1" in error.value.hint
    assert "2021.4" in error.value.hint


# --- what an IR depends on -------------------------------------------------------------------------------


def test_the_key_of_the_default_is_what_trees_have_in_their_provenance() -> None:
    assert convert.make_ir_key("0") == {
        "command": ["-m", "openvino.tools.mo.main", "--input_model", "model.onnx", "--output_dir", "ir"],
        "lock": requirements.digest_lock("runtime.lock"),
        "program": files.digest_file(Path(convert.__file__)),
        "onnx": "0",
    }


@pytest.mark.parametrize(
    ("name", "lock", "other"),
    [("2022.1", "runtime.lock", "mo2021.lock"), ("2021.4", "mo2021.lock", "runtime.lock")],
)
def test_an_ir_depends_on_its_optimizers_lock_and_on_no_other(
    name: str, lock: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer = convert.find_optimizer(name)
    for file in (lock, other):
        shutil.copyfile(str(paths.ENVIRONMENT_DATA / file), str(tmp_path / file))
    monkeypatch.setattr(paths, "ENVIRONMENT_DATA", tmp_path)
    before = convert.make_ir_key("0", optimizer)
    with (tmp_path / other).open("a") as handle:
        handle.write("more==1 --hash=sha256:aa\n")
    assert convert.make_ir_key("0", optimizer) == before
    with (tmp_path / lock).open("a") as handle:
        handle.write("more==1 --hash=sha256:aa\n")
    assert convert.make_ir_key("0", optimizer) != before


def test_keys_of_two_optimizers_differ() -> None:
    assert convert.make_ir_key("0", OLD) != convert.make_ir_key("0")
    assert convert.make_ir_key("0", OLD)["command"] != convert.make_ir_key("0")["command"]


def test_a_key_names_no_place() -> None:
    for optimizer in convert.OPTIMIZERS.values():
        assert str(paths.REPOSITORY) not in json.dumps(convert.make_ir_key("0", optimizer))


# --- the environment -------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Venv:
    """The environment of 2021.4 in a checkout with a small lock, where it has not been made."""
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    monkeypatch.setattr(files, "LOCK", tmp_path / "build" / "build.lock")
    monkeypatch.setattr(paths, "ENVIRONMENTS", tmp_path / "build" / "env")
    monkeypatch.setattr(paths, "ENVIRONMENT_DATA", tmp_path)
    (tmp_path / OLD.lock).write_text("a==1 --hash=sha256:bb\n")
    assert OLD.separate is not None
    return dataclasses.replace(OLD.separate, folder=paths.BUILD / "env" / "own")


def test_it_is_made_once(own: Venv, monkeypatch: pytest.MonkeyPatch) -> None:
    done: List[str] = []

    def run(_: Steps, doing: str, command: List[str], **more: object) -> None:
        done.append(doing.split()[0])
        if doing.startswith("making"):
            own.python.parent.mkdir(parents=True)
            own.python.symlink_to(sys.executable)

    monkeypatch.setattr(Steps, "run", run)
    monkeypatch.setattr(installer, "find_uv", lambda: "/usr/bin/uv")
    assert not own.is_ready()
    assert own.ensure() is True
    assert done == ["making", "installing", "trying"]
    assert own.is_ready()
    monkeypatch.setattr(subprocess, "Popen", None)
    assert own.ensure() is False


# --- its lock --------------------------------------------------------------------------------------------


def exclusions() -> list:
    lines = (paths.ENVIRONMENT_DATA / "mo2021-exclude.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def test_excluded_packages_never_apply_and_are_not_locked() -> None:
    excluded = {canonicalize_name(requirement.name) for requirement in exclusions()}
    assert "opencv-python" in excluded
    assert all(not requirement.marker.evaluate() for requirement in exclusions())
    assert not excluded & {canonicalize_name(name) for name in requirements.read_pins(OLD.lock)}


def test_the_lock_has_the_release_and_no_telemetry() -> None:
    pins = requirements.read_pins(OLD.lock)
    assert pins["openvino-dev"] == pins["openvino"] == "2021.4.2"
    assert "openvino-telemetry" not in pins


def test_packages_in_both_locks_are_of_one_version_but_for_openvino() -> None:
    old, new = requirements.read_pins(OLD.lock), requirements.read_pins(convert.DEFAULT.lock)
    differing = {name for name in set(old) & set(new) if old[name] != new[name]}
    assert differing == {"openvino", "openvino-dev"}


# --- conversions -----------------------------------------------------------------------------------------


# A step of 1/128 between -1 and 127/128, and away from the middle of two steps.
WEIGHTS = (numpy.arange(-128, 128, 8).reshape(8, 4) / 128 + 0.001).astype(numpy.float32)


def write_onnx(folder: Path) -> Path:
    """Write a quantized linear layer as the exporter writes one: 2 × 8 inputs, 8 × 4 weights."""
    from onnx import TensorProto, helper, numpy_helper, save

    nodes = [helper.make_node("Constant", [], ["w"], "w", value=numpy_helper.from_array(WEIGHTS, "w"))]
    for name, source, target in (("x", "input", "xq"), ("w", "w", "wq")):
        bounds = [f"{name}_{bound}" for bound in ("low", "high", "low_out", "high_out")]
        nodes += [
            helper.make_node(
                "Constant", [], [bound], bound, value=numpy_helper.from_array(numpy.float32([[value]]), bound)
            )
            for bound, value in zip(bounds, (-1, 127 / 128, -1, 127 / 128))
        ]
        nodes.append(
            helper.make_node(
                "FakeQuantize", [source, *bounds], [target], domain="org.openvinotoolkit", levels=256
            )
        )
    nodes.append(helper.make_node("MatMul", ["xq", "wq"], ["output"]))
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("input", [2, 8]), ("output", [2, 4]))
    ]
    opsets = [helper.make_opsetid("", 10), helper.make_opsetid("org.openvinotoolkit", 1)]
    model = helper.make_model(
        helper.make_graph(nodes, "layer", shapes[:1], shapes[1:]), opset_imports=opsets, ir_version=6
    )
    folder.mkdir(parents=True)
    save(model, str(folder / f"{STEM}.onnx"))
    return folder / f"{STEM}.onnx"


def eight_bit_weights(xml: Path) -> List[numpy.ndarray]:
    """Return the constants of an IR that are stored in 8 bits, in its order."""
    blob = xml.with_suffix(".bin").read_bytes()
    found = [layer.find("data") for layer in ElementTree.parse(str(xml)).getroot().iter("layer")]
    return [
        numpy.frombuffer(blob, numpy.int8, int(data.get("size")), int(data.get("offset"))).reshape(
            [int(size) for size in data.get("shape").split(",")]
        )
        for data in found
        if data is not None and data.get("element_type") == "i8" and data.get("offset")
    ]


@pytest.fixture(scope="session")
def old() -> convert.Optimizer:
    """2021.4 with its environment."""
    assert OLD.separate is not None
    assert OLD.separate.is_ready(), "run the tests with `make test-long`, or `make setup MO=2021.4` first"
    return OLD


@pytest.fixture(scope="session", params=["2022.1", pytest.param("2021.4", marks=pytest.mark.long)])
def optimizer(request: pytest.FixtureRequest) -> convert.Optimizer:
    return request.getfixturevalue("old") if request.param == "2021.4" else convert.DEFAULT


def run_convert(path: Path, optimizer: convert.Optimizer, **variables: str) -> None:
    base = {**os.environ, **variables}
    convert.convert_to_ir(paths.VENV_PYTHON, path, base, lambda step: None, optimizer=optimizer)


@pytest.fixture(scope="session")
def converted(optimizer: convert.Optimizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a converted file, which is reached by a link."""
    folder = tmp_path_factory.mktemp("convert")
    (folder / "link").symlink_to(folder / "real", target_is_directory=True)
    write_onnx(folder / "real")
    run_convert(folder / "link" / f"{STEM}.onnx", optimizer)
    return folder / "link"


def test_a_conversion_leaves_the_files_it_promises(converted: Path) -> None:
    found = {str(path.relative_to(converted)) for path in (converted / "ir").iterdir()}
    assert found == set(trees.list_ir_files(STEM))
    assert {path.name for path in converted.iterdir()} == {"ir", f"{STEM}.onnx"}


def test_the_ir_is_of_the_optimizers_version_and_holds_8_bit_weights(
    converted: Path, optimizer: convert.Optimizer
) -> None:
    network = ElementTree.parse(str(converted / "ir" / f"{STEM}.xml")).getroot()
    assert network.get("version") == {"2022.1": "11", "2021.4": "10"}[optimizer.name]
    assert network.get("version") == str(trees.IR_VERSIONS[optimizer.name])
    kinds = Counter(layer.get("type") for layer in network.iter("layer"))
    assert kinds["MatMul"] == 1
    assert kinds["FakeQuantize"] == 1, "that of the inputs; the weights are stored quantized"
    (weights,) = eight_bit_weights(converted / "ir" / f"{STEM}.xml")
    stored = WEIGHTS.T if optimizer is OLD else WEIGHTS
    assert numpy.array_equal(weights, numpy.rint(stored * 128))


def test_the_log_says_what_ran_and_neither_where_nor_when(
    converted: Path, optimizer: convert.Optimizer
) -> None:
    log = (converted / "ir" / trees.MO_LOG).read_text()
    assert log.startswith(f"$ <venv>/bin/python -m {optimizer.module} --input_model {STEM}.onnx")
    assert re.search(rf"Model Optimizer version:\s+{re.escape(optimizer.name)}", log)
    assert f"Generated IR version {trees.IR_VERSIONS[optimizer.name]} model." in log
    assert f"<tree>/ir/{STEM}.xml" in log
    # A path of this machine begins a word; what follows a name in angle brackets or a host's does not.
    assert not re.search(r"(?:^|\s)/\w", log, re.M), log
    assert "seconds" not in log
    assert "been a while" not in log


def test_a_second_conversion_gives_the_same_bytes(
    converted: Path, optimizer: convert.Optimizer, tmp_path: Path
) -> None:
    path = write_onnx(tmp_path / "elsewhere")
    run_convert(path, optimizer, HOME=str(tmp_path / "home"), PYTHONHASHSEED="1")
    for name in trees.list_ir_files(STEM):
        assert (path.parent / name).read_bytes() == (converted / name).read_bytes(), name


def processes_in(folder: Path) -> List[Path]:
    """Return the entries in ``/proc`` of the processes that work in a folder.

    A killed process closes its files, and with them the lock, a moment before it leaves its folder.  One
    without an open file is past all work, and is left out.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(str(entry / "cwd")) == str(folder) and any((entry / "fd").iterdir()):
                found.append(entry)
    return found


CONVERT = """
import os, sys
from pathlib import Path
from launch.build import convert
from launch.core import files
with files.hold_lock(Path(sys.argv[1]), "it") as lock:
    python, path = map(Path, sys.argv[2:4])
    optimizer = convert.find_optimizer(sys.argv[4])
    convert.convert_to_ir(python, path, dict(os.environ), lambda step: None, (lock,), optimizer)
"""


def test_nothing_converts_on_once_the_lock_of_a_killed_kit_is_free(
    optimizer: convert.Optimizer, tmp_path: Path
) -> None:
    path, lock = write_onnx(tmp_path / "tree"), tmp_path / "lock"
    words = [str(lock), str(paths.VENV_PYTHON), str(path), optimizer.name]
    kit = subprocess.Popen([sys.executable, "-c", CONVERT, *words], cwd=str(paths.REPOSITORY))

    def converts() -> bool:
        for entry in processes_in(path.parent):
            with contextlib.suppress(OSError):
                # Which process reads the ONNX file is seen by what it has loaded for that.  Another one, by
                # which 2022.1 sees whether the runtime can be imported, writes nothing, and may end later.
                if "onnx" in (entry / "maps").read_text():
                    return True
        return False

    deadline = time.monotonic() + 120
    while not converts():
        assert kit.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kit.kill()
    kit.wait()
    with files.hold_lock(lock, "it"):
        assert not converts()
    assert not (path.parent / "ir" / f"{STEM}.xml").exists(), "it was killed too late to show anything"


def test_what_the_optimizer_refuses_is_a_user_error(optimizer: convert.Optimizer, tmp_path: Path) -> None:
    path = tmp_path / f"{STEM}.onnx"
    path.write_text("not an ONNX file")
    with pytest.raises(KitError, match=f"IR by Model Optimizer {optimizer.name}") as error:
        run_convert(path, optimizer)
    assert trees.MO_LOG in error.value.where


@pytest.mark.long
def test_an_ir_without_the_last_step_is_not_taken(old: convert.Optimizer, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "tree")
    # A package of that name in the working directory hides the one with the runtime.
    (path.parent / "openvino").mkdir()
    (path.parent / "openvino" / "__init__.py").touch()
    with pytest.raises(KitError, match="left out its last step"):
        run_convert(path, old)


@pytest.mark.long
def test_a_two_layer_model_by_both(old: convert.Optimizer, built: Kit, tmp_path: Path) -> None:
    tree = built.tree(HYBRID)
    path = tmp_path / f"{HYBRID}-8bit.onnx"
    shutil.copyfile(str(tree / path.name), str(path))
    run_convert(path, old)
    new, earlier = (folder / "ir" / f"{HYBRID}-8bit.xml" for folder in (tree, tmp_path))
    networks = [ElementTree.parse(str(xml)).getroot() for xml in (new, earlier)]
    assert [network.get("version") for network in networks] == ["11", "10"]
    kinds = [Counter(layer.get("type") for layer in network.iter("layer")) for network in networks]
    assert kinds[0]["MatMul"] == kinds[1]["MatMul"] == 17
    # Both store the same weights, one of them transposed.
    weights = [eight_bit_weights(xml) for xml in (new, earlier)]
    shapes = [sorted(sorted(values.shape) for values in found) for found in weights]
    assert shapes[0] == shapes[1]
    zeros = [sorted(int((values == 0).sum()) for values in found) for found in weights]
    assert zeros[0] == zeros[1]


@pytest.mark.long
def test_nothing_of_the_optimizers_telemetry_can_be_imported(old: convert.Optimizer) -> None:
    done = subprocess.run(
        [str(old.python(paths.VENV_PYTHON)), "-c", "import openvino_telemetry"],
        capture_output=True,
        check=False,
    )
    assert b"ModuleNotFoundError" in done.stderr
