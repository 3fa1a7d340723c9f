"""The dense model that is given, what the variant is cut to, and checkpoints as they are written."""

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

from ..core import files, paths
from ..core.errors import KitError
from ..model import bert_config, model_folder
from ..model.variants import BertShape, Variant
from ..qa.checkpoint import HEAD, fit_checkpoint, read_checkpoint
from .errors import explain_writing


def read_dense(
    folder: Path, variant: Variant, tokens: int
) -> Tuple[Dict[str, Any], BertShape, Dict[str, Any]]:
    """Return the config of a dense model's folder, its dimensions, and the config of one of its variants.

    :raises KitError: config or tokenizer is at fault, or the variant cannot be cut from the model.
    """
    where = str(bert_config.find_config(folder))
    config = bert_config.read_config(folder, "--model_name_or_path")
    bert_config.check_graph(config, where)
    dense = bert_config.read_shape(config, where)
    if config.get("pruned_heads") or "tx_block_overall_sparsity" in config:
        raise KitError(
            "The model to train from is not dense: structure has been removed from it.",
            where=f"{where}: pruned_heads, tx_block_overall_sparsity",
            hint="Give the dense model: the variant's heads and neurons are chosen from all.",
        )
    bert_config.check_length(dense, tokens, where)
    model_folder.check_tokenizer(folder, dense, tokens)
    return config, dense, bert_config.make_hybrid(config, variant, where) if variant.hybrid else config


class DenseModel:
    """A dense BERT's folder, read and checked, and the config and dimensions of one of its variants.

    :ivar dense: the dimensions of the model; ``shape``: those of the variant.
    :ivar has_head: whether the checkpoint answers questions already.
    :raises KitError: config, tokenizer or checkpoint is at fault, or the variant cannot be cut from it.
    """

    def __init__(self, folder: Path, variant: Variant, tokens: int) -> None:
        self.folder, self.variant = folder, variant
        self.config, self.dense, self.variant_config = read_dense(folder, variant, tokens)
        shape = bert_config.read_shape(self.variant_config, str(bert_config.find_config(folder)))
        self.shape = replace(shape, overall_sparsity=variant.overall_sparsity)
        self._state = read_checkpoint(folder)
        fit_checkpoint(self._state, self.dense, str(folder), head_may_lack=True)
        self.has_head = HEAD[0] in self._state

    def digest(self) -> Dict[str, str]:
        """Return digests of config and tokenizer, and of the checkpoint's files."""
        return {
            "config": files.digest_model_folder(self.folder),
            "checkpoint": model_folder.digest_checkpoint(self.folder),
        }

    def build(self, seed: int) -> Any:
        """Return the model; a head that the checkpoint lacks is drawn from ``seed``."""
        from transformers import BertConfig, BertForQuestionAnswering, set_seed

        set_seed(seed)
        model = BertForQuestionAnswering(
            BertConfig.from_dict({**self.config, "gradient_checkpointing": False})
        )
        model.load_state_dict(self._state, strict=False)  # fit_checkpoint has compared the names
        return model

    def write_teacher(self, model: Any, folder: Path) -> None:
        """Write a model of the dense config into a new folder."""
        _write_checkpoint(model, self.config, folder)

    def write_variant(self, model: Any, folder: Path) -> None:
        """Write a model of the variant, with the tokenizer's files, into a new folder."""
        config = dict(self.variant_config)
        if self.variant.hybrid:
            config["pruned_heads"] = {str(layer): gone for layer, gone in model.config.pruned_heads.items()}
        _write_checkpoint(model, config, folder)
        for name in model_folder.TOKENIZER:
            if (self.folder / name).is_file():
                shutil.copyfile(str(self.folder / name), str(folder / name))


def _write_checkpoint(model: Any, config: Dict[str, Any], folder: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    named = {name: one for name, one in model.state_dict().items() if not name.endswith("position_ids")}
    tensors = {name: one.detach().cpu().float().contiguous().numpy() for name, one in named.items()}
    try:
        save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    except SafetensorError as error:  # of a full disk
        raise OSError(str(error)) from None
    kept = {key: value for key, value in config.items() if key != "dtype" and not key.startswith("_")}
    kept.update(architectures=["BertForQuestionAnswering"], torch_dtype="float32")
    files.write_text(folder / "config.json", bert_config.format_config(kept))


def describe_work(folder: Path) -> str:
    """Return in a line what a work folder keeps after a training."""
    return f"{paths.show_path(folder)} keeps the teacher for other variants: remove it when none is to come"


@contextlib.contextmanager
def make_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder, which becomes ``folder`` by a rename once the block succeeds.

    :raises OwnError: it cannot be written.
    """
    part = folder.with_name(f".{folder.name}.{os.urandom(8).hex()}.part")
    try:
        with explain_writing(folder):
            part.mkdir(parents=True)
            yield part
            files.flush_tree(part)
            part.rename(folder)
    finally:
        shutil.rmtree(str(part), ignore_errors=True)
