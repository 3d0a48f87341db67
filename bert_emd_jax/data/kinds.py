"""The kinds of tasks: what a text has (classes, a number, an answer, a vector), or each of its tokens.

A kind is one entry of `KINDS`; its scores are entries of `evaluation.metrics`. Losses alone import JAX.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bert_emd_jax.data.class_kinds import Classification, MultiLabel, TokenClassification
from bert_emd_jax.data.kind import (
    Columns,
    Kind,
    Labels,
    LearnedKind,
    guessed_text_column,
)
from bert_emd_jax.data.label_cells import LabelCells
from bert_emd_jax.data.retrieval import has_retrieval
from bert_emd_jax.errors import UserError
from bert_emd_jax.tables.rows import column_names

if TYPE_CHECKING:
    from jaxtyping import Array

    from bert_emd_jax.data.task import SplitFile, Task
    from bert_emd_jax.data.task_config import CustomTaskConfig
    from bert_emd_jax.models.encoder_config import EncoderConfig


SIMILARITY_METRICS = ("spearman", "pearson")
"""Of the cosines of scored pairs."""
RETRIEVAL_METRICS = ("ndcg@10", "mrr@10", "recall@1", "recall@5", "recall@10", "recall@100")
AGREEMENT_METRIC = "teacher_cosine"
"""Mean cosine of a student's and its teacher's vectors of a text."""


class QuestionAnswering(LearnedKind):
    """Where the answer to a question stands in a text; logits [batch, seq, 2] are of its begin and its end.

    Its rows are questions, which `data.questions` reads and `evaluation.answers` answers.
    """

    name = "answer"
    about = "an answer out of a text"
    problem_type = "question_answering"
    pipeline = "question-answering"
    metrics = ("answer_f1", "exact_match")
    methods = ("answer",)
    head = "answer"
    suffixes = (".json", ".jsonl", ".parquet")
    unit = "questions"

    def outputs(self, labels: Labels) -> int:
        return 2

    def fits(self, problem_type: str, outputs: int) -> bool:
        return problem_type == self.problem_type

    def columns(self, path: Path, split: str, config: "CustomTaskConfig") -> Columns:
        return Columns("question", "context", "answers")

    def hard_loss(self, logits: "Array", truths: "Array") -> "Array":
        """The mean of the cross-entropies of begin and end, each over the tokens of a row."""
        from bert_emd_jax.models.losses import hard_cross_entropy

        begin, end = (hard_cross_entropy(logits[..., side], truths[:, side]) for side in (0, 1))
        return (begin + end) / 2

    def soft_loss(self, student_logits: "Array", teacher_logits: "Array", temperature: float) -> "Array":
        from bert_emd_jax.models.losses import soft_position_loss

        return soft_position_loss(student_logits, teacher_logits, temperature)

    def mean_logits(self, logits: "Array", temperature: float) -> "Array":
        from bert_emd_jax.models.losses import logits_of_mean_softmax

        return logits_of_mean_softmax(logits, temperature, axis=2)

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        return np.asarray(logits, np.float64)

    # Answers are texts, of whatever has no numbers for them.

    def truth(self, cells: LabelCells, task: "Task") -> Any:
        raise TypeError("answers do not stand in a cell")

    def truths(self, rows: Sequence[Any]) -> np.ndarray:
        raise TypeError("answers do not stand in a cell")

    def answers(self, predictions: np.ndarray) -> np.ndarray:
        raise TypeError("answers need their texts")

    def certain(self, truths: np.ndarray, labels: Labels) -> np.ndarray:
        raise TypeError("answers need their texts")

    def text(self, answer: Any, labels: Labels) -> str:
        return str(answer)

    def json(self, answer: Any, labels: Labels) -> str:
        return str(answer)

    def read(self, value: Any, labels: Labels) -> str:
        return str(value)

    def shown(self, prediction: Any, labels: Labels) -> str:
        return str(prediction)


class _Number(Kind):
    """A number per row, which models come near."""

    def is_missing(self, cells: LabelCells, labels: Labels) -> bool:
        return super().is_missing(cells, labels) or cells.name() == ""

    def truth(self, cells: LabelCells, task: "Task") -> float:
        text = cells.name()
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not abs(value) <= float(np.finfo(np.float32).max):  # true for nan as well
            raise UserError(
                f"{cells.where}: the value {text[:80]!r} is not a finite number; regression needs one"
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


class Regression(_Number, LearnedKind):
    """A number of a text."""

    name = "regression"
    about = "one value per text"
    problem_type = "regression"
    metrics = ("pearson_and_spearman", "pearson", "spearman")
    figures = ("scatter",)

    def fits(self, problem_type: str, outputs: int) -> bool:
        return problem_type == self.problem_type and outputs == 1

    def hard_loss(self, logits: "Array", truths: "Array") -> "Array":
        """The squared error."""
        import optax

        return optax.squared_error(logits[:, 0], truths)

    def soft_loss(self, student_logits: "Array", teacher_logits: "Array", temperature: float) -> "Array":
        """The squared difference of the values, whatever the temperature."""
        return self.hard_loss(student_logits, teacher_logits[:, 0])

    def mean_logits(self, logits: "Array", temperature: float) -> "Array":
        """The mean of the values, whatever the temperature."""
        return logits.mean(axis=0)


class Embedding(_Number):
    """A vector of a text. Texts have no labels; pairs of texts may have a score, to measure cosines by."""

    name = "embedding"
    about = "one vector per text"
    problem_type = "none"
    pipeline = "sentence-similarity"
    metrics = ()
    methods = ("embed", "similarity")
    head = "embedding"
    suffixes = (*Kind.suffixes, ".txt")

    def fits(self, problem_type: str, outputs: int) -> bool:
        return False  # no classifier is of this kind

    def columns(self, path: Path, split: str, config: "CustomTaskConfig") -> Columns:
        """Those that the flags name, if the file has them. A score is that of a pair, outside of training."""
        names = column_names(path)
        pair = config.text_pair_column if config.text_pair_column in names else None
        label = config.label_column if split != "train" and pair and config.label_column in names else None
        if pair and split != "train" and label is None and config.label_column != "label":
            raise UserError(f"{path}:1: no column {config.label_column!r}, which --label_column names")
        if config.text_column in names:
            return Columns(config.text_column, pair, label)
        texts = [name for name in names if name != config.label_column]
        if label is None and texts and len(names) <= 2:
            return Columns(*texts)
        return Columns(guessed_text_column(path), pair, label)

    def metrics_of(self, directory: Path, splits: Mapping[str, "SplitFile"]) -> tuple[str, ...]:
        """Those of scored pairs and of retrieval, as far as these are there; else of a teacher's vectors."""
        dev = splits.get("dev")
        of_pairs = SIMILARITY_METRICS if dev is not None and dev.label is not None else ()
        of_retrieval = RETRIEVAL_METRICS if has_retrieval(directory, "dev") else ()
        return (*of_pairs, *of_retrieval) or (AGREEMENT_METRIC,)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Classification(),
        Regression(),
        MultiLabel(),
        TokenClassification(),
        QuestionAnswering(),
        Embedding(),
    )
}
CLASSIFICATION, REGRESSION = KINDS["classification"], KINDS["regression"]
MULTI_LABEL = KINDS["multi_label"]
TOKEN, ANSWER, EMBEDDING = KINDS["token"], KINDS["answer"], KINDS["embedding"]


def kind_of(config: "EncoderConfig", source: object) -> Kind:
    """Returns the kind of a model with a classifier, or of a sentence embedder.

    Args:
      source: the model, for messages.

    Raises:
      UserError: its logits mean something that no kind knows.
    """
    if config.embedding is not None:
        return EMBEDDING
    problem_type, outputs = config.resolved_problem_type, config.num_labels
    for kind in KINDS.values():
        if kind.fits(problem_type, outputs):
            return kind
    known = ", ".join(kind.about for kind in KINDS.values() if kind.head != "embedding")
    raise UserError(
        f"{source}: problem_type {problem_type!r} with {outputs} labels: not supported; classifiers here give"
        f" {known}; a conversion keeps it as it is"
    )
