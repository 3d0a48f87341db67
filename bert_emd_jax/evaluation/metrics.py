"""The scores of predictions. One definition of each serves the score and a thousand resampled splits at once.

They are those of scikit-learn and SciPy (their defaults; 0 where a score is undefined), which tests compare.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from bert_emd_jax.data.kind import Kind, Labels

Draws = Int[np.ndarray, "draws rows"]
"""Indices of rows: of every resampled split, or of the split itself as the only draw."""
PerDraw = Float[np.ndarray, " draws"]


class Counts(NamedTuple):
    """Counts of rows, or of words and their entities, in every draw.

    Attributes:
      rows: all of them.
      right: those whose answer is right as a whole.
      true, predicted, both: those that have a label, that are given it, and both.
    """

    rows: PerDraw
    right: PerDraw
    true: Float[np.ndarray, "draws labels"]
    predicted: Float[np.ndarray, "draws labels"]
    both: Float[np.ndarray, "draws labels"]


class ScoredRows:
    """Predictions of one model beside the truth.

    predictions: of the kind, [rows, …]. truths: [rows, …].
    """

    def __init__(
        self, kind: Kind, predictions: Float[np.ndarray, "rows ..."], truths: Num[np.ndarray, "rows ..."]
    ) -> None:
        """Raises ValueError for shapes that do not match, no rows, or values that are not finite."""
        self.kind = kind
        self.predictions, self.truths = np.asarray(predictions, np.float64), np.asarray(truths)
        shape = self.predictions.shape
        if not shape or 0 in shape or self.truths.shape not in (shape, shape[:1]):
            raise ValueError(f"expected predictions and truths of as many rows, got {shape}, {truths.shape}")
        if not (np.isfinite(self.predictions).all() and np.isfinite(self.truths).all()):
            # argmax would quietly name a class for a row of NaN, and a diverged model would get a score.
            raise ValueError(
                "predictions and truths must be finite: the model has diverged, or a label is missing"
            )

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def all_rows(self) -> Draws:
        return np.arange(len(self))[None]

    @functools.cached_property
    def _countable(self) -> Float[np.ndarray, "rows 1+3*labels"]:
        """What is counted of a row: whether it is right, and of every label what `Counts` says."""
        answers, truths = self.kind.answers(self.predictions), self.truths
        right = np.asarray(self.kind.correct(self.predictions, truths))
        if answers.ndim == 1:  # classes
            one_hot = np.eye(self.predictions.shape[1], dtype=np.float32)
            answers, truths = one_hot[answers], one_hot[truths]
        # Counts are whole numbers, which float32 holds up to sixteen million.
        return np.concatenate([right[:, None], truths, answers, truths * answers], axis=1, dtype=np.float32)

    def counts(self, draws: Draws) -> Counts:
        """Counts of labels and answers, of a kind whose labels have names."""
        times = np.stack([np.bincount(rows, minlength=len(self)) for rows in draws])
        counts = (times.astype(np.float32) @ self._countable).astype(np.float64)
        true, predicted, both = np.split(counts[:, 1:], 3, axis=1)
        return Counts(times.sum(axis=1), counts[:, 0], true, predicted, both)


class ScoredCounts:
    """Counts that are made row by row, as those of the entities of a sentence."""

    def __init__(self, kind: Kind, by_row: Counts) -> None:
        """Takes counts with rows in place of draws."""
        self.kind = kind
        self._by_row = by_row

    def __len__(self) -> int:
        return len(self._by_row.rows)

    @property
    def all_rows(self) -> Draws:
        return np.arange(len(self))[None]

    def counts(self, draws: Draws) -> Counts:
        """Sums over the rows of every draw."""
        times = np.stack([np.bincount(rows, minlength=len(self)) for rows in draws]).astype(float)
        return Counts(*(times @ counts for counts in self._by_row))


class Group(NamedTuple):
    """Rows of one kind among others, and those that a model takes for such."""

    true: Bool[np.ndarray, " rows"]
    predicted: Bool[np.ndarray, " rows"]


class ScoredMeans:
    """Several scores of every row of one model, each at most 1; a metric is a mean of them."""

    def __init__(
        self, values: Mapping[str, Float[np.ndarray, " rows"]], groups: Mapping[str, Group] | None = None
    ) -> None:
        """Takes rows by the names of their metrics. Raises ValueError if a value is not finite.

        Args:
          groups: rows that have scores of their own, by name.
        """
        self.groups = dict(groups or {})
        if not all(np.isfinite(rows).all() for rows in values.values()):
            raise ValueError("scores must be finite: the model has diverged")
        self.values = dict(values)

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    @property
    def all_rows(self) -> Draws:
        return np.arange(len(self))[None]


Scored = ScoredRows | ScoredCounts | ScoredMeans
"""What a metric is computed of."""


def _quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.where(below > 0, above / np.where(below > 0, below, 1), 0)


def _precision(counts: Counts) -> Float[np.ndarray, "draws labels"]:
    return _quotient(counts.both, counts.predicted)


def _recall(counts: Counts) -> Float[np.ndarray, "draws labels"]:
    return _quotient(counts.both, counts.true)


def _f1(counts: Counts) -> Float[np.ndarray, "draws labels"]:
    return _quotient(2 * counts.both, counts.true + counts.predicted)


def _mean_where(values: np.ndarray, counted: np.ndarray) -> PerDraw:
    return _quotient((values * counted).sum(axis=1), counted.sum(axis=1))


def _accuracy(scored: ScoredRows, draws: Draws) -> PerDraw:
    counts = scored.counts(draws)
    return counts.right / counts.rows


def _balanced_accuracy(scored: ScoredRows, draws: Draws) -> PerDraw:
    counts = scored.counts(draws)
    return _mean_where(_recall(counts), counts.true > 0)


def _f1_macro(scored: ScoredRows, draws: Draws) -> PerDraw:
    counts = scored.counts(draws)
    # Of classes those that occur in the draw; of labels all.
    occurs = counts.true + counts.predicted > 0
    return _mean_where(_f1(counts), occurs if scored.truths.ndim == 1 else np.ones_like(occurs))


def _f1_weighted(scored: ScoredRows, draws: Draws) -> PerDraw:
    counts = scored.counts(draws)
    return _mean_where(_f1(counts), counts.true)


def _f1_micro(scored: ScoredRows, draws: Draws) -> PerDraw:
    counts = scored.counts(draws)
    return _quotient(2 * counts.both.sum(axis=1), (counts.true + counts.predicted).sum(axis=1))


def _matthews_correlation(scored: ScoredRows, draws: Draws) -> PerDraw:
    counts = scored.counts(draws)
    total = counts.rows
    spread = np.prod([total**2 - (side**2).sum(axis=1) for side in (counts.true, counts.predicted)], axis=0)
    covariance = counts.right * total - (counts.true * counts.predicted).sum(axis=1)
    return _quotient(covariance, np.sqrt(spread))


def _f1_of_second(scored: ScoredRows, draws: Draws) -> PerDraw:
    """GLUE's F1: that of label 1 of two."""
    if scored.predictions.shape[1] != 2:
        raise ValueError(f"f1 is for two classes, these are {scored.predictions.shape[1]}: use f1_macro")
    return _f1(scored.counts(draws))[:, 1]


def _mean_average_precision(scored: ScoredRows, draws: Draws) -> PerDraw:
    labels = scored.predictions.shape[1]
    times = np.stack([np.bincount(rows, minlength=len(scored)) for rows in draws]).astype(np.float64)
    return np.mean(
        [_average_precision(scored.predictions[:, k], scored.truths[:, k], times) for k in range(labels)],
        axis=0,
    )


def _average_precision(
    probabilities: Float[np.ndarray, " rows"],
    truths: Num[np.ndarray, " rows"],
    times: Float[np.ndarray, "draws rows"],
) -> PerDraw:
    """The precision at every threshold, weighed by how much recall it adds."""
    order = np.argsort(-probabilities, kind="stable")
    # Rows of one probability pass a threshold together.
    last_of_equals = np.flatnonzero(np.diff(probabilities[order], append=np.nan) != 0)
    above = np.cumsum(times[:, order], axis=1)[:, last_of_equals]
    true = np.cumsum(times[:, order] * truths[order], axis=1)[:, last_of_equals]
    gained = np.diff(true, axis=1, prepend=0)
    return _quotient((gained * _quotient(true, above)).sum(axis=1), true[:, -1])


def _pearson(scored: ScoredRows, draws: Draws) -> PerDraw:
    return _correlation(scored.predictions[draws], scored.truths[draws].astype(np.float64))


def _spearman(scored: ScoredRows, draws: Draws) -> PerDraw:
    from scipy.stats import rankdata  # takes most of a second to import

    return _correlation(*(rankdata(side[draws], axis=1) for side in (scored.predictions, scored.truths)))


def _correlation(a: Float[np.ndarray, "draws rows"], b: Float[np.ndarray, "draws rows"]) -> PerDraw:
    # What varies by rounding alone is constant: below this spread a correlation is noise.
    varies = [np.ptp(values, axis=1) > 1e-12 * np.abs(values).max(axis=1) for values in (a, b)]
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    correlation = _quotient((a * b).sum(axis=1), np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))
    return np.where(varies[0] & varies[1], correlation, 0)


def _entity_precision(scored: Any, draws: Draws) -> PerDraw:
    counts = scored.counts(draws)
    return _quotient(counts.both.sum(axis=1), counts.predicted.sum(axis=1))


def _entity_recall(scored: Any, draws: Draws) -> PerDraw:
    counts = scored.counts(draws)
    return _quotient(counts.both.sum(axis=1), counts.true.sum(axis=1))


Metric = Callable[[Any, Draws], PerDraw]
"""Of `ScoredRows` or `ScoredCounts`."""


def _mean_of(*metrics: Metric) -> Metric:
    return lambda scored, draws: np.mean([metric(scored, draws) for metric in metrics], axis=0)


METRICS: dict[str, Metric] = {
    "entity_f1": _f1_micro,
    "entity_precision": _entity_precision,
    "entity_recall": _entity_recall,
    "accuracy": _accuracy,
    "f1": _f1_of_second,
    "accuracy_and_f1": _mean_of(_accuracy, _f1_of_second),
    "balanced_accuracy": _balanced_accuracy,
    "f1_macro": _f1_macro,
    "f1_weighted": _f1_weighted,
    "f1_micro": _f1_micro,
    "matthews_correlation": _matthews_correlation,
    "mean_average_precision": _mean_average_precision,
    "subset_accuracy": _accuracy,
    "pearson": _pearson,
    "spearman": _spearman,
    "pearson_and_spearman": _mean_of(_pearson, _spearman),
}
LABEL_METRICS: dict[str, Callable[[Counts], Float[np.ndarray, "draws labels"]]] = {
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
}
"""Scores of one label: `f1_LABEL`."""


def drawn_scores(name: str, scored: Scored, labels: Labels, draws: Draws) -> PerDraw:
    """Returns a score of every draw, each at most 1. Raises ValueError if there is none of this name."""
    if isinstance(scored, ScoredMeans):
        return scored.values[name][draws].mean(axis=1)
    if name in METRICS:
        return METRICS[name](scored, draws)
    metric, _, label = name.partition("_")
    names = scored.kind.scored_names(labels)
    if metric in scored.kind.label_metrics and label in names:
        return LABEL_METRICS[metric](scored.counts(draws))[:, names.index(label)]
    raise ValueError(f"no metric {name!r} of kind {scored.kind.name}; there are {', '.join(METRICS)}")


def compute_metrics(names: Sequence[str], scored: Scored, labels: Labels) -> dict[str, float]:
    """Returns the named scores. Raises ValueError if there is none of a name, or it suits other tasks."""
    return {name: float(drawn_scores(name, scored, labels, scored.all_rows)[0]) for name in names}


def scores_by_label(scored: Scored, labels: Labels) -> dict[str, dict[str, float]]:
    """Returns label → its scores, its rows ("true") and those given it ("predicted"); {} without labels.

    The same of groups of rows, whose scores are means over their rows.
    """
    if isinstance(scored, ScoredMeans):
        return {
            name: {metric: float(values[group.true].mean()) for metric, values in scored.values.items()}
            | {"true": int(group.true.sum()), "predicted": int(group.predicted.sum())}
            for name, group in scored.groups.items()
        }
    if labels is None or not (names := scored.kind.label_metrics):
        return {}
    counts = scored.counts(scored.all_rows)
    columns = {name: LABEL_METRICS[name](counts)[0].tolist() for name in names}
    columns |= {
        "true": counts.true[0].astype(int).tolist(),
        "predicted": counts.predicted[0].astype(int).tolist(),
    }
    return {
        label: {name: column[k] for name, column in columns.items()}
        for k, label in enumerate(scored.kind.scored_names(labels))
    }
