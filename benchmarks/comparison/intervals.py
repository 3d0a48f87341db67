"""Confidence intervals of differences: over seeds, over pairs of task and student, over dev rows."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

CONFIDENCE = 0.95
ROUNDS = 2000


class Interval(NamedTuple):
    """A mean and its confidence interval; infinite if `count` differences are too few."""

    mean: float
    low: float
    high: float
    count: int


def pooled_interval(cells: Sequence[Sequence[float]]) -> Interval:
    """Returns the mean of the cells' mean differences, equally weighted; for one cell, the paired t interval.

    The variances of the cells may differ: degrees of freedom by Welch and Satterthwaite. A cell is a pair of
    task and student; the interval holds for these cells and new seeds, not for new tasks. With a cell of one
    difference, which has no variance, it is infinite.
    """
    filled = [np.asarray(cell, np.float64) for cell in cells if len(cell)]
    count = sum(map(len, filled))
    if not filled:
        return Interval(math.nan, -math.inf, math.inf, 0)
    mean = float(np.mean([cell.mean() for cell in filled]))
    if min(map(len, filled)) < 2:
        return Interval(mean, -math.inf, math.inf, count)
    shares = np.array([cell.var(ddof=1) / len(cell) for cell in filled]) / len(filled) ** 2
    variance = float(shares.sum())
    if variance == 0:  # seeds that agree to the last digit say nothing about new ones
        return Interval(mean, -math.inf, math.inf, count)
    freedom = variance**2 / sum(
        share**2 / (len(cell) - 1) for share, cell in zip(shares, filled, strict=True)
    )
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
    return Interval(mean, mean - reach, mean + reach, count)


class Test(NamedTuple):
    """A mean difference with its interval, how many units are above and below 0, and the p-value."""

    interval: Interval
    above: int
    below: int
    p_value: float


def t_test(differences: Sequence[float]) -> Test:
    """Returns the t test of a mean of 0; fewer than two units, or equal ones, have no p-value (NaN)."""
    values = np.asarray(differences, np.float64)
    interval = pooled_interval([values])
    p_value = float(stats.ttest_1samp(values, 0.0).pvalue) if math.isfinite(interval.low) else math.nan
    return Test(interval, int((values > 0).sum()), int((values < 0).sum()), p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected by Holm's step-down rule; NaN stays, and counts as a test that was made."""
    corrected, largest = [math.nan] * len(p_values), 0.0
    ordered = sorted((p_value, index) for index, p_value in enumerate(p_values) if not math.isnan(p_value))
    for rank, (p_value, index) in enumerate(ordered):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_value))
        corrected[index] = largest
    return corrected


def metric_of_counts(
    metric: str, counts: Float[np.ndarray, "rounds classes classes"]
) -> Float[np.ndarray, " rounds"]:
    """Returns the metric of each confusion matrix, true classes down; f1 is that of class 1.

    Raises:
      ValueError: it is not a metric of classes.
    """
    total = counts.sum(axis=(1, 2))
    right = np.trace(counts, axis1=1, axis2=2)
    accuracy = right / total
    if metric == "accuracy":
        return accuracy
    true, predicted = counts.sum(axis=2), counts.sum(axis=1)
    if metric == "accuracy_and_f1":
        either = true[:, 1] + predicted[:, 1]
        f1 = 2 * counts[:, 1, 1] / np.where(either > 0, either, 1)
        return (accuracy + f1) / 2
    if metric == "matthews_correlation":
        spread = (total**2 - (predicted**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1))
        together = right * total - (true * predicted).sum(axis=1)
        return np.where(spread > 0, together / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)
    raise ValueError(f"no metric of classes: {metric}")


def score_of(metric: str, labels: Int[np.ndarray, " rows"], predictions: Int[np.ndarray, " rows"]) -> float:
    """Returns the metric of predicted classes. Raises ValueError if it is not a metric of classes."""
    classes = max(2, int(labels.max()) + 1, int(predictions.max()) + 1)
    counts = np.bincount(labels * classes + predictions, minlength=classes**2).astype(np.float64)
    return float(metric_of_counts(metric, counts.reshape(1, classes, classes))[0])


def bootstrap_interval(
    metric: str,
    labels: Int[np.ndarray, " rows"],
    predictions: Int[np.ndarray, "runs rows"],
    baseline: Int[np.ndarray, "runs rows"],
    seed: int = 0,
) -> Interval:
    """Returns the mean difference of the metric between runs and their baselines, for dev sets of this size.

    The interval is that of the percentile bootstrap over rows, the same rows for all runs.
    """
    rng = np.random.default_rng(seed)
    rows, classes = len(labels), int(max(labels.max(), predictions.max(), baseline.max())) + 1
    resampled = rng.multinomial(rows, np.full(rows, 1 / rows), size=ROUNDS).astype(np.float64)
    weights = np.concatenate([np.ones((1, rows)), resampled])  # the dev set as it is first

    def scores(predicted: np.ndarray) -> np.ndarray:
        cells = np.eye(classes**2)[labels * classes + predicted]
        return metric_of_counts(metric, (weights @ cells).reshape(-1, classes, classes))

    pairs = zip(predictions, baseline, strict=True)
    differences = np.mean([scores(ours) - scores(theirs) for ours, theirs in pairs], axis=0)
    low, high = np.quantile(differences[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(differences[0]), float(low), float(high), len(predictions))
