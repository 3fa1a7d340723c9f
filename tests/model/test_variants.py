import pytest

from launch.core.errors import KitError
from launch.model import variants


def test_the_five_names_and_dimensions() -> None:
    assert [(v.name, v.heads, v.intermediate_size) for v in variants.VARIANTS.values()] == [
        ("90pc_sparse-02_head-0512_ffnn", 2, 512),
        ("90pc_sparse-04_head-1024_ffnn", 4, 1024),
        ("90pc_sparse-06_head-1536_ffnn", 6, 1536),
        ("90pc_sparse-08_head-2048_ffnn", 8, 2048),
        ("90pc_unstructured_sparse", None, None),
    ]


def test_bert_large_has_upstreams_number_of_block_weights() -> None:
    assert variants.count_dense_weights(24, 1024) == 24 * (4 * 1024 * 1024 + 2 * 1024 * 4096)


def test_an_unknown_name_lists_the_five_and_suggests_the_nearest() -> None:
    with pytest.raises(KitError) as caught:
        variants.find_variant("90pc_sparse-6_head-1536")
    assert "V=90pc_sparse-06_head-1536_ffnn?" in caught.value.hint
    for name in variants.VARIANTS:
        assert name in caught.value.hint


def test_no_name_lists_the_five() -> None:
    with pytest.raises(KitError, match="No variant"):
        variants.find_variant("")
