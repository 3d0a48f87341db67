"""What teacher and student predicted on the dev rows: read, counted, and the rows worth a look."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from bert_emd_jax.errors import UserError

MODELS = ("teacher", "student")
_LONGEST_TEXT = 400  # characters


@dataclass(frozen=True)
class Predictions:
    """`dev_predictions.jsonl`, row for row.

    `truth` [rows]: indices into `labels`, or values where `labels` is None (regression). `by_model`:
    "teacher" and "student", or "student" alone, to probabilities [rows, labels] or values [rows].
    """

    labels: tuple[str, ...] | None
    identifiers: list[str]
    texts: list[tuple[str, ...]]
    truth: Num[np.ndarray, " rows"]
    by_model: dict[str, Float[np.ndarray, "rows ..."]]


@dataclass(frozen=True)
class Said:
    """What one model said about a row; `is_right` is None for regression."""

    by: str
    text: str
    is_right: bool | None


@dataclass(frozen=True)
class Example:
    """A row of the dev set and what was predicted."""

    identifier: str
    texts: tuple[str, ...]
    label: str
    said: list[Said]


def read_predictions(path: Path, labels: Sequence[str] | None) -> Predictions | None:
    """Reads the file; None where it has no rows. Raises UserError, naming the line, where it is damaged."""
    identifiers: list[str] = []
    texts: list[tuple[str, ...]] = []
    truth: list[float] = []
    by_model: dict[str, list[Any]] = {}
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error}): restore it, or run again") from error
    for number, line in enumerate(content.split("\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            pair = (row["text"], row["text_pair"]) if "text_pair" in row else (row["text"],)
            label = float(row["label"]) if labels is None else labels.index(row["label"])
            models = [model for model in MODELS if model in row]
            if "student" not in models or (by_model and list(by_model) != models):
                raise ValueError("other models than in the rows before")
            for model in models:
                by_model.setdefault(model, []).append(_prediction(row[model], labels))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise UserError(
                f"{path}, line {number}: not a row of predictions ({error}): restore the file, or run again"
            ) from error
        identifiers.append(str(row.get("id", number - 1)))
        texts.append(tuple(map(str, pair)))
        truth.append(label)
    if not truth:
        return None
    return Predictions(
        labels=None if labels is None else tuple(labels),
        identifiers=identifiers,
        texts=texts,
        truth=np.array(truth, float if labels is None else int),
        by_model={model: np.array(values, float) for model, values in by_model.items()},
    )


def _prediction(value: Any, labels: Sequence[str] | None) -> Any:
    numbers = [value] if labels is None else value
    if labels is not None and len(numbers) != len(labels):
        raise ValueError(f"{len(numbers)} probabilities for {len(labels)} labels")
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ValueError("a prediction is not a finite number")
    return value


def confusion(predictions: Predictions, model: str) -> Int[np.ndarray, "labels labels"]:
    """How many rows of each label (first axis) the model gave each label (second axis)."""
    count = len(predictions.labels or ())
    counts = np.zeros((count, count), int)
    np.add.at(counts, (predictions.truth, predictions.by_model[model].argmax(axis=1)), 1)
    return counts


def agreement(predictions: Predictions) -> str:
    """In how many rows both models are right, or one of them; "" where there is nothing to compare."""
    if predictions.labels is None or len(predictions.by_model) < 2:
        return ""
    right = {
        model: values.argmax(axis=1) == predictions.truth for model, values in predictions.by_model.items()
    }
    teacher, student = right["teacher"], right["student"]
    return (
        f"Of {len(teacher):,} rows both are right on {np.sum(teacher & student):,}, both wrong on "
        f"{np.sum(~teacher & ~student):,}, the teacher alone is right on {np.sum(teacher & ~student):,} and "
        f"the student alone on {np.sum(~teacher & student):,}."
    )


def notable_examples(predictions: Predictions, count: int = 12) -> list[Example]:
    """The rows where teacher and student differ most; without a teacher those furthest from their label.

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
    said = []
    for model, values in predictions.by_model.items():
        if labels is None:
            said.append(Said(model, f"{values[row]:.3g}", None))
        else:
            best = int(values[row].argmax())
            said.append(
                Said(model, f"{labels[best]} {100 * values[row, best]:.0f}\N{NO-BREAK SPACE}%", best == truth)
            )
    return Example(
        predictions.identifiers[row],
        tuple(_shortened(text) for text in predictions.texts[row]),
        f"{truth:g}" if labels is None else labels[int(truth)],
        said,
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT].rstrip() + " …"
