"""Question files: SQuAD's official nested JSON and the flat form that run_qa.py reads.

Nested (Rajpurkar et al. 2016): ``data[].paragraphs[].{context, qas[].{id, question, answers[].{text,
answer_start}}}``.  Flat: ``data[].{id, title, context, question, answers.{text[], answer_start[]}}``.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Tuple

from . import json_file
from .errors import KitError

_HINT = (
    "Give a file in SQuAD v1.1's form: the official nested one (data[].paragraphs[].qas[]) "
    "or the flat one (data[] of id, title, context, question, answers)."
)


@dataclass(frozen=True)
class Example:
    """One question on one context; ``answers`` are (text, first character in ``context``) pairs."""

    id: str
    title: str
    context: str
    question: str
    answers: Tuple[Tuple[str, int], ...]

    def flat(self) -> Dict[str, Any]:
        """Return the example in the flat form."""
        return {
            "id": self.id,
            "title": self.title,
            "context": self.context,
            "question": self.question,
            "answers": {
                "text": [text for text, _ in self.answers],
                "answer_start": [start for _, start in self.answers],
            },
        }


class _Reader:
    """Typed access to JSON that names the place where a value is not what it must be."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, place: str, problem: str) -> KitError:
        return KitError(
            f"The questions cannot be read: {problem}.", where=f"{self.where}: {place}", hint=_HINT
        )

    def get(self, value: Any, place: str, key: str, kind: type) -> Any:
        if not isinstance(value, dict):
            raise self.fail(place, "an object was expected")
        if key not in value:
            raise self.fail(place, f"the key {key!r} is missing")
        found = value[key]
        if not isinstance(found, kind) or isinstance(found, bool):
            kinds = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}
            raise self.fail(f"{place}.{key}", f"{kinds[kind]} was expected, not {json.dumps(found)[:40]}")
        return found

    def answer(self, context: str, text: str, start: int, place: str) -> Tuple[str, int]:
        if not 0 <= start <= len(context):
            raise self.fail(
                place, f"answer_start {start} lies outside the context of {len(context)} characters"
            )
        return text, start

    def nested(self, article: Dict[str, Any], place: str) -> List[Example]:
        examples = []
        title = article.get("title", "")
        for p, paragraph in enumerate(self.get(article, place, "paragraphs", list)):
            here = f"{place}.paragraphs[{p}]"
            context = self.get(paragraph, here, "context", str)
            for q, qa in enumerate(self.get(paragraph, here, "qas", list)):
                spot = f"{here}.qas[{q}]"
                question, identity = self.get(qa, spot, "question", str), str(qa.get("id", spot))
                answers = []
                found = self.get(qa, spot, "answers", list) if "answers" in qa else []
                for a, answer in enumerate(found):
                    at = f"{spot}.answers[{a}]"
                    text, start = self.get(answer, at, "text", str), self.get(answer, at, "answer_start", int)
                    answers.append(self.answer(context, text, start, at))
                examples.append(Example(identity, str(title), context, question, tuple(answers)))
        return examples

    def flat(self, row: Dict[str, Any], place: str) -> Example:
        context, question = self.get(row, place, "context", str), self.get(row, place, "question", str)
        answers = self.get(row, place, "answers", dict)
        texts = self.get(answers, f"{place}.answers", "text", list)
        starts = self.get(answers, f"{place}.answers", "answer_start", list)
        if len(texts) != len(starts):
            raise self.fail(
                f"{place}.answers", f"{len(texts)} texts stand beside {len(starts)} answer_starts"
            )
        pairs = []
        for a, (text, start) in enumerate(zip(texts, starts)):
            at = f"{place}.answers.text[{a}]"
            pair = {"text": text, "answer_start": start}
            pairs.append(
                self.answer(
                    context, self.get(pair, at, "text", str), self.get(pair, at, "answer_start", int), at
                )
            )
        identity, title = str(row.get("id", place)), str(row.get("title", ""))
        return Example(identity, title, context, question, tuple(pairs))


def read(path: Path, name: str) -> List[Example]:
    """Return the questions in ``path``, in the file's order.

    :param name: what the file is to the user (``TRAIN_FILE``), for errors.
    :raises KitError: the file cannot be read, is not JSON, has another schema or holds no question.
    """
    content = json_file.read(path, name)
    reader = _Reader(f"{name}={path}")
    rows = reader.get(content, "top level", "data", list)
    examples: List[Example] = []
    for index, row in enumerate(rows):
        place = f"data[{index}]"
        if isinstance(row, dict) and "paragraphs" in row:
            examples.extend(reader.nested(row, place))
        else:
            examples.append(reader.flat(row, place))
    if not examples:
        raise KitError("The file holds no questions.", where=f"{name}={path}", hint=_HINT)
    return examples
