"""The whole way on a two-layer BERT: the real NNCF, the real exporter, the real Model Optimizer."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy
import pytest

from launch.artifact import trees
from launch.core import paths
from launch.model import bert_config, sparsity, variants
from launch.sources.source import Registry

from ..conftest import (
    HIDDEN,
    HYBRID,
    INTERMEDIATE,
    TINY,
    UNSTRUCTURED,
    Kit,
    assert_user_error,
    processor_seconds,
    run,
    write_model,
)
from ..loaded import Loaded
from ..model.test_bert_config import NEUTRAL, TAKEN

BOTH = (HYBRID, UNSTRUCTURED)

DATED = {"provenance.json", "SHA256SUMS"}
"""Files of a tree that hold times, or the sum of one that does."""

# Measured once with upstream's own scripts at the pinned commits on the same two-layer model.
NODES, QUANTIZERS = 388, 45
LAYERS = [
    f"bert.encoder.layer.{layer}.{name}.weight"
    for layer in range(2)
    for name in (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    )
]


def load(tree: Path):
    import onnx

    return onnx.load(str(tree / f"{tree.name}-8bit.onnx"))


def stable(hashed: dict) -> dict:
    """What two runs must share: all but the log and the times in the provenance, and their sums."""
    return {name: value for name, value in hashed.items() if name not in (*DATED, "ir/mo.log")}


@pytest.mark.parametrize("name", BOTH)
def test_a_tree_holds_what_it_promises(built: Kit, name: str) -> None:
    tree = built.tree(name)
    found = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    stem = f"{name}-8bit"
    assert found == {
        f"{stem}.onnx",
        f"{stem}-onnx_sparsity.csv",
        f"{stem}-onnx_sparsity.md",
        f"ir/{stem}.bin",
        f"ir/{stem}.mapping",
        f"ir/{stem}.xml",
        "ir/mo.log",
        "provenance.json",
        "SHA256SUMS",
    }
    assert not list(built.out.glob(".*"))
    assert not (built.folder / "work" / name).exists()


@pytest.mark.parametrize("name", BOTH)
def test_the_graph_is_upstreams(built: Kit, name: str) -> None:
    model = load(built.tree(name))
    kinds = Counter(node.op_type for node in model.graph.node)
    assert len(model.graph.node) == NODES
    assert kinds["FakeQuantize"] == QUANTIZERS
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 10
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input
    }
    assert shapes == {"input_ids": [1, 384], "attention_mask.1": [1, 384], "input.1": [1, 384]}
    assert len(model.graph.output) == 2
    domains = {node.domain for node in model.graph.node if node.op_type == "FakeQuantize"}
    assert domains == {"org.openvinotoolkit"}


@pytest.mark.parametrize("name", BOTH)
def test_the_report_names_every_layer_and_adds_up(built: Kit, name: str) -> None:
    tree = built.tree(name)
    csv_path, markdown_path = sparsity.list_report_paths(tree / f"{name}-8bit.onnx")
    report = sparsity.read_report(csv_path)
    assert [row.layer for row in report if row.layer.startswith(variants.BLOCK_PREFIX)] == LAYERS
    assert [row.layer for row in report][:3] == [
        f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "token_type", "position")
    ]
    assert report[-1].layer == "qa_outputs.weight"
    assert all(row.layer_id.startswith("Constant_") for row in report)
    heads, intermediate = (2, 512) if name == HYBRID else (16, INTERMEDIATE)
    for row in report:
        if "attention.self" in row.layer:
            assert row.shape == (HIDDEN // 16 * heads, HIDDEN)
        if "intermediate" in row.layer:
            assert row.shape == (intermediate, HIDDEN)
    assert list(csv_path.read_text().splitlines()[0].split(",")) == ["", *sparsity.COLUMNS]
    assert LAYERS[0] in markdown_path.read_text()
    dense = 12 * 2 * HIDDEN * HIDDEN
    found = 1 - sum(row.nnz for row in report if row.layer.startswith(variants.BLOCK_PREFIX)) / dense
    assert found == pytest.approx(0.9, abs=1e-5)
    assert found == trees.read_provenance(tree)["verification"]["block_sparsity"]


def test_the_source_is_said_first_and_recorded(built: Kit) -> None:
    assert built.first is not None
    source = Registry()
    assert built.first.stderr.splitlines()[0] == f"source  {source.describe()}"
    for name in BOTH:
        provenance = trees.read_provenance(built.tree(name))
        assert provenance["source"]["name"] == source.name
        assert provenance["source"]["digest"] == source.key()
        assert provenance["model_optimizer"] == "2022.1"


@pytest.mark.parametrize("name", BOTH)
def test_zeros_are_in_the_weights_and_the_rest_is_as_drawn(
    built: Kit, loaded: Loaded, tmp_path: Path, name: str
) -> None:
    """The stream of random numbers is upstream's: redraw it here and compare bit by bit."""
    code = """
import sys, torch, numpy
from transformers import BertConfig, BertForQuestionAnswering, set_seed
from transformers.modeling_utils import no_init_weights
config = BertConfig.from_pretrained(sys.argv[1])
set_seed(42)
if sys.argv[2] == "hybrid":
    BertForQuestionAnswering(config)
with no_init_weights():
    model = BertForQuestionAnswering(config)
numpy.savez(sys.argv[3], **{k: v.numpy() for k, v in model.state_dict().items()})
"""
    config = built.model
    if name == HYBRID:
        dense = bert_config.read_config(built.model, "MODEL")
        config = tmp_path
        text = bert_config.format_config(bert_config.make_hybrid(dense, variants.find_variant(name), ""))
        (config / "config.json").write_text(text)
    drawn_path = tmp_path / "drawn.npz"
    words = ["-c", code, str(config), "hybrid" if name == HYBRID else "", str(drawn_path)]
    done = loaded.run("transformers.models.bert.modeling_bert", words, tmp_path)
    assert done.returncode == 0, done.stderr
    drawn = numpy.load(str(drawn_path))
    from onnx import numpy_helper

    model = load(built.tree(name))
    graph = {output: node for node in model.graph.node for output in node.output}
    rows = {row.layer_id: row for row in sparsity.measure_rows(built.tree(name) / f"{name}-8bit.onnx")}
    checked = 0
    for node in graph.values():
        if node.name not in rows:
            continue
        exported = numpy_helper.to_array(node.attribute[0].t)
        expected = drawn[rows[node.name].layer]
        kept = exported != 0
        assert numpy.array_equal(exported[kept], expected[kept])
        if rows[node.name].layer in LAYERS:
            norms = numpy.abs(expected)
            if kept.any() and not kept.all():
                assert norms[kept].min() >= norms[~kept].max()  # one threshold within a matrix
        else:
            assert numpy.array_equal(exported, expected)
        checked += 1
    assert checked == len(LAYERS) + 4


@pytest.mark.parametrize("name", BOTH)
def test_the_ir_is_int8_and_runs_as_the_onnx_does(built: Kit, name: str) -> None:
    from openvino.runtime import Core

    tree = built.tree(name)
    xml = (tree / "ir" / f"{name}-8bit.xml").read_text()
    assert re.search(r'<net name="[^"]*" version="11">', xml)
    # Equal constants are stored once: the unstructured variant's all-zero matrices share theirs.
    distinct = len(LAYERS) + 4 if name == HYBRID else 8
    assert xml.count('element_type="i8"') >= distinct
    assert str(paths.REPOSITORY) not in xml
    core = Core()
    feeds = [numpy.arange(384, dtype=numpy.int64)[None] % 100, numpy.ones((1, 384), numpy.int64)]
    feeds.append(numpy.zeros((1, 384), numpy.int64))
    results = []
    for path in (tree / "ir" / f"{name}-8bit.xml", tree / f"{name}-8bit.onnx"):
        request = core.compile_model(core.read_model(str(path)), "CPU").create_infer_request()
        results.append(list(request.infer(dict(enumerate(feeds))).values()))
    for from_ir, from_onnx in zip(*results):
        assert from_ir.shape == (1, 384)
        assert numpy.isfinite(from_ir).all()
        # Both are quantized alike; a value on the edge of a step may round either way in each layer.
        assert numpy.abs(from_ir - from_onnx).max() < 0.1
        assert numpy.corrcoef(from_ir[0], from_onnx[0])[0, 1] > 0.99


def test_no_file_of_a_tree_names_this_machine(built: Kit) -> None:
    for path in built.out.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for place in (str(paths.REPOSITORY), str(built.folder), str(Path.home())):
                assert place.encode() not in content or len(place) < 2, (path, place)


def test_all_says_where_it_is_and_ends_with_a_table(built: Kit) -> None:
    said, lines = built.first.stderr, built.first.stdout.splitlines()
    names = list(variants.VARIANTS)
    for number, name in enumerate(names, 1):
        assert f"[{number}/5] {name}  about " in said
        assert f"[{number}/5] published" in said
        assert lines[number].split()[0] == name
        assert " 0.9000" in lines[number] or " 0.8999" in lines[number]
    assert lines[0].split() == [
        "variant",
        "ONNX",
        "IR",
        ".bin",
        "block",
        "sparsity",
        "time",
        "peak",
        "memory",
        "path",
    ]
    assert re.search(r"weights and ONNX  \d+:\d\d of about \d+:\d\d", said)
    assert said.count("log: ") >= 10


def test_all_again_has_nothing_to_do_and_imports_no_torch(built: Kit) -> None:
    code = (
        "import sys; from launch.cli import main; main(sys.argv[1:]);"
        "assert not {'torch', 'launch.verify.tree'} & set(sys.modules)"
    )
    words = built.argv("all", "")[3:]
    done = run([sys.executable, "-c", code, *words])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("up to date") == 5
    assert processor_seconds(built.argv("all", "")) < 1.0


def keys(kit: Kit, **options: object) -> dict:
    """The key of the hybrid's first stage as the commands would compute it."""
    from launch.build import jobs, rules

    values = {"model": kit.model, "train": paths.SAMPLE / "train.json", "launch": kit.launch_file, **options}
    selection = rules.Selection("files", Path(values["model"]), Path(values["train"]), None, None)
    job = jobs.load_tree(str(values["launch"]), variants.find_variant(HYBRID), selection, Registry())
    return jobs.make_onnx_key(job)


def test_what_a_tree_depends_on(kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launch.setup import requirements

    base = keys(kit)
    assert keys(kit) == base
    edited = tmp_path / "train.json"
    program = tmp_path / "other.py"
    program.write_text("print('another program')")
    nncf = tmp_path / "nncf.json"
    nncf.write_text((paths.CONFIGS / "nncf.json").read_text().replace("0.9", "0.8"))
    edited.write_text((paths.SAMPLE / "train.json").read_text())
    assert keys(kit, train=edited) == base, "the same bytes elsewhere are the same input"
    edited.write_text(edited.read_text().replace("1.1", "1.2"))
    assert keys(kit, train=edited) != base
    text = kit.launch_file.read_text(encoding="utf-8")
    kit.launch_file.write_text(text + "// a comment\n", encoding="utf-8")
    assert keys(kit) == base
    kit.launch_file.write_text(
        text.replace('"--doc_stride", "128"', '"--doc_stride", "64"'), encoding="utf-8"
    )
    assert keys(kit) != base
    for before, after in (
        ('"--nncf_config", "${workspaceFolder}/launch/configs/nncf.json"', f'"--nncf_config={nncf}"'),
        ("${workspaceFolder}/launch/qa/gen_hybrid_sparse_qa.py", str(program)),
        ('"PYTHONHASHSEED": "0"', '"PYTHONHASHSEED": "1"'),
        ("build/src/registry:", "build/src/other:"),
    ):
        kit.launch_file.write_text(text.replace(before, after), encoding="utf-8")
        assert keys(kit) != base, after
    kit.launch_file.write_text(
        text.replace('"--do_eval",', '"--do_eval", "--n_best_size", "5",'), encoding="utf-8"
    )
    assert keys(kit) == base, "an export does not act on it"
    kit.launch_file.write_text(text, encoding="utf-8")
    (kit.model / "pytorch_model.bin").write_bytes(b"never read")
    assert keys(kit) == base
    (kit.model / "pytorch_model.bin").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "key", lambda self: "another patch")
        assert keys(kit) != base
    with monkeypatch.context() as patch:
        patch.setattr(requirements, "digest_lock", lambda name: "another lock")
        assert keys(kit) != base


@pytest.mark.long
def test_another_model_optimizer_makes_the_ir_again_and_nothing_else(
    built: Kit, kit: Kit, tmp_path: Path, hashes
) -> None:
    shutil.copytree(str(built.tree(HYBRID)), str(tmp_path / HYBRID))
    before = hashes(tmp_path / HYBRID)
    done = kit.run("variant", HYBRID, out=tmp_path, mo="2021.4")
    assert done.returncode == 0, done.stderr
    assert "Model Optimizer 2021.4 takes minutes where 2022.1 takes seconds: about 0:1" in done.stderr
    assert "unchanged, taken from the published tree" in done.stderr
    after = hashes(tmp_path / HYBRID)
    changed = {name for name in before if before[name] != after[name]}
    assert {name for name in changed if name.startswith("ir/")} == changed - DATED
    xml = (tmp_path / HYBRID / "ir" / f"{HYBRID}-8bit.xml").read_text()
    assert 'version="10"' in xml
    assert trees.read_provenance(tmp_path / HYBRID)["model_optimizer"] == "2021.4"
    assert "(up to date)" in kit.run("variant", HYBRID, out=tmp_path, mo="2021.4").stdout
    assert_user_error(kit.run("variant", HYBRID, out=tmp_path, mo="2020"), "MO=2020", "2021.4")


def test_only_the_ir_is_made_again_when_only_its_key_changes(built: Kit, kit: Kit, hashes) -> None:
    shutil.copytree(str(built.tree(HYBRID)), str(kit.tree(HYBRID)))
    path = kit.tree(HYBRID) / "provenance.json"
    provenance = json.loads(path.read_text())
    provenance["ir_key"]["program"] = "an earlier converter"
    path.write_text(json.dumps(provenance))
    done = kit.run("variant", HYBRID)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("taken from the published tree") == 1
    assert stable(hashes(kit.tree(HYBRID))) == stable(hashes(built.tree(HYBRID)))


def test_a_damaged_tree_is_made_again(built: Kit, kit: Kit, hashes) -> None:
    shutil.copytree(str(built.tree(HYBRID)), str(kit.tree(HYBRID)))
    (kit.tree(HYBRID) / "ir" / f"{HYBRID}-8bit.mapping").unlink()
    assert kit.run("variant", HYBRID).returncode == 0
    assert stable(hashes(kit.tree(HYBRID))) == stable(hashes(built.tree(HYBRID)))


def start(argv: list) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        argv, cwd=str(paths.REPOSITORY), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def wait_for(process: "subprocess.Popen[str]", words: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"the run ended before it said {words!r}")


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """The sample's training questions in SQuAD's own form, by article and paragraph."""
    articles: dict = {}
    for row in json.loads((paths.SAMPLE / "train.json").read_text())["data"]:
        texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts)]
        questions = articles.setdefault(row["title"], {}).setdefault(row["context"], [])
        questions.append({"id": row["id"], "question": row["question"], "answers": answers})
    data = [
        {"title": title, "paragraphs": [{"context": text, "qas": qas} for text, qas in contexts.items()]}
        for title, contexts in articles.items()
    ]
    path = tmp_path / "nested.json"
    path.write_text(json.dumps({"version": "1.1", "data": data}))
    return path


@pytest.fixture
def odd_model(tmp_path: Path) -> Path:
    """The model with an odd value for every key of its config that no BERT for questions looks at."""
    odd = {**dict.fromkeys(NEUTRAL, "odd"), **{key: values[-1] for key, values in TAKEN.items()}}
    return write_model(tmp_path / "odd", **{**TINY, **odd, "gradient_checkpointing": True})


@pytest.mark.parametrize(
    ("moment", "option", "fixture"),
    [("baking masks in", "train_file", "nested"), ("IR  0:00 of", "model", "odd_model")],
)
def test_kill_at_any_moment_then_again_gives_the_same_bytes(
    built: Kit, kit: Kit, hashes, request: pytest.FixtureRequest, moment: str, option: str, fixture: str
) -> None:
    """From inputs in another form than those of the shared trees: they are the same."""
    given = {option: request.getfixturevalue(fixture)}
    process = start(kit.argv("variant", HYBRID, **given))
    wait_for(process, moment)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not kit.tree(HYBRID).exists()
    done = kit.run("variant", HYBRID, **given)
    assert done.returncode == 0, done.stderr
    if moment.startswith("IR"):
        assert "done by an earlier run" in done.stderr
    assert stable(hashes(kit.tree(HYBRID))) == stable(hashes(built.tree(HYBRID)))


def test_two_at_once_wait_and_one_alone_makes_what_all_makes(built: Kit, kit: Kit, hashes) -> None:
    first = start(kit.argv("variant", UNSTRUCTURED))
    wait_for(first, "loading libraries")
    second = kit.run("variant", UNSTRUCTURED)
    first.communicate()
    assert first.returncode == 0
    assert second.returncode == 0, second.stderr
    assert "waiting: another process" in second.stderr
    assert "up to date" in second.stdout
    assert stable(hashes(kit.tree(UNSTRUCTURED))) == stable(hashes(built.tree(UNSTRUCTURED)))
    alone, together = (trees.read_provenance(one.tree(UNSTRUCTURED)) for one in (kit, built))
    for key in ("inputs", "onnx_key", "ir_key", "model", "files"):
        assert alone[key] == together[key], key


def test_a_folder_that_is_not_the_kits_is_never_emptied(kit: Kit, derived_source: Path) -> None:
    text = kit.launch_file.read_text(encoding="utf-8")
    mine = kit.folder / "mine" / UNSTRUCTURED
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("years of work")
    place = str(kit.folder / "work" / UNSTRUCTURED)
    kit.launch_file.write_text(text.replace(place, str(mine)), encoding="utf-8")
    assert_user_error(kit.run("variant", UNSTRUCTURED), "not the kit's", str(mine))
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert_user_error(kit.run("variant", UNSTRUCTURED, out=mine.parent), "where it is published", str(mine))
    kit.launch_file.write_text(
        text.replace(f"{place}/{UNSTRUCTURED}-8bit", f"{UNSTRUCTURED}-8bit"), encoding="utf-8"
    )
    assert_user_error(kit.run("variant", UNSTRUCTURED), "not the variant's own")
    assert paths.REPOSITORY.joinpath("README.md").exists()


def test_a_failing_tool_shows_its_last_lines_and_its_log(kit: Kit) -> None:
    broken = kit.folder / "broken.py"
    broken.write_text("print('chatter'); raise SystemExit('the disk has gone')")
    text = kit.launch_file.read_text(encoding="utf-8")
    program = "${workspaceFolder}/launch/qa/gen_hybrid_sparse_qa.py"
    kit.launch_file.write_text(text.replace(program, str(broken)), encoding="utf-8")
    assert_user_error(kit.run("variant", HYBRID), "the disk has gone", f"/log/{HYBRID}-onnx.log")
