import json
from pathlib import Path

import pytest

from launch.core.errors import KitError
from launch.model import squad

CONTEXT = "The ferry leaves at noon and returns at dusk."


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def nested(**changes: object) -> dict:
    qa = {
        "id": "q1",
        "question": "When does it leave?",
        "answers": [{"text": "noon", "answer_start": 20}],
        **changes,
    }
    return {"version": "1.1", "data": [{"title": "T", "paragraphs": [{"context": CONTEXT, "qas": [qa]}]}]}


def flat(**changes: object) -> dict:
    row = {
        "id": "q1",
        "title": "T",
        "context": CONTEXT,
        "question": "When does it leave?",
        "answers": {"text": ["noon"], "answer_start": [20]},
        **changes,
    }
    return {"data": [row]}


def test_nested_and_flat_files_give_the_same_questions(tmp_path: Path) -> None:
    from_nested = squad.read_questions(write(tmp_path / "n.json", nested()), "TRAIN_FILE")
    from_flat = squad.read_questions(write(tmp_path / "f.json", flat()), "TRAIN_FILE")
    assert from_nested == from_flat
    assert from_nested[0].answers == (("noon", 20),)
    assert squad.Example.flat(from_nested[0]) == flat()["data"][0]


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "bom.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(flat()).encode())
    assert len(squad.read_questions(path, "TRAIN_FILE")) == 1


@pytest.mark.parametrize("start", [-1, 20.0])
def test_an_answer_start_that_says_nothing_or_is_a_float_is_taken(tmp_path: Path, start: float) -> None:
    answers = {"text": ["noon"], "answer_start": [start]}
    (found,) = squad.read_questions(write(tmp_path / "f.json", flat(answers=answers)), "TRAIN_FILE")
    assert found.answers == (("noon", int(start)),)
    assert type(found.answers[0][1]) is int


@pytest.mark.parametrize(
    "form",
    [
        nested(answers=[{"text": "noon", "answer_start": -1}]),
        flat(answers={"text": ["noon"], "answer_start": [-1]}),
    ],
)
def test_an_evaluation_wants_to_know_where_answers_are(tmp_path: Path, form: dict) -> None:
    examples = squad.read_questions(write(tmp_path / "f.json", form), "VALIDATION_FILE")
    with pytest.raises(KitError, match="answer_start is -1") as caught:
        squad.check_scorable(examples)
    assert caught.value.where == f'{examples[0].where}: answer "noon"'
    assert '(article "T", question "q1")' in caught.value.where


def test_a_question_knows_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "n.json", nested())
    (found,) = squad.read_questions(path, "TRAIN_FILE")
    assert found.where == f'TRAIN_FILE={path}: data[0].paragraphs[0].qas[0] (article "T", question "q1")'


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        ('{"data": [\n  {"id": }]}', "line 2, column 10", "not valid JSON"),
        ([], "top level", "an object"),
        ({}, "top level", "'data' is missing"),
        ({"data": {}}, "data", "a list"),
        ({"data": []}, "TRAIN_FILE=", "no questions"),
        ({"data": [{"paragraphs": []}]}, "TRAIN_FILE=", "no questions"),
        ({"data": [3]}, "data[0]", "an object"),
        (flat(context=None), "data[0].context", "a text"),
        (flat(answers=[]), "data[0].answers", "an object"),
        (flat(answers={"text": ["noon"], "answer_start": []}), "data[0].answers", "1 texts"),
        (flat(answers={"text": ["noon"], "answer_start": ["20"]}), "answer_start", "a whole number"),
        (flat(answers={"text": ["noon"], "answer_start": [999]}), "data[0].answers.text[0]", "outside"),
        (flat(answers={"text": ["noon"], "answer_start": [-2]}), "data[0].answers.text[0]", "outside"),
        (flat(answers={"text": ["noon"], "answer_start": [20.5]}), "answer_start", "a whole number"),
        (nested(question="Where \ud83d?"), 'qas[0].question (article "T", question "q1")', "character 6 is"),
        (nested(id="\udc00"), "qas[0].id", "half of a surrogate pair"),
        (nested(id=None), 'paragraphs[0].qas[0].id (article "T")', "not null"),
        (nested(id={"a": 1}), 'qas[0].id (article "T", question {"a": 1})', 'not {"a": 1}'),
        (flat(id=None), 'data[0].id (article "T")', "not null"),
        (flat(title=[]), "title of data[0]", "not []"),
        (nested(question=7), 'qas[0].question (article "T", question "q1")', "a text"),
        (nested(question=7), "data[0].paragraphs[0].qas[0].question", "a text"),
        (nested(answers=[{"text": "noon"}]), "qas[0].answers[0]", "'answer_start' is missing"),
        (nested(answers={"text": "noon"}), "qas[0].answers", "a list"),
    ],
)
def test_a_bad_file_is_named_with_the_place(
    tmp_path: Path, content: object, place: str, problem: str
) -> None:
    path = write(tmp_path / "bad.json", content)
    with pytest.raises(KitError) as caught:
        squad.read_questions(path, "TRAIN_FILE")
    assert place in caught.value.where
    assert str(path) in caught.value.where
    assert problem in caught.value.what
    assert caught.value.hint


def test_missing_unreadable_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="does not exist"):
        squad.read_questions(tmp_path / "none.json", "TRAIN_FILE")
    with pytest.raises(KitError, match="cannot be read"):
        squad.read_questions(tmp_path, "TRAIN_FILE")
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KitError, match="not UTF-8"):
        squad.read_questions(tmp_path / "x.json", "TRAIN_FILE")
    deep = write(tmp_path / "deep.json", "[" * 100_000)
    with pytest.raises(KitError):
        squad.read_questions(deep, "TRAIN_FILE")
