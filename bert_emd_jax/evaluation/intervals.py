"""How far a score, or a difference of two, may be off: over other rows, and over other seeds."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, Num
from scipy import stats

LEVEL = 0.95
_DRAWS = 1000
_ROWS_AT_ONCE = 4_000_000


def score_interval(
    metric: str, logits: Float[np.ndarray, "rows labels"], labels: Num[np.ndarray, " rows"]
) -> tuple[float, float]:
    """The interval of a metric (`evaluation.metrics`) that 95 of 100 resampled splits lie in."""
    return _interval(np.concatenate([_scores(metric, logits, labels, rows) for rows in _draws(len(labels))]))


def difference_interval(
    metric: str,
    ours: Sequence[Float[np.ndarray, "rows labels"]],
    theirs: Sequence[Float[np.ndarray, "rows labels"]],
    labels: Num[np.ndarray, " rows"],
) -> tuple[float, float]:
    """The interval, by a paired percentile bootstrap, of what `ours` score above `theirs` on other rows.

    All see the same resampled rows. Of several models the mean score counts; that other seeds would give
    other models is not in it: `seeds_interval` has that.
    """

    def mean(models: Sequence[np.ndarray], rows: np.ndarray) -> Float[np.ndarray, " draws"]:
        return np.mean([_scores(metric, logits, labels, rows) for logits in models], axis=0)

    return _interval(np.concatenate([mean(ours, rows) - mean(theirs, rows) for rows in _draws(len(labels))]))


def seeds_interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float] | None:
    """The t interval of the difference of two means of scores, one of each seed, on the same rows.

    Takes both to scatter alike, so that one of them may be a single score. None without a second seed, or if
    equal scores say nothing of the scatter.
    """
    freedom = len(ours) + len(theirs) - 2
    if not ours or not theirs or freedom < 1:
        return None
    squares = sum(float(np.sum(np.subtract(scores, np.mean(scores)) ** 2)) for scores in (ours, theirs))
    if squares < 1e-20:
        return None
    error = math.sqrt(squares / freedom * (1 / len(ours) + 1 / len(theirs)))
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    difference = float(np.mean(ours) - np.mean(theirs))
    return difference - half, difference + half


def _interval(scores: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    low, high = np.quantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _draws(rows: int) -> Iterator[Int[np.ndarray, "draws rows"]]:
    """Rows drawn with replacement, always the same, so that a repeated evaluation says the same."""
    generator = np.random.default_rng(0)
    at_once = max(1, _ROWS_AT_ONCE // rows)
    for start in range(0, _DRAWS, at_once):
        yield generator.integers(rows, size=(min(at_once, _DRAWS - start), rows))


def _scores(
    metric: str, logits: Float[np.ndarray, "rows labels"], labels: np.ndarray, rows: np.ndarray
) -> Float[np.ndarray, " draws"]:
    """The metric on every draw of rows, all at once: 0 where `compute_metrics` says 0."""
    if "_and_" in metric:
        parts = [_scores(part, logits, labels, rows) for part in metric.split("_and_")]
        return np.mean(parts, axis=0)
    if logits.shape[1] == 1:
        predicted, true = logits[rows, 0].astype(np.float64), labels[rows].astype(np.float64)
        if metric == "spearman":
            predicted, true = stats.rankdata(predicted, axis=1), stats.rankdata(true, axis=1)
        return _correlation(predicted, true)
    return _of_confusion(metric, _confusions(logits.argmax(axis=1), labels, rows, logits.shape[1]))


def _confusions(predicted: np.ndarray, labels: np.ndarray, rows: np.ndarray, classes: int) -> np.ndarray:
    """Counts of (label, prediction) in every draw, [draws, classes, classes]."""
    cells = (labels * classes + predicted)[rows] + classes**2 * np.arange(len(rows))[:, None]
    counts = np.bincount(cells.ravel(), minlength=len(rows) * classes**2)
    return counts.reshape(len(rows), classes, classes).astype(np.float64)


def _of_confusion(metric: str, counts: Float[np.ndarray, "draws K K"]) -> Float[np.ndarray, " draws"]:
    total, right = counts.sum(axis=(1, 2)), np.trace(counts, axis1=1, axis2=2)
    if metric == "accuracy":
        return right / total
    true, predicted = counts.sum(axis=2), counts.sum(axis=1)
    if metric == "f1":
        return _quotient(2 * counts[:, 1, 1], true[:, 1] + predicted[:, 1])
    if metric == "matthews_correlation":
        spread = (total**2 - (predicted**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1))
        return _quotient(right * total - (true * predicted).sum(axis=1), np.sqrt(spread))
    raise ValueError(f"no interval for the metric {metric!r}")


def _correlation(a: Float[np.ndarray, "draws rows"], b: Float[np.ndarray, "draws rows"]) -> np.ndarray:
    # As in the metrics: what varies by rounding alone is constant.
    varies = [np.ptp(values, axis=1) > 1e-12 * np.abs(values).max(axis=1) for values in (a, b)]
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    correlation = _quotient((a * b).sum(axis=1), np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))
    return np.where(varies[0] & varies[1], correlation, 0)


def _quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.where(below > 0, above / np.where(below > 0, below, 1), 0)
