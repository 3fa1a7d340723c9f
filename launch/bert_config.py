"""Model configs: what makes a BERT's config sound, and the hybrid configs that follow from a dense one.

Plain JSON in, plain JSON out, without transformers, so that ``make configs`` and every check answer at once.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List

from . import files, json_file, status
from .errors import KitError
from .variants import (
    OVERALL_SPARSITY,
    VARIANTS,
    Variant,
    block_weights,
    dense_block_weights,
    unstructured_sparsity,
)

TRANSFORMERS_VERSION = "4.9.1"

_DEFAULTS: Dict[str, Any] = {
    # BertConfig's defaults in transformers 4.9.1 for keys that an older config.json leaves out and that
    # a config saved by 4.9.1 carries.
    "architectures": ["BertForQuestionAnswering"],
    "attention_probs_dropout_prob": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": 30522,
}


@dataclass(frozen=True)
class BertShape:
    """The dimensions of one BERT, read from its config.

    :param heads: heads kept in each layer, by layer.
    :param overall_sparsity: ``tx_block_overall_sparsity``; a dense config has none and takes the kit's.
    """

    layers: int
    hidden: int
    head_size: int
    heads: List[int]
    intermediate_size: int
    vocab_size: int
    max_positions: int
    overall_sparsity: float
    pruned: bool

    @property
    def kept_weights(self) -> int:
        """Transformer-block weights that are left once structure is removed."""
        return sum(
            block_weights(1, self.hidden, heads * self.head_size, self.intermediate_size)
            for heads in self.heads
        )

    @property
    def dense_weights(self) -> int:
        """Transformer-block weights of the dense model that this one is, or is cut from."""
        if self.pruned:
            return dense_block_weights(self.layers, self.hidden)
        return self.kept_weights

    @property
    def unstructured_sparsity(self) -> float:
        """Share of :attr:`kept_weights` to prune; see :func:`launch.variants.unstructured_sparsity`."""
        return unstructured_sparsity(self.dense_weights, self.kept_weights, self.overall_sparsity)


def config_file(source: Path) -> Path:
    """Return the config file that ``source``, a model folder or the file itself, stands for."""
    return source / "config.json" if source.is_dir() else source


def read(source: Path, name: str) -> Dict[str, Any]:
    """Return the config in ``source`` (a model folder or a config file), with BERT's defaults filled in.

    :param name: what the file is to the user (``MODEL``), for errors.
    :raises KitError: it cannot be read or is not a BERT's.
    """
    path = config_file(source)
    content = json_file.read(path, name)
    if not isinstance(content, dict):
        raise KitError("The model config is not a JSON object.", where=f"{name}={path}", hint=_HINT)
    kind = content.get("model_type")
    if kind != "bert":
        raise KitError(
            "The model is not a BERT." if kind else "The model config does not say that the model is a BERT.",
            where=f"{name}={path}: model_type is {json.dumps(kind)}",
            hint='Give a BERT whose config.json says "model_type": "bert".',
        )
    return {**_DEFAULTS, **content}


_HINT = "Give a folder or config.json of a BERT, as transformers' save_pretrained writes it."


_GRAPH = {"hidden_act": "gelu", "position_embedding_type": "absolute", "type_vocab_size": 2}


def check_graph(config: Dict[str, Any], where: str) -> None:
    """Check that a config's model has the graph of BERT-large, which every tree is verified against.

    :param where: the config's file, for errors.
    :raises KitError: it has another activation function, other position embeddings or other token types.
    """
    for key, wanted in _GRAPH.items():
        if config[key] != wanted:
            raise KitError(
                f"A tree of this model could not be verified: {key} must be {json.dumps(wanted)}.",
                where=f"{where}: {key} = {json.dumps(config[key])[:60]}",
                hint="Give a BERT that differs from BERT-large in size only.",
            )


def shape(config: Dict[str, Any], where: str) -> BertShape:
    """Return the dimensions in ``config``.

    :param where: the config's file, for errors.
    :raises KitError: a dimension is no positive whole number, or dimensions contradict each other.
    """

    def fail(problem: str, key: str) -> KitError:
        values = ", ".join(f"{name} = {json.dumps(config.get(name))[:60]}" for name in key.split(","))
        return KitError(
            f"The model config contradicts itself: {problem}.",
            where=f"{where}: {values}",
            hint="Correct the config.",
        )

    for key in (
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
        "max_position_embeddings",
        "type_vocab_size",
    ):
        if not isinstance(config[key], int) or isinstance(config[key], bool) or config[key] < 1:
            raise fail(f"{key} must be a positive whole number", key)
    if config["type_vocab_size"] < 2:
        raise fail("question and context need two token types", "type_vocab_size")
    labels = (
        len(config["id2label"]) if isinstance(config.get("id2label"), dict) else config.get("num_labels", 2)
    )
    if labels != 2:
        raise fail("a question-answering model has two labels, start and end", "num_labels,id2label")
    pad = config["pad_token_id"]
    if not isinstance(pad, int) or not 0 <= pad < config["vocab_size"]:
        raise fail("the padding token is none of the vocabulary's", "pad_token_id,vocab_size")
    layers, hidden, heads = config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"]
    if hidden % heads:
        raise fail(f"{hidden} does not divide into {heads} heads", "hidden_size,num_attention_heads")
    pruned = config.get("pruned_heads") or {}
    if not isinstance(pruned, dict):
        raise fail("pruned_heads must map layers to lists of heads", "pruned_heads")
    kept = [heads] * layers
    for layer, gone in pruned.items():
        if not re.fullmatch("[0-9]{1,9}", str(layer)) or int(layer) >= layers:
            raise fail(f"pruned_heads names layer {layer!r} of a model of {layers}", "num_hidden_layers")
        if not isinstance(gone, list) or not all(
            isinstance(head, int) and 0 <= head < heads for head in gone
        ):
            raise fail(f"pruned_heads of layer {layer} names heads beyond {heads}", "num_attention_heads")
        kept[int(layer)] = heads - len(set(gone))
        if not kept[int(layer)]:
            raise fail(f"pruned_heads leaves layer {layer} without a head", "num_attention_heads")
    overall = config.get("tx_block_overall_sparsity", OVERALL_SPARSITY)
    if not isinstance(overall, (int, float)) or not 0 <= overall < 1:
        raise fail(
            "tx_block_overall_sparsity must be at least 0 and less than 1", "tx_block_overall_sparsity"
        )
    found = BertShape(
        layers=layers,
        hidden=hidden,
        head_size=hidden // heads,
        heads=kept,
        intermediate_size=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        max_positions=config["max_position_embeddings"],
        overall_sparsity=float(overall),
        pruned=bool(pruned) or "tx_block_overall_sparsity" in config,
    )
    if found.pruned and not 0 <= found.unstructured_sparsity < 1:
        raise fail(
            f"{found.kept_weights:,} of the dense model's {found.dense_weights:,} weights are kept, "
            f"and from them no pruning of single weights reaches a sparsity of {overall}",
            "hidden_size,num_attention_heads,intermediate_size",
        )
    return found


def check_length(found: BertShape, tokens: int, where: str) -> None:
    """Check that the model has a position for each of a feature's ``tokens``.

    :raises KitError: it has not.
    """
    if tokens > found.max_positions:
        raise KitError(
            f"The model has {found.max_positions} positions, a feature {tokens} tokens.",
            where=f"max_position_embeddings of {where}",
            hint="Use a smaller --max_seq_length or another model.",
        )


def hybrid(dense: Dict[str, Any], variant: Variant, where: str) -> Dict[str, Any]:
    """Return the config of the hybrid ``variant`` of the model that ``dense`` describes.

    The first ``variant.heads`` heads of every layer stay; transformers removes the others
    (``pruned_heads``) when it builds the model.

    :param where: the dense config's file, for errors.
    :raises KitError: the dense model has fewer heads or rows than the hybrid keeps, or its feed-forward
        layers are not 4 × hidden wide: a hybrid config does not say how wide they were.
    """
    assert variant.heads is not None
    assert variant.intermediate_size is not None
    layers, heads = dense["num_hidden_layers"], dense["num_attention_heads"]
    if dense["intermediate_size"] != 4 * dense["hidden_size"]:
        raise KitError(
            "Hybrids are cut from models whose feed-forward layers are 4 × hidden wide.",
            where=f"{where}: hidden_size = {dense['hidden_size']}, "
            f"intermediate_size = {dense['intermediate_size']}",
            hint="Make 90pc_unstructured_sparse, or start from another model.",
        )
    if variant.heads > heads or variant.intermediate_size > dense["intermediate_size"]:
        raise KitError(
            f"{variant.name} keeps {variant.heads} heads and {variant.intermediate_size} feed-forward rows; "
            "the dense model has fewer.",
            where=f"{where}: num_attention_heads = {heads}, intermediate_size = {dense['intermediate_size']}",
            hint="Make another variant, or start from a larger model.",
        )
    return {
        **dense,
        "intermediate_size": variant.intermediate_size,
        "pruned_heads": {str(layer): list(range(variant.heads, heads)) for layer in range(layers)},
        "transformers_version": TRANSFORMERS_VERSION,
        "tx_block_overall_sparsity": OVERALL_SPARSITY,
    }


def text(config: Dict[str, Any]) -> str:
    """Return ``config`` as transformers' ``save_pretrained`` formats it."""
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def write_hybrids(dense_source: Path, folder: Path) -> List[Path]:
    """Write ``<folder>/<V>/config.json`` for the hybrids that the model ``dense_source`` is large enough for.

    :returns: the files, in the order of the sweep.
    :raises KitError: the dense config is unsound, too small for every hybrid, or ``folder`` is not writable.
    """
    dense = read(dense_source, "--model_name_or_path")
    where = str(config_file(dense_source))
    shape(dense, where)
    written: List[Path] = []
    too_small: List[KitError] = []
    for variant in VARIANTS.values():
        if not variant.hybrid:
            continue
        try:
            config = hybrid(dense, variant, where)
            shape(config, where)
        except KitError as error:
            too_small.append(error)
            status.step(f"{variant.name} left out: {error.what}")
            continue
        path = folder / variant.name / "config.json"
        try:
            files.write(path, text(config))
        except OSError as error:
            raise KitError(
                f"The config cannot be written: {error.strerror}.",
                where=str(path),
                hint="Make the folder writable, or name another with --output_dir in the launch file.",
            ) from None
        written.append(path)
    if not written:
        raise too_small[0]
    return written
