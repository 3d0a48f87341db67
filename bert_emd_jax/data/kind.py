"""What a kind of task says of its labels: in files, in training and afterwards. `data.kinds` has them."""

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from bert_emd_jax.data.label_cells import LabelCells
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.families import Head
from bert_emd_jax.tables.rows import Column, column_names

if TYPE_CHECKING:
    from bert_emd_jax.data.task import SplitFile, Task
    from bert_emd_jax.data.task_config import CustomTaskConfig

Labels = tuple[str, ...] | None
"""The names of a task's labels in the order of the logits; None if labels are numbers."""


class Columns(NamedTuple):
    """The columns of a file: of the text, of the second text, and of the label or of each label."""

    text: Column
    text_pair: Column | None = None
    label: Column | tuple[Column, ...] | None = None


class Prediction(NamedTuple):
    """A label that a model gives a text, and its probability."""

    label: str
    probability: float


class Kind(abc.ABC):
    """What differs between tasks on whole texts.

    Truths [rows, …] are labels as numbers. Predictions [rows, …] are the probabilities or values that logits
    [rows, outputs] stand for, and answers what a model says with them, comparable with truths.

    Attributes:
      name: for `--kind`, results and messages.
      about: what a model of this kind does, after "gives".
      problem_type: what transformers calls the meaning of such logits in `config.json`.
      pipeline: the task of transformers and the hub that such a model does.
      metrics: the scores that every such task has; the first chooses the best step if the task names none.
      label_metrics: scores of one label, chosen as `f1_LABEL`.
      methods: what such a model in Python can do, see `model.Model`.
      figures: what the report draws of the predictions, by the names that `report.html` knows.
      has_column_per_label: labels may stand in columns of their own (`--label_columns`).
      fewest_labels: how many labels a task has at least; None if labels have no names.
      output_name: what a model gives each label.
      unit: what a row is called.
      head: that of its models.
      suffixes: of the files of own tasks.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    problem_type: ClassVar[str]
    pipeline: ClassVar[str] = "text-classification"
    metrics: ClassVar[tuple[str, ...]]
    label_metrics: ClassVar[tuple[str, ...]] = ()
    methods: ClassVar[tuple[str, ...]] = ("predict", "logits")
    figures: ClassVar[tuple[str, ...]] = ()
    has_column_per_label: ClassVar[bool] = False
    fewest_labels: ClassVar[int | None] = None
    output_name: ClassVar[str] = "probability"
    unit: ClassVar[str] = "rows"
    head: ClassVar[Head] = "classifier"
    suffixes: ClassVar[tuple[str, ...]] = (".tsv", ".csv", ".jsonl", ".parquet")

    def fits(self, problem_type: str, outputs: int) -> bool:
        """Whether a classifier whose config says so is of this kind."""
        return problem_type == self.problem_type and outputs >= (self.fewest_labels or 1)

    def outputs(self, labels: Labels) -> int:
        """How many logits a text has."""
        return 1 if labels is None else len(labels)

    def scored_names(self, labels: Labels) -> tuple[str, ...]:
        """What has scores of its own (`label_metrics`): every label."""
        return labels or ()

    # In files

    def columns(self, path: Path, split: str, config: "CustomTaskConfig") -> Columns:
        """Where texts and labels stand in a file of an own task. Raises UserError if it has no text."""
        text = config.text_column or guessed_text_column(path)
        return Columns(text, config.text_pair_column, config.label_columns or config.label_column)

    def metrics_of(self, directory: Path, splits: Mapping[str, "SplitFile"]) -> tuple[str, ...]:
        """The scores of an own task with these files."""
        return self.metrics

    def is_missing(self, cells: LabelCells, labels: Labels) -> bool:
        """Whether a row of a test split has no label."""
        return all(value is None for value in cells.values)

    def names(self, cells: LabelCells, separator: str) -> list[str]:
        """The names of labels in a row, of which a task's labels are inferred."""
        return [cells.name()]

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

    # Afterwards

    def deciding_by(self, thresholds: tuple[float, ...] | None) -> "Kind":
        """Returns the kind with the thresholds of a model's config, if its answers follow from some."""
        return self

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


def guessed_text_column(path: Path) -> str:
    """Returns the column of the text in a file. Raises UserError if none has a usual name."""
    names = column_names(path)
    for name in ("text", "sentence"):
        if name in names:
            return name
    raise UserError(f"{path}:1: no column 'text' or 'sentence'; name the column with --text_column")


class LearnedKind(Kind):
    """A kind whose labels are learned from, by the logits of a classifier.

    A loss has one value for everything that has a label: a text, or with a further axis a token.
    """

    def loss_weights(
        self, truths: Num[Any, "batch ..."], weights: Float[Any, " batch"]
    ) -> Float[Any, "batch ..."]:
        """Returns how much every value of a loss counts; `weights` are those of rows."""
        return weights

    @abc.abstractmethod
    def hard_loss(
        self, logits: Float[Any, "batch ... outputs"], truths: Num[Any, "batch ..."]
    ) -> Float[Any, "batch ..."]:
        """The loss against the true labels."""

    @abc.abstractmethod
    def soft_loss(
        self,
        student_logits: Float[Any, "batch ... outputs"],
        teacher_logits: Float[Any, "batch ... outputs"],
        temperature: float,
    ) -> Float[Any, "batch ..."]:
        """The loss against a teacher's predictions."""

    @abc.abstractmethod
    def mean_logits(
        self, logits: Float[Any, "models batch ... outputs"], temperature: float
    ) -> Float[Any, "batch ... outputs"]:
        """Returns the logits whose predictions at a temperature are the mean of the models' there."""


class LabellingKind(LearnedKind):
    """A kind whose models give texts labels, which have names and scores of their own."""

    label_metrics = ("precision", "recall", "f1")
    methods = ("predict", "classify", "logits")

    @abc.abstractmethod
    def given(self, prediction: Float[np.ndarray, " labels"], labels: Labels) -> list[Prediction]:
        """The labels that a text is given, the most probable first."""

    @abc.abstractmethod
    def decided(self, prediction: Float[np.ndarray, " labels"], labels: Labels) -> Any:
        """What `classify` says of a text."""

    def shown(self, prediction: Any, labels: Labels) -> str:
        return ", ".join(
            f"{label} {100 * probability:.0f}\N{NO-BREAK SPACE}%"
            for label, probability in self.given(prediction, labels)
        )

    def index(self, cells: LabelCells, name: str, task: "Task") -> int:
        """The index of a label by its name, or by another spelling of it; UserError for another name."""
        index = task.label_index(name)
        if index is None:
            assert task.labels is not None
            known = ", ".join(task.labels[:12]) + (", …" if len(task.labels) > 12 else "")
            raise UserError(
                f"{cells.where}: unknown label {name[:80]!r}; {task.name} has {known}; correct the row"
            )
        return index
