"""Tokenizers as people have them: encodings, lengths, vocabularies, and questions that do not fit."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List

import pytest

from launch.core import files, paths
from launch.core.errors import KitError
from launch.model import bert_config, model_folder, squad
from launch.qa import features
from launch.qa.arguments import Arguments

from ..conftest import TINY, Kit, assert_user_error, write_model

BOM = b"\xef\xbb\xbf"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", **TINY)


def change(path: Path, **values: object) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}))


def check(model: Path, tokens: int = 384) -> None:
    config = bert_config.read_config(model, "MODEL")
    model_folder.check_tokenizer(model, bert_config.read_shape(config, "config.json"), tokens)


def words(model: Path) -> List[str]:
    return (model / "vocab.txt").read_text(encoding="utf-8").splitlines()


def test_the_samples_tokenizer_passes_and_a_larger_embedding_with_it(model: Path) -> None:
    check(model)
    change(model / "config.json", vocab_size=30528)
    check(model)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "vocab.txt"])
def test_a_byte_order_mark_is_named(model: Path, name: str) -> None:
    """transformers would refuse the JSON files and take the mark for part of the first word."""
    (model / name).write_bytes(BOM + (model / name).read_bytes())
    with pytest.raises(KitError, match="byte order mark") as caught:
        check(model)
    assert str(model / name) in caught.value.where
    assert "without a byte order mark" in caught.value.hint


def test_another_encoding_is_named(model: Path) -> None:
    (model / "vocab.txt").write_bytes((model / "vocab.txt").read_text().encode("utf-16"))
    with pytest.raises(KitError, match="not UTF-8") as caught:
        check(model)
    assert str(model / "vocab.txt") in caught.value.where


def test_a_word_without_a_row_in_the_model_is_named(model: Path) -> None:
    with (model / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("".join(f"more{number}\n" for number in range(TINY["vocab_size"])))
    with pytest.raises(KitError, match="the model only 2,048") as caught:
        check(model)
    assert "vocab.txt" in caught.value.where
    assert "vocab_size" in caught.value.where


@pytest.mark.parametrize("vocabulary", [{"a": 0, "b": 2048}, [["a", -1.0]] * 2049])
def test_so_is_one_of_a_tokenizer_json(model: Path, vocabulary: object) -> None:
    change(model / "tokenizer.json", model={"vocab": vocabulary}, added_tokens=[{"id": 3, "content": "[X]"}])
    with pytest.raises(KitError) as caught:
        check(model)
    assert "tokenizer.json" in caught.value.where


@pytest.mark.parametrize("word", ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
def test_a_vocabulary_without_a_special_word_is_refused_unless_it_is_named_otherwise(
    model: Path, word: str
) -> None:
    """transformers would add it behind the last word: a row of a padded model that was never trained."""
    change(model / "config.json", vocab_size=2080)
    vocabulary, key = model / "vocab.txt", f"{word[1:-1].lower()}_token"
    vocabulary.write_text(vocabulary.read_text(encoding="utf-8").replace(word, "<odd>"), encoding="utf-8")
    with pytest.raises(KitError) as caught:
        check(model)
    assert f"{word} ({key})" in caught.value.what
    assert caught.value.where == str(vocabulary)
    change(model / "special_tokens_map.json", **{key: {"content": "<odd>"}})
    check(model)
    (model / "special_tokens_map.json").unlink()
    change(model / "added_tokens.json", **{word: 2048})
    check(model)


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "tokenizer_config.json", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_named(model: Path, name: str) -> None:
    (model / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(KitError, match="git-lfs pointer") as caught:
        model_folder.find_checkpoint(model) if name == "pytorch_model.bin" else check(model)
    assert str(model / name) in caught.value.where
    assert "git lfs pull" in caught.value.hint


def test_a_checkpoint_is_hashed_once(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By whichever command is the first, which says so of a large one; another file is hashed anew."""
    place = model / "model.safetensors"
    monkeypatch.setattr(model_folder, "_LARGE", 2)
    found = []
    for content in (b"one", b"two"):
        new = model / "new"
        new.write_bytes(content)
        new.replace(place)
        found.append(model_folder.digest_checkpoint(model))
        assert found[-1] == hashlib.sha256(content).hexdigest()
        assert "checksum of model.safetensors" in capfd.readouterr().err
        with monkeypatch.context() as patch:
            patch.setattr(files, "digest_file", None)
            assert model_folder.digest_checkpoint(model) == found[-1]
        assert capfd.readouterr().err == ""
    assert files.digest_file(place) == found[-1]


def test_an_empty_vocabulary_is_refused(model: Path) -> None:
    (model / "vocab.txt").write_text("\n")
    with pytest.raises(KitError, match="is empty") as caught:
        check(model)
    assert caught.value.where == str(model / "vocab.txt")


def test_a_word_that_is_there_twice_is_refused(model: Path) -> None:
    number = words(model).index("the") + 1
    with (model / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("the\n")
    change(model / "config.json", vocab_size=2080)
    with pytest.raises(KitError, match='"the" twice') as caught:
        check(model)
    assert caught.value.where == f"{model / 'vocab.txt'}, lines {number} and 2049"


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("kind", ["RobertaTokenizer", "BertJapaneseTokenizer", 7])
def test_a_tokenizer_of_another_kind_needs_a_tokenizer_json(model: Path, name: str, kind: object) -> None:
    change(model / "tokenizer_config.json", tokenizer_class=None)
    change(model / name, tokenizer_class=kind)
    with pytest.raises(KitError, match=f"class {kind} is not made from a vocab.txt") as caught:
        model_folder.check_tokenizer(
            model,
            bert_config.read_shape({**bert_config.read_config(model), "tokenizer_class": None}, ""),
            384,
        )
    assert caught.value.where.startswith(f"{model / name}: tokenizer_class = ")
    change(model / "tokenizer.json", model={"vocab": {"a": 0}})
    model_folder.check_tokenizer(
        model, bert_config.read_shape({**bert_config.read_config(model), "tokenizer_class": None}, ""), 384
    )


def test_a_broken_file_is_named_as_a_file(model: Path) -> None:
    (model / "tokenizer_config.json").write_text("{")
    with pytest.raises(KitError) as caught:
        check(model)
    assert caught.value.where.startswith(f"{model / 'tokenizer_config.json'}, line 1")


@pytest.mark.parametrize("key", ["model_max_length", "max_len"])
def test_a_tokenizer_for_shorter_inputs_is_named(model: Path, key: str) -> None:
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("model_max_length", None)
    (model / "tokenizer_config.json").write_text(json.dumps({**config, key: 256}))
    with pytest.raises(KitError, match="at most 256 tokens; a feature has 384") as caught:
        check(model)
    assert caught.value.where == f"{model / 'tokenizer_config.json'}: {key} = 256"
    check(model, 256)


@pytest.mark.parametrize("command", ["variant", "evaluate"])
def test_a_run_says_so_before_anything_is_loaded(kit: Kit, model: Path, command: str) -> None:
    change(model / "tokenizer_config.json", model_max_length=256)
    name = "90pc_unstructured_sparse" if command == "variant" else ""
    weights = "random" if command == "evaluate" else None
    done = kit.run(command, name, model=model, weights=weights)
    assert_user_error(done, "model_max_length = 256")
    assert "loading libraries" not in done.stderr


# What the kit's program makes of it


def tokenized(model: Path, **changes: Any) -> List[Dict[str, Any]]:
    args = dataclasses.replace(
        Arguments(str(model), "nowhere", max_seq_length=128, doc_stride=32, train_file="t.json"), **changes
    )
    examples = squad.read_questions(paths.SAMPLE / "train.json", "TRAIN_FILE")[:6]
    return list(features.tokenize_examples(examples, features.load_tokenizer(args, 10**6), args, None))


def test_line_ends_of_windows_make_no_difference(model: Path, derived_source: Path) -> None:
    wanted = tokenized(model)
    vocabulary = model / "vocab.txt"
    vocabulary.write_bytes(vocabulary.read_bytes().replace(b"\n", b"\r\n"))
    check(model)
    assert tokenized(model) == wanted


def test_a_tokenizer_without_token_types_leaves_zeros(model: Path, derived_source: Path) -> None:
    wanted = tokenized(model)
    change(model / "tokenizer_config.json", tokenizer_class="DistilBertTokenizer")
    found = tokenized(model)
    assert {number for feature in wanted for number in feature["token_type_ids"]} == {0, 1}
    assert {number for feature in found for number in feature["token_type_ids"]} == {0}
    for feature in (*wanted, *found):
        assert len(feature.pop("token_type_ids")) == 128
    assert found == wanted


@pytest.mark.parametrize("length", [150, 100])
def test_a_question_that_leaves_no_context_is_named(
    tmp_path: Path, model: Path, derived_source: Path, length: int
) -> None:
    args = Arguments(str(model), "nowhere", max_seq_length=128, doc_stride=32)
    whole = squad.read_questions(paths.SAMPLE / "train.json", "TRAIN_FILE")
    examples = [*whole[:2], dataclasses.replace(whole[2], question="the " * length), *whole[3:5]]
    with pytest.raises(KitError, match=f"it has {length} tokens") as caught:
        features.tokenize_examples(examples, features.load_tokenizer(args, 10**6), args, None)
    assert examples[2].where in caught.value.where
    assert json.dumps(examples[2].id) in caught.value.where
    assert "--max_seq_length 128" in caught.value.where


def test_the_loaded_tokenizers_length_counts_too(model: Path, derived_source: Path) -> None:
    change(model / "tokenizer_config.json", model_max_length=100)
    with pytest.raises(KitError, match="at most 100 tokens"):
        tokenized(model)


def test_a_tokenizer_that_is_not_fast_is_named(model: Path, derived_source: Path) -> None:
    change(model / "tokenizer_config.json", tokenizer_class="ByT5Tokenizer")
    with pytest.raises(KitError, match="ByT5Tokenizer, which is not a fast one") as caught:
        tokenized(model)
    assert str(model) in caught.value.where
