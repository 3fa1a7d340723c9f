"""Question files: SQuAD's official nested JSON and the flat form that run_qa.py reads.

Nested (Rajpurkar et al. 2016): ``data[].paragraphs[].{context, qas[].{id, question, answers[].{text,
answer_start}}}``.  Flat: ``data[].{id, title, context, question, answers.{text[], answer_start[]}}``.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from ..core import files
from ..core.errors import KitError

_HINT = (
    "Give a file in SQuAD v1.1's form: the official nested one (data[].paragraphs[].qas[]) "
    "or the flat one (data[] of id, title, context, question, answers)."
)


@dataclass(frozen=True)
class Example:
    """One question; ``answers`` are (text, first character in ``context``) pairs, ``place`` is for errors."""

    id: str
    title: str
    context: str
    question: str
    answers: Tuple[Tuple[str, int], ...]
    place: str = field(default="", compare=False)

    @property
    def where(self) -> str:
        """The file, the place in it, the article and the question, for errors."""
        return f"{self.place} {_named(self.title, self.id)}".strip()

    @property
    def gold(self) -> List[str]:
        """The answers' texts."""
        return [text for text, _ in self.answers]

    def flat(self) -> Dict[str, Any]:
        """Return the example in the flat form."""
        answers = {"text": self.gold, "answer_start": [start for _, start in self.answers]}
        named = {name: getattr(self, name) for name in ("id", "title", "context", "question")}
        return {**named, "answers": answers}


def _named(title: Any, identity: Any = "") -> str:
    named = (("article", title), ("question", identity))
    text = ", ".join(f"{kind} {files.show_value(name)}" for kind, name in named if name)
    return f"({text})" if text else ""


class _Reader:
    """Typed access to JSON; errors name the place of a wrong value."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.about = ""  # the article and the question that are being read

    def fail(self, place: str, problem: str) -> KitError:
        return KitError(
            f"The questions cannot be read: {problem}.",
            where=f"{self.where}: {place} {self.about}".rstrip(),
            hint=_HINT,
        )

    def get(self, value: Any, place: str, key: str, kind: type) -> Any:
        if not isinstance(value, dict):
            raise self.fail(place, "an object was expected")
        if key not in value:
            raise self.fail(place, f"the key {key!r} is missing")
        found = value[key]
        if kind is int and isinstance(found, float) and found.is_integer():
            found = int(found)
        if not isinstance(found, kind) or isinstance(found, bool):
            kinds = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}
            raise self.fail(f"{place}.{key}", f"{kinds[kind]} was expected, not {files.show_value(found)}")
        return self.text(str(found), f"{place}.{key}") if kind is str else found

    def text(self, text: str, place: str) -> str:
        """:raises KitError: ``text`` has half of a surrogate pair, which JSON can write."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            lone = ascii(text[error.start])[1:-1]
            problem = f"character {error.start} is {lone}, half of a surrogate pair"
            raise self.fail(place, problem) from None
        return text

    def label(self, value: Any, place: str) -> str:
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise self.fail(place, f"a text or a whole number was expected, not {files.show_value(value)}")
        return self.text(str(value), place)

    def answer(self, context: str, row: Dict[str, Any], place: str) -> Tuple[str, int]:
        text, start = self.get(row, place, "text", str), self.get(row, place, "answer_start", int)
        if not -1 <= start <= len(context):  # -1: unknown
            problem = f"answer_start {start} lies outside the context of {len(context)} characters"
            raise self.fail(place, problem)
        return text, start

    def article(self, article: Dict[str, Any], place: str) -> Iterator[Example]:
        title = article.get("title", "")
        for p, paragraph in enumerate(self.get(article, place, "paragraphs", list)):
            here = f"{place}.paragraphs[{p}]"
            self.about = _named(title)
            context = self.get(paragraph, here, "context", str)
            for q, qa in enumerate(self.get(paragraph, here, "qas", list)):
                yield self.question(qa, f"{here}.qas[{q}]", title, context)

    def question(self, row: Any, place: str, title: Any = None, context: Optional[str] = None) -> Example:
        """Return a question; without ``context`` the row is in the flat form and has its own title."""
        flat = context is None
        if not isinstance(row, dict):
            raise self.fail(place, "an object was expected")
        title, identity = row.get("title", "") if flat else title, row.get("id", "")
        self.about = _named(title, identity)
        title = self.label(title, f"title of {place}")
        identity = self.label(identity, f"{place}.id") or place
        context = self.get(row, place, "context", str) if context is None else context
        question = self.get(row, place, "question", str)
        spot = f"{place}.answers"
        if flat:
            columns = self.get(row, place, "answers", dict)
            texts, starts = (self.get(columns, spot, key, list) for key in ("text", "answer_start"))
            if len(texts) != len(starts):
                raise self.fail(spot, f"{len(texts)} texts stand beside {len(starts)} answer_starts")
            found = [{"text": text, "answer_start": start} for text, start in zip(texts, starts)]
            spot += ".text"
        else:
            found = self.get(row, place, "answers", list) if "answers" in row else []
        answers = tuple(self.answer(context, answer, f"{spot}[{a}]") for a, answer in enumerate(found))
        return Example(identity, title, context, question, answers, f"{self.where}: {place}")


def read_questions(path: Path, name: str) -> List[Example]:
    """Return the questions in ``path``, in the file's order; errors call the file ``name`` (``TRAIN_FILE``).

    :raises KitError: the file cannot be read, is not JSON, has another schema or holds no question.
    """
    content = files.read_json(path, name)
    reader = _Reader(f"{name}={path}")
    rows = reader.get(content, "top level", "data", list)
    examples: List[Example] = []
    for index, row in enumerate(rows):
        place, reader.about = f"data[{index}]", ""
        if isinstance(row, dict) and "paragraphs" in row:
            examples.extend(reader.article(row, place))
        else:
            examples.append(reader.question(row, place))
    if not examples:
        raise KitError("The file holds no questions.", where=f"{name}={path}", hint=_HINT)
    return examples


def check_scorable(examples: Sequence[Example]) -> None:
    """:raises KitError: two questions have one id, one has no answer, or an answer's place is unknown."""
    seen = set()
    for example in examples:
        where = example.where
        odd = next((answer for answer in example.answers if answer[1] < 0), None)
        if example.id in seen:
            problem = "Two questions have the same id, so their answers cannot be told apart."
            hint = "Give every question an id of its own."
        elif not example.answers:
            problem = "A question has no answer, so an answer to it cannot be scored."
            hint = "Give every question of the validation file at least one answer, as SQuAD v1.1 does."
        elif odd:
            problem = f"An answer's answer_start is {odd[1]}, so it is not known to stand in the context."
            where += f": answer {files.show_value(odd[0])}"
            hint = "Give the place of its first character in the context, counted from 0."
        else:
            seen.add(example.id)
            continue
        raise KitError(problem, where=where, hint=hint)


def check_trainable(examples: Sequence[Example]) -> None:
    """:raises KitError: a question has no answer, or one that does not stand where it says in the context."""
    for example in examples:
        odd = [(t, s) for t, s in example.answers if not t or s < 0 or not example.context.startswith(t, s)]
        if example.answers and not odd:
            continue
        problem, hint = "A question has no answer, so nothing is learnt from it.", "Take it out."
        if odd:
            text, start = odd[0]
            problem = f"Answer {files.show_value(text)} is not in its context at answer_start {start}."
            hint = "Give the answer as the context has it, and the place of its first character, from 0."
        raise KitError(problem, where=example.where, hint=hint)
