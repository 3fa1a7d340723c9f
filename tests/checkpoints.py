"""Checkpoints in each form that a model hub has them in."""

import json
from pathlib import Path
from typing import Any, Callable, Dict, List

Tensors = Dict[str, Any]


def draw(folder: Path, seed: int = 123) -> Tensors:
    """Return the tensors of a question-answering BERT of the folder's config, by name."""
    from transformers import AutoConfig, BertForQuestionAnswering, set_seed

    set_seed(seed)
    config = AutoConfig.from_pretrained(str(folder))
    return dict(BertForQuestionAnswering(config).state_dict())


def one_bin(tensors: Tensors, folder: Path) -> None:
    import torch

    torch.save(tensors, str(folder / "pytorch_model.bin"))


def safetensors(tensors: Tensors, folder: Path) -> None:
    _safetensors(tensors, folder / "model.safetensors")


def several_bins(tensors: Tensors, folder: Path) -> None:
    import torch

    _shards(tensors, folder, "pytorch_model-{}.bin", "pytorch_model.bin", lambda t, p: torch.save(t, str(p)))


def several_safetensors(tensors: Tensors, folder: Path) -> None:
    _shards(tensors, folder, "model-{}.safetensors", "model.safetensors", _safetensors)


FORMS: List[Callable[[Tensors, Path], None]] = [one_bin, safetensors, several_bins, several_safetensors]


def _shards(
    tensors: Tensors, folder: Path, shard: str, whole: str, save: Callable[[Tensors, Path], None]
) -> None:
    places = {name: shard.format(index % 3) for index, name in enumerate(tensors)}
    for place in set(places.values()):
        save({name: tensor for name, tensor in tensors.items() if places[name] == place}, folder / place)
    (folder / f"{whole}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def _safetensors(tensors: Tensors, path: Path) -> None:
    """Write the format itself: a length of 8 bytes, JSON, and the tensors' bytes."""
    import torch

    kinds = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "float64": "F64"}
    header: Dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).split(".")[1]
        plain = tensor.contiguous().view(torch.int16) if kind == "bfloat16" else tensor
        data = plain.numpy().tobytes()
        end = len(body) + len(data)
        shape = list(tensor.shape)
        header[name] = {"dtype": kinds[kind], "shape": shape, "data_offsets": [len(body), end]}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
