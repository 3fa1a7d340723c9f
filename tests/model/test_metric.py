"""SQuAD v1.1's metric: a table worked by hand, real questions, and ``make evaluate PREDICTIONS=``."""

import json
from pathlib import Path
from typing import Any, Dict, List

import pytest

from launch.core import paths
from launch.model import metric, squad

from ..conftest import TINY, Kit, assert_user_error, call, run, write_model
from .test_squad import CONTEXT, write

REAL = paths.REPOSITORY.parent / "shared" / "data" / "squad" / "dev-v1.1-part1.json"
"""Questions of SQuAD v1.1's development set beside the checkout, where somebody has put them."""

PAIRS = [
    # answer, gold, exact match, words in common, words of the answer, words of the gold answer
    ("Denver Broncos", "Denver Broncos", 1, 2, 2, 2),
    ("denver broncos", "Denver Broncos", 1, 2, 2, 2),
    ("The Denver Broncos", "Denver Broncos", 1, 2, 2, 2),
    ("Denver  \t Broncos\n", "Denver Broncos", 1, 2, 2, 2),
    ("Denver Broncos!", "(Denver Broncos)", 1, 2, 2, 2),
    ("Broncos Denver", "Denver Broncos", 0, 2, 2, 2),
    ("Denver", "Denver Broncos", 0, 1, 1, 2),
    ("the Denver Broncos of Denver", "Denver Broncos", 0, 2, 4, 2),
    ("Carolina Panthers", "Denver Broncos", 0, 0, 2, 2),
    ("", "Denver Broncos", 0, 0, 0, 2),
    ("Denver Broncos", "", 0, 0, 2, 0),
    # nothing is left of either: the same, and no word in common
    ("A", "the", 1, 0, 0, 0),
    ("%", "$", 1, 0, 0, 0),
    ("", "", 1, 0, 0, 0),
    ("an", "...", 1, 0, 0, 0),
    ("the", "Denver", 0, 0, 0, 1),
    # words count as often as they stand there
    ("no no no", "no", 0, 1, 3, 1),
    ("no no", "no no no", 0, 2, 2, 3),
    ("to be or not to be", "to be", 0, 2, 6, 2),
    # articles are words, not letters
    ("an apple", "apple", 1, 1, 1, 1),
    ("banana", "a banana", 1, 1, 1, 1),
    ("then", "the n", 0, 0, 1, 1),
    ("A B", "b", 1, 1, 1, 1),
    ("a an the", "b", 0, 0, 0, 1),
    ("Theatre", "atre", 0, 0, 1, 1),
    # punctuation goes first, and leaves no space
    ("state-of-the-art", "state of the art", 0, 0, 1, 3),
    ("state-of-the-art", "stateoftheart", 1, 1, 1, 1),
    ("U.S.A.", "USA", 1, 1, 1, 1),
    ("$1,000.50", "100050", 1, 1, 1, 1),
    ("don't", "dont", 1, 1, 1, 1),
    ("t.h.e. end", "end", 1, 1, 1, 1),
    ("snake_case", "snakecase", 1, 1, 1, 1),
    ("<a> & [b]", "b", 1, 1, 1, 1),
    # only ASCII has punctuation here; an article beside another sign is an article
    ("“the” end", "“ ” end", 1, 3, 3, 3),
    ("5–10", "510", 0, 0, 1, 1),
    ("the–end", "–end", 1, 1, 1, 1),
    ("ÉCOLE", "école", 1, 1, 1, 1),
    ("école", "ecole", 0, 0, 1, 1),
    ("10\u00a0km", "10 km", 1, 2, 2, 2),
    ("東京 の 塔", "東京", 0, 1, 3, 1),
    ("a²", "²", 0, 0, 1, 1),
]


@pytest.mark.parametrize(("answer", "gold", "exact", "common", "found", "wanted"), PAIRS)
def test_a_pair_scores_what_it_does_by_hand(
    answer: str, gold: str, exact: int, common: int, found: int, wanted: int
) -> None:
    f1 = 0.0
    if common:
        precision, recall = common / found, common / wanted
        f1 = 2 * precision * recall / (precision + recall)
    assert metric.score_question(answer, [gold]) == (exact, pytest.approx(f1, abs=1e-15))
    assert metric.score_question(gold, [answer]) == (exact, pytest.approx(f1, abs=1e-15))


def test_each_figure_is_the_best_over_the_gold_answers() -> None:
    assert metric.score_question("the", ["a", "the end"]) == (1, 0)
    assert metric.score_question("red car", ["blue", "red", "a red fast car"]) == (0, pytest.approx(0.8))


def test_where_nothing_is_left_only_the_exact_match_counts() -> None:
    gold = {"1": ["the"], "2": ["$"], "3": ["an"], "4": ["noon"]}
    answers = {"1": "A", "2": "%", "3": "...", "4": "noon"}
    assert metric.score_answers(gold, answers) == {"exact_match": 100.0, "f1": 25.0}


def test_an_unanswered_question_counts_nothing() -> None:
    assert metric.score_answers({"1": ["x"], "2": ["y"]}, {"2": "y"}) == {"exact_match": 50.0, "f1": 50.0}


def test_sums_are_in_double_precision() -> None:
    gold = {str(number): ["one two"] for number in range(30_000)}
    answers = dict.fromkeys(gold, "one")
    assert metric.score_answers(gold, answers)["f1"] == pytest.approx(200 / 3, abs=1e-12)


# Real questions


@pytest.fixture(scope="module")
def real() -> List[squad.Example]:
    if not REAL.is_file():
        pytest.skip("SQuAD's development set is not beside the checkout")
    return squad.read_questions(REAL, "VALIDATION_FILE")


def test_gold_answers_score_everything(real: List[squad.Example]) -> None:
    gold = {example.id: example.gold for example in real}
    first = {example.id: example.gold[0] for example in real}
    assert metric.score_answers(gold, first) == {"exact_match": 100.0, "f1": 100.0}
    for texts in gold.values():
        for text in texts:
            # Three of the 17,778 gold answers are a full stop, which has no word.
            assert metric.score_question(text, texts) == (1, text != ".")


def test_real_figures_are_those_of_the_library_but_for_its_32_bit_sums(real: List[squad.Example]) -> None:
    """The figures that torchmetrics 0.11.4 gave; of none of these pairs is nothing left on both sides."""

    def around(example: squad.Example) -> str:
        text, start = example.answers[0]
        return example.context[max(0, start - 9) : start + len(text) + 9]

    following = dict(zip((example.id for example in real), real[1:] + real[:1]))
    for answer, exact, f1 in (
        (around, 0.1612578183412552, 58.05269241333008),
        (lambda example: following[example.id].gold[-1], 1.5319491624832153, 4.314421653747559),
        (lambda example: example.gold[0].split()[0], 38.56077575683594, 66.20796966552734),
    ):
        found = metric.score_answers(
            {example.id: example.gold for example in real}, {example.id: answer(example) for example in real}
        )
        assert found["exact_match"] == pytest.approx(exact, rel=1e-6)
        assert found["f1"] == pytest.approx(f1, rel=2e-5)


# make evaluate PREDICTIONS=


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [
        {
            "id": name,
            "title": "Ferries",
            "context": CONTEXT,
            "question": "When?",
            "answers": {"text": texts, "answer_start": [20] * len(texts)},
        }
        for name, texts in (("q1", ["noon"]), ("q2", ["at dusk", "dusk"]))
    ]
    return write(tmp_path / "questions.json", {"data": rows})


def score(predictions: Path, questions: Path, *more: str) -> Any:
    files = [f"--predictions={predictions}", f"--validation-file={questions}"]
    return call(["evaluate", *files, *more])


def test_answers_are_scored_without_a_model(tmp_path: Path, questions: Path) -> None:
    answers = write(tmp_path / "p.json", {"q1": "at noon", "q2": "Dusk."})
    done = score(answers, questions)
    assert done.returncode == 0, done.stderr
    expected = {"exact_match": 50.0, "f1": pytest.approx((200 / 3 + 100) / 2), "questions": 2}
    assert json.loads(done.stdout) == expected
    assert done.stderr == ""


def test_make_takes_the_two_files_alone(tmp_path: Path, questions: Path) -> None:
    answers = write(tmp_path / "p.json", {"q1": "noon", "q2": "dusk"})
    make = ["make", "--no-print-directory", "evaluate"]
    done = run([*make, f"PREDICTIONS={answers}", f"VALIDATION_FILE={questions}"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"exact_match": 100.0, "f1": 100.0, "questions": 2}


def test_a_missing_answer_counts_0_and_is_told(tmp_path: Path, questions: Path) -> None:
    done = score(write(tmp_path / "p.json", {"q2": "dusk"}), questions)
    assert done.returncode == 0
    assert json.loads(done.stdout)["exact_match"] == 50
    assert "1 of 2 questions" in done.stderr
    assert "q1" in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([{"id": "q1", "prediction_text": "noon"}], ("not one JSON object",)),
        ({"q1": ["noon"]}, ("no text", '"q1"')),
        ({"q1": None}, ("null", '"q1"')),
        ({"q1": 7}, ("no text but 7", '"q1"')),
        ({"q1": "noon", "q9": "x"}, ("1 of 2 answers", "no question", '"q9"')),
        ('{"q1": "noon", "q1": "dusk"}', ('"q1" is there twice', ", line 1, column 2, line 1, column 16")),
        ('{"q1": "noon"', ("not valid JSON", "line 1")),
    ],
)
def test_what_is_no_file_of_answers_is_named(
    tmp_path: Path, questions: Path, content: object, words: tuple
) -> None:
    path = write(tmp_path / "p.json", content)
    assert_user_error(score(path, questions), str(path), *words)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"predictions": "p.json"}, "VALIDATION_FILE is empty"),
        ({"predictions": "p.json", "validation_file": "v.json", "model": "m"}, "MODEL=m"),
        ({"predictions": "p.json", "validation_file": "v.json", "launch": "/nope"}, "LAUNCH=/nope"),
        ({"predictions": "/dev/zero", "validation_file": "{questions}"}, "PREDICTIONS=/dev/zero"),
        ({"predictions": "none.json", "validation_file": "{questions}"}, "does not exist"),
    ],
)
def test_what_does_not_go_together_is_named(questions: Path, options: Dict[str, str], word: str) -> None:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    words = [text.format(questions=questions) for text in words]
    assert_user_error(call(["evaluate", *words]), word)


def test_evaluate_runs_its_configuration_and_predicts_in_that_form(kit: Kit, derived_source: Path) -> None:
    """They score what the evaluation says, and what it says of them is read again."""
    small = write_model(kit.folder / "small", **{**TINY, "hidden_size": 32, "intermediate_size": 128})
    done = kit.run("evaluate", weights="random", model=small)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["eval_questions"], said["weights"]) == (16, "random, seed 42")
    assert 0 <= said["eval_f1"] <= 100
    again = score(kit.folder / "evaluate" / "eval_predictions.json", paths.SAMPLE / "validation.json")
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert (found["exact_match"], found["f1"]) == (said["eval_exact_match"], said["eval_f1"])
    assert found["questions"] == said["eval_questions"]
