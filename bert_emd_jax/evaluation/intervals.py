"""How far a score, or a difference of two, may be off: over other rows, and over other seeds."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from bert_emd_jax.data.kind import Labels
from bert_emd_jax.evaluation.metrics import Scored, drawn_scores

LEVEL = 0.95
_DRAWS = 1000
_ROWS_AT_ONCE = 4_000_000


def score_interval(metric: str, scored: Scored, labels: Labels) -> tuple[float, float]:
    """The interval of a metric (`evaluation.metrics`) that 95 of 100 resampled splits lie in."""
    return _interval(
        np.concatenate([drawn_scores(metric, scored, labels, rows) for rows in _draws(len(scored))])
    )


def difference_interval(
    metric: str, ours: Sequence[Scored], theirs: Sequence[Scored], labels: Labels
) -> tuple[float, float]:
    """The interval, by a paired percentile bootstrap, of what `ours` score above `theirs` on other rows.

    All see the same resampled rows. Of several models the mean score counts; that other seeds would give
    other models is not in it: `seeds_interval` has that.
    """

    def mean(models: Sequence[Scored], rows: np.ndarray) -> Float[np.ndarray, " draws"]:
        return np.mean([drawn_scores(metric, model, labels, rows) for model in models], axis=0)

    rows = len(ours[0])
    return _interval(np.concatenate([mean(ours, draws) - mean(theirs, draws) for draws in _draws(rows)]))


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
    from scipy.special import stdtrit  # a fifth of a second to import

    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
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
