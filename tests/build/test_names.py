"""Variants by name, besides the five: what a name says, what runs for it, and the trees, made for real."""

import json
import math
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, List

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.build import jobs, rules
from launch.core import files, paths
from launch.core.errors import KitError
from launch.model import bert_config, variants
from launch.model.onnx_model import Model
from launch.model.variants import VARIANTS, Spec, Variant, find_variant, find_variants, parse_name
from launch.share.compare import compare_paths
from launch.sources.source import Registry
from launch.verify.degeneracy import find_degeneracy
from launch.verify.tree import choose_trees
from launch.vscode.launch_file import find_configuration, read_launch_file
from launch.vscode.resolve import Variables, resolve_configuration

from .. import sample_trees
from ..conftest import HYBRID, INTERMEDIATE, UNSTRUCTURED, Kit, assert_user_error, call, write_model
from ..loaded import Loaded

DENSE = f"00pc_sparse-16_head-{INTERMEDIATE}_ffnn"
ODD = "37pc_sparse-11_head-1500_ffnn"
PLAIN = f"{HYBRID}-fp32"

CONFIGS = {
    "90pc_sparse-02_head-0512_ffnn": "0f7f7241b1d35bcd",
    "90pc_sparse-04_head-1024_ffnn": "16c15eb1e6a7152a",
    "90pc_sparse-06_head-1536_ffnn": "179bceb6b9c3c981",
    "90pc_sparse-08_head-2048_ffnn": "dbf4594bae7b8975",
    "configs": "78727857de05809a",
}
"""The first digits of the sha256 of what the five read in launch/configs/."""


@st.composite
def any_variants(draw: Any) -> Variant:
    precision = draw(st.sampled_from(variants.PRECISIONS))
    percent = draw(st.integers(0, 99))
    if draw(st.booleans()):
        return Variant(percent, precision=precision)
    rows = draw(st.integers(2 if precision == variants.QUANTIZED else 1, 20000))
    return Variant(percent, draw(st.integers(1, 130)), rows, precision)


@given(any_variants())
def test_a_name_is_read_as_it_is_printed(variant: Variant) -> None:
    assert parse_name(variant.name) == find_variant(variant.name) == variant
    assert find_variant(variant.base, variant.precision) == variant
    assert variant.stem == f"{variant.base}-{variant.precision}"


@given(any_variants(), st.sampled_from(range(6)), st.text("0123456789_-pcx ", max_size=6))
def test_what_is_no_name_is_refused_with_the_nearest(variant: Variant, kind: int, text: str) -> None:
    name = [
        variant.name.replace("pc_", "0pc_", 1) if variant.percent else "100" + variant.name[2:],
        variant.name + text + "x",
        "0" + variant.name,
        re.sub("_sparse-[0-9]+_head", "_sparse-00_head", variant.name) + (variant.heads is None) * "x",
        variant.name.upper(),
        variant.name[1:],
    ][kind]
    assert parse_name(name) is None
    with pytest.raises(KitError) as caught:
        find_variant(name)
    assert repr(name) in caught.value.what
    assert f"V={name}" in caught.value.where
    near = re.match(r"Did you mean V=(\S+)\?", caught.value.hint)
    assert near, caught.value.hint
    assert parse_name(near.group(1))


def test_one_row_is_a_name_in_32_bits_alone() -> None:
    name = "98pc_sparse-01_head-0001_ffnn"
    assert find_variant(name, "fp32") == find_variant(f"{name}-fp32")
    with pytest.raises(KitError, match="one row in 8 bits"):
        find_variant(name)


def test_several_names_are_each_taken_once() -> None:
    names = find_variants(f"{HYBRID}, {DENSE}\t{HYBRID} ", "fp32")
    assert [variant.name for variant in names] == [PLAIN, f"{DENSE}-fp32"]
    with pytest.raises(KitError, match="'x'"):
        find_variants(f"{HYBRID} x")


@given(st.data(), st.integers(1, 24), st.integers(1, 4), st.integers(1, 3))
def test_a_config_holds_the_arithmetic_of_its_name(data: Any, heads: int, size: int, layers: int) -> None:
    """The share of zero and removed weights is S for every size; what cannot be is refused by name."""
    hidden = 8 * heads * size
    kept, rows = data.draw(st.integers(1, heads + 1)), data.draw(st.integers(2, 4 * hidden + 9))
    variant = Variant(data.draw(st.integers(0, 99)), kept, rows)
    dense = {
        **bert_config._DEFAULTS,
        **{"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads},
        "intermediate_size": 4 * hidden,
    }
    removed = 100 * (1 - Fraction(kept, 3 * heads) - Fraction(rows, 6 * hidden))
    if kept > heads or rows > 4 * hidden:
        assert "the dense model has fewer" in refusal(dense, variant)
    elif removed > 99:
        assert "nothing below 100 %" in refusal(dense, variant)
    elif removed > variant.percent:
        least = replace(variant, percent=math.ceil(removed))
        assert f"Make V={least.name}, the least" in refusal(dense, variant)
        bert_config.make_hybrid(dense, least, "")
    else:
        spec = Spec.of(variant, bert_config.read_shape(bert_config.make_hybrid(dense, variant, ""), ""))
        assert (set(spec.heads), spec.intermediate_size, spec.contradiction()) == ({kept}, rows, None)
        assert 0 <= spec.unstructured_sparsity < 1
        pruned = spec.unstructured_sparsity * spec.kept_weights
        left = (spec.kept_weights - pruned) / spec.dense_block_weights
        assert left == pytest.approx(1 - variant.percent / 100)
        sizes = {name: math.prod(shape) for name, shape in spec.matrices().items()}
        zeros = sum(share * sizes[name] for name, share in spec.expected_zeros().items())
        assert zeros == pytest.approx(pruned, abs=0.01)


def refusal(dense: Dict[str, Any], variant: Variant) -> str:
    with pytest.raises(KitError) as caught:
        bert_config.make_hybrid(dense, variant, "dense")
    assert caught.value.where.startswith("dense: ")
    assert variant.name in caught.value.what
    return f"{caught.value.what} {caught.value.hint}"


PRUNE = """
import json, sys
import torch
from transformers import set_seed
from launch.qa import arguments, compress, model

for line in sys.argv[1].split(";"):
    set_seed(1)
    args = arguments.parse_arguments("p", line.split(","))
    config, shape = model.load_config(args)
    nncf_config = compress.read_nncf_config(args)
    if args.gen_hybrid_sparse_model:
        nncf_config["compression"][0]["sparsity_init"] = shape.unstructured_sparsity
    controller = compress.compress_model(compress.draw_model(args, config), nncf_config, [])
    controller.sparsify_params()
    left = sum(int(info.module.weight.count_nonzero()) for info in controller.sparsified_module_info)
    print("share", 1 - left / (2 * (4 * 64 * 64 + 2 * 64 * 256)))
"""
"""Prunes with NNCF for each of some command lines, and prints the share of zero and removed weights."""


def test_nncf_leaves_the_share_of_the_name_at_any_size(loaded: Loaded, tmp_path: Path) -> None:
    """The kit's own steps up to the export, on a model whose every weight is 1/98,304 of the whole."""
    model = write_model(
        tmp_path / "model",
        **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256},
        **{"vocab_size": 64, "max_position_embeddings": 8},
    )
    dense = bert_config.read_config(model)
    nncf = json.loads((paths.PACKAGE / "configs" / "nncf.json").read_text(encoding="utf-8"))
    nncf["input_info"] = [{"sample_size": [1, 8], "type": "long"}] * 3
    names = [
        "00pc_sparse-04_head-0256_ffnn",
        "50pc_sparse-02_head-0128_ffnn",
        "99pc_sparse-01_head-0001_ffnn-fp32",
    ]
    names += [
        "99pc_sparse-04_head-0256_ffnn",
        "83pc_sparse-03_head-0037_ffnn",
        "42pc_sparse-04_head-0110_ffnn",
    ]
    names += ["00pc_unstructured_sparse", "01pc_unstructured_sparse", "99pc_unstructured_sparse"]
    lines = []
    for variant in map(find_variant, names):
        folder = tmp_path / variant.base
        folder.mkdir()
        config = bert_config.make_hybrid(dense, variant, "") if variant.hybrid else dense
        (folder / "config.json").write_text(bert_config.format_config(config))
        pruning = {**nncf["compression"][0], "sparsity_init": variant.overall_sparsity}
        (folder / "nncf.json").write_text(json.dumps({**nncf, "compression": [pruning]}))
        words = [
            f"--model_name_or_path={model}",
            f"--config_name={folder / 'config.json'}",
            "--to_onnx=x.onnx",
        ]
        words += [f"--nncf_config={folder / 'nncf.json'}", "--output_dir=x", "--train_file=x"]
        words += ["--max_seq_length=8", "--doc_stride=4", *["--gen_hybrid_sparse_model"] * variant.hybrid]
        lines.append(",".join(words))
    done = loaded.run("nncf.torch", ["-c", PRUNE, ";".join(lines)], tmp_path)
    assert done.returncode == 0, done.stderr
    shares = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("share ")]
    assert len(shares) == len(names)
    for name, share in zip(names, shares):
        assert abs(share - int(name[:2]) / 100) <= 3 / 98304, (name, share)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("99pc_sparse-16_head-0512_ffnn", ["all-zero matrices", "dead layers"]),  # attention
        (UNSTRUCTURED, ["all-zero matrices", "dead layers"]),  # feed-forward
        ("00pc_unstructured_sparse", []),
        ("99pc_sparse-01_head-0002_ffnn", []),
    ],
)
def test_known_findings_follow_from_the_dimensions(name: str, kinds: List[str]) -> None:
    spec = sample_trees.spec(find_variant(name))
    rows = sample_trees.matrices(spec, sample_trees.zeros(spec))
    found = find_degeneracy(spec, {"matrices": rows, "ir_zeros": {}})
    assert [finding.kind for finding in found] == kinds
    assert all(finding.known for finding in found)
    # Another matrix that is empty is none that was to be expected.
    rows[-2]["zeros"] = 0 if kinds else math.prod(rows[-2]["shape"])
    assert all(one.known for one in find_degeneracy(spec, {"matrices": rows, "ir_zeros": {}})) == bool(kinds)


def load(kit: Kit, variant: str, precision: str = "", **selected: Any) -> jobs.TreeJob:
    selection = rules.Selection(**{"threads": 2, **selected})
    return jobs.load_tree(str(kit.launch_file), find_variant(variant, precision), selection, Registry())


def rule(job: jobs.Job, option: str) -> List[str]:
    return next(part.rules for part in job.parts if part.after[:1] == (option,))


def test_the_five_run_as_the_launch_file_has_them(kit: Kit) -> None:
    """No rule touches them, and the configs that they read are those that were committed first."""
    launch_file = read_launch_file(kit.launch_file)
    for variant in VARIANTS.values():
        job = load(kit, variant.name)
        configuration = find_configuration(launch_file, variant.name)
        entry = resolve_configuration(Variables(configuration, paths.REPOSITORY, {}), "")
        assert job.invocation.args == entry.args
        assert job.invocation.target == entry.target
        assert not any(part.rules for part in job.parts if part.what == "args")
        assert job.origin == f"{variant.name!r} in {paths.show_path(kit.launch_file)}"
        assert job.onnx_path == kit.folder / "work" / variant.name / f"{variant.name}-8bit.onnx"
        spec = job.spec()
        assert (spec.overall_sparsity, spec.nodes, spec.outputs) == (0.9, 3974, ["6704", "6705"])
        assert (
            spec.unstructured_sparsity
            == (0.9 - (1 - spec.kept_weights / 301989888)) * 301989888 / spec.kept_weights
        )
    read = [*paths.PACKAGE.glob("configs/*/config.json"), paths.PACKAGE / "configs" / "nncf.json"]
    assert {path.parent.name: files.digest_file(path)[:16] for path in read} == CONFIGS


def test_another_hybrid_runs_from_the_first_entry_of_its_kind(kit: Kit) -> None:
    name = "75pc_sparse-08_head-2048_ffnn"
    job, first = load(kit, name), load(kit, HYBRID)
    assert job.origin == f"{name!r}, by {first.origin}"
    kind = f"V: as {HYBRID}, the launch file's first of its kind"
    assert rule(job, "--config_name") == [kind, "V: cut from the dense model"]
    changed = [(one, other) for one, other in zip(job.invocation.args, first.invocation.args) if one != other]
    assert [Path(one).parent.name for one, _ in changed] == [name]
    assert job.invocation.env == first.invocation.env
    config = json.loads(Path(changed[0][0]).read_text())
    assert (config["intermediate_size"], config["tx_block_overall_sparsity"]) == (2048, 0.75)
    assert config["pruned_heads"]["23"] == list(range(8, 16))
    assert job.shape().unstructured_sparsity == 0.5
    assert job.onnx_path == kit.folder / "work" / name / f"{name}-8bit.onnx"


def test_another_unstructured_variant_has_its_level_in_a_copy_of_the_nncf_config(kit: Kit) -> None:
    job = load(kit, "07pc_unstructured_sparse")
    named = Path(str(job.arguments.nncf_config))
    assert rule(job, "--nncf_config") == ["V: sparsity_init 0.07"]
    content, own = (
        json.loads(named.read_text()),
        json.loads((paths.PACKAGE / "configs/nncf.json").read_text()),
    )
    assert content["compression"][0].pop("sparsity_init") == 0.07
    assert own["compression"][0].pop("sparsity_init") == 0.9
    assert content == own
    assert job.shape().overall_sparsity == 0.07
    assert job.work == kit.folder / "work" / "07pc_unstructured_sparse"
    assert job.arguments.output_dir == str(job.work)


@pytest.mark.parametrize("name", [HYBRID, UNSTRUCTURED, DENSE.replace("2048", "4096")])
def test_precision_leaves_quantization_out_and_moves_the_files(kit: Kit, name: str) -> None:
    job, quantized = load(kit, name, "fp32"), load(kit, name)
    content = json.loads(Path(str(job.arguments.nncf_config)).read_text())
    assert [one["algorithm"] for one in content["compression"]] == ["magnitude_sparsity"]
    assert content["compression"][0]["sparsity_init"] in (0.9, quantized.shape().overall_sparsity)
    assert job.onnx_path == kit.folder / "work" / "fp32" / name / f"{name}-fp32.onnx"
    assert rule(job, "--nncf_config") == ["PRECISION=fp32: not quantized"]
    assert rule(job, "--output_dir")[-1] == "PRECISION=fp32: a folder of its own"
    assert job.shape() == quantized.shape()
    assert (job.spec().nodes, job.spec().activation_quantizers) == (2292, 0)


def test_an_entry_of_the_name_goes_first_as_it_is(kit: Kit) -> None:
    text = kit.launch_file.read_text(encoding="utf-8")
    own = text.replace(UNSTRUCTURED, "50pc_unstructured_sparse").replace('"--seed", "42"', '"--seed", "7"')
    entry = own[own.index('{\n      "name": "50pc') : own.index('{\n      "name": "evaluate"')]
    place = text.index('{\n      "name": "configs"')
    kit.launch_file.write_text(text[:place] + entry + text[place:], encoding="utf-8")
    job = load(kit, "50pc_unstructured_sparse")
    assert job.arguments.seed == 7
    assert not any(part.rules for part in job.parts if part.what == "args")
    # It is the first of its kind now, too; the five have their own.
    assert load(kit, "40pc_unstructured_sparse").arguments.seed == 7
    assert load(kit, UNSTRUCTURED).arguments.seed == 42
    kit.launch_file.write_text(text.replace('"name": "90pc_sparse', '"name": "hybrid'), encoding="utf-8")
    with pytest.raises(KitError, match="There is no configuration '75pc"):
        load(kit, "75pc_sparse-08_head-2048_ffnn")


def test_a_config_of_the_other_precision_is_refused(kit: Kit, tmp_path: Path) -> None:
    plain = tmp_path / "plain.json"
    config = json.loads((paths.PACKAGE / "configs/nncf.json").read_text())
    plain.write_text(json.dumps({**config, "compression": config["compression"][:1]}))
    text = kit.launch_file.read_text(encoding="utf-8")
    kit.launch_file.write_text(text.replace("${workspaceFolder}/launch/configs/nncf.json", str(plain)))
    assert_user_error(kit.run("variant", HYBRID), "does not quantize", "nncf_config", str(plain))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"v": "40pc_sparse-08_head-1024_ffnn"}, ("50.00 %", "V=50pc_sparse-08_head-1024_ffnn, the least")),
        ({"v": "90pc_sparse-17_head-0512_ffnn"}, ("17 heads", "num_attention_heads = 16")),
        ({"v": f"{HYBRID} 90pc_sparse-02_head-2049_ffnn"}, ("2049 feed-forward rows",)),
        ({"v": "100pc_unstructured_sparse"}, ("from 00 to 99", "V=99pc_unstructured_sparse?")),
        ({"v": HYBRID, "precision": "int8"}, ("PRECISION=int8", "8bit, fp32")),
        ({"v": PLAIN, "precision": "8bit"}, (f"V={PLAIN} PRECISION=8bit",)),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(
    kit: Kit, options: Dict[str, str], words: tuple
) -> None:
    done = kit.run("variant", **options)
    assert_user_error(done, *words)
    assert "[1/" not in done.stderr
    assert not kit.out.exists()


def test_commands_take_several_names(kit: Kit) -> None:
    done = kit.run("command", f"{HYBRID} 75pc_unstructured_sparse", precision="fp32")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cd ") == 2
    assert "75pc_unstructured_sparse-fp32.onnx" in done.stdout
    assert_user_error(kit.run("command", f"{HYBRID} nonsense"), "nonsense")
    assert_user_error(call(["verify", f"--v={HYBRID} {DENSE}", f"--out={kit.out}"]), f"{HYBRID}, {DENSE}")


def test_other_trees_are_made_and_every_command_reads_them(kit: Kit, built: Kit, tmp_path: Path) -> None:
    """A dense tree, one of odd sizes, and one of the five in 32 bits: all by one command, made for real."""
    names = [DENSE, ODD, PLAIN]
    done = kit.run("variant", f"{DENSE} {ODD},{PLAIN}")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(\d+) of \1 checks passed, 0 findings", done.stderr) == ["21", "21", "17"]
    for name, share in zip(names, (0.0, 0.37, 0.9)):
        _assert_sparsity(kit.tree(name), share)
    _assert_same_weights(kit.tree(PLAIN), built.tree(HYBRID))
    again = kit.run("variant", HYBRID, precision="fp32")
    assert "(up to date)" in again.stdout
    assert [tree.name for tree in choose_trees(kit.out, [])] == sorted(names)
    _assert_reported(kit.out, tmp_path)
    results = compare_paths(kit.out, kit.out, "bytes")
    assert [(result.name, result.same) for result in results] == [(name, True) for name in sorted(names)]
    # Another weight in the IR: the tree's, and not of the ONNX file.
    path = kit.tree(PLAIN) / "ir" / f"{PLAIN}.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 8 * 4 : len(content) // 8 * 4 + 4] = numpy.float32(0.5).tobytes()
    path.write_bytes(bytes(content))
    done = call(["verify", f"--v={PLAIN}", f"--out={kit.out}"])
    assert done.returncode == 1
    assert "FAIL  IR: 32-bit weights" in done.stdout


def _assert_sparsity(tree: Path, share: float) -> None:
    made = json.loads((tree / "provenance.json").read_text())
    assert (made["variant"], made["model"]["overall_sparsity"]) == (tree.name, share)
    rows = [row for row in made["verification"]["matrices"] if row["parameter"].startswith("bert.encoder")]
    left = sum(numpy.prod(row["shape"]) - row["zeros"] for row in rows)
    assert abs(1 - left / made["model"]["dense_block_weights"] - share) < 1e-6
    stem = tree.name if tree.name == PLAIN else f"{tree.name}-8bit"
    assert {path.name for path in (tree / "ir").iterdir()} == {
        "mo.log",
        *(f"{stem}{suffix}" for suffix in (".bin", ".mapping", ".xml")),
    }


def _assert_same_weights(plain: Path, quantized: Path) -> None:
    models = Model(plain / f"{PLAIN}.onnx"), Model(quantized / f"{HYBRID}-8bit.onnx")
    found = [
        {model.graph.layer_name(reader): model.matrix(name) for name, reader in model.matrices.items()}
        for model in models
    ]
    assert list(found[0]) == list(found[1])
    assert all(numpy.array_equal(values, found[1][name]) for name, values in found[0].items())
    assert [model.quantized for model in models] == [False, True]


def _assert_reported(out: Path, folder: Path) -> None:
    page = folder / "page.html"
    done = call(["report", f"--out={out}", f"--to={page}"])
    assert done.returncode == 0, done.stderr
    assert re.search(rf"{DENSE} +dense ", done.stdout)
    assert "missing" not in done.stdout
    assert "0 %, 37 % or 90 %" in page.read_text(encoding="utf-8")
    done = call(["package", f"--v={PLAIN} {DENSE}", f"--out={out}", f"--to={folder}"])
    assert done.returncode == 0, done.stderr
    plain, dense = ((folder / name / "README.md").read_text(encoding="utf-8") for name in (PLAIN, DENSE))
    assert "in 32 bits" in plain
    assert "- int8" not in plain
    assert f"V={PLAIN} " in plain
    assert "dense: nothing was removed" in dense
