"""The kinds of tasks with classes: one of a text, any number of them, or one of each of its tokens."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from bert_emd_jax.data.entities import entity_types
from bert_emd_jax.data.kind import Columns, LabellingKind, Labels, Prediction
from bert_emd_jax.data.label_cells import LabelCells
from bert_emd_jax.errors import UserError
from bert_emd_jax.tables.rows import column_names

if TYPE_CHECKING:
    from jaxtyping import Array

    from bert_emd_jax.data.task import Task
    from bert_emd_jax.data.task_config import CustomTaskConfig


class _ByThresholds(LabellingKind):
    """A kind that may give a label from another probability on than one half.

    Attributes:
      thresholds: those of `EncoderConfig`.
    """

    thresholds: tuple[float, ...] | None = None

    def deciding_by(self, thresholds: tuple[float, ...] | None) -> Self:
        if thresholds is None:
            return self
        kind = copy.copy(self)
        kind.thresholds = thresholds
        return kind


class Classification(_ByThresholds):
    """Exactly one of two or more classes; logits are before a softmax. It is the most probable one, or of
    two the second if its probability is above the threshold."""

    name = "classification"
    about = "one label per text"
    problem_type = "single_label_classification"
    metrics = (
        "accuracy",
        "balanced_accuracy",
        "f1_macro",
        "f1_weighted",
        "f1_micro",
        "matthews_correlation",
    )
    figures = ("agreement", "confusion")
    fewest_labels = 2

    def is_missing(self, cells: LabelCells, labels: Labels) -> bool:
        if super().is_missing(cells, labels):
            return True
        name = cells.name()
        return name == "" or (name == "-1" and "-1" not in (labels or ()))

    def truth(self, cells: LabelCells, task: "Task") -> int:
        return self.index(cells, cells.name(), task)

    def truths(self, rows: Sequence[int]) -> np.ndarray:
        return np.asarray(rows, np.int32)

    def text(self, answer: Any, labels: Labels) -> str:
        assert labels is not None
        return labels[int(answer)]

    json = text

    def read(self, value: Any, labels: Labels) -> int:
        assert labels is not None
        return labels.index(value)

    def hard_loss(self, logits: "Array", truths: "Array") -> "Array":
        """The cross-entropy."""
        from bert_emd_jax.models.losses import hard_cross_entropy

        return hard_cross_entropy(logits, truths)

    def soft_loss(self, student_logits: "Array", teacher_logits: "Array", temperature: float) -> "Array":
        from bert_emd_jax.models.losses import soft_cross_entropy

        return soft_cross_entropy(student_logits, teacher_logits, temperature)

    def mean_logits(self, logits: "Array", temperature: float) -> "Array":
        from bert_emd_jax.models.losses import logits_of_mean_softmax

        return logits_of_mean_softmax(logits, temperature, axis=-1)

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        from scipy.special import softmax

        return softmax(np.asarray(logits, np.float64), axis=1)

    def answers(self, predictions: np.ndarray) -> np.ndarray:
        if self.thresholds is None:
            return predictions.argmax(axis=1)
        return (predictions[:, 1] > self.thresholds[0]).astype(np.int64)

    def certain(self, truths: np.ndarray, labels: Labels) -> np.ndarray:
        return np.eye(self.outputs(labels))[truths]

    def distances(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The probability that would have to move to another class."""
        return super().distances(a, b) / 2

    def given(self, prediction: np.ndarray, labels: Labels) -> list[Prediction]:
        """The label that is decided for, alone."""
        return [self.decided(prediction, labels)]

    def decided(self, prediction: np.ndarray, labels: Labels) -> Prediction:
        assert labels is not None
        chosen = int(self.answers(prediction[None])[0])
        return Prediction(labels[chosen], float(prediction[chosen]))


class MultiLabel(_ByThresholds):
    """Any number of labels, each by itself; logits are before a sigmoid. It is given above its threshold."""

    name = "multi_label"
    about = "any number of labels per text"
    problem_type = "multi_label_classification"
    metrics = ("f1_micro", "f1_macro", "f1_weighted", "mean_average_precision", "subset_accuracy")
    figures = ("agreement",)
    has_column_per_label = True
    fewest_labels = 1

    def names(self, cells: LabelCells, separator: str) -> list[str]:
        return cells.names(separator)

    def truth(self, cells: LabelCells, task: "Task") -> list[int]:
        assert task.labels is not None
        if cells.one_each:
            return cells.flags()
        has = {self.index(cells, name, task) for name in cells.names(task.label_separator)}
        return [int(index in has) for index in range(len(task.labels))]

    def truths(self, rows: Sequence[Any]) -> np.ndarray:
        return np.asarray(rows, np.float32)

    def text(self, answer: Any, labels: Labels) -> str:
        names = self.json(answer, labels)
        is_plain = not any("," in name or name.startswith("[") for name in names)
        return ", ".join(names) if is_plain else json.dumps(names)  # both may stand in a file of rows

    def json(self, answer: Any, labels: Labels) -> list[str]:
        assert labels is not None
        return [name for name, has in zip(labels, answer, strict=True) if has]

    def read(self, value: Any, labels: Labels) -> list[int]:
        assert labels is not None
        if isinstance(value, str):
            is_json = value.startswith("[")
            value = json.loads(value) if is_json else [name.strip() for name in value.split(",") if name]
        has = {labels.index(name) for name in value}
        return [int(index in has) for index in range(len(labels))]

    def hard_loss(self, logits: "Array", truths: "Array") -> "Array":
        """The mean over labels of the binary cross-entropies."""
        from bert_emd_jax.models.losses import binary_cross_entropy

        return binary_cross_entropy(logits, truths)

    def soft_loss(self, student_logits: "Array", teacher_logits: "Array", temperature: float) -> "Array":
        from bert_emd_jax.models.losses import soft_binary_cross_entropy

        return soft_binary_cross_entropy(student_logits, teacher_logits, temperature)

    def mean_logits(self, logits: "Array", temperature: float) -> "Array":
        from bert_emd_jax.models.losses import logits_of_mean_sigmoid

        return logits_of_mean_sigmoid(logits, temperature)

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        from scipy.special import expit

        return expit(np.asarray(logits, np.float64))

    def answers(self, predictions: np.ndarray) -> np.ndarray:
        return (predictions > (0.5 if self.thresholds is None else np.array(self.thresholds))).astype(
            np.float32
        )

    def certain(self, truths: np.ndarray, labels: Labels) -> np.ndarray:
        return truths.astype(np.float64)

    def given(self, prediction: np.ndarray, labels: Labels) -> list[Prediction]:
        assert labels is not None
        has = self.answers(prediction[None])[0]
        above = [index for index in np.argsort(-prediction, kind="stable") if has[index]]
        return [Prediction(labels[index], float(prediction[index])) for index in above]

    decided = given

    def shown(self, prediction: Any, labels: Labels) -> str:
        return super().shown(prediction, labels) or "no label"


class TokenClassification(Classification):
    """One class of every token of a sentence; logits [batch, seq, classes] are before a softmax.

    Its rows are words: a sentence's are predicted and scored together. Labels as B-X and I-X, or S-X and E-X
    too, mark entities; others stand for themselves.
    """

    name = "token"
    about = "one label per token"
    problem_type = "token_classification"
    pipeline = "token-classification"
    metrics = ("entity_f1", "entity_precision", "entity_recall", "accuracy")
    methods = ("tag",)
    figures = ()
    head = "token"
    suffixes = (".conll", ".jsonl", ".parquet")
    unit = "sentences"

    def scored_names(self, labels: Labels) -> tuple[str, ...]:
        """The types of entities."""
        return entity_types(labels or ())

    def columns(self, path: Path, split: str, config: "CustomTaskConfig") -> Columns:
        """Those that the flags name; of a CoNLL file, if they name none, the first and the last."""
        names = column_names(path)
        if path.suffix == ".conll":
            numbers = [name for name in (config.text_column, config.label_column) if name is not None]
            if config.text_column is None and not config.label_column.isdecimal():
                return Columns(0, None, -1 if len(names) > 1 else None)
            if not all(name.isdecimal() for name in numbers):
                raise UserError(f"{path}: its columns have numbers from 0, not names: {', '.join(numbers)}")
            return Columns(int(config.text_column or 0), None, int(config.label_column))
        text = config.text_column or next((name for name in ("tokens", "words") if name in names), None)
        if text is None:
            raise UserError(f"{path}:1: no column 'tokens' or 'words'; name the column with --text_column")
        usual = (config.label_column, "tags", "ner_tags", "labels")
        return Columns(text, None, next((name for name in usual if name in names), config.label_column))

    def is_missing(self, cells: LabelCells, labels: Labels) -> bool:
        return all(not value for value in cells.values)

    def names(self, cells: LabelCells, separator: str) -> list[str]:
        return cells.names(separator)

    def loss_weights(self, truths: "Array", weights: "Array") -> "Array":
        """The tokens that have a label."""
        return (truths >= 0) * weights[:, None]

    def hard_loss(self, logits: "Array", truths: "Array") -> "Array":
        from bert_emd_jax.models.losses import hard_cross_entropy

        return hard_cross_entropy(logits, truths.clip(min=0))
