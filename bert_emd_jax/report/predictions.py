"""Analysis of the predictions on the dev rows: counts, agreement, and the rows to look at."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Num

from bert_emd_jax.report.predictions_reader import Predictions

SHOWN_EXAMPLES = 12
"""How many of the examples a page shows before its reader asks for more."""
_LONGEST_TEXT = 400  # characters


@dataclass(frozen=True)
class ModelPrediction:
    """The prediction of one model for a row; `is_right` is None if it is more or less right."""

    model: str
    text: str
    is_right: bool | None


@dataclass(frozen=True)
class Example:
    """A row of the dev set and what was predicted."""

    identifier: str
    texts: tuple[str, ...]
    label: str
    predictions: list[ModelPrediction]

    @property
    def outcome(self) -> str:
        """Which of the models is right, as the page's filter calls it; "" if they are more or less right."""
        right = {one.model: one.is_right for one in self.predictions}
        if None in right.values():
            return ""
        if all(right.values()):
            return "both right" if len(right) > 1 else "right"
        if not any(right.values()):
            return "both wrong" if len(right) > 1 else "wrong"
        return f"the {next(model for model, is_right in right.items() if is_right)} alone is right"


def confusion(predictions: Predictions, model: str) -> Int[np.ndarray, "labels labels"]:
    """Returns how many rows of each label (first axis) the model gave each label (second axis)."""
    count = len(predictions.labels or ())
    counts = np.zeros((count, count), int)
    np.add.at(counts, (predictions.truth, _answers(predictions, model)), 1)
    return counts


def agreement(predictions: Predictions) -> str:
    """Says on how many rows both models are right, or one of them; "" for one model."""
    if len(predictions.by_model) < 2:
        return ""
    teacher, student = (np.asarray(_correct(predictions, model)) for model in ("teacher", "student"))
    return (
        f"Of {len(teacher):,} rows both are right on {np.sum(teacher & student):,}, both wrong on "
        f"{np.sum(~teacher & ~student):,}, the teacher alone is right on {np.sum(teacher & ~student):,} and "
        f"the student alone on {np.sum(~teacher & student):,}."
    )


def constant_models(predictions: Predictions) -> list[str]:
    """Says which models answer the same on every row: their scores are those of guessing."""
    lines = []
    for model, values in predictions.by_model.items():
        answers = _answers(predictions, model)
        if len(values) > 1 and len(np.unique(answers, axis=0)) == 1:
            what = predictions.kind.text(answers[0], predictions.labels)
            lines.append(
                f"The {model} predicts {what} on all {len(values):,} dev rows: its score is that of guessing."
                if what
                else f"The {model} gives none of the {len(values):,} dev rows a label."
            )
    return lines


def notable_examples(predictions: Predictions, count: int = 60) -> list[Example]:
    """Returns the rows on which teacher and student differ most; without a teacher, student and label."""
    kind = predictions.kind
    reference = predictions.by_model.get("teacher")
    if reference is None:
        reference = kind.certain(predictions.truth, predictions.labels)
    distance = kind.distances(predictions.by_model["student"], reference)
    order = np.argsort(-distance, kind="stable")
    return [_example(predictions, row) for row in order[:count].tolist() if distance[row] > 0]


def _answers(predictions: Predictions, model: str) -> Num[np.ndarray, "rows ..."]:
    return predictions.kind_of(model).answers(predictions.by_model[model])


def _correct(predictions: Predictions, model: str) -> Bool[np.ndarray, " rows"] | None:
    return predictions.kind_of(model).correct(predictions.by_model[model], predictions.truth)


def _example(predictions: Predictions, row: int) -> Example:
    kind, labels = predictions.kind, predictions.labels

    def of_model(model: str) -> ModelPrediction:
        one, kind = slice(row, row + 1), predictions.kind_of(model)
        values = predictions.by_model[model][one]
        is_right = kind.correct(values, predictions.truth[one])
        return ModelPrediction(
            model, kind.shown(values[0], labels), None if is_right is None else bool(is_right[0])
        )

    return Example(
        predictions.identifiers[row],
        tuple(_shortened(text) for text in predictions.texts[row]),
        kind.text(predictions.truth[row], labels) or "no label",
        [of_model(model) for model in predictions.by_model],
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT].rstrip() + " …"
