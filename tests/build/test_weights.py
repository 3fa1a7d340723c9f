"""Trees of trained weights, dense and pruned, by the real NNCF, exporter and Model Optimizer."""

import json
import shutil
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy
import onnx
import pytest
import torch
from onnx import numpy_helper

from launch.artifact import sums, trees
from launch.build import jobs, preflight, rules
from launch.core import files, paths
from launch.core.errors import KitError
from launch.core.progress import Progress
from launch.model import bert_config, variants
from launch.model.onnx_model import Model
from launch.model.variants import find_variant, is_block_matrix, make_bert_large
from launch.qa import cut, weights
from launch.qa.arguments import Arguments
from launch.qa.checkpoint import list_parameters
from launch.qa.features import load_tokenizer
from launch.runtimes import publish
from launch.runtimes.file_checks import check_file
from launch.sources.source import Fork, Registry

from .. import checkpoints, hub_server
from ..conftest import Kit, assert_user_error, call, run, write_model

V, U = "70pc_sparse-02_head-0256_ffnn", "70pc_unstructured_sparse"
SIZE = {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 512, "num_attention_heads": 4}
SIZE["vocab_size"] = 2048

Tensors = Dict[str, Any]


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose checkpoint answers at random, but is no draw of the kit's."""
    folder = write_model(tmp_path_factory.mktemp("weights") / "bert-dense", **SIZE)
    shape = bert_config.read_shape(bert_config.read_config(folder), "")
    torch.manual_seed(5)
    state = {name: 0.05 * torch.randn(*size) for name, size in list_parameters(shape).items()}
    state.update({name: 1 + tensor for name, tensor in state.items() if name.endswith("LayerNorm.weight")})
    checkpoints.several_safetensors(state, folder)
    return folder


def state_of(folder: Path) -> Tensors:
    return weights.read_checkpoint(folder, lambda _: None)


@pytest.fixture(scope="module")
def pruned(dense: Path) -> Path:
    """A checkpoint cut to ``V``, with just its zeros, more in some matrices than in others."""
    folder = write_model(dense.parent / "trained-bert", **SIZE)
    config = bert_config.make_hybrid(bert_config.read_config(dense), find_variant(V), "")
    (folder / "config.json").write_text(bert_config.format_config(config))
    shape = bert_config.read_shape(config, "")
    state = cut.cut_state(state_of(dense), cut.first_structure(2, 2, 256), 32)
    names = [name for name in state if is_block_matrix(name)]
    wanted = int((shape.kept_weights - 1) * shape.unstructured_sparsity) + 1
    order = torch.cat([torch.rand(state[name].numel()) * (1 + i % 3) for i, name in enumerate(names)])
    zero = torch.zeros(shape.kept_weights, dtype=torch.bool)
    zero[order.argsort()[:wanted]] = True
    for name, places in zip(names, zero.split([state[name].numel() for name in names])):
        state[name] = state[name].masked_fill(places.view_as(state[name]), 0)
    checkpoints.one_bin(state, folder)
    return folder


@pytest.fixture(scope="module")
def made(dense: Path, pruned: Path, derived_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """A kit with the trees of the dense checkpoint in ``out``, and of the pruned one in ``pruned``."""
    kit = Kit(tmp_path_factory.mktemp("trained"), dense)
    for folder, names, out in ((dense, f"{V} {U}", kit.out), (pruned, V, kit.folder / "pruned")):
        options = {"weights": folder, "out": out, "input": None, "model": None, "validation_file": None}
        done = kit.run("variant", names, **options)
        assert done.returncode == 0, done.stderr
    return kit


def provenance_of(tree: Path) -> Dict[str, Any]:
    content: Dict[str, Any] = json.loads((tree / trees.PROVENANCE).read_text())
    return content


def matrices(tree: Path) -> Tensors:
    """Return the matrices of a tree's ONNX file by parameter."""
    model = Model(tree / f"{find_variant(tree.name).stem}.onnx")
    return {model.graph.layer_name(node): model.matrix(name) for name, node in model.matrices.items()}


def assert_kept(tree: Path, state: Tensors) -> None:
    """Assert that what is not zero has the checkpoint's values, and that its zeros are zero."""
    for name, found in matrices(tree).items():
        wanted = state[name].numpy()
        assert found.shape == wanted.shape, name
        assert (found[found != 0] == wanted[found != 0]).all(), name


def test_a_dense_checkpoint_is_cut_by_importance_and_pruned(made: Kit, dense: Path) -> None:
    tree = made.tree(V)
    known = provenance_of(tree)["weights"]
    assert (known["kind"], known["source"]) == ("trained", "bert-dense")
    assert (known["structure"], known["zeros"]) == ("importance", "pruned")
    assert {one["zeros"] for one in known["matrices"].values()} == {0}
    args = Arguments(str(dense), "", train_file=str(paths.SAMPLE / "train.json"))
    shape = bert_config.read_shape(bert_config.read_config(dense), "")
    from transformers import BertConfig

    state = state_of(dense)
    scores = weights._score(args, BertConfig(**SIZE), shape, state, load_tokenizer(args, 2048))
    structure = cut.choose_structure(scores, 2, 256)
    assert structure != cut.first_structure(2, 2, 256)
    assert_kept(tree, cut.cut_state(state, structure, 32))
    assert_kept(made.tree(U), state)
    assert provenance_of(made.tree(U))["weights"]["structure"] == "the checkpoint's"
    for name in (V, U):
        assert provenance_of(made.tree(name))["verification"]["block_sparsity"] == pytest.approx(
            0.7, abs=1e-4
        )


def test_a_pruned_checkpoint_stays_as_it_is(made: Kit, pruned: Path) -> None:
    """Bit for bit in the ONNX file; in the IR small weights become zero besides, which is counted."""
    tree, state = made.tree(V, made.folder / "pruned"), state_of(pruned)
    content = provenance_of(tree)
    known = content["weights"]
    assert (known["source"], known["structure"]) == ("trained-bert", "the checkpoint's")
    assert known["sha256"] == files.digest_file(pruned / "pytorch_model.bin")
    assert known["zeros"] == "kept"
    for name, found in matrices(tree).items():
        assert numpy.array_equal(found, state[name].numpy()), name
    shares = []
    for row in content["verification"]["matrices"]:
        if is_block_matrix(row["parameter"]):
            zeros = int((state[row["parameter"]] == 0).sum())
            assert row["zeros"] == known["matrices"][row["parameter"]]["zeros"] == zeros
            assert row["ir_zeros"] >= zeros
            shares.append(zeros / state[row["parameter"]].numel())
    assert max(shares) - min(shares) > 0.2  # no threshold over these weights leaves this
    texts = {check["name"]: check["text"] for check in content["verification"]["checks"]}
    assert "where they were" in texts["ONNX: the checkpoint's zeros"]
    assert "ONNX: sparsity by matrix" not in texts


def test_products_alone_read_quantized_activations(made: Kit) -> None:
    """In ranges with two ends of their own; those of embeddings end with each row's largest value."""
    model = Model(made.tree(V) / f"{find_variant(V).stem}.onnx")
    ends: Dict[str, List[float]] = {}
    for node in model.activations:
        users = model.graph.consumers[node.output[0]]
        low, high = (float(model.array(model.tensors[name])) for name in node.input[1:3])
        producer = model.graph.producer[node.input[0]].op_type
        split = producer == "Add" and users[0].op_type == "Reshape"
        ends.setdefault("query, key" if split else producer, []).append(low / high)
        while any(user.op_type != "MatMul" for user in users):
            assert {user.op_type for user in users} <= {"MatMul", "Reshape", "Transpose"}
            moved = [user.output[0] for user in users if user.op_type != "MatMul"]
            after = [user for name in moved for user in model.graph.consumers[name]]
            users = [user for user in after if user.op_type != "Shape"]
    assert len(model.activations) == 6 * SIZE["num_hidden_layers"] + 1
    assert all(-0.5 < one < 0 for one in ends["Mul"])  # of GELU, whose least value is -0.17
    assert "Softmax" not in ends  # nor the values that it weights
    assert ends["query, key"] == pytest.approx([-256 / 254] * 2 * SIZE["num_hidden_layers"])
    tables = [node for name, node in model.matrices.items() if "embeddings" in model.graph.layer_name(node)]
    for node in tables:
        values, low, high = (model.array(model.tensors[name]) for name in node.input[:3])
        largest = abs(values).max(1, keepdims=True)
        assert high == pytest.approx(largest)
        assert low == pytest.approx(-largest * 256 / 254)
    assert len(tables) == 3


def test_verification_compares_with_the_checkpoints_zeros(made: Kit, tmp_path: Path) -> None:
    """By what the provenance has of them; other zeros fail, in number or in place."""
    shutil.copytree(str(made.folder / "pruned"), str(tmp_path / "out"))
    tree = tmp_path / "out" / V
    assert call(["verify", f"--out={tree.parent}"]).returncode == 0
    content, name = provenance_of(tree), "bert.encoder.layer.1.output.dense.weight"
    content["weights"]["matrices"][name]["places"] = "0" * 64
    (tree / trees.PROVENANCE).write_text(json.dumps(content))
    sums.write_sums(tree, {})
    done = call(["verify", f"--out={tree.parent}"])
    assert done.returncode == 1
    assert f"FAIL ONNX: the checkpoint's zeros {name}: " in " ".join(done.stdout.split())


def test_others_say_which_weights_these_are(made: Kit, tmp_path: Path) -> None:
    for out in (made.out, made.folder / "pruned"):
        page = tmp_path / "page.html"
        done = call(["report", f"--out={out}", f"--to={page}"])
        assert done.returncode == 0, done.stderr
        assert " trained " in done.stdout
        assert "drawn from a generator" not in page.read_text(encoding="utf-8")
    assert "trained-bert" in page.read_text(encoding="utf-8")
    done = call(["package", f"--v={V}", f"--out={out}", f"--to={tmp_path / 'packed'}"])
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "packed" / V / "README.md").read_text(encoding="utf-8")
    assert "**Its weights are trained ones**: those of trained-bert (sha256 `" in card
    assert "Its own zeros, and no others" in card
    assert "WEIGHTS=" in card
    assert "random-weights" not in card
    assert "weights are random" not in card
    done = call(["compare", f"--a={made.tree(V)}", f"--b={out / V}"])
    assert done.returncode == 1
    assert "weights: A trained, bert-dense" in done.stdout


def test_what_the_tree_depends_on(made: Kit, dense: Path, pruned: Path, tmp_path: Path) -> None:
    """It is current while the checkpoint has these bytes, wherever that is."""
    done = made.run("variant", V, weights=dense, input=None, model=None, validation_file=None)
    assert "(up to date)" in done.stdout, done.stderr
    keys = []
    for folder, heads in ((dense, ""), (dense, "first"), (pruned, "")):
        moved = tmp_path / f"moved{len(keys)}"
        shutil.copytree(str(folder), str(moved))
        selection = rules.choose_inputs("sample", "", "", "", "", str(moved), heads=heads)
        for source in (Registry(), Fork()):
            job = jobs.load_tree(str(made.launch_file), find_variant(V), selection, source)
            assert job.checkpoint == moved
            keys.append(jobs.make_onnx_key(job)["arguments"])
    of = [(key["weights"], key["heads"]) for key in keys]
    assert of[0::2] == of[1::2]
    assert len(set(of)) == 3
    recorded = provenance_of(made.tree(V))["onnx_key"]["arguments"]
    assert of[0] == (recorded["weights"], recorded["heads"])


def test_the_hub_brings_config_and_tokenizer(
    made: Kit, pruned: Path, place: hub_server.Place, tmp_path: Path
) -> None:
    """To a folder with a checkpoint alone: the run is that of the folder with all of it."""
    place.server.files["config.json"] = (pruned / "config.json").read_bytes()
    place.list_all()
    options: Dict[str, Any] = {"model": None, "train_file": None, "validation_file": None}
    options.update(input="hub", hub=place.list, out=made.folder / "pruned")
    done = made.run("variant", V, weights=tmp_path / "alone", **options)
    assert_user_error(done, "does not exist", str(tmp_path / "alone"))
    (tmp_path / "alone").mkdir()
    shutil.copy(str(pruned / "pytorch_model.bin"), str(tmp_path / "alone"))
    done = made.run("variant", V, weights=tmp_path / "alone", **options)
    assert "(up to date)" in done.stdout, done.stderr
    assert place.server.asked("GET", "config.json")
    assert not place.server.asked("GET", "model.safetensors")


def test_they_have_a_form_that_every_runtime_reads(
    made: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if their outputs depend on rounding: here, if they are to be nearer than 8 bits bring them."""
    done = call(["qdq", f"--v={V}", f"--out={made.out}", f"--to={tmp_path}"])
    assert done.returncode == 0, done.stderr
    tree, stem = made.tree(V), find_variant(V).stem
    spec = variants.Spec.from_model(V, provenance_of(tree)["model"])
    monkeypatch.setattr(publish, "AS_RUN_TOLERANCE", 0.0005)
    with Progress("outputs", None) as progress:
        file = tmp_path / V / f"{stem}-qdq.onnx"
        _, facts = publish.check_outputs(tree / "ir" / f"{stem}.xml", file, spec, progress)
    far = [one for one in facts.values() if one["difference"] > 0.0005]
    assert min(one["without_rounding"] for one in far) < 0.0005
    assert sums.find_faults(tmp_path / V, sums.read_sums(tmp_path / V), lambda _: None) == []
    for spoil in (another_scale, a_scale_for_each_column, rows_of_others, scales_of_others, wider_numbers):
        proto = onnx.load(str(file))
        spoil(proto)
        onnx.save(proto, str(tmp_path / "spoiled.onnx"))
        checks = check_file(Model(tree / f"{stem}.onnx"), tmp_path / "spoiled.onnx")[0]
        (weights,) = [check for check in checks if check.name == "weights"]
        assert not weights.passed, spoil.__name__
        assert "word_embeddings" in weights.text


def scaled_rows(proto: Any) -> Tuple[Any, Any, Any, Any]:
    """Return the scales of a QDQ file's table of words, what picks them, picks rows, and casts these."""
    nodes = {node.output[0]: node for node in proto.graph.node}
    end = "word_embeddings.weight_scale"
    scale = next(one for one in proto.graph.initializer if one.name.endswith(end))
    pick = next(node for node in nodes.values() if scale.name in node.input)
    product = next(node for node in nodes.values() if pick.output[0] in node.input)
    cast = nodes[product.input[0]]
    return scale, pick, nodes[cast.input[0]], cast


def another_scale(proto: Any) -> None:
    scale = scaled_rows(proto)[0]
    values = numpy_helper.to_array(scale) * numpy.float32(1.01)
    scale.CopyFrom(numpy_helper.from_array(values, scale.name))


def a_scale_for_each_column(proto: Any) -> None:
    """Where tokens are as many as a token has values, this has the right shape."""
    scale = scaled_rows(proto)[0]
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale).ravel(), scale.name))


def rows_of_others(proto: Any) -> None:
    """Rows and scales are those of the mask's numbers."""
    _, pick, rows, _ = scaled_rows(proto)
    pick.input[1] = rows.input[1] = proto.graph.input[1].name


def scales_of_others(proto: Any) -> None:
    scaled_rows(proto)[1].input[1] = proto.graph.input[1].name


def wider_numbers(proto: Any) -> None:
    scaled_rows(proto)[3].attribute[0].i = onnx.TensorProto.DOUBLE


def test_a_launch_files_own_weights(made: Kit, pruned: Path, tmp_path: Path) -> None:
    """``--weights`` among the arguments is what WEIGHTS= sets and F5 runs; the same file comes of it."""
    tree = made.tree(V, made.folder / "pruned")
    kit = Kit(tmp_path, pruned)
    options = {"validation_file": None, "input": "files", "model": pruned}
    done = kit.run("command", V, weights=pruned, **options)
    assert f"--weights {pruned}" in done.stdout
    assert run(["sh", "-c", done.stdout]).returncode == 0
    (made_by_hand,) = (tmp_path / "work").rglob("*.onnx")
    assert made_by_hand.read_bytes() == (tree / made_by_hand.name).read_bytes()
    text = kit.launch_file.read_text()
    kit.launch_file.write_text(text.replace('"--do_eval",', f'"--do_eval", "--weights", "{pruned}",'))
    for option, checkpoint in (("", pruned), ("random", None)):
        selection = rules.choose_inputs("sample", "", "", "", "", option)
        job = jobs.load_tree(str(kit.launch_file), find_variant(U), selection, Registry())
        assert job.checkpoint == checkpoint


def test_faults_are_found_before_anything_long(dense: Path, pruned: Path, tmp_path: Path) -> None:
    kit = Kit(tmp_path, dense)
    options: Dict[str, Any] = {"validation_file": None, "input": None, "model": None}
    assert_user_error(kit.run("variant", V, weights=tmp_path / "no", **options), "does not exist", "WEIGHTS=")
    assert_user_error(kit.run("variant", V, heads="first"), "HEADS=first", "add WEIGHTS=")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_user_error(kit.run("variant", V, weights=empty, **options), "no config.json", "MODEL=<folder>")
    options["model"] = dense
    assert_user_error(kit.run("variant", V, weights=empty, **options), "holds no weights", str(empty))
    (empty / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert_user_error(kit.run("variant", V, weights=empty, **options), "git-lfs pointer", str(empty))
    done = kit.run("variant", "40pc_sparse-02_head-0256_ffnn", weights=dense, **options)
    assert_user_error(done, "removing structure alone takes 50.00 %", "V=50pc_sparse-02_head-0256_ffnn")
    # Such as only the program sees, at its first step.
    done = kit.run("variant", "60pc_sparse-02_head-0256_ffnn", weights=pruned, **options)
    assert_user_error(done, "sparser than the variant", "70.00% are zero or removed, not 60.00%", str(pruned))
    done = kit.run("variant", "70pc_sparse-01_head-0256_ffnn", weights=pruned, **options)
    assert_user_error(done, "is of another model: bert.encoder.layer.0.attention", str(pruned))
    assert "tokenizing" not in done.stderr
    assert not kit.out.exists() or not list(kit.out.iterdir())


def test_a_checkpoint_counts_for_the_memory_that_a_run_needs() -> None:
    shape = make_bert_large(find_variant("90pc_sparse-02_head-0512_ffnn"))
    usual, trained = (preflight.estimate_need(shape, checkpoint=size) for size in (0, 1_340_000_000))
    assert trained.memory > usual.memory + 1_340_000_000
    cut = preflight.estimate_need(shape, checkpoint=300_000_000, cut=True)
    assert usual.seconds < cut.seconds < trained.seconds


def shape_of(heads: int = 2) -> variants.BertShape:
    return variants.BertShape(1, 4, 2, (heads,), 16, 9, 9, 192, 0.5)


@pytest.mark.parametrize(
    ("zeros", "found"),
    [
        ([(0, 100), (0, 92)], 0.5),  # nothing is zero: as of random weights
        ([(90, 100), (6, 92)], None),  # int(191 · 0.5) + 1 are
        ([(90, 100), (3, 92)], None),  # within what is tolerated
        ([(90, 100), (2, 92)], 0.5),
        ([(4, 4), (0, 188)], 91.5 / 191),  # a matrix of zeros comes last in NNCF's order
        ([(96, 96), (0, 96)], 0.0),  # so that one more weight goes
    ],
)
def test_the_threshold_leaves_zeros_alone_where_they_make_the_target(zeros: List[Any], found: Any) -> None:
    shape, count = shape_of(), 192
    sparsity = weights.choose_sparsity(zeros, shape, 0.5, "")
    assert sparsity == found if found is None else sparsity == pytest.approx(found)
    if zeros[0] == (4, 4):
        assert int((count - 1) * sparsity) == int((count - 1) * 0.5) - 4
    with pytest.raises(KitError, match="sparser than the variant") as caught:
        weights.choose_sparsity([(99, 100), (1, 92)], shape, 0.5, "the folder")
    assert caught.value.where == "the folder"


def test_a_questions_place_is_that_of_its_first_answer(dense: Path, derived_source: Path) -> None:
    args = Arguments(str(dense), "", train_file=str(paths.SAMPLE / "train.json"), max_seq_length=128)
    args = Arguments(**{**vars(args), "doc_stride": 32})
    tokenizer = load_tokenizer(args, 2048)
    batches = list(weights.find_batches(args, tokenizer))
    examples = weights.load_examples(args, "train")
    assert 0.8 * len(examples) < len(batches) <= weights.SCORED
    texts = ["".join(example.gold[0].lower().split()) for example in examples if example.answers]
    for batch in batches:
        first, last = (int(batch[f"{end}_positions"]) for end in ("start", "end"))
        tokens = batch["input_ids"][0][first : last + 1]
        said = "".join(tokenizer.decode(tokens).split())
        assert any(text[:5] in said or said in text for text in texts), said


@pytest.mark.forks
def test_upstreams_scripts_make_the_same_of_them(
    made: Kit, dense: Path, pruned: Path, tmp_path: Path
) -> None:
    options: Dict[str, Any] = {"input": None, "model": None, "validation_file": None, "source": "fork"}
    for folder, names, out, launch in (
        (dense, f"{V} {U}", made.out, None),
        (pruned, V, made.folder / "pruned", "upstream"),
    ):
        own = tmp_path / out.name
        if launch:
            options["launch"] = launch
        done = made.run("variant", names, weights=folder, out=own, **options)
        assert done.returncode == 0, done.stderr
        for name in names.split():
            parts = [provenance_of(place / name)["weights"] for place in (own, out)]
            assert parts[0] == parts[1]
        done = call(["compare", f"--a={own}", f"--b={out}", "--level=weights"])
        assert done.returncode == 0, done.stdout
    text = made.run("command", V, weights=pruned, **options).stdout
    assert "-m launch.qa.write_weights" in text
    assert f"--weights {pruned}" in text
    assert text.count(".weights.bin") == 2
