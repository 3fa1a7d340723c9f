import hashlib
import json
from pathlib import Path

import pytest

from launch import bert_config, paths, variants
from launch.errors import KitError

from .conftest import write_model

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
    shape = bert_config.shape(bert_config.read(path, "config"), str(path))
    assert shape.dense_weights == 301_989_888
    assert shape.kept_weights == 24 * (4 * 1024 * 64 * variant.heads + 2 * 1024 * variant.intermediate_size)
    left = shape.kept_weights * (1 - shape.unstructured_sparsity)
    assert 1 - left / shape.dense_weights == pytest.approx(0.9, abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "roberta"}, ("not a BERT", "roberta")),
        ({"model_type": None}, ("does not say", "model_type")),
        ({"num_attention_heads": 15}, ("1024 does not divide into 15 heads",)),
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
        bert_config.shape(bert_config.read(folder, "MODEL"), str(folder / "config.json"))
    for word in words:
        assert word in str(caught.value)
    assert str(folder) in caught.value.where


def test_a_model_too_small_for_a_hybrid_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", hidden_size=64, intermediate_size=256, num_attention_heads=4)
    with pytest.raises(KitError, match="the dense model has fewer"):
        bert_config.write_hybrids(folder, tmp_path / "configs")


def test_missing_keys_take_berts_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    shape = bert_config.shape(bert_config.read(tmp_path, "MODEL"), "config.json")
    assert (shape.layers, shape.hidden, shape.intermediate_size, shape.vocab_size) == (12, 768, 3072, 30522)
