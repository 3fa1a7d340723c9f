"""Reading a checkpoint: each form and spelling gives the same tensors, and each fault an error by name."""

import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict

import numpy
import pytest
import torch

from launch.core.errors import KitError
from launch.model import bert_config
from launch.model.variants import BertShape
from launch.qa.checkpoint import HEAD, fit_checkpoint, list_parameters, read_checkpoint

from .. import checkpoints

Tensors = Dict[str, Any]

SMALL = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 32}
SMALL.update(num_attention_heads=4, vocab_size=11, max_position_embeddings=6)
MATRIX = "bert.encoder.layer.1.output.dense.weight"


@pytest.fixture
def shape(tmp_path: Path) -> BertShape:
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    return bert_config.read_shape(bert_config.read_config(tmp_path), "")


@pytest.fixture
def tensors(shape: BertShape) -> Tensors:
    torch.manual_seed(0)
    return {name: torch.randn(*size) for name, size in list_parameters(shape).items()}


def read(folder: Path) -> Tensors:
    return read_checkpoint(folder, lambda _: None)


def assert_same(found: Tensors, wanted: Tensors) -> None:
    assert set(found) == set(wanted)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def fails(folder: Path, *words: str) -> None:
    with pytest.raises(KitError) as caught:
        read(folder)
    assert caught.value.where
    assert caught.value.hint
    for word in words:
        assert word in str(caught.value)


def test_the_parameters_are_those_of_transformers(shape: BertShape, derived_source: Path) -> None:
    from transformers import BertConfig, BertForQuestionAnswering

    pruned = {"pruned_heads": {"0": [1], "1": [0, 3]}, "intermediate_size": 5}
    for config in (SMALL, {**SMALL, **pruned}):
        model = BertForQuestionAnswering(BertConfig.from_dict(config))
        wanted = {name: tuple(one.shape) for name, one in model.named_parameters()}
        of = shape if config is SMALL else replace(shape, heads=(3, 2), intermediate_size=5)
        assert list(list_parameters(of).items()) == list(wanted.items())


@pytest.mark.parametrize("form", checkpoints.FORMS)
def test_each_form_is_read(form: Callable[[Tensors, Path], None], tensors: Tensors, tmp_path: Path) -> None:
    form(tensors, tmp_path)
    assert_same(read(tmp_path), tensors)


def test_torchs_old_form_and_parameters_are_read(tensors: Tensors, tmp_path: Path) -> None:
    kept = {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}
    torch.save(kept, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    found = read(tmp_path)
    assert_same(found, tensors)
    assert not any(tensor.requires_grad for tensor in found.values())


def test_names_are_made_those_of_a_question_answering_bert(
    tensors: Tensors, shape: BertShape, tmp_path: Path
) -> None:
    """As an encoder alone has them, of old, and with what answers no questions."""
    old = {name[5:]: tensor for name, tensor in tensors.items() if name not in HEAD}
    for name in [name for name in old if "LayerNorm" in name]:
        last = {"weight": "gamma", "bias": "beta"}[name.rpartition(".")[2]]
        old[f"{name.rpartition('.')[0]}.{last}"] = old.pop(name)
    more = {
        "embeddings.position_ids": torch.arange(6),
        "pooler.dense.weight": torch.ones(8, 8),
        "cls.predictions.bias": torch.ones(11),
    }
    checkpoints.safetensors({**old, **more}, tmp_path)
    said = []
    found = read_checkpoint(tmp_path, said.append)
    headless = {name: tensor for name, tensor in tensors.items() if name not in HEAD}
    assert_same(found, headless)
    assert said == [
        "not used of the checkpoint: bert.embeddings.position_ids, bert.pooler.dense.weight,"
        " cls.predictions.bias"
    ]
    fit_checkpoint(found, shape, "here", head_may_lack=True)
    with pytest.raises(KitError, match=r"lacks 2 .*: qa_outputs.weight, qa_outputs.bias"):
        fit_checkpoint(found, shape, "here")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("form", [checkpoints.one_bin, checkpoints.safetensors])
def test_other_floats_become_32_bits(form: Any, kind: Any, tensors: Tensors, tmp_path: Path) -> None:
    form({name: tensor.to(kind) for name, tensor in tensors.items()}, tmp_path)
    assert_same(read(tmp_path), {name: tensor.to(kind).float() for name, tensor in tensors.items()})


@pytest.mark.parametrize("form", [checkpoints.one_bin, checkpoints.safetensors])
def test_what_is_no_finite_float_is_named(form: Any, tensors: Tensors, tmp_path: Path) -> None:
    form({**tensors, MATRIX: torch.zeros(8, 32, dtype=torch.int64)}, tmp_path)
    fails(tmp_path, "of type int64", MATRIX)
    for value in ("nan", "inf"):
        spoiled = tensors[MATRIX].clone()
        spoiled[3, 4] = float(value)
        form({**tensors, MATRIX: spoiled}, tmp_path)
        fails(tmp_path, "NaN or infinity", MATRIX)
    torch.save({**tensors, MATRIX: tensors[MATRIX].double() * 1e300}, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink() if form is checkpoints.safetensors else None
    fails(tmp_path, "NaN or infinity", MATRIX)


@pytest.mark.parametrize("form", [checkpoints.one_bin, checkpoints.safetensors])
def test_a_file_cut_short_is_damaged(form: Any, tensors: Tensors, tmp_path: Path) -> None:
    form(tensors, tmp_path)
    (file,) = set(tmp_path.iterdir()) - {tmp_path / "config.json"}
    whole = file.read_bytes()
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        fails(tmp_path, "cannot be read", str(file))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_runs_no_code(zipped: bool, tensors: Tensors, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Code:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    path = tmp_path / "pytorch_model.bin"
    torch.save({**tensors, "code": Code()}, path, _use_new_zipfile_serialization=zipped)
    fails(tmp_path, "cannot be read: it would run", str(path))
    path.write_bytes(pickle.dumps(Code()))
    fails(tmp_path, "cannot be read", str(path))
    assert not marker.exists()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("code/constants.pkl", b"")
    fails(tmp_path, "TorchScript", str(path))


@pytest.mark.parametrize("content", [{"state_dict": {}, "epoch": 3}, [1], {"a": numpy.ones(2)}])
def test_another_content_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    fails(tmp_path, "cannot be read", str(tmp_path / "pytorch_model.bin"))


def test_an_index_names_files_of_its_folder(tensors: Tensors, tmp_path: Path) -> None:
    checkpoints.several_safetensors(tensors, tmp_path)
    (tmp_path / "model-1.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    fails(tmp_path, "git-lfs pointer", "model-1.safetensors")
    (tmp_path / "model-1.safetensors").unlink()
    fails(tmp_path, "names a file that is not in its folder", "model-1.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    for places in ({MATRIX: f"../{tmp_path.name}/model-0.safetensors"}, {}, [MATRIX]):
        index.write_text(json.dumps({"weight_map": places}))
        fails(tmp_path, str(index))


def test_a_tensor_that_is_there_twice_is_named(tensors: Tensors, tmp_path: Path) -> None:
    checkpoints.safetensors({**tensors, MATRIX[5:]: tensors[MATRIX]}, tmp_path)
    fails(tmp_path, f"has {MATRIX} twice")


def test_a_folder_without_weights_is_an_error(tmp_path: Path) -> None:
    fails(tmp_path, "holds no weights", str(tmp_path))


def test_tensors_that_do_not_fit_are_named(tensors: Tensors, shape: BertShape) -> None:
    for change, problem in (
        ({MATRIX: None}, f"lacks 1 of the model's weights: {MATRIX}"),
        ({"more": torch.ones(1)}, "has 1 tensors that the model has not: more"),
        ({MATRIX: torch.ones(8, 31)}, f"{MATRIX} is 8 × 31 in it and 8 × 32 in the model"),
        ({HEAD[0]: torch.ones(3, 8)}, "qa_outputs.weight is 3 × 8"),
        ({HEAD[0]: None}, "lacks 1 of the model's weights: qa_outputs.weight"),
    ):
        state = {name: tensor for name, tensor in {**tensors, **change}.items() if tensor is not None}
        with pytest.raises(KitError) as caught:
            fit_checkpoint(state, shape, "the folder", head_may_lack=True)
        assert problem in caught.value.what
        assert caught.value.where == "the folder"
    fit_checkpoint(tensors, shape, "the folder")
