"""Checks of a BERT's config, and the hybrid configs that follow from a dense one."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple

from ..core import child, files
from ..core.errors import KitError
from .variants import (
    OVERALL_SPARSITY,
    VARIANTS,
    BertShape,
    Variant,
    count_block_weights,
    find_least_percent,
)

READER = "transformers"
"""Errors name it as the other reader of a model folder's files."""

_DEFAULTS: Dict[str, Any] = {
    # BertConfig's in transformers 4.9.1, for keys that an older config.json leaves out.
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


def find_config(source: Path) -> Path:
    """Return the config file of ``source``, a model folder or the file itself."""
    return source / "config.json" if source.is_dir() else source


def read_config(source: Path, name: str = "") -> Dict[str, Any]:
    """Return the config in ``source`` (a model folder or a config file), with BERT's defaults filled in.

    :raises KitError: it cannot be read or is not a BERT's; the error calls it ``name`` (``MODEL``).
    """
    path = find_config(source)
    content, where = files.read_json(path, name, others=READER), files.describe_file(path, name)
    if not isinstance(content, dict):
        hint = "Give a folder or config.json of a BERT, as transformers' save_pretrained writes it."
        raise KitError("The model config is not a JSON object.", where=where, hint=hint)
    kind = content.get("model_type")
    if kind != "bert":
        raise KitError(
            "The model is not a BERT." if kind else "The model config does not say that the model is a BERT.",
            where=f"{where}: model_type is {json.dumps(kind)}",
            hint='Give a BERT whose config.json says "model_type": "bert".',
        )
    return {**_DEFAULTS, **content}


class _Form(NamedTuple):
    """What a value must be: in words that follow "must be", and as a test."""

    words: str
    fits: Callable[[Any], bool]


def _only(wanted: Any) -> _Form:
    return _Form(json.dumps(wanted), lambda value: type(value) is type(wanted) and value == wanted)


def _one_of(*wanted: Any) -> _Form:
    return _Form(f"one of {', '.join(map(json.dumps, wanted))}", lambda value: value in wanted)


def _number(words: str, fits: Callable[[float], bool], *types: type) -> _Form:
    return _Form(words, lambda value: type(value) in (types or (int, float)) and fits(value))


def _is_two_labels(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and sorted(map(str, value)) == ["0", "1"])


def _is_pruning(value: Any) -> bool:
    return isinstance(value, dict) and all(
        re.fullmatch("[0-9]{1,9}", str(layer)) and isinstance(heads, list) and set(map(type, heads)) <= {int}
        for layer, heads in value.items()
    )


_COUNT = _number("a positive whole number", lambda value: value >= 1, int)
_SHARE = _number("a number from 0 to 1", lambda value: 0 <= value <= 1)
_OFF = _only(False)

KEYS: Dict[str, _Form] = {
    "attention_probs_dropout_prob": _SHARE,
    "hidden_act": _one_of(
        *("gelu", "gelu_fast", "gelu_new", "linear", "mish", "quick_gelu", "relu"),
        *("sigmoid", "silu", "swish", "tanh"),
    ),
    "hidden_dropout_prob": _SHARE,
    "hidden_size": _COUNT,
    "id2label": _Form("null or an object of two labels, 0 and 1", _is_two_labels),
    "initializer_range": _number("a number of at least 0", lambda value: 0 <= value < math.inf),
    "intermediate_size": _COUNT,
    "layer_norm_eps": _number("a number above 0 and below 1", lambda value: 0 < value < 1),
    "max_position_embeddings": _COUNT,
    "model_type": _only("bert"),
    "num_attention_heads": _COUNT,
    "num_hidden_layers": _COUNT,
    "num_labels": _only(2),
    "pad_token_id": _number("a whole number of at least 0", lambda value: value >= 0, int),
    "position_embedding_type": _one_of("absolute", "relative_key", "relative_key_query"),
    "problem_type": _one_of(None, "regression", "single_label_classification", "multi_label_classification"),
    "pruned_heads": _Form("an object of layers' numbers and lists of heads' numbers", _is_pruning),
    # transformers says whether there is such a class.
    "tokenizer_class": _Form("a text or null", lambda value: value is None or isinstance(value, str)),
    "type_vocab_size": _COUNT,
    "vocab_size": _COUNT,
    # These change the traced graph, or the form of what the model returns.
    "add_cross_attention": _OFF,
    "chunk_size_feed_forward": _only(0),
    "is_decoder": _OFF,
    "is_encoder_decoder": _OFF,
    "output_attentions": _OFF,
    "output_hidden_states": _OFF,
    "return_dict": _only(True),
    "torchscript": _OFF,
}
"""What the keys of ``BertConfig`` in transformers 4.9.1 must be; of all others, only :data:`_METHODS` change
the graph or the outputs."""

_METHODS = (
    *("from_dict", "from_json_file", "from_pretrained", "get_config_dict"),
    *("is_composition", "push_to_hub", "save_pretrained", "to_dict", "to_diff_dict", "to_json_file"),
    *("to_json_string", "update", "update_from_string", "use_return_dict"),
)
"""Methods of ``BertConfig``: a key of such a name would take its place."""

_PYTHONS = re.compile("self|__.*")
"""Names that Python itself uses; they are no keys of a config."""

_GRAPH = {"hidden_act": "gelu", "position_embedding_type": "absolute", "type_vocab_size": 2}
"""With these, all BERTs have the graph of BERT-large."""

_EXAMPLES = {**_DEFAULTS, "chunk_size_feed_forward": 0, "num_labels": 2, "pruned_heads": {}}
_EXAMPLES.update({key: False for key, form in KEYS.items() if form is _OFF}, return_dict=True)


def _check_keys(config: Dict[str, Any], where: str) -> None:
    for key, value in config.items():
        form = KEYS.get(key)
        if form is not None and not form.fits(value):
            problem = f"{key} must be {form.words}"
            example = f', for example to "{key}": {json.dumps(_EXAMPLES.get(key))}'
        elif key in _METHODS or _PYTHONS.fullmatch(key):
            problem, example = f"{key} is no key of a BERT's config", ""
        else:
            continue
        raise KitError(
            f"The model config cannot be used: {problem}.",
            where=f"{where}: {key} = {files.show_value(value)}",
            hint=f"Take the key out of the file, or correct it{example}.",
        )


def check_graph(config: Dict[str, Any], where: str) -> None:
    """:raises KitError: the model's graph is not BERT-large's, which every tree is verified against."""
    for key, wanted in _GRAPH.items():
        if config[key] != wanted:
            raise KitError(
                f"A tree of this model could not be verified: {key} must be {json.dumps(wanted)}.",
                where=f"{where}: {key} = {files.show_value(config[key])}",
                hint="Give a BERT that differs from BERT-large in size only.",
            )


def read_shape(config: Dict[str, Any], where: str) -> BertShape:
    """:raises KitError: a value is none that the kit can use, or dimensions contradict each other."""

    def fail(problem: str, key: str) -> KitError:
        values = ", ".join(f"{name} = {json.dumps(config.get(name))[:60]}" for name in key.split(","))
        what = f"The model config contradicts itself: {problem}."
        return KitError(what, where=f"{where}: {values}", hint="Correct the config.")

    _check_keys(config, where)
    if config["type_vocab_size"] < 2:
        raise fail("question and context need two token types", "type_vocab_size")
    if config["pad_token_id"] >= config["vocab_size"]:
        raise fail("the padding token is none of the vocabulary's", "pad_token_id,vocab_size")
    layers, hidden, heads = config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"]
    if hidden % heads:
        raise fail(f"{hidden} does not divide into {heads} heads", "hidden_size,num_attention_heads")
    pruned = config.get("pruned_heads", {})
    kept = [heads] * layers
    for layer, gone in pruned.items():
        if int(layer) >= layers:
            raise fail(f"pruned_heads names layer {layer!r} of a model of {layers}", "num_hidden_layers")
        if not all(0 <= head < heads for head in gone):
            raise fail(f"pruned_heads of layer {layer} names heads beyond {heads}", "num_attention_heads")
        kept[int(layer)] = heads - len(set(gone))
        if not kept[int(layer)]:
            raise fail(f"pruned_heads leaves layer {layer} without a head", "num_attention_heads")
    overall = config.get("tx_block_overall_sparsity", OVERALL_SPARSITY)
    if not isinstance(overall, (int, float)) or not 0 <= overall < 1:
        key = "tx_block_overall_sparsity"
        raise fail(f"{key} must be at least 0 and less than 1", key)
    intermediate = config["intermediate_size"]
    # What a hybrid is cut from has the feed-forward layers of make_hybrid.
    dense_rows = 4 * hidden if pruned or "tx_block_overall_sparsity" in config else intermediate
    found = BertShape(
        layers=layers,
        hidden=hidden,
        head_size=hidden // heads,
        heads=tuple(kept),
        intermediate_size=intermediate,
        vocab_size=config["vocab_size"],
        max_positions=config["max_position_embeddings"],
        dense_block_weights=count_block_weights(layers, hidden, hidden, dense_rows),
        overall_sparsity=float(overall),
    )
    if not 0 <= found.unstructured_sparsity < 1:
        raise fail(
            f"{found.kept_weights:,} of the dense model's {found.dense_block_weights:,} weights are kept, "
            f"and from them no pruning of single weights reaches a sparsity of {overall}",
            "hidden_size,num_attention_heads,intermediate_size",
        )
    return found


def check_length(found: BertShape, tokens: int, where: str) -> None:
    """:raises KitError: the model has not a position for each of a feature's ``tokens``."""
    if tokens > found.max_positions:
        raise KitError(
            f"The model has {found.max_positions} positions, a feature {tokens} tokens.",
            where=f"max_position_embeddings of {where}",
            hint="Use a smaller --max_seq_length or another model.",
        )


def make_dense(config: Dict[str, Any]) -> Dict[str, Any]:
    """Return the config of the model that ``config``, a hybrid's or a dense one, is cut from."""
    cut = ("pruned_heads", "tx_block_overall_sparsity")
    if not any(config.get(key) for key in cut):
        return config
    return {
        **{key: value for key, value in config.items() if key not in cut},
        "intermediate_size": 4 * config["hidden_size"],
    }


def make_hybrid(dense: Dict[str, Any], variant: Variant, where: str) -> Dict[str, Any]:
    """Return the config of a hybrid of the model that ``dense`` describes: each layer's first heads stay.

    :raises KitError: the dense model is too small, its feed-forward layers are not 4 × hidden wide, or more
        is removed than is to be removed and zero.
    """
    kept, rows = variant.heads, variant.intermediate_size
    assert kept is not None
    assert rows is not None
    layers, heads, dense_rows = (
        dense[name] for name in ("num_hidden_layers", "num_attention_heads", "intermediate_size")
    )
    if dense_rows != 4 * dense["hidden_size"]:
        raise KitError(
            "Hybrids are cut from models whose feed-forward layers are 4 × hidden wide.",
            where=f"{where}: hidden_size = {dense['hidden_size']}, intermediate_size = {dense_rows}",
            hint="Make 90pc_unstructured_sparse, or start from another model.",
        )
    if kept > heads or rows > dense_rows:
        raise KitError(
            f"{variant.name} keeps {kept} heads and {rows} feed-forward rows; the dense model has fewer.",
            where=f"{where}: num_attention_heads = {heads}, intermediate_size = {dense_rows}",
            hint="Make another variant, or start from a larger model.",
        )
    hidden = dense["hidden_size"]
    sizes = [
        count_block_weights(layers, hidden, *kind)
        for kind in ((hidden, dense_rows), (hidden // heads * kept, rows))
    ]
    least = find_least_percent(*sizes)
    if least > variant.percent:
        smallest = replace(variant, percent=least).name
        raise KitError(
            f"{variant.name} is to be {variant.percent} % sparse, and removing structure alone takes"
            f" {100 - 100 * sizes[1] / sizes[0]:.2f} % of the weights.",
            where=f"{where}: num_attention_heads = {heads}, intermediate_size = {dense_rows}",
            hint=f"Make V={smallest}, the least sparsity with this structure, or keep more of it."
            if least < 100
            else "Keep more heads or feed-forward rows: nothing below 100 % has this structure.",
        )
    return {
        **dense,
        "intermediate_size": rows,
        "pruned_heads": {str(layer): list(range(kept, heads)) for layer in range(layers)},
        "transformers_version": "4.9.1",
        "tx_block_overall_sparsity": variant.overall_sparsity,
    }


def format_config(config: Dict[str, Any]) -> str:
    """Return ``config`` as transformers' ``save_pretrained`` formats it."""
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def write_hybrids(dense_source: Path, folder: Path) -> List[Path]:
    """Write and return ``<folder>/<V>/config.json`` of each hybrid for which the dense model is large enough.

    :raises KitError: the dense config is unsound, too small for every hybrid, or ``folder`` is not writable.
    """
    dense = read_config(dense_source, "--model_name_or_path")
    where = str(find_config(dense_source))
    read_shape(dense, where)
    written: List[Path] = []
    too_small: List[KitError] = []
    for variant in filter(lambda variant: variant.hybrid, VARIANTS.values()):
        try:
            config = make_hybrid(dense, variant, where)
            read_shape(config, where)
        except KitError as error:
            too_small.append(error)
            child.report_step(f"{variant.name} left out: {error.what}")
            continue
        path = folder / variant.name / "config.json"
        try:
            files.write_text(path, format_config(config))
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
