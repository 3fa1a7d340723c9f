"""``make evaluate V=…``: figures of a tree's own files, of what they are, and where they are shown."""

import json
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import jsonschema
import numpy
import pytest

from launch.artifact import evaluation, sums
from launch.build import preflight
from launch.core import files, paths
from launch.core.errors import KitError
from launch.model.variants import INPUTS
from launch.qa import evaluate_files
from launch.share import compare, package, report
from launch.share import tree as share_tree
from launch.verify import tree as verify_tree
from launch.verify.runtime import Network

from .. import sample_trees
from ..conftest import HYBRID, UNSTRUCTURED, Built, assert_user_error, call

QUESTIONS = paths.SAMPLE / "validation.json"
Content = Dict[str, Any]


def link_trees(built: Built, out: Path, *names: str) -> Path:
    """Return a folder with the shared trees, beside which evaluations may be written."""
    out.mkdir(exist_ok=True)
    for name in names:
        (out / name).symlink_to(built.tree(name))
    return out


def argv(built: Built, out: Path, v: str = HYBRID, **options: object) -> List[str]:
    values = {"v": v, "out": out, "source": "registry", "model": built.model, "validation_file": QUESTIONS}
    values.update(options)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]
    return ["evaluate", *words]


@pytest.fixture(scope="module")
def made(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trees, evaluated, and what the command said."""
    out = link_trees(built, tmp_path_factory.mktemp("evaluated") / "out", HYBRID, UNSTRUCTURED)
    done = call(argv(built, out, f"{HYBRID} {UNSTRUCTURED}", threads=2))
    assert done.returncode == 0, done.stderr
    (out.parent / "stdout").write_text(done.stdout)
    (out.parent / "stderr").write_text(done.stderr)
    return out


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """A copy of the evaluated trees, which are a test's own."""
    shutil.copytree(str(made), str(tmp_path / "own"))
    return tmp_path / "own"


def read(out: Path, name: str = HYBRID) -> Content:
    return json.loads((out / f"{name}-evaluation.json").read_text())


def change(out: Path, edit: Callable[[Content], Any]) -> None:
    content = read(out)
    edit(content)
    (out / f"{HYBRID}-evaluation.json").write_text(json.dumps(content))


# ---- what is found, and written


def test_both_files_of_each_tree_are_evaluated(made: Path, built: Built) -> None:
    said = (made.parent / "stdout").read_text()
    schema = json.loads(evaluation.SCHEMA.read_text())
    for name in (HYBRID, UNSTRUCTURED):
        content = read(made, name)
        jsonschema.Draft7Validator(schema).validate(content)
        listed = sums.read_sums(built.tree(name))
        stem = f"{name}-8bit"
        assert content["key"]["files"] == {
            file: listed[file] for file in (f"{stem}.onnx", f"ir/{stem}.bin", f"ir/{stem}.xml")
        }
        assert content["key"]["questions"] == {"name": QUESTIONS.name, "sha256": files.digest_file(QUESTIONS)}
        assert (content["questions"], content["features"], content["weights"]) == (16, 20, "random")
        results = content["results"]
        assert sorted(results) == ["ir", "onnx"]
        assert results["ir"]["runtime"] == results["onnx"]["runtime"] == "OpenVINO 2022.1.0"
        assert content["same_answers"] >= 12
        assert f"{content['same_answers']} of 16 questions; weights: random" in said
        for label, one in (("ONNX", results["onnx"]), ("IR", results["ir"])):
            row = [line.split() for line in said.splitlines() if line.split()[:2] == [name, label]]
            assert row[0][2:4] == [f"{one['exact_match']:.2f}", f"{one['f1']:.2f}"]
    text = "".join(path.read_text() for path in made.glob("*.json"))
    assert str(made) not in text
    assert str(paths.REPOSITORY) not in text


def test_progress_names_each_step(made: Path) -> None:
    said = (made.parent / "stderr").read_text()
    for step in ("checksum of ", "tokenizing questions", f"loading {HYBRID}-8bit.onnx", ".xml: 20 features"):
        assert f"[1/2] {HYBRID} evaluate  0:0" in said
        assert step in said


def test_time_left_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    said: List[str] = []
    monkeypatch.setattr(evaluate_files.child, "report_step", said.append)
    counter = evaluate_files._Counter("running", 1000)
    counter.show(1)
    counter.started -= 100
    counter.said -= 100
    counter.show(250)
    assert said == ["running: 1,000 features", "running: 250 of 1,000 features, 5:00 left"]


def test_the_logits_are_the_files_own(built: Built) -> None:
    """One request after another, as verification has it, gives the same numbers as all at once."""
    tree, stem = built.tree(HYBRID), f"{HYBRID}-8bit"
    names = [one["name"] for one in provenance(tree)["verification"]["onnx"]["outputs"]]
    rows = numpy.random.RandomState(1).randint(0, 2048, (7, 384)).astype("int64")
    inputs = [rows, numpy.ones_like(rows), numpy.zeros_like(rows)]
    for file in (tree / "ir" / f"{stem}.xml", tree / f"{stem}.onnx"):
        found, seconds = evaluate_files.run_in_openvino(file, tree / f"{stem}.onnx", names, inputs, 3)
        feeds = [dict(zip(INPUTS, (part[row : row + 1] for part in inputs))) for row in range(len(rows))]
        nodes = {node.name: node.output[0] for node in evaluate_model(tree / f"{stem}.onnx").nodes}
        alone = Network(file, nodes).run(feeds)
        for part, name in zip(found, names):
            assert numpy.array_equal(part, numpy.concatenate([run[name] for run in alone]))
        assert seconds >= 0


def provenance(tree: Path) -> Content:
    return json.loads((tree / "provenance.json").read_text())


def evaluate_model(path: Path) -> Any:
    from launch.model.onnx_model import Model

    return Model(path)


def test_an_output_may_be_called_by_its_node(built: Built) -> None:
    """As in an IR of Model Optimizer 2021.4."""
    tree = built.tree(HYBRID)
    onnx = tree / f"{HYBRID}-8bit.onnx"
    names = [one["name"] for one in provenance(tree)["verification"]["onnx"]["outputs"]]
    producers = evaluate_model(onnx).graph.producer

    class Named:
        """A model whose outputs have the given name."""

        def __init__(self, name: str) -> None:
            self.get_friendly_name = lambda: name
            self.get_node = lambda: self
            self.input_value = lambda _: self
            self.get_names = lambda: {"other"}
            self.outputs = ()

    model = Named("")
    model.outputs = [Named(producers[name].name) for name in reversed(names)]
    assert evaluate_files._find_outputs(model, onnx, names) == [1, 0]


def test_what_is_current_is_not_evaluated_again(own: Path, built: Built, tmp_path: Path) -> None:
    before = (own / f"{HYBRID}-evaluation.json").stat().st_mtime_ns
    done = call(argv(built, own))
    assert done.returncode == 0
    assert "up to date" in done.stderr
    assert (own / f"{HYBRID}-evaluation.json").stat().st_mtime_ns == before
    few = json.loads(QUESTIONS.read_text())
    few["data"] = few["data"][:1]
    (tmp_path / "few.json").write_text(json.dumps(few))
    done = call(argv(built, own, validation_file=tmp_path / "few.json"))
    assert done.returncode == 0, done.stderr
    assert "up to date" not in done.stderr
    assert read(own)["key"]["questions"]["name"] == "few.json"
    assert 0 < read(own)["questions"] < 16


def test_a_checkpoint_is_run_on_the_same_features(
    tiny_model: Path, derived_source: Path, loaded: Any, tmp_path: Path
) -> None:
    """Its logits are those of transformers' own way of loading it."""
    folder = tmp_path / "trained"
    shutil.copytree(str(tiny_model), str(folder))
    script = f"""
import numpy, pathlib, sys
from tests import checkpoints
from transformers import BertForQuestionAnswering
import torch
folder = pathlib.Path({str(folder)!r})
checkpoints.safetensors(checkpoints.draw(folder), folder)
from launch.qa.evaluate_files import run_in_torch
rows = numpy.random.RandomState(1).randint(0, 2048, (11, 64)).astype("int64")
inputs = [rows, numpy.ones_like(rows), numpy.zeros_like(rows)]
found, seconds = run_in_torch(folder, inputs)
model = BertForQuestionAnswering.from_pretrained(str(folder)).eval()
with torch.no_grad():
    wanted = model(*map(torch.from_numpy, inputs))
for one, other in zip(found, (wanted.start_logits, wanted.end_logits)):
    assert numpy.allclose(one, other.numpy(), atol=1e-5), abs(one - other.numpy()).max()
print("same")
"""
    done = loaded.run("transformers.models.bert.modeling_bert", ["-c", script], paths.REPOSITORY)
    assert done.stdout.strip().endswith("same"), done.stderr


# ---- where it is shown


def test_report_shows_it(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trees = report.write_report(own, own / "report.html")
    page, text = (own / "report.html").read_text(), report.write_text(trees)
    for name in (HYBRID, UNSTRUCTURED):
        for one in read(own, name)["results"].values():
            assert f"{one['exact_match']:.2f} / {one['f1']:.2f}" in text
            assert f'<td class="number">{one["f1"]:.2f}</td>' in page
    assert text.count("of these files") == 2
    assert "on 16 questions of <code>validation.json</code>" in " ".join(page.split())
    assert "STALE" not in text + page.upper().replace("STALE.", "STALE")


def test_without_evaluations_nothing_is_said_of_them(built: Built, tmp_path: Path) -> None:
    out = link_trees(built, tmp_path / "out", HYBRID)
    text = report.write_text(report.write_report(out, out / "report.html"))
    assert "xact match" not in text + (out / "report.html").read_text()


def test_an_evaluation_of_other_files_is_stale(own: Path, tmp_path: Path) -> None:
    change(own, lambda content: content["key"]["files"].update({f"{HYBRID}-8bit.onnx": "0" * 64}))
    trees = report.write_report(own, own / "report.html")
    page, text = (own / "report.html").read_text(), report.write_text(trees)
    assert text.count("STALE") == 1
    assert f"warning: {HYBRID}: The evaluation is of other files than the tree's" in text
    assert page.count('<strong class="bad">Stale.</strong>') == 1
    assert not any(tree.faults for tree in trees)
    tree, target = package.find_place(HYBRID, own, tmp_path / "to", "folder")
    package.make_package(tree, target, lambda tree: None)
    assert "xact match" not in (target / "README.md").read_text()
    assert "xact match" not in (target / "report.html").read_text()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text(path.read_text().replace('"f1": ', '"f1": 1e999, "_": ')),
        lambda path: path.write_text(path.read_text().replace('"random"', "7")),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_damaged_evaluation_is_told_and_stops_nothing(own: Path, spoil: Callable[[Path], Any]) -> None:
    spoil(own / f"{HYBRID}-evaluation.json")
    trees = report.write_report(own, own / "report.html")
    assert f"warning: {HYBRID}: The evaluation is not as the kit writes it" in report.write_text(trees)
    assert '<strong class="bad">Unreadable.</strong>' in (own / "report.html").read_text()


def test_names_in_an_evaluation_are_text(own: Path) -> None:
    change(own, lambda content: content["key"]["questions"].update(name="<b>`x`|$[y]"))
    report.write_report(own, own / "report.html")
    assert "&lt;b&gt;`x`|$[y]" in (own / "report.html").read_text()
    assert "<b>" not in (own / "report.html").read_text()


def test_the_model_card_has_the_figures(own: Path, tmp_path: Path) -> None:
    tree, target = package.find_place(HYBRID, own, tmp_path / "to", "folder")
    package.make_package(tree, target, lambda tree: None)
    card, results = (target / "README.md").read_text(), read(own)["results"]
    for label, name in (("ONNX", "onnx"), ("IR", "ir")):
        one = results[name]
        assert f"| {label} | {one['exact_match']:.2f} | {one['f1']:.2f} | OpenVINO 2022.1.0 |\n" in card
    assert f"on 16 questions of `validation.json` (sha256\n`{files.digest_file(QUESTIONS)}`)" in card
    assert "xact match" in (target / "report.html").read_text()


def test_it_is_no_tree_and_in_none(own: Path) -> None:
    assert [path.name for path in share_tree.find_trees(own)] == [HYBRID, UNSTRUCTURED]
    assert [path.name for path in verify_tree.choose_trees(own, [])] == [HYBRID, UNSTRUCTURED]
    assert [name for name, *_ in compare.find_pairs(own, own, "bytes")] == [HYBRID, UNSTRUCTURED]
    assert sums.find_faults(own / HYBRID, sums.read_sums(own / HYBRID), lambda _: None) == []


# ---- what is refused


@pytest.fixture
def out(built: Built, tmp_path: Path) -> Iterator[Path]:
    """A tree that is not evaluated, whatever is tried."""
    yield link_trees(built, tmp_path / "out", HYBRID)
    assert not list((tmp_path / "out").glob("*.json"))


def test_questions_must_be_named(built: Built, out: Path) -> None:
    done = call(argv(built, out, validation_file=None))
    assert_user_error(done, "VALIDATION_FILE is empty", "INPUT=hub")


@pytest.mark.parametrize("name", ["train_file", "seed", "launch"])
def test_what_makes_trees_has_no_meaning(built: Built, out: Path, name: str) -> None:
    done = call(argv(built, out, **{name: 1}))
    assert_user_error(done, f"{name.upper()} has no meaning with V: the trees are there already")


@pytest.mark.parametrize("name", ["out", "precision"])
def test_without_v_no_tree_is_evaluated(name: str) -> None:
    assert_user_error(call(["evaluate", f"--{name}=8bit"]), f"{name.upper()} has no meaning without V")


def test_a_tree_must_be_there(built: Built, out: Path) -> None:
    assert_user_error(call(argv(built, out, UNSTRUCTURED)), f"There is no tree {UNSTRUCTURED}")


def test_unscorable_questions_are_refused(built: Built, out: Path, tmp_path: Path) -> None:
    content = json.loads(QUESTIONS.read_text())
    content["data"][0]["answers"] = {"text": [], "answer_start": []}
    (tmp_path / "open.json").write_text(json.dumps(content))
    done = call(argv(built, out, validation_file=tmp_path / "open.json"))
    assert_user_error(done, "has no answer", f"VALIDATION_FILE={tmp_path / 'open.json'}: data[0]")


def test_the_samples_tokenizer_is_not_taken_for_another_models(built: Built, out: Path) -> None:
    done = call(argv(built, out, model=None))
    assert_user_error(done, "another tokenizer than the sample's", "MODEL=<folder>")
    done = call(argv(built, out, model=None, validation_file=None, input="sample"))
    assert_user_error(done, f"MODEL is not the folder that {HYBRID} was made with")


def test_another_folder_is_refused(built: Built, out: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(str(built.model), str(other))
    words = (other / "vocab.txt").read_text().splitlines()
    words[-1], words[-2] = words[-2], words[-1]
    (other / "vocab.txt").write_text("\n".join(words) + "\n")
    done = call(argv(built, out, model=other))
    assert_user_error(done, f"MODEL is not the folder that {HYBRID} was made with", f"MODEL={other}")
    assert_user_error(call(argv(built, out, model=tmp_path / "none")), "does not exist", "MODEL=")


def test_random_weights_have_no_checkpoint(built: Built, out: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    done = call(argv(built, out, weights=tmp_path))
    assert_user_error(done, f"The weights of {HYBRID} are random", "WEIGHTS=")
    assert_user_error(call(argv(built, out, weights=built.model)), "holds no weights")


def test_a_damaged_tree_is_not_evaluated(built: Built, tmp_path: Path) -> None:
    shutil.copytree(str(built.tree(HYBRID)), str(tmp_path / "out" / HYBRID))
    sample_trees.damage(tmp_path / "out" / HYBRID / "ir" / f"{HYBRID}-8bit.bin")
    done = call(argv(built, tmp_path / "out"))
    assert_user_error(done, "The tree is not as it was published", "has not the bytes that SHA256SUMS says")
    assert not (tmp_path / "out" / f"{HYBRID}-evaluation.json").exists()


def test_too_little_memory_is_said_first(built: Built, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "read_available_memory", lambda: 10**8)
    assert_user_error(call(argv(built, out)), f"The evaluation of {HYBRID} needs about", "0.1 GB are free")


def test_weights_in_several_files_have_one_digest(tmp_path: Path) -> None:
    from launch.model import model_folder

    (tmp_path / "model.safetensors").write_bytes(b"one")
    assert model_folder.digest_checkpoint(tmp_path) == files.digest_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.bin", "b": "2.bin"}}))
    with pytest.raises(KitError, match="names a file that is not in its folder"):
        model_folder.digest_checkpoint(tmp_path)
    for number in "12":
        (tmp_path / f"{number}.bin").write_bytes(number.encode())
    before = model_folder.digest_checkpoint(tmp_path)
    (tmp_path / "2.bin").write_bytes(b"3")
    assert model_folder.digest_checkpoint(tmp_path) != before
