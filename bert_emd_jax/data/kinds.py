"""Kinds of tasks: what a label is and how a file spells it, what is learned from it, how logits are read.

A kind is one entry of `KINDS`; its scores are entries of `evaluation.metrics`. Losses alone import JAX.
"""

import abc
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from bert_emd_jax.data.rows import Column, json_type, label_cell
from bert_emd_jax.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Array

    from bert_emd_jax.data.task import Task
    from bert_emd_jax.models.encoder_config import EncoderConfig

Labels = tuple[str, ...] | None
"""The names of a task's labels in the order of the logits; None if labels are numbers."""


class Prediction(NamedTuple):
    """A label that a model gives a text, and its probability."""

    label: str
    probability: float


class LabelCells(NamedTuple):
    """The cells of a row that say its label, and where they stand: one, or `one_each` for every label.

    A value is None if its column is absent.
    """

    path: Path
    line: int
    columns: tuple[Column, ...]
    values: tuple[Any, ...]
    one_each: bool = False

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    def text(self) -> str:
        """The only cell as a label's name, see `label_cell`."""
        return label_cell(self.path, self.line, self.columns[0], self.values[0])


class Kind(abc.ABC):
    """What differs between tasks on whole texts.

    Truths [rows, …] are labels as numbers. Predictions [rows, …] are the probabilities or values that logits
    [rows, outputs] stand for, and answers what a model says with them, comparable with truths.

    Attributes:
      name: for `--kind`, results and messages.
      about: what a model of this kind does, after "gives".
      problem_type: what transformers calls the meaning of such logits in `config.json`.
      metrics: the scores that every such task has; the first chooses the best step if the task names none.
      label_metrics: scores of one label, chosen as `f1_LABEL`.
      methods: what such a model in Python can do, see `api.Model`.
      figures: what the report draws of the predictions, by the names that `report.html` knows.
      has_column_per_label: labels may stand in columns of their own (`--label_columns`).
      fewest_labels: how many labels a task has at least; None if labels have no names.
      output_name: what a model gives each label.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    problem_type: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    label_metrics: ClassVar[tuple[str, ...]] = ()
    methods: ClassVar[tuple[str, ...]] = ("predict", "logits")
    figures: ClassVar[tuple[str, ...]] = ()
    has_column_per_label: ClassVar[bool] = False
    fewest_labels: ClassVar[int | None] = None
    output_name: ClassVar[str] = "probability"

    def fits(self, problem_type: str, outputs: int) -> bool:
        """Whether a classifier whose config says so is of this kind."""
        return problem_type == self.problem_type and outputs >= (self.fewest_labels or 1)

    def outputs(self, labels: Labels) -> int:
        """How many logits a text has."""
        return 1 if labels is None else len(labels)

    # In files

    def is_missing(self, cells: LabelCells, labels: Labels) -> bool:
        """Whether a row of a test split has no label."""
        return all(value is None for value in cells.values)

    def names(self, cells: LabelCells, separator: str) -> list[str]:
        """The names of labels in a row, of which a task's labels are inferred."""
        return [cells.text()]

    @abc.abstractmethod
    def truth(self, cells: LabelCells, task: "Task") -> Any:
        """A row's label as a number or numbers. Raises UserError, with file and line, if it is none."""

    @abc.abstractmethod
    def truths(self, rows: Sequence[Any]) -> Num[np.ndarray, "rows ..."]:
        """The labels of all rows as an array."""

    def are_fillers(self, rows: Sequence[Any]) -> bool:
        """Whether the labels of a test split only fill its column."""
        return False

    @abc.abstractmethod
    def text(self, answer: Any, labels: Labels) -> str:
        """A row's answer or truth as a table's cell."""

    @abc.abstractmethod
    def json(self, answer: Any, labels: Labels) -> Any:
        """The same as a JSON value."""

    @abc.abstractmethod
    def read(self, value: Any, labels: Labels) -> Any:
        """The answer or truth that `text` or `json` has written. Raises ValueError or TypeError."""

    # In training

    @abc.abstractmethod
    def hard_loss(
        self, logits: Float[Any, "batch outputs"], truths: Num[Any, "batch ..."]
    ) -> Float[Any, " batch"]:
        """The loss against the true labels."""

    @abc.abstractmethod
    def soft_loss(
        self,
        student_logits: Float[Any, "batch outputs"],
        teacher_logits: Float[Any, "batch outputs"],
        temperature: float,
    ) -> Float[Any, " batch"]:
        """The loss against a teacher's predictions."""

    # Afterwards

    @abc.abstractmethod
    def predictions(self, logits: Float[np.ndarray, "rows outputs"]) -> Float[np.ndarray, "rows ..."]:
        """Probabilities [rows, labels] or values [rows]; float64, for float32 logits too."""

    @abc.abstractmethod
    def answers(self, predictions: Float[np.ndarray, "rows ..."]) -> Num[np.ndarray, "rows ..."]:
        """What a model says of every row, as truths are."""

    @abc.abstractmethod
    def certain(self, truths: Num[np.ndarray, "rows ..."], labels: Labels) -> Float[np.ndarray, "rows ..."]:
        """The predictions of a model that knows the truth."""

    def correct(
        self, predictions: Float[np.ndarray, "rows ..."], truths: Num[np.ndarray, "rows ..."]
    ) -> Bool[np.ndarray, " rows"] | None:
        """Which rows are answered as they should be; None if answers are more or less right."""
        same = self.answers(predictions) == truths
        return same.reshape(len(same), -1).all(axis=1)

    def distances(
        self, a: Float[np.ndarray, "rows ..."], b: Float[np.ndarray, "rows ..."]
    ) -> Float[np.ndarray, " rows"]:
        """How far two models' predictions are apart."""
        return np.abs(a - b).reshape(len(a), -1).sum(axis=1)

    @abc.abstractmethod
    def shown(self, prediction: Any, labels: Labels) -> str:
        """One row's prediction, for a reader."""

    def decided(self, prediction: Float[np.ndarray, " labels"], labels: Labels) -> Any:
        """The label or labels that a row is given, if `classify` is among the methods."""
        raise NotImplementedError


class Classification(Kind):
    """Exactly one of two or more classes; logits are before a softmax."""

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
    label_metrics = ("precision", "recall", "f1")
    methods = ("predict", "classify", "logits")
    figures = ("agreement", "confusion")
    fewest_labels = 2

    def is_missing(self, cells: LabelCells, labels: Labels) -> bool:
        if super().is_missing(cells, labels):
            return True
        name = cells.text()
        return name == "" or (name == "-1" and "-1" not in (labels or ()))

    def truth(self, cells: LabelCells, task: "Task") -> int:
        return _index(cells, cells.text(), task)

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

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        from scipy.special import softmax

        return softmax(np.asarray(logits, np.float64), axis=1)

    def answers(self, predictions: np.ndarray) -> np.ndarray:
        return predictions.argmax(axis=1)

    def certain(self, truths: np.ndarray, labels: Labels) -> np.ndarray:
        return np.eye(self.outputs(labels))[truths]

    def distances(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The probability that would have to move to another class."""
        return super().distances(a, b) / 2

    def shown(self, prediction: Any, labels: Labels) -> str:
        return _with_percent([self.decided(prediction, labels)])

    def decided(self, prediction: np.ndarray, labels: Labels) -> Prediction:
        """The most probable label of a text."""
        assert labels is not None
        best = int(prediction.argmax())
        return Prediction(labels[best], float(prediction[best]))


class MultiLabel(Kind):
    """Any number of labels, each by itself; logits are before a sigmoid. A label is given above one half."""

    name = "multi_label"
    about = "any number of labels per text"
    problem_type = "multi_label_classification"
    metrics = ("f1_micro", "f1_macro", "f1_weighted", "mean_average_precision", "subset_accuracy")
    label_metrics = ("precision", "recall", "f1")
    methods = ("predict", "classify", "logits")
    figures = ("agreement",)
    has_column_per_label = True
    fewest_labels = 1

    def names(self, cells: LabelCells, separator: str) -> list[str]:
        """A list in one cell, split at the separator or as JSON; an empty cell is no label."""
        path, line, column, value = cells.path, cells.line, cells.columns[0], cells.values[0]
        if isinstance(value, str):
            value = _list_in_text(cells, value.strip(), separator)
        if value is None or isinstance(value, dict):
            raise UserError(
                f"{cells.where}: {column!r} should be a list of labels, it is {json_type(value)};"
                " correct the row"
            )
        items = value if isinstance(value, list) else [value]
        return [name for item in items if (name := label_cell(path, line, column, item))]

    def truth(self, cells: LabelCells, task: "Task") -> list[int]:
        assert task.labels is not None
        if cells.one_each:
            return [_yes_or_no(cells, index) for index in range(len(cells.columns))]
        has = {_index(cells, name, task) for name in self.names(cells, task.label_separator)}
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

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        from scipy.special import expit

        return expit(np.asarray(logits, np.float64))

    def answers(self, predictions: np.ndarray) -> np.ndarray:
        return (predictions > 0.5).astype(np.float32)

    def certain(self, truths: np.ndarray, labels: Labels) -> np.ndarray:
        return truths.astype(np.float64)

    def shown(self, prediction: Any, labels: Labels) -> str:
        return _with_percent(self.decided(prediction, labels)) or "no label"

    def decided(self, prediction: np.ndarray, labels: Labels) -> list[Prediction]:
        """The labels that a text is given, the most probable first."""
        assert labels is not None
        given = [index for index in np.argsort(-prediction, kind="stable") if prediction[index] > 0.5]
        return [Prediction(labels[index], float(prediction[index])) for index in given]


class Regression(Kind):
    """A number."""

    name = "regression"
    about = "one value per text"
    problem_type = "regression"
    metrics = ("pearson_and_spearman", "pearson", "spearman")
    figures = ("scatter",)

    def fits(self, problem_type: str, outputs: int) -> bool:
        return problem_type == self.problem_type and outputs == 1

    def is_missing(self, cells: LabelCells, labels: Labels) -> bool:
        return super().is_missing(cells, labels) or cells.text() == ""

    def truth(self, cells: LabelCells, task: "Task") -> float:
        text = cells.text()
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not abs(value) <= float(np.finfo(np.float32).max):  # true for nan as well
            raise UserError(
                f"{cells.where}: the value {text[:80]!r} is no finite number; regression needs one"
            )
        return value

    def truths(self, rows: Sequence[float]) -> np.ndarray:
        return np.asarray(rows, np.float32)

    def are_fillers(self, rows: Sequence[float]) -> bool:
        return set(rows) == {-1.0}

    def text(self, answer: Any, labels: Labels) -> str:
        return f"{answer:.6g}"

    def json(self, answer: Any, labels: Labels) -> float:
        return float(answer)

    def read(self, value: Any, labels: Labels) -> float:
        return float(value)

    def hard_loss(self, logits: "Array", truths: "Array") -> "Array":
        """The squared error."""
        import optax

        return optax.squared_error(logits[:, 0], truths)

    def soft_loss(self, student_logits: "Array", teacher_logits: "Array", temperature: float) -> "Array":
        """The squared difference of the values, whatever the temperature."""
        return self.hard_loss(student_logits, teacher_logits[:, 0])

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        return np.asarray(logits, np.float64)[:, 0]

    def answers(self, predictions: np.ndarray) -> np.ndarray:
        return predictions

    def certain(self, truths: np.ndarray, labels: Labels) -> np.ndarray:
        return truths.astype(np.float64)

    def correct(self, predictions: np.ndarray, truths: np.ndarray) -> None:
        return None

    def shown(self, prediction: Any, labels: Labels) -> str:
        return f"{prediction:.3g}"


KINDS: dict[str, Kind] = {kind.name: kind for kind in (Classification(), Regression(), MultiLabel())}
CLASSIFICATION, REGRESSION = KINDS["classification"], KINDS["regression"]


def kind_of(config: "EncoderConfig", source: object) -> Kind:
    """Returns the kind of a model with a classifier.

    Args:
      source: the model, for messages.

    Raises:
      UserError: its logits mean something that no kind knows.
    """
    problem_type, outputs = config.resolved_problem_type, config.num_labels
    for kind in KINDS.values():
        if kind.fits(problem_type, outputs):
            return kind
    known = ", ".join(kind.about for kind in KINDS.values())
    raise UserError(
        f"{source}: problem_type {problem_type!r} with {outputs} labels: not supported; classifiers here give"
        f" {known}; a conversion keeps it as it is"
    )


def _index(cells: LabelCells, name: str, task: "Task") -> int:
    """The index of a label by its name, or by another spelling of it."""
    index = task.label_index(name)
    if index is None:
        assert task.labels is not None
        known = ", ".join(task.labels[:12]) + (", …" if len(task.labels) > 12 else "")
        raise UserError(
            f"{cells.where}: unknown label {name[:80]!r}; {task.name} has {known}; correct the row"
        )
    return index


def _list_in_text(cells: LabelCells, text: str, separator: str) -> list[Any]:
    if text.startswith("[") and text.endswith("]"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            if "'" in text:  # what Python prints, where a split would make labels such as "['a'"
                raise UserError(
                    f"{cells.where}: {cells.columns[0]!r} is {text[:80]}, which is no JSON; write the labels"
                    f' as a{separator}b or as ["a", "b"]'
                ) from None
    return text.split(separator)


def _yes_or_no(cells: LabelCells, index: int) -> int:
    column, value = cells.columns[index], cells.values[index]
    text = label_cell(cells.path, cells.line, column, value)
    try:
        return {"0": 0, "false": 0, "1": 1, "true": 1}[text.casefold()]
    except KeyError:
        raise UserError(
            f"{cells.where}: {column!r} is {text[:80]!r}; the column of a label holds 0 or 1; correct the row"
        ) from None


def _with_percent(given: Iterable[Prediction]) -> str:
    return ", ".join(f"{label} {100 * probability:.0f}\N{NO-BREAK SPACE}%" for label, probability in given)
