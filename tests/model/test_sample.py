"""The embedded sample: answers, windows, vocabulary and configuration."""

import json
from collections import Counter

import pytest

from launch.core import paths
from launch.core.errors import KitError

from .. import make_vocab

SAMPLE = paths.SAMPLE
MODEL = SAMPLE / "model"
SPLITS = ("train", "validation")


def load(split):
    return json.loads((SAMPLE / f"{split}.json").read_text(encoding="utf-8"))


def rows(split):
    return load(split)["data"]


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(MODEL), use_fast=True)


@pytest.mark.parametrize(("split", "questions", "contexts"), [("train", 48, 12), ("validation", 16, 4)])
def test_form(split, questions, contexts):
    content = load(split)
    assert set(content) == {"version", "data"}
    assert len(content["data"]) == questions
    assert len({row["context"] for row in content["data"]}) == contexts
    for row in content["data"]:
        assert set(row) == {"id", "title", "context", "question", "answers"}
        assert set(row["answers"]) == {"text", "answer_start"}
        assert row["question"].endswith("?")


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_where_they_say(split):
    for row in rows(split):
        texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
        assert 1 <= len(texts) == len(starts) <= 3
        for text, start in zip(texts, starts):
            assert text
            assert text == text.strip()
            assert row["context"][start : start + len(text)] == text, row["id"]


def test_train_has_one_answer_a_question():
    assert {len(row["answers"]["text"]) for row in rows("train")} == {1}


def test_ids_are_unique():
    ids = [row["id"] for split in SPLITS for row in rows(split)]
    assert len(set(ids)) == len(ids)


def test_splits_share_no_context():
    train, validation = ({row["context"] for row in rows(split)} for split in SPLITS)
    assert train.isdisjoint(validation)


@pytest.mark.parametrize("split", SPLITS)
def test_data_file_is_small_and_ascii(split):
    content = (SAMPLE / f"{split}.json").read_bytes()
    assert len(content) < 120_000
    assert content.endswith(b"}\n")
    content.decode("ascii")


@pytest.mark.parametrize("split", SPLITS)
def test_long_contexts_give_several_windows(tokenizer, split):
    data = rows(split)
    features = tokenizer(
        [row["question"] for row in data],
        [row["context"] for row in data],
        truncation="only_second",
        max_length=384,
        stride=128,
        return_overflowing_tokens=True,
        padding="max_length",
    )
    windows = Counter(features["overflow_to_sample_mapping"])
    assert len(windows) == len(data)
    assert len(features["input_ids"]) > len(data)
    assert {len(ids) for ids in features["input_ids"]} == {384}
    if split == "train":
        assert len(features["input_ids"]) >= 32
        assert len({data[index]["context"] for index, count in windows.items() if count > 1}) >= 2


def test_tokenizer_is_berts(tokenizer):
    assert type(tokenizer).__name__ == "BertTokenizerFast"
    assert tokenizer.model_max_length == 512
    assert tokenizer.convert_tokens_to_ids(list(make_vocab.SPECIAL_PIECES)) == [0, 1, 2, 3, 4]
    assert tokenizer.tokenize("The TIDE") == ["the", "tide"]


@pytest.mark.parametrize("split", SPLITS)
def test_sample_has_no_unknown_piece(tokenizer, split):
    for row in rows(split):
        for text in (row["context"], row["question"]):
            assert tokenizer.unk_token not in tokenizer.tokenize(text), row["id"]


def test_other_english_text_has_no_unknown_piece(tokenizer):
    assert tokenizer.unk_token not in tokenizer.tokenize("Jazz quiz: 100% of `~{zebras}` @ $7 vexed; #1!")


def test_vocabulary_fits_the_model(tokenizer):
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    pieces = (MODEL / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert len(set(pieces)) == len(pieces) == len(tokenizer) == make_vocab.SIZE <= config["vocab_size"]
    assert pieces[config["pad_token_id"]] == "[PAD]"


def test_config_is_a_dense_bert_large():
    assert json.loads((MODEL / "config.json").read_text(encoding="utf-8")) == {
        "architectures": ["BertForQuestionAnswering"],
        "attention_probs_dropout_prob": 0.1,
        "gradient_checkpointing": False,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 1024,
        "initializer_range": 0.02,
        "intermediate_size": 4096,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "transformers_version": "4.9.1",
        "type_vocab_size": 2,
        "use_cache": True,
        "vocab_size": 30522,
    }


def test_committed_vocabulary_is_reproduced(capsys):
    assert make_vocab.vocabulary_bytes() == (MODEL / "vocab.txt").read_bytes()
    assert make_vocab.main(["--check"]) == 0
    assert "up to date" in capsys.readouterr().out


def test_vocabulary_does_not_depend_on_the_order_of_words():
    counts = make_vocab.count_words()
    backwards = Counter(dict(reversed(list(counts.items()))))
    assert make_vocab.learn_pieces(backwards) == make_vocab.learn_pieces(counts)


def test_most_frequent_pair_is_merged_first_and_ties_are_sorted():
    base = len(make_vocab.learn_pieces(Counter()))
    learnt = make_vocab.learn_pieces(Counter({"xy": 1, "ab": 1, "hug": 3, "aaaa": 1}), base + 5)
    # "##aa" is made once: aaaa is a ##a ##a ##a, then a ##aa ##a, and so on.
    assert learnt[base:] == ["##ug", "hug", "##aa", "##aaa", "aaaa"]


@pytest.mark.parametrize("change", [b"x\n", b""])
def test_check_says_what_differs(tmp_path, monkeypatch, change):
    content = (MODEL / "vocab.txt").read_bytes()
    changed = tmp_path / "vocab.txt"
    changed.write_bytes(content + change if change else content[:-1])
    monkeypatch.setattr(make_vocab, "VOCABULARY", changed)
    with pytest.raises(KitError, match="not the one") as caught:
        make_vocab.main(["--check"])
    assert f"line {make_vocab.SIZE + 1}" in caught.value.where
    assert "make_vocab" in caught.value.hint


def test_check_of_a_missing_file(tmp_path):
    with pytest.raises(KitError, match="no vocabulary"):
        make_vocab.check(tmp_path / "vocab.txt")


def test_main_writes_the_vocabulary(tmp_path, monkeypatch):
    monkeypatch.setattr(make_vocab, "VOCABULARY", tmp_path / "model" / "vocab.txt")
    assert make_vocab.main([]) == 0
    make_vocab.check(make_vocab.VOCABULARY)
