import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List

import pytest

from launch.core import paths
from launch.core.errors import KitError
from launch.model import bert_config, variants

from ..conftest import write_model

HYBRIDS = [variant for variant in variants.VARIANTS.values() if variant.hybrid]

# sha256 of gen-hybrid-sparse/generated_cfg/<V>/config.json at the pinned commit of the fork.
UPSTREAM = {
    "90pc_sparse-02_head-0512_ffnn": "0f7f7241b1d35bcdf6a330229c97aee76b4d9c35fdd7d42b896dd6714c148cf1",
    "90pc_sparse-04_head-1024_ffnn": "16c15eb1e6a7152a257863862f8a8c6d3627b223e79a2ea1798510d56c792c2b",
    "90pc_sparse-06_head-1536_ffnn": "179bceb6b9c3c9811296fa81b4cb3ee42e960c19219b6bffb692375d4d7a1017",
    "90pc_sparse-08_head-2048_ffnn": "dbf4594bae7b8975a0365dc0d59f5a06ae1b8cb40c136d30065021ab19b3dc1b",
}


def test_committed_configs_are_current_and_upstreams(tmp_path: Path) -> None:
    written = bert_config.write_hybrids(paths.SAMPLE / "model", tmp_path)
    assert [path.parent.name for path in written] == list(UPSTREAM)
    for path in written:
        committed = paths.CONFIGS / path.parent.name / "config.json"
        assert path.read_bytes() == committed.read_bytes(), "run `make configs`"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == UPSTREAM[path.parent.name]


@pytest.mark.parametrize("variant", HYBRIDS, ids=lambda variant: variant.name)
def test_structure_and_pruning_add_up_to_90_percent(variant: variants.Variant) -> None:
    path = paths.CONFIGS / variant.name / "config.json"
    shape = bert_config.read_shape(bert_config.read_config(path, "config"), str(path))
    assert shape.dense_block_weights == 301_989_888
    assert shape.kept_weights == 24 * (4 * 1024 * 64 * variant.heads + 2 * 1024 * variant.intermediate_size)
    left = shape.kept_weights * (1 - shape.unstructured_sparsity)
    assert 1 - left / shape.dense_block_weights == pytest.approx(0.9, abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "roberta"}, ("not a BERT", "roberta")),
        ({"model_type": None}, ("does not say", "model_type")),
        ({"num_attention_heads": 15}, ("1024 does not divide into 15 heads",)),
        (
            {"layer_norm_eps": "1e-12"},
            ("layer_norm_eps must be a number", '"1e-12"', '"layer_norm_eps": 1e-12'),
        ),
        ({"pruned_heads": {"0": [True]}}, ("pruned_heads must be", "lists of heads")),
        ({"to_dict": 1}, ("to_dict is no key",)),
        ({"hidden_size": "1024"}, ("hidden_size must be a positive whole number",)),
        ({"num_hidden_layers": 0}, ("num_hidden_layers",)),
        ({"pruned_heads": {"24": [0]}}, ("layer '24'",)),
        ({"pruned_heads": {"0": [16]}}, ("heads beyond 16",)),
        ({"pruned_heads": {"0": list(range(16))}}, ("without a head",)),
        ({"pruned_heads": {"0": [1]}, "tx_block_overall_sparsity": 1.5}, ("tx_block_overall_sparsity",)),
        ({"intermediate_size": 8, "tx_block_overall_sparsity": 0.1}, ("no pruning of single weights",)),
    ],
)
def test_unsound_configs_are_refused(tmp_path: Path, changes: dict, words: tuple) -> None:
    folder = write_model(tmp_path / "model", **changes)
    with pytest.raises(KitError) as caught:
        bert_config.read_shape(bert_config.read_config(folder, "MODEL"), str(folder / "config.json"))
    for word in words:
        assert word in str(caught.value)
    assert str(folder) in caught.value.where


def test_a_model_too_small_for_a_hybrid_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", hidden_size=64, intermediate_size=256, num_attention_heads=4)
    with pytest.raises(KitError, match="the dense model has fewer"):
        bert_config.write_hybrids(folder, tmp_path / "configs")


def test_missing_keys_take_berts_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    shape = bert_config.read_shape(bert_config.read_config(tmp_path, "MODEL"), "config.json")
    assert (shape.layers, shape.hidden, shape.intermediate_size, shape.vocab_size) == (12, 768, 3072, 30522)


# Every key of a BERT config

DEFAULTS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 50,
    "max_position_embeddings": 16,
}

ODD = (True, None, "odd", {"a": 1}, -1)
"""Values to try; each key refuses those that its form leaves out, and is neutral to all others."""

TAKEN = {
    "attention_probs_dropout_prob": [0, 0.3],
    "hidden_dropout_prob": [0, 0.3],
    "id2label": [None, {"0": "start", "1": "end"}],
    "initializer_range": [0, 7],
    "problem_type": [None, "regression"],
    "pruned_heads": [{}],
    "tokenizer_class": [None, "odd", "BertTokenizer"],
    "torch_dtype": [*ODD, "float16"],
    "_name_or_path": list(ODD),
    "unknown_to_4_9_1": list(ODD),
}
"""Values that keys take whose form is not one value, and the model is the same."""


NEUTRAL = (
    *("_name_or_path", "architectures", "bad_words_ids", "bos_token_id", "decoder_start_token_id"),
    *("diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size"),
    *("eos_token_id", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id"),
    *("gradient_checkpointing", "label2id", "length_penalty", "max_length", "min_length"),
    *("name_or_path", "no_repeat_ngram_size", "num_beam_groups", "num_beams"),
    *("num_return_sequences", "output_scores", "prefix", "remove_invalid_values"),
    *("repetition_penalty", "return_dict_in_generate", "sep_token_id", "task_specific_params"),
    *("temperature", "tie_encoder_decoder", "tie_word_embeddings", "top_k", "top_p"),
    *("torch_dtype", "transformers_version", "use_bfloat16", "use_cache", "xla_device"),
)
"""The other keys of ``BertConfig``: no question-answering BERT looks at them."""


def all_keys() -> List[str]:
    from transformers import BertConfig

    return sorted({*BertConfig().to_dict(), *vars(BertConfig()), "num_labels", "xla_device", "name_or_path"})


def shape_of(config: Dict[str, Any]) -> variants.BertShape:
    return bert_config.read_shape({**bert_config._DEFAULTS, **DEFAULTS, **config}, "config.json")


def traced(config: Dict[str, Any]) -> Any:
    """Return the kinds of the traced graph's nodes and the outputs of the model that transformers makes."""
    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    made = BertConfig.from_dict({**DEFAULTS, **config})
    assert repr(made)
    model = BertForQuestionAnswering(made)
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5)
    ids = torch.arange(8).reshape(1, 8)
    inputs = (ids, torch.ones_like(ids), torch.zeros_like(ids))
    with torch.no_grad():
        graph = torch.jit.trace(model.eval(), inputs, strict=False, check_trace=False).inlined_graph
        outputs = model(*inputs).values()
    # Equal constants may be one node or two: those are not compared.
    kinds = [node.kind() for node in graph.nodes() if node.kind() != "prim::Constant"]
    return kinds, [output.tolist() for output in outputs]


def test_the_table_has_every_key_of_4_9_1(derived_source: Path) -> None:
    from transformers import BertConfig
    from transformers.activations import ACT2FN

    assert {*bert_config.KEYS, *NEUTRAL} == {*all_keys(), "decoder_start_token_id"}
    methods = {name for name in dir(BertConfig) if not name.startswith("_")} - {*bert_config.KEYS, *NEUTRAL}
    assert sorted(bert_config._METHODS) == sorted(methods)
    for name in ACT2FN:
        assert shape_of({"hidden_act": name})


@pytest.mark.parametrize("key", ["self", "__class__", "__dict__", "to_dict"])
def test_a_name_that_is_pythons_or_a_methods_is_no_key(key: str) -> None:
    with pytest.raises(KitError) as caught:
        shape_of({key: "odd"})
    assert f"{key} is no key" in str(caught.value)


@pytest.mark.parametrize("key", sorted(bert_config.KEYS))
def test_an_odd_value_is_refused_by_name(key: str) -> None:
    form = bert_config.KEYS[key]
    for value in ODD:
        if form.fits(value):
            assert value in TAKEN.get(key, [True, None, "odd"])
            continue
        with pytest.raises(KitError) as caught:
            shape_of({key: value})
        assert f"{key} must be {form.words}" in caught.value.what
        assert f"config.json: {key} = {json.dumps(value)}" == caught.value.where
        assert f'"{key}": ' in caught.value.hint


def test_what_is_not_refused_changes_nothing(derived_source: Path) -> None:
    """All keys at once, each time with another value: neutral ones with an odd one.

    That a tree is the same, too, `build/test_pipeline.py` shows.
    """
    wanted = traced({})
    taken = {**{key: [ODD[3]] for key in NEUTRAL}, **TAKEN}
    for number in range(max(map(len, taken.values()))):
        config = {key: values[number] for key, values in taken.items() if number < len(values)}
        assert shape_of(config)
        assert traced(config) == wanted, config
