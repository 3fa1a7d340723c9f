"""The tensors of a question-answering BERT, read from the files that hold them without running code."""

import inspect
import pickle
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterable, List, Tuple

from ..core import child, files
from ..core.errors import KitError
from ..model import model_folder
from ..model.variants import ATTENTION, BLOCK_PREFIX, FEED_FORWARD, BertShape

HEAD = ("qa_outputs.weight", "qa_outputs.bias")

_OLD_NAMES = {"gamma": "weight", "beta": "bias"}
"""What layer norms call their vectors in checkpoints that were converted from TensorFlow."""

_BARE = ("embeddings.", "encoder.", "pooler.")
"""How names begin in the checkpoint of a BERT without a head, which lacks ``bert.``."""

_UNUSED = re.compile(r"cls\..*|bert\.pooler\..*|bert\.embeddings\.(position_ids|token_type_ids)")
"""Heads of pre-training, the pooler, which answers no questions, and buffers."""

_KINDS = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "int16"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"},
}
"""numpy's types of safetensors': it has no bfloat16, whose bits are taken as they are."""

_HINT = "Give the whole checkpoint of a BERT, as transformers' save_pretrained writes it."


def read_checkpoint(folder: Path, say: Callable[[str], None] = child.report_step) -> Dict[str, Any]:
    """Return the checkpoint of a model folder: 32-bit tensors by BertForQuestionAnswering's names.

    Pooler, heads of pre-training and buffers are left out, and ``say`` tells so.

    :raises KitError: there is none, it is damaged, would run code, or holds what is no finite number.
    """
    found: Dict[str, Any] = {}
    unused = []
    for file in model_folder.list_checkpoint(folder):
        tensors = _read_file(file)
        for old in list(tensors):
            tensor, name = tensors.pop(old), _rename(old)
            if _UNUSED.fullmatch(name):
                unused.append(name)
            elif name in found:
                raise KitError(f"The checkpoint has {name} twice.", where=f"{file}: {old}", hint=_HINT)
            else:
                found[name] = _convert(tensor, f"{file}: {old}")
    if unused:
        say(f"not used of the checkpoint: {name_some(sorted(unused))}")
    return found


def name_some(names: List[str]) -> str:
    """Return the first few names in one line, and the number of the others."""
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


def fit_checkpoint(
    state: Dict[str, Any], shape: BertShape, where: str, *, head_may_lack: bool = False
) -> None:
    """Check that ``state`` has the tensors of a model of this shape, and no other; ``where``: its folder.

    :param head_may_lack: allow that the question-answering head lacks, as a whole.
    :raises KitError: a tensor is missing, unknown or of another shape; the error names it.
    """
    wanted = list_parameters(shape)
    if head_may_lack and not set(HEAD) & set(state):
        wanted = {name: size for name, size in wanted.items() if name not in HEAD}
    missing = [name for name in wanted if name not in state]
    if missing:
        raise KitError(
            f"The checkpoint lacks {len(missing)} of the model's weights: {name_some(missing)}.",
            where=where,
            hint=_HINT,
        )
    unknown = [name for name in state if name not in wanted]
    if unknown:
        raise KitError(
            f"The checkpoint has {len(unknown)} tensors that the model has not: {name_some(unknown)}.",
            where=where,
            hint="Give the checkpoint of a question-answering BERT, with the config that belongs to it.",
        )
    sizes = {name: tuple(state[name].shape) for name in wanted}
    others = [name for name in wanted if sizes[name] != wanted[name]]
    if others:
        name = others[0]
        raise KitError(
            f"The checkpoint is of another model: {name} is {_times(sizes[name])} in it and"
            f" {_times(wanted[name])} in the model ({len(others)} tensors differ).",
            where=where,
            hint="Give the config.json that belongs to the checkpoint, or a checkpoint of this model.",
        )


def list_parameters(shape: BertShape) -> Dict[str, Tuple[int, ...]]:
    """Return the sizes of a question-answering BERT's tensors by name, in transformers' order."""
    hidden = shape.hidden
    rows = {"word": shape.vocab_size, "position": shape.max_positions, "token_type": 2}
    found: Dict[str, Tuple[int, ...]] = {
        f"bert.embeddings.{name}_embeddings.weight": (number, hidden) for name, number in rows.items()
    }

    def norm(place: str) -> None:
        found.update({f"{place}.LayerNorm.{part}": (hidden,) for part in ("weight", "bias")})

    norm("bert.embeddings")
    for layer, heads in enumerate(shape.heads):
        width, inner = heads * shape.head_size, shape.intermediate_size
        sizes = {
            **dict.fromkeys(ATTENTION[:3], (width, hidden)),
            ATTENTION[3]: (hidden, width),
            FEED_FORWARD[0]: (inner, hidden),
            FEED_FORWARD[1]: (hidden, inner),
        }
        for name, size in sizes.items():
            place = f"{BLOCK_PREFIX}{layer}.{name}"
            found[f"{place}.weight"], found[f"{place}.bias"] = size, size[:1]
            if name in (ATTENTION[3], FEED_FORWARD[1]):
                norm(place.rpartition(".")[0])
    found.update(zip(HEAD, ((2, hidden), (2,))))
    return found


def _times(size: Iterable[int]) -> str:
    return " × ".join(f"{number:,}" for number in size) or "one number"


def _rename(name: str) -> str:
    place, _, last = name.rpartition(".")
    if place.endswith("LayerNorm"):
        name = f"{place}.{_OLD_NAMES.get(last, last)}"
    return f"bert.{name}" if name.startswith(_BARE) else name


def _read_file(path: Path) -> Dict[str, Any]:
    try:
        files.check_regular(path)
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _unpickle(path)
    except KitError:
        raise
    except Exception as error:  # of a damaged file, torch and safetensors raise anything
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:300]
        raise KitError(
            f"The checkpoint cannot be read: {reason or type(error).__name__}.",
            where=str(path),
            hint="Give the whole file, as transformers' save_pretrained writes it, safetensors at best.",
        ) from None
    return content


def _read_safetensors(path: Path) -> Dict[str, Any]:
    import numpy
    import torch
    from safetensors import deserialize

    read: Callable[[bytes], Any] = deserialize  # which has no types
    found = {}
    for name, held in read(path.read_bytes()):
        kind = held["dtype"]
        if kind not in _KINDS:
            raise _make_type_error(kind, f"{path}: {name}")
        tensor = torch.from_numpy(numpy.ndarray(held["shape"], _KINDS[kind], held["data"]))
        found[name] = tensor.view(torch.bfloat16) if kind == "BF16" else tensor
    return found


class _Unpickler(pickle.Unpickler):
    """Makes tensors, and nothing else of what a pickle may name."""

    _MAKERS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")

    def find_class(self, module: str, name: str) -> Any:
        if (
            (module, name) == ("collections", "OrderedDict")
            or (module == "torch._utils" and name in self._MAKERS)
            or (module in ("torch", "torch.cuda") and re.fullmatch("[A-Za-z0-9]+Storage", name))
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it would run {module}.{name}, which makes no tensor")


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


def _unpickle(path: Path) -> Dict[str, Any]:
    """Return the tensors of a torch.save; torch 1.9 has no ``weights_only``, so the kit's unpickler reads."""
    import torch

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise pickle.UnpicklingError("it is a TorchScript program, and no checkpoint")
    own = SimpleNamespace(__name__=__name__, Unpickler=_Unpickler, load=_load)
    options: Dict[str, Any] = {"map_location": "cpu", "pickle_module": own}
    if "weights_only" in inspect.signature(torch.load).parameters:
        options["weights_only"] = False  # which takes no unpickler
    content = torch.load(str(path), **options)
    if not isinstance(content, dict) or not all(isinstance(one, torch.Tensor) for one in content.values()):
        raise ValueError("it is no dictionary of tensors by name, but what a training program keeps")
    return {str(name): tensor for name, tensor in content.items()}


def _make_type_error(kind: str, where: str) -> KitError:
    return KitError(
        f"A tensor of the checkpoint is of type {kind}, which holds no weights that can be pruned.",
        where=where,
        hint="Give the checkpoint in 32 or 16 bits: float32, bfloat16 or float16.",
    )


def _convert(tensor: Any, where: str) -> Any:
    """Return a tensor in 32 bits, with memory of its own."""
    import torch

    kind = str(tensor.dtype).replace("torch.", "")
    kind = kind if tensor.layout == torch.strided else str(tensor.layout)
    if kind not in ("float64", "float32", "float16", "bfloat16"):
        raise _make_type_error(kind, where)
    made = tensor.detach().to(torch.float32).contiguous()
    if not torch.isfinite(made).all():
        raise KitError(
            "A tensor of the checkpoint holds what is no finite number (NaN or infinity).",
            where=where,
            hint="The training has diverged: take an earlier checkpoint.",
        )
    return made
