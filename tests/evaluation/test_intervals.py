"""Intervals against scipy's bootstrap; that draws score what the metrics say, test_metrics.py has."""

import numpy as np
import pytest
from scipy import stats

from bert_emd_jax.data.kinds import KINDS
from bert_emd_jax.evaluation import intervals
from bert_emd_jax.evaluation.intervals import difference_interval, score_interval, seeds_interval
from bert_emd_jax.evaluation.metrics import ScoredRows

RNG = np.random.default_rng(0)
CLASSES = RNG.integers(0, 2, 150)
BINARY = RNG.normal(size=(150, 2)) + 1.2 * np.eye(2)[CLASSES]
OF_TEACHER = RNG.normal(size=(150, 2)) + 1.8 * np.eye(2)[CLASSES]


def scored(logits: np.ndarray) -> ScoredRows:
    kind = KINDS["classification"]
    return ScoredRows(kind, kind.predictions(logits), CLASSES)


def test_the_intervals_are_those_of_scipy():
    def accuracy(rows):
        return np.mean(BINARY[rows].argmax(-1) == CLASSES[rows], axis=-1)

    def difference(rows):
        return accuracy(rows) - np.mean(OF_TEACHER[rows].argmax(-1) == CLASSES[rows], axis=-1)

    for ours, statistic in (
        (score_interval("accuracy", scored(BINARY), None), accuracy),
        (difference_interval("accuracy", [scored(BINARY)], [scored(OF_TEACHER)], None), difference),
    ):
        theirs = stats.bootstrap(
            (np.arange(150),), statistic, method="percentile", n_resamples=20_000, random_state=0
        ).confidence_interval
        np.testing.assert_allclose(ours, theirs, atol=0.015)  # a thousand draws
        assert ours[0] < ours[1]


def test_large_splits_are_drawn_in_parts(monkeypatch):
    whole = score_interval("accuracy", scored(BINARY), None)
    monkeypatch.setattr(intervals, "_ROWS_AT_ONCE", 1000)
    np.testing.assert_allclose(score_interval("accuracy", scored(BINARY), None), whole, atol=1e-12)
    with pytest.raises(ValueError, match="no metric"):
        score_interval("bleu", scored(BINARY), None)


def test_several_models_count_by_their_mean_score():
    """Accuracy is linear, so the mean over models can be drawn from the rows' mean correctness."""
    models = [BINARY, OF_TEACHER]
    right = np.mean([logits.argmax(1) == CLASSES for logits in models], axis=0)
    apart = right - (BINARY.argmax(1) == CLASSES)
    theirs = stats.bootstrap((apart,), np.mean, method="percentile", n_resamples=20_000, random_state=0)
    ours = difference_interval("accuracy", [scored(model) for model in models], [scored(BINARY)], None)
    np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.015)  # a thousand draws


def test_the_interval_over_seeds_is_that_of_student():
    ours, theirs = [0.81, 0.83, 0.82, 0.79], [0.80, 0.78]
    expected = stats.ttest_ind(ours, theirs).confidence_interval(0.95)
    np.testing.assert_allclose(seeds_interval(ours, theirs), expected, rtol=1e-12)
    # A single score: the prediction interval of a new observation, mirrored.
    half = stats.t.ppf(0.975, 3) * np.std(ours, ddof=1) * np.sqrt(1 + 1 / 4)
    middle = np.mean(ours) - 0.8
    np.testing.assert_allclose(seeds_interval(ours, [0.8]), [middle - half, middle + half], rtol=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), [([0.8], [0.7]), ([0.8, 0.8], [0.7, 0.7]), ([0.8, 0.9], [])])
def test_no_interval_over_seeds_without_scatter(ours: list[float], theirs: list[float]):
    assert seeds_interval(ours, theirs) is None
