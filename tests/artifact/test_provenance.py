"""provenance.json: the form of what is published, what is refused, and what is in no file of a tree."""

import copy
import json
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict

import pytest

from launch.artifact import provenance, sums, trees
from launch.build import convert, pipeline
from launch.core import files, machine, paths
from launch.core.errors import KitError
from launch.model import variants
from launch.sources import patches
from launch.sources.source import Registry

from .. import small_kit
from ..conftest import HIDDEN, HYBRID, INTERMEDIATE, UNSTRUCTURED, Kit, assert_user_error, run
from ..small_kit import SmallKit

Content = Dict[str, Any]
Change = Callable[[Content], object]

STEM = f"{HYBRID}-8bit"


@pytest.fixture(scope="module")
def published(built: Kit) -> Content:
    return provenance.read_provenance(built.tree(HYBRID))


@pytest.fixture
def content(published: Content) -> Content:
    """A provenance to spoil."""
    return copy.deepcopy(published)


# --- what is published -----------------------------------------------------------------------------------


def test_every_published_provenance_is_as_the_schema_says(built: Kit) -> None:
    for name in variants.VARIANTS:
        path = built.tree(name) / trees.PROVENANCE
        assert provenance.find_problems(json.loads(path.read_text(encoding="utf-8"))) == []
        assert provenance.read_provenance(built.tree(name))["variant"] == name


def test_the_schema_is_one() -> None:
    import jsonschema

    schema = json.loads(trees.SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    assert schema["properties"]["format"] == {"const": trees.FORMAT}


@pytest.mark.parametrize("name", [HYBRID, UNSTRUCTURED])
def test_a_provenance_says_how_its_tree_was_made(built: Kit, name: str) -> None:
    found = provenance.read_provenance(built.tree(name))
    heads, intermediate = (2, 512) if name == HYBRID else (16, INTERMEDIATE)
    assert found["model"] == {
        "layers": 2,
        "hidden": HIDDEN,
        "head_size": HIDDEN // 16,
        "heads": [heads, heads],
        "intermediate_size": intermediate,
        "vocab_size": 2048,
        "max_positions": 512,
        "sequence_length": 384,
        "overall_sparsity": 0.9,
        "dense_block_weights": 12 * 2 * HIDDEN * HIDDEN,
    }
    threads = int(found["command"]["environment"]["OMP_NUM_THREADS"])
    assert found["weights"] == {"kind": "random", "seed": 42, "threads": threads}
    argv = found["command"]["argv"]
    assert argv[0] == "${venv}/bin/python"
    assert argv[1].startswith("${workspaceFolder}/launch/qa/")
    assert argv[argv.index("--model_name_or_path") + 1] == "${elsewhere}/tiny"
    assert argv[argv.index("--train_file") + 1] == "${workspaceFolder}/launch/sample/train.json"
    assert argv[argv.index("--output_dir") + 1].startswith("${elsewhere}/")
    command = found["command"]
    assert command["working_directory"] == "${workspaceFolder}"
    assert command["launch"] == f"'{name}' in ${{elsewhere}}/launch.json"
    assert command["environment"]["PYTHONPATH"] == "${workspaceFolder}/build/src/registry:${workspaceFolder}"
    assert command["environment"]["PYTHONHASHSEED"] == "0"
    assert found["host"] == machine.describe_host(str(paths.VENV_PYTHON))
    assert set(found["kit"]) == {"commit", "changed"}
    moment = time.strptime(found["finished"], "%Y-%m-%dT%H:%M:%SZ")
    assert time.mktime(moment) - time.timezone <= time.time()
    assert set(found["seconds"]) >= {"onnx", "ir"}
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert all(10**7 < peak < 10**11 for peak in found["peak_bytes"].values())


def test_a_provenance_says_what_its_tree_was_made_from(built: Kit, published: Content) -> None:
    source = Registry()
    assert published["source"] == {
        "name": "registry",
        "digest": source.key(),
        "packages": {"nncf": "2.1.0", "transformers": "4.9.1"},
        "patches": [
            {"name": name, "sha256": files.digest_file(paths.PATCHES / name)}
            for name in (
                "nncf/sparsify_params.patch",
                "nncf/torch_quantization.patch",
                *(f"nncf/{patch.path.name}" for patch in patches.read_series("nncf") if patch.fast),
                "transformers/module_spec.patch",
                "transformers/current_checkpoints.patch",
                "transformers/fast_tokenizers.patch",
            )
        ],
    }
    named = published["inputs"]
    assert set(named) == {"config_name", "model_name_or_path", "nncf_config", "train_file"}
    assert named["train_file"] == "file:" + files.digest_file(paths.SAMPLE / "train.json")
    assert named["model_name_or_path"] == "folder:" + files.digest_model_folder(built.model)
    assert published["model_optimizer"] == "2022.1"
    code = (
        "import json, sys; from importlib.metadata import version;"
        " print(json.dumps({n: version(n) for n in sys.argv[1:]}))"
    )
    done = run([str(paths.VENV_PYTHON), "-c", code, *published["versions"]])
    assert json.loads(done.stdout) == published["versions"], "what is installed"
    for file, entry in published["files"].items():
        path = built.tree(HYBRID) / file
        assert entry == {"bytes": path.stat().st_size, "sha256": files.digest_file(path)}


def test_the_version_of_another_model_optimizer_is_its_own() -> None:
    default = pipeline.collect_facts(Registry(), convert.DEFAULT)
    other = pipeline.collect_facts(Registry(), convert.find_optimizer("2021.4"))
    assert other["model_optimizer"] == "2021.4"
    assert {**default["versions"], "openvino-dev": "2021.4.2"} == other["versions"] != default["versions"]


def test_no_file_of_any_tree_names_the_machine(built: Kit) -> None:
    """Neither the checkout nor the home folder, nor where model, launch file and trees lay."""
    places = [paths.REPOSITORY, paths.VENV, Path.home(), built.folder, built.model, built.launch_file]
    words = {str(form) for place in places for form in (place, place.resolve()) if len(str(form)) > 1}
    words.add(f"{tempfile.gettempdir()}/")
    seen = set()
    for path in built.out.rglob("*"):
        if path.is_file():
            seen.add(path.suffix)
            data = path.read_bytes()
            assert [word for word in words if word.encode() in data] == [], path
    assert seen >= {".onnx", ".bin", ".xml", ".mapping", ".log", ".csv", ".md", ".json", ""}


# --- what is refused -------------------------------------------------------------------------------------


def _set(place: str, value: object) -> Change:
    """Return a change that sets what is at a place, as ``model.heads``."""
    *parents, last = place.split(".")

    def change(content: Content) -> None:
        for parent in parents:
            content = content[parent]
        content[last] = value

    return change


def _drop(place: str) -> Change:
    *parents, last = place.split(".")

    def change(content: Content) -> None:
        for parent in parents:
            content = content[parent]
        del content[last]

    return change


def _file(name: str) -> Change:
    return lambda content: content["files"].update({name: {"bytes": 1, "sha256": "0" * 64}})


def _with_matrix(**changes: object) -> Change:
    matrix = {"parameter": "x.weight", "shape": [2, 3], "dense": 6, "zeros": 6, "ir_zeros": 6, **changes}
    return lambda content: content["verification"]["matrices"].insert(0, matrix)


SHA = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        # the schema
        (_drop("host"), "$: 'host' is a required property"),
        (_drop("host.cores"), "$.host: 'cores' is a required property"),
        (_drop("verification.outputs.as_run"), "$.verification.outputs: 'as_run' is a required property"),
        (_set("weights.seed", "42"), "$.weights.seed: '42' is not of type 'integer'"),
        (_set("weights.seed", True), "$.weights.seed: True is not of type 'integer'"),
        (_set("model.heads", []), "$.model.heads: [] is too short"),
        (_set("model.layers", 0), "$.model.layers: 0 is less than the minimum of 1"),
        (_set("files", []), "$.files: [] is not of type 'object'"),
        (_set("note", ""), "$: Additional properties are not allowed ('note' was unexpected)"),
        (_set("kit.note", ""), "$.kit: Additional properties are not allowed ('note' was unexpected)"),
        (_set("source.digest", SHA[1:]), "$.source.digest: "),
        (_set("source.digest", SHA.upper()), "$.source.digest: "),
        (_set("source.digest", SHA + "\n"), "$.source.digest: "),
        (_set("kit.commit", "main"), "$.kit.commit: 'main' does not match"),
        (_set("finished", "yesterday"), "$.finished: 'yesterday' does not match"),
        (_set("finished", "2021-01-01T00:00:00Z\n"), "$.finished: "),
        (_set("format", 4), "$.format: 3 was expected"),
        (_set("weights.kind", "odd"), "$.weights.kind: 'odd' is not one of"),
        (_set("weights.kind", "trained"), "$.weights: 'sha256' is a required property"),
        (_set("weights.source", "bert"), "$.weights: "),
        (_set("onnx_key.arguments.weights", "file:" + SHA), "$.onnx_key.arguments.weights: not $.weights"),
        (_set("verification.block_sparsity", 1.5), "$.verification.block_sparsity: 1.5 is greater than"),
        # what a schema cannot say
        (_set("variant", "90pc_other"), "$.variant: there is no variant '90pc_other'"),
        (_set("variant", UNSTRUCTURED), f"$.files: {UNSTRUCTURED}-8bit.onnx is missing"),
        (lambda content: content["files"].pop("ir/mo.log"), "$.files: ir/mo.log is missing"),
        (_file("more.txt"), "$.files: more.txt is no file of a tree"),
        (_file(trees.PROVENANCE), f"$.files: {trees.PROVENANCE} is no file of a tree"),
        (_set("model.heads", [2, 2, 2]), "$.model.heads: 3 entries for 2 layers"),
        (_set("model.heads", [2, 17]), "$.model.heads: more than fit into the hidden size"),
        (_set("model.sequence_length", 513), "$.model.sequence_length: more tokens than"),
        (_set("model.sequence_length", 100), "$.onnx_key.arguments.max_seq_length: not $.model"),
        (_set("ir_key.onnx", SHA), "$.ir_key.onnx: not the sum of the ONNX file in $.files"),
        (_drop("ir_key.onnx"), "$.ir_key.onnx: not the sum of the ONNX file in $.files"),
        (lambda content: content["files"][f"{STEM}.onnx"].update(sha256=SHA), "$.ir_key.onnx: not the sum"),
        (_set("onnx_key.source", SHA), "$.onnx_key.source: not $.source.digest"),
        (_set("onnx_key.arguments", []), "$.onnx_key.arguments: not an object"),
        (_set("weights.seed", 43), "$.onnx_key.arguments.seed: not $.weights.seed"),
        (_set("inputs.train_file", f"file:{SHA}"), "$.inputs.train_file: not what $.onnx_key.arguments has"),
        (_with_matrix(zeros=7), "$.verification.matrices[0].zeros: 7 of 6 elements"),
        (_with_matrix(ir_zeros=7), "$.verification.matrices[0].ir_zeros: 7 of 6 elements"),
        (_with_matrix(dense=5), "$.verification.matrices[0].dense: fewer elements than are kept"),
        (_set("verification.block_sparsity", 0.5), "$.verification.block_sparsity: the matrices add up to"),
        # paths
        (_set("command.working_directory", "/home/somebody"), "$.command.working_directory: a path of"),
        (_set("command.argv", ["python", "--x=/opt/x"]), "$.command.argv[1]: a path of the machine"),
        (_set("onnx_key.environment.A", "b:/opt/x"), "$.onnx_key.environment.A: a path of the machine"),
        (_set("inputs.train_file", "/data/train.json"), "$.inputs.train_file: a path of the machine"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_place(
    content: Content, change: Change, problem: str
) -> None:
    if problem.endswith("add up to"):
        # So that there is something to add up.
        _with_matrix(parameter="bert.encoder.layer.0.output.dense.weight", zeros=5)(content)
    change(content)
    found = provenance.find_problems(content)
    assert [line for line in found if line.startswith(problem)], found
    assert all(len(line.splitlines()) == 1 and len(line) < 400 for line in found)


@pytest.mark.parametrize("value", [None, [], "x", 2, {}])
def test_what_is_no_provenance_at_all_is_said(value: object) -> None:
    assert provenance.find_problems(value)[0].startswith("$: ")


def test_the_schema_knows_no_key_that_it_does_not_name(content: Content) -> None:
    """Every object of the schema is closed, but for those whose keys are names of other things."""
    open_ones = []

    def walk(place: str, value: Any) -> None:
        if isinstance(value, list):
            for entry in value:
                walk(place, entry)
        if isinstance(value, dict):
            value["unknown to the schema"] = object()
            if not any("unknown to the schema" in line for line in provenance.find_problems(content)):
                open_ones.append(place)
            del value["unknown to the schema"]
            for name, entry in value.items():
                if place not in open_ones:
                    walk(f"{place}.{name}", entry)

    walk("$", content)
    named = {"environment", "inputs", "versions", "onnx_key", "ir_key", "files", "bits", "layers"}
    assert {place.rpartition(".")[2] for place in open_ones} <= named


# --- reading ---------------------------------------------------------------------------------------------


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / trees.PROVENANCE).write_text(text, encoding="utf-8")
    return folder


def refusal(tree: Path) -> KitError:
    with pytest.raises(KitError) as refused:
        provenance.read_provenance(tree)
    assert trees.PROVENANCE in refused.value.where
    assert refused.value.hint
    return refused.value


def test_reading_where_there_is_none(tmp_path: Path) -> None:
    assert "no provenance" in refusal(tmp_path).what
    assert "no provenance" in refusal(tmp_path / "nothing").what
    (tmp_path / "file").write_text("")
    assert "no provenance" in refusal(tmp_path / "file").what


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ('{"format": 2,', "not valid JSON"),
        ('{"format": NaN}', "NaN is no number"),
        pytest.param("[" * 100_000, "not valid JSON", id="too deep"),
        ("\ud800", "not valid JSON"),
        ("[]", "format that this kit does not know: null"),
        ('{"format": 4}', "format that this kit does not know: 4"),
        ('{"format": "2"}', 'format that this kit does not know: "2"'),
        ('{"format": 1}', "format 1, not 3"),
        ('{"format": 2}', "format 2, not 3"),
        ('{"format": 3}', "'command' is a required property"),
        pytest.param(" " * (trees.MAX_BYTES + 1), "4,194,304 bytes", id="too large"),
    ],
)
def test_reading_what_is_not_as_the_kit_writes_it(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / trees.PROVENANCE).write_bytes(text.encode("utf-8", "surrogatepass"))
    error = refusal(tmp_path)
    assert words in error.what
    assert "make variant V=<name>" in error.hint


def test_reading_names_the_variant_to_make_again(tmp_path: Path) -> None:
    assert "make variant V=" + HYBRID in refusal(write(tmp_path / HYBRID, '{"format": 1}')).hint


def test_reading_shows_the_first_problems(tmp_path: Path, content: Content) -> None:
    content["model"]["heads"] = []
    assert "$.model.heads: [] is too short" in refusal(write(tmp_path, json.dumps(content))).what
    del content["host"], content["kit"]
    content.update({f"note {number}": number for number in range(20)})
    for matrix in range(30):
        content["verification"]["matrices"].append(matrix)
    assert refusal(write(tmp_path, json.dumps(content))).what.count("\n") == 11


def test_reading_waits_for_nothing(tmp_path: Path) -> None:
    os.mkfifo(str(tmp_path / trees.PROVENANCE))
    assert "no regular file" in refusal(tmp_path).what


# --- the checkout ----------------------------------------------------------------------------------------

CHECKOUT = "import json; from launch.build import pipeline; print(json.dumps(pipeline.read_checkout()))"


@pytest.fixture
def small(fetched_kit: SmallKit, tmp_path: Path) -> SmallKit:
    """A kit in a git checkout, its submodules checked out."""
    return small_kit.copy(fetched_kit, tmp_path / "small")


def checkout(kit: SmallKit, **env: str) -> Content:
    done = kit.run(sys.executable, "-c", CHECKOUT, **env)
    assert done.returncode == 0, done.stderr
    found: Content = json.loads(done.stdout)
    return found


def test_the_commit_of_a_checkout_is_said(small: SmallKit) -> None:
    commit = small.git("rev-parse", "HEAD").strip()
    assert checkout(small) == {"commit": commit, "changed": False}
    (small.root / "mine.txt").write_text("not tracked")
    assert checkout(small) == {"commit": commit, "changed": False}
    index = (small.root / ".git/index").read_bytes()
    os.utime(str(small.root / "Makefile"))
    assert checkout(small) == {"commit": commit, "changed": False}
    assert (small.root / ".git/index").read_bytes() == index, "nothing is written to the repository"
    small.git("commit", "--quiet", "--allow-empty", "--message=Another")
    assert checkout(small) == {"commit": small.git("rev-parse", "HEAD").strip(), "changed": False}


def _change(kit: SmallKit) -> None:
    (kit.root / "Makefile").write_text("mine\n")


def _delete(kit: SmallKit) -> None:
    (kit.root / "Makefile").unlink()


def _stage(kit: SmallKit) -> None:
    (kit.root / "mine.txt").write_text("mine\n")
    kit.git("add", "mine.txt")


def _rename(kit: SmallKit) -> None:
    kit.git("mv", "Makefile", "makefile")


@pytest.mark.parametrize("spoil", [_change, _delete, _stage, _rename])
def test_a_local_change_is_said(small: SmallKit, spoil: Callable[[SmallKit], None]) -> None:
    spoil(small)
    assert checkout(small) == {"commit": small.git("rev-parse", "HEAD").strip(), "changed": True}


def test_submodules_do_not_count(small: SmallKit) -> None:
    expected = {"commit": small.git("rev-parse", "HEAD").strip(), "changed": False}
    folder = small.submodule("nncf")
    (folder / "README.md").write_text("mine\n")
    assert checkout(small) == expected
    small.git("commit", "--quiet", "--all", "--message=Mine", at=folder)
    assert checkout(small) == expected
    small.git("add", "third_party/nncf")
    assert checkout(small) == expected
    small.git("submodule", "deinit", "--force", "--quiet", "third_party/transformers")
    assert checkout(small) == expected


def test_where_there_is_no_git_nothing_is_said(small: SmallKit, tmp_path: Path) -> None:
    nothing = {"commit": None, "changed": None}
    assert checkout(small, PATH=str(tmp_path)) == nothing
    shutil.rmtree(str(small.root / ".git"))
    assert checkout(small) == nothing
    small.git("init", "--quiet")
    assert checkout(small) == nothing, "no commit"
    # A repository that the kit only lies in is not its own.
    shutil.rmtree(str(small.root / ".git"))
    small.git("init", "--quiet", at=Path(".."))
    small.git("commit", "--quiet", "--allow-empty", "--message=Around", at=Path(".."))
    assert checkout(small) == nothing


# --- times, keys -----------------------------------------------------------------------------------------


def test_the_time_is_the_clocks_or_that_of_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pipeline.EPOCH, raising=False)
    assert pipeline.read_epoch() is None
    monkeypatch.setenv(pipeline.EPOCH, "1600000000")
    assert pipeline.read_epoch() == 1_600_000_000
    for text in ("tomorrow", "-1", "1.5", "\u00b2", str(10**15)):
        monkeypatch.setenv(pipeline.EPOCH, text)
        with pytest.raises(KitError, match="no time") as refused:
            pipeline.collect_facts(Registry(), convert.DEFAULT)
        assert text in refused.value.where


def test_a_wrong_time_is_said_before_anything_is_made(kit: Kit, derived_source: Path) -> None:
    done = kit.run("variant", HYBRID, env={**os.environ, pipeline.EPOCH: "tomorrow"})
    assert_user_error(done, "SOURCE_DATE_EPOCH=tomorrow")
    assert "about" not in done.stderr, "no stage was started"


def test_a_key_keeps_no_path_and_stays_another_key() -> None:
    key = {"a": ["${workspaceFolder}/x", "/opt/one/x", 1], "b": {"c": "/opt/two/x", "d": None, "e": True}}
    recorded = pipeline.record_key(key)
    assert recorded["a"][0] == "${workspaceFolder}/x"
    assert recorded["b"]["d"] is None
    assert re.fullmatch(r"\$\{elsewhere\}/x \([0-9a-f]{12}\)", recorded["a"][1])
    assert recorded["a"][1] != recorded["b"]["c"]
    assert pipeline.record_key(recorded) == recorded


# --- trees of an earlier kit -----------------------------------------------------------------------------


def as_format_1(tree: Path) -> None:
    """Make a tree what the kit before published: another form, and no list of checksums."""
    content = json.loads((tree / trees.PROVENANCE).read_text(encoding="utf-8"))
    kept = ("variant", "model_optimizer", "onnx_key", "ir_key", "files", "seconds", "peak_bytes")
    earlier = {name: content[name] for name in kept}
    earlier.update(
        format=1, source="registry (nncf 2.1.0, transformers 4.9.1, 2 patches)", block_sparsity=0.9
    )
    (tree / trees.PROVENANCE).write_text(json.dumps(earlier), encoding="utf-8")
    (tree / sums.NAME).unlink()


def _no_list(tree: Path) -> None:
    (tree / sums.NAME).unlink()


def _edited(tree: Path) -> None:
    content = json.loads((tree / trees.PROVENANCE).read_text(encoding="utf-8"))
    (tree / trees.PROVENANCE).write_text(json.dumps({**content, "kit": "mine"}), encoding="utf-8")


@pytest.mark.parametrize("spoil", [as_format_1, _no_list, _edited])
def test_files_of_a_tree_of_another_form_are_not_made_again(
    built: Kit,
    kit: Kit,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    hashes: Callable[[Path], Dict[str, str]],
) -> None:
    tree = tmp_path / HYBRID
    shutil.copytree(str(built.tree(HYBRID)), str(tree))
    before = hashes(tree)
    spoil(tree)
    done = kit.run("variant", HYBRID, out=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("unchanged, taken from the published tree") == 2
    after = hashes(tree)
    assert {name for name in after if after[name] != before.get(name)} <= {trees.PROVENANCE, sums.NAME}
    assert sums.find_faults(tree, sums.read_sums(tree), lambda name: None) == []
    old, new = provenance.read_provenance(built.tree(HYBRID)), provenance.read_provenance(tree)
    for name in ("onnx", "ir"):
        assert new["seconds"][name] == old["seconds"][name], "what it took when it was made"
    assert "up to date" in kit.run("variant", HYBRID, out=tmp_path).stdout


def test_a_file_of_an_earlier_tree_that_was_changed_is_made_again(
    built: Kit, kit: Kit, tmp_path: Path, hashes: Callable[[Path], Dict[str, str]]
) -> None:
    tree = tmp_path / HYBRID
    shutil.copytree(str(built.tree(HYBRID)), str(tree))
    as_format_1(tree)
    weights = tree / "ir" / f"{STEM}.bin"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    done = kit.run("variant", HYBRID, out=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("unchanged, taken from the published tree") == 1
    assert hashes(tree)[f"ir/{STEM}.bin"] == hashes(built.tree(HYBRID))[f"ir/{STEM}.bin"]
