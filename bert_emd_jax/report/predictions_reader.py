"""What models predict row by row: `dev_predictions.jsonl`, and `predictions_SPLIT.tsv` of bert-emd eval."""

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from bert_emd_jax.data.kind import Kind, Labels
from bert_emd_jax.data.kinds import CLASSIFICATION, REGRESSION
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.metrics import ScoredRows
from bert_emd_jax.report.json_files import read_text


@dataclass(frozen=True)
class Predictions:
    """`dev_predictions.jsonl`, row for row.

    `truth` as the kind has it. `by_model`: "teacher" and "student", or "student" alone, to probabilities
    [rows, labels] or values [rows]. `thresholds` are those of models that have some, by model.
    """

    kind: Kind
    labels: Labels
    identifiers: list[str]
    texts: list[tuple[str, ...]]
    truth: Num[np.ndarray, "rows ..."]
    by_model: dict[str, Float[np.ndarray, "rows ..."]]
    thresholds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def kind_of(self, model: str) -> Kind:
        """Returns the kind as a model decides, by its thresholds if it has some."""
        return self.kind.deciding_by(self.thresholds.get(model))

    def has_rows_of(self, other: object) -> bool:
        """Whether others are predictions for the same rows: bert-emd eval writes six digits, and no texts."""
        return (
            isinstance(other, Predictions)
            and self.kind is other.kind
            and self.labels == other.labels
            and self.identifiers == other.identifiers
            and np.allclose(self.truth, other.truth, rtol=1e-5, atol=1e-6)
            and (not self.texts or not other.texts or self.texts == other.texts)
        )

    def scored(self, model: str) -> ScoredRows:
        """Returns what a model predicts beside the truth, to be scored."""
        return ScoredRows(self.kind_of(model), self.by_model[model], self.truth)


def read_predictions(path: Path, kind: Kind, labels: Labels) -> Predictions | None:
    """Reads `dev_predictions.jsonl`; None if it has no rows.

    Args:
      labels: of the task, in the order of the probabilities.

    Raises:
      UserError: the file is damaged; the message names the line.
    """
    identifiers: list[str] = []
    texts: list[tuple[str, ...]] = []
    truth: list[Any] = []
    by_model: dict[str, list[Any]] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            pair = (row["text"], row["text_pair"]) if "text_pair" in row else (row["text"],)
            label = kind.read(row["label"], labels)
            models = [model for model in ("teacher", "student") if model in row]
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
        kind=kind,
        labels=labels,
        identifiers=identifiers,
        texts=texts,
        truth=kind.truths(truth),
        by_model={model: np.array(values, float) for model, values in by_model.items()},
    )


def read_prediction_table(path: Path, kind: Kind | None) -> Predictions | None:
    """Reads `predictions_SPLIT.tsv` of bert-emd eval; None if it has no labels. Texts are not in it.

    Args:
      kind: None if `eval_results.json` does not say.

    Raises:
      UserError: the file is damaged.
    """
    try:
        header, *rows = csv.reader(io.StringIO(read_text(path), newline=""), delimiter="\t", strict=True)
        if "label" not in header:
            return None
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        prefix = f"{(kind or CLASSIFICATION).output_name}_"
        names = [name for name in header if name.startswith(prefix)]
        labels = tuple(name.removeprefix(prefix) for name in names) or None
        values = np.array([columns[name] for name in names or ["prediction"]]).astype(float).T
        kind = kind or (CLASSIFICATION if labels else REGRESSION)
        truth = [kind.read(label, labels) for label in columns["label"]]
        if not np.isfinite(values).all():
            raise ValueError("a prediction is not a finite number")
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path}: not a table of predictions ({error}): restore the file, or run again"
        ) from error
    return Predictions(
        kind=kind,
        labels=labels,
        identifiers=list(columns["index"]),
        texts=[],
        truth=kind.truths(truth),
        by_model={"student": values if labels else values[:, 0]},
    )


def _prediction(value: Any, labels: Labels) -> Any:
    numbers = [value] if labels is None else value
    if labels is not None and len(numbers) != len(labels):
        raise ValueError(f"{len(numbers)} probabilities for {len(labels)} labels")
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ValueError("a prediction is not a finite number")
    return value
