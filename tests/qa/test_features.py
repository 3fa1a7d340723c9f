"""Features of many questions are kept, and never served where anything that they depend on has changed."""

import dataclasses
import importlib
import shutil
from pathlib import Path
from typing import Any, Callable, List

import pytest

from launch.core import paths
from launch.core.errors import KitError
from launch.model import squad
from launch.qa import features
from launch.qa.arguments import Arguments

COUNT = 12


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(features, "FOLDER", tmp_path / "kept")
    monkeypatch.setattr(features, "WORTH", COUNT)
    return tmp_path / "kept"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shutil.copytree(str(paths.SAMPLE / "model"), str(tmp_path / "model"))
    return tmp_path / "model"


Tokenize = Callable[..., List[Any]]


@pytest.fixture
def tokenize(model: Path, derived_source: Path) -> Tokenize:
    questions = squad.read_questions(paths.SAMPLE / "train.json", "TRAIN_FILE")

    def of(count: int = COUNT, first: int = 0, suffix: str = "", **changes: Any) -> List[Any]:
        args = dataclasses.replace(
            Arguments(str(model), "nowhere", max_seq_length=128, doc_stride=32), **changes
        )
        examples = [
            dataclasses.replace(example, context=example.context + suffix)
            for example in questions[first : first + count]
        ]
        found = features.tokenize_examples(examples, features.load_tokenizer(args, 10**6), args, None)
        return [found[index] for index in range(len(found))]

    return of


def test_kept_features_are_the_same(tokenize: Tokenize, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tokenize()
    (file,) = kept.iterdir()
    before = file.stat().st_ino
    assert tokenize() == made
    assert [path.stat().st_ino for path in kept.iterdir()] == [before]
    shutil.rmtree(str(kept))
    monkeypatch.setattr(features, "WORTH", COUNT + 1)
    assert tokenize() == made, "and those of few questions, which are not kept"
    assert not kept.exists()


@pytest.mark.parametrize(
    "change",
    [{"first": 1}, {"suffix": "."}, {"max_seq_length": 96}, {"doc_stride": 16}],
    ids=lambda change: next(iter(change)),
)
def test_what_has_changed_is_made_anew(tokenize: Tokenize, kept: Path, change: dict) -> None:
    made = tokenize()
    changed = tokenize(**change)
    assert changed != made
    assert len(list(kept.iterdir())) == 2
    shutil.rmtree(str(kept))
    assert tokenize(**change) == changed


def test_another_tokenizer_has_other_features(tokenize: Tokenize, kept: Path, model: Path) -> None:
    made = tokenize()
    vocabulary = (model / "vocab.txt").read_text(encoding="utf-8").splitlines()
    vocabulary[-1], vocabulary[-2] = vocabulary[-2], vocabulary[-1]
    place = vocabulary.index("the")
    vocabulary[place], vocabulary[-1] = vocabulary[-1], vocabulary[place]
    (model / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    assert tokenize() != made
    assert len(list(kept.iterdir())) == 2


def test_other_code_of_the_tokenizers_has_other_features(
    model: Path, derived_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    code = tmp_path / "own_tokenizer.py"
    code.write_text("import transformers\n\n\nclass Own(transformers.BertTokenizerFast):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    tokenizer = importlib.import_module("own_tokenizer").Own.from_pretrained(str(model))

    def key() -> str:
        return features.digest_features({"question": ["a"]}, tokenizer, length=9)

    first = key()
    assert key() == first
    code.write_text(code.read_text() + "    patched = True\n")
    second = key()
    monkeypatch.setattr(transformers, "__version__", "another")
    assert len({first, second, key()}) == 3


def test_a_damaged_file_is_made_again(tokenize: Tokenize, kept: Path) -> None:
    made = tokenize()
    (file,) = kept.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert tokenize() == made


def test_what_cannot_be_kept_is_made_all_the_same(tokenize: Tokenize, kept: Path) -> None:
    kept.write_text("a file where the folder would be")
    assert tokenize()


def test_only_the_last_are_kept(tokenize: Tokenize, kept: Path) -> None:
    kept.mkdir()
    (kept / "tmp1234").touch()
    for first in range(4):
        tokenize(first=first)
    assert len(list(kept.iterdir())) == features.KEPT
    assert all(path.suffix == ".arrow" for path in kept.iterdir())


class Forgetful:
    """A tokenizer that sees some words of a context alone, as that of tokenizers 0.23.2 the first."""

    def __init__(self, tokenizer: Any, seen: slice) -> None:
        self._tokenizer, self._seen = tokenizer, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, questions: List[str], contexts: List[str], **options: Any) -> Any:
        words = [text.split(" ") for text in contexts]
        left = [" ".join(" " * len(word) for word in text[: self._seen.start]) for text in words]
        seen = [f"{blank} {' '.join(text[self._seen])}" for blank, text in zip(left, words)]
        return self._tokenizer(questions, seen, **options)


@pytest.mark.parametrize("seen", [slice(0, 150), slice(20, None)])
def test_a_text_of_which_an_end_is_left_out(model: Path, derived_source: Path, seen: slice) -> None:
    """Such windows are refused; what is no text, at a context's ends, is in no window anyway."""
    args = Arguments(str(model), "nowhere", max_seq_length=128, doc_stride=32)
    tokenizer = features.load_tokenizer(args, 10**6)
    examples = squad.read_questions(paths.SAMPLE / "train.json", "TRAIN_FILE")[:COUNT]
    examples = [dataclasses.replace(one, context=f"\n {one.context} \u200e\n") for one in examples]
    assert len(features.encode_examples(examples, tokenizer, args)["example_id"]) > COUNT
    with pytest.raises(KitError) as caught:
        features.encode_examples(examples, Forgetful(tokenizer, seen), args)
    assert "leaves out " in caught.value.what
    assert examples[0].where in caught.value.where
