"""Questions on texts and where their answers stand, read from SQuAD's files."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from bert_emd_jax.data.readers import locate
from bert_emd_jax.data.task import Task
from bert_emd_jax.errors import UserError
from bert_emd_jax.tables.rows import json_type, read_rows


class GoldAnswer(NamedTuple):
    """An answer and the character of the text at which it begins."""

    text: str
    start: int


@dataclass(frozen=True)
class Questions:
    """Questions, the texts that are asked, and all answers that are right, none if the text has no answer.

    `answers` is None if they are not known. `lines` are the numbers of questions from 0; `identifiers` and
    `path` are as those of `Examples`.
    """

    questions: list[str]
    contexts: list[str]
    answers: list[tuple[GoldAnswer, ...]] | None
    identifiers: list[str]
    path: Path

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def labels(self) -> list[tuple[GoldAnswer, ...]] | None:
        return self.answers

    @property
    def lines(self) -> Int[np.ndarray, " questions"]:
        return np.arange(len(self))

    @property
    def has_unanswerable(self) -> bool:
        """Whether some questions have no answer in their text, as in SQuAD 2.0."""
        return self.answers is not None and not all(self.answers)


def read_questions(task: Task, directory: Path, split: str, *, labels_optional: bool = False) -> Questions:
    """Reads a split of questions: SQuAD 1.1 or 2.0 as JSON, or rows as the datasets library has them.

    Args:
      labels_optional: answers may be unknown, as those of a test split.

    Raises:
      UserError: a missing file, one of another form, an answer that does not stand where it should, or none.
    """
    paths, _ = locate(task, directory, split, aug_train=False)
    questions: list[str] = []
    contexts: list[str] = []
    answers: list[tuple[GoldAnswer, ...] | None] = []
    identifiers: list[str] = []
    for path in paths:
        for where, context, entry in _entries(path):
            question = _text(where, "question", entry.get("question"))
            identifier = str(entry.get("id", len(questions)))
            questions.append(question)
            contexts.append(context)
            identifiers.append(identifier)
            answers.append(_answers(f"{where}, question {identifier}", context, entry))
    path = paths[0]
    if not questions:
        raise UserError(f"{path}: no questions; the {split} split of {task.name} is empty")
    known = [answer for answer in answers if answer is not None]
    if known and len(known) < len(answers):
        first = identifiers[answers.index(None)]
        raise UserError(f"{path}, question {first}: no answers, but others have some; give all some, or none")
    if not known and not (labels_optional or split.startswith("test")):
        raise UserError(f"{path}: no answers; the {split} split of {task.name} needs them")
    return Questions(questions, contexts, known or None, identifiers, path)


def _entries(path: Path) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yields (place, context, question with its answers)."""
    if path.suffix != ".json":
        columns = ["id", "question", "context", "answers"]
        for line, cells in read_rows(path, columns, optional=("id", "answers")):
            entry = {name: cell for name, cell in zip(columns, cells, strict=True) if cell is not None}
            yield f"{path}:{line}", _text(f"{path}:{line}", "context", entry.get("context")), entry
        return
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); fetch it again") from None
    for number, article in enumerate(_list(str(path), "data", content)):
        where = f"{path}, article {number}"
        for index, paragraph in enumerate(_list(where, "paragraphs", article)):
            place = f"{where}, paragraph {index}"
            entries = _list(place, "qas", paragraph)
            context = _text(place, "context", paragraph.get("context"))
            for entry in entries:
                if not isinstance(entry, dict):
                    raise UserError(f"{place}: a question is {json_type(entry)}, not an object")
                yield place, context, entry


def _answers(where: str, context: str, entry: Mapping[str, Any]) -> tuple[GoldAnswer, ...] | None:
    given = entry.get("answers")
    if given is None:
        return () if entry.get("is_impossible") else None
    if isinstance(given, Mapping):  # as the datasets library has them: lists side by side
        texts, starts = given.get("text"), given.get("answer_start")
        if not (isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts)):
            raise UserError(f"{where}: answers should have lists of text and answer_start")
        given = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(given, list):
        raise UserError(f"{where}: answers should be a list, it is {json_type(given)}")
    found = []
    for answer in given:
        one = answer if isinstance(answer, dict) else {}
        text, start = one.get("text"), one.get("answer_start")
        if not isinstance(text, str) or not text or not isinstance(start, int) or isinstance(start, bool):
            raise UserError(f"{where}: an answer needs a text and an answer_start, a whole number")
        if context[start : start + len(text)] != text or start < 0:
            raise UserError(
                f"{where}: the answer {text[:40]!r} does not stand at character {start} of its text;"
                " correct answer_start"
            )
        found.append(GoldAnswer(text, start))
    return tuple(found)


def _list(where: str, key: str, value: Any) -> list[Any]:
    inner = value.get(key) if isinstance(value, dict) else None
    if not isinstance(inner, list):
        raise UserError(f"{where}: no list {key!r} here; the file should have SQuAD's form")
    return inner


def _text(where: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {name!r} should be a text, it is {json_type(value)}; correct it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: {name!r} holds half of a surrogate pair; correct it") from None
    return value
