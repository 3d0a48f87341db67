"""Questions and the answers of models: read row by row, scored again, and shown in their texts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from bert_emd_jax.data.kind import Kind, Labels
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.answers import F1, scored_answers
from bert_emd_jax.evaluation.metrics import ScoredMeans
from bert_emd_jax.report.json_files import read_text
from bert_emd_jax.report.predictions import Example, ModelPrediction

_SHOWN, _AROUND = 60, 90
NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Place:
    """An answer and the character that it begins at."""

    text: str
    start: int


@dataclass(frozen=True)
class AnsweredQuestions:
    """`dev_predictions.jsonl` of questions: all right answers of each, and by model the one it gives."""

    kind: Kind
    identifiers: list[str]
    questions: list[str]
    contexts: list[str]
    right: list[list[Place]]
    by_model: dict[str, list[Place]]
    labels: Labels = None

    def scored(self, model: str) -> ScoredMeans:
        """Returns what a model answers beside the right answers, to be scored."""
        said = [place.text for place in self.by_model[model]]
        return scored_answers(said, [[place.text for place in right] for right in self.right])

    def has_rows_of(self, other: object) -> bool:
        """Whether others are answers to the same questions."""
        return isinstance(other, AnsweredQuestions) and (
            (self.identifiers, self.questions, self.contexts, self.right)
            == (other.identifiers, other.questions, other.contexts, other.right)
        )


def read_answered_questions(path: Path, kind: Kind, labels: Labels = None) -> AnsweredQuestions | None:
    """Reads `dev_predictions.jsonl`; None if it has no rows.

    Raises:
      UserError: the file is damaged; the message names the line.
    """
    identifiers: list[str] = []
    questions: list[str] = []
    contexts: list[str] = []
    right: list[list[Place]] = []
    by_model: dict[str, list[Place]] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            models = [model for model in ("teacher", "student") if model in row]
            if "student" not in models or (by_model and list(by_model) != models):
                raise ValueError("other models than in the rows before")
            of_row = [_place(answer) for answer in row["label"]]
            for model in models:
                by_model.setdefault(model, []).append(_place(row[model]))
            text, context = str(row["text"]), str(row["context"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{path}, line {number}: not a row of answers ({error}): restore the file, or run again"
            ) from error
        identifiers.append(str(row.get("id", number - 1)))
        questions.append(text)
        contexts.append(context)
        right.append(of_row)
    if not questions:
        return None
    return AnsweredQuestions(kind, identifiers, questions, contexts, right, by_model)


def notable_answers(answered: AnsweredQuestions) -> list[Example]:
    """Returns questions on which the student is worse than its teacher; without a teacher, wrong."""
    scores = {model: answered.scored(model).values[F1] for model in answered.by_model}
    reference = scores.get("teacher", np.ones(len(answered.questions)))
    lost = reference - scores["student"]
    order = np.argsort(-lost, kind="stable")
    return [_example(answered, scores, int(row)) for row in order[:_SHOWN] if lost[row] > 0]


def _example(answered: AnsweredQuestions, scores: Mapping[str, np.ndarray], row: int) -> Example:
    context, right = answered.contexts[row], answered.right[row]
    first = right[0] if right else Place("", 0)
    return Example(
        answered.identifiers[row],
        (answered.questions[row], _in_text(context, first)),
        " / ".join(dict.fromkeys(place.text for place in right)) or NO_ANSWER,
        [
            ModelPrediction(model, _in_text(context, places[row]), bool(scores[model][row] == 1))
            for model, places in answered.by_model.items()
        ],
    )


def _in_text(context: str, place: Place) -> Markup:
    """The answer, marked, with some of the text around it."""
    if not place.text:
        return Markup(NO_ANSWER)
    low, high = max(place.start - _AROUND, 0), place.start + len(place.text) + _AROUND
    before = ("… " if low else "") + context[low : place.start]
    after = context[place.start + len(place.text) : high] + (" …" if high < len(context) else "")
    return Markup("{}<mark>{}</mark>{}").format(escape(before), escape(place.text), escape(after))


def _place(answer: Any) -> Place:
    text, start = answer["text"], answer["start"]
    if not isinstance(text, str) or not isinstance(start, int) or start < 0:
        raise ValueError("an answer is a text and where it begins")
    return Place(text, start)
