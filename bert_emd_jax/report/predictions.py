"""Analysis of the predictions on the dev rows: counts, agreement, and the rows to look at."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from bert_emd_jax.report.run_reader import Predictions

_LONGEST_TEXT = 400  # characters


@dataclass(frozen=True)
class ModelPrediction:
    """The prediction of one model for a row; `is_right` is None for regression."""

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


def confusion(predictions: Predictions, model: str) -> Int[np.ndarray, "labels labels"]:
    """Returns how many rows of each label (first axis) the model gave each label (second axis)."""
    count = len(predictions.labels or ())
    counts = np.zeros((count, count), int)
    np.add.at(counts, (predictions.truth, predictions.by_model[model].argmax(axis=1)), 1)
    return counts


def agreement(predictions: Predictions) -> str:
    """Says on how many rows both models are right, or one of them; "" for one model and for regression."""
    if predictions.labels is None or len(predictions.by_model) < 2:
        return ""
    teacher, student = (
        predictions.by_model[model].argmax(axis=1) == predictions.truth for model in ("teacher", "student")
    )
    return (
        f"Of {len(teacher):,} rows both are right on {np.sum(teacher & student):,}, both wrong on "
        f"{np.sum(~teacher & ~student):,}, the teacher alone is right on {np.sum(teacher & ~student):,} and "
        f"the student alone on {np.sum(~teacher & student):,}."
    )


def constant_models(predictions: Predictions) -> list[str]:
    """Says which models predict one label, or one value, on every row: their scores are those of guessing."""
    lines = []
    for model, values in predictions.by_model.items():
        found = np.unique(values if predictions.labels is None else values.argmax(axis=1))
        if len(found) == 1 and len(values) > 1:
            what = f"{found[0]:.3g}" if predictions.labels is None else predictions.labels[int(found[0])]
            lines.append(
                f"The {model} predicts {what} on all {len(values):,} dev rows: its score is that of guessing."
            )
    return lines


def notable_examples(predictions: Predictions, count: int = 12) -> list[Example]:
    """Returns the rows on which teacher and student differ most; without a teacher, student and label.

    The distance is half the sum of the differences of the probabilities, or the difference of the values.
    """
    student = predictions.by_model["student"]
    if predictions.labels is None:
        reference = predictions.by_model.get("teacher", predictions.truth)
        distance = np.abs(student - reference)
    else:
        one_hot = np.eye(len(predictions.labels))[predictions.truth]
        distance = np.abs(student - predictions.by_model.get("teacher", one_hot)).sum(axis=1) / 2
    order = np.argsort(-distance, kind="stable")
    return [_example(predictions, row) for row in order[:count].tolist() if distance[row] > 0]


def _example(predictions: Predictions, row: int) -> Example:
    labels, truth = predictions.labels, predictions.truth[row]

    def of_model(model: str) -> ModelPrediction:
        values = predictions.by_model[model][row]
        if labels is None:
            return ModelPrediction(model, f"{values:.3g}", None)
        best = int(values.argmax())
        text = f"{labels[best]} {100 * values[best]:.0f}\N{NO-BREAK SPACE}%"
        return ModelPrediction(model, text, best == truth)

    return Example(
        predictions.identifiers[row],
        tuple(_shortened(text) for text in predictions.texts[row]),
        f"{truth:g}" if labels is None else labels[int(truth)],
        [of_model(model) for model in predictions.by_model],
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT].rstrip() + " …"
