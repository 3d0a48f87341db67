"""The study's intervals against scipy and scikit-learn."""

import math

import numpy as np
import pytest
from comparison.intervals import bootstrap_interval, holm, metric_of_counts, pooled_interval, t_test
from scipy import stats

from bert_emd_jax.data.kinds import KINDS
from bert_emd_jax.evaluation.metrics import ScoredRows, compute_metrics

RNG = np.random.default_rng(0)


def test_one_cell_is_the_paired_t_interval():
    ours, theirs = RNG.normal(0.8, 0.02, 5), RNG.normal(0.79, 0.02, 5)
    interval = pooled_interval([ours - theirs])
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert interval[:3] == pytest.approx((np.mean(ours - theirs), *expected), rel=1e-12)
    assert interval.count == 5


def test_two_cells_are_welch():
    first, second = RNG.normal(1, 0.1, 3), RNG.normal(2, 2, 6)
    interval = pooled_interval([first, [], second])
    # Welch's interval of first - (-second), the sum of the means, and half of it.
    expected = stats.ttest_ind(first, -second, equal_var=False).confidence_interval(0.95)
    mean = (first.mean() + second.mean()) / 2
    assert interval[:3] == pytest.approx((mean, expected[0] / 2, expected[1] / 2), rel=1e-12)
    assert interval.count == 9


def test_what_cannot_be_bounded_is_not():
    assert pooled_interval([[0.1], [0.1, 0.2]])[1:3] == (-math.inf, math.inf)
    assert pooled_interval([[0.1], [0.3]]).mean == pytest.approx(0.2)
    assert pooled_interval([[0.5, 0.5]])[:3] == (0.5, -math.inf, math.inf)
    nothing = pooled_interval([[]])
    assert math.isnan(nothing.mean)
    assert nothing.count == 0


def test_the_test_of_units_is_scipys():
    differences = RNG.normal(0.01, 0.02, 9)
    result = t_test(differences)
    assert result.p_value == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=1e-12)
    assert result.interval[:3] == pytest.approx(
        (differences.mean(), *stats.ttest_1samp(differences, 0).confidence_interval(0.95)), rel=1e-12
    )
    assert (result.above, result.below) == (int((differences > 0).sum()), int((differences < 0).sum()))
    assert math.isnan(t_test([0.1]).p_value)
    assert t_test([]).interval.count == 0


def test_holm_holds_the_chance_of_any_false_finding():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # Of three tests one could not be made: it counts all the same.
    assert holm([math.nan, 0.02, 0.9])[1:] == pytest.approx([0.06, 1.0])
    draws = RNG.random((4000, 5))  # no difference anywhere
    any_found = np.mean([min(holm(draw)) <= 0.05 for draw in draws])
    assert any_found == pytest.approx(1 - 0.99**5, abs=0.01)


@pytest.mark.parametrize(
    ("metric", "classes"),
    [("accuracy", 3), ("matthews_correlation", 2), ("matthews_correlation", 3), ("accuracy_and_f1", 2)],
)
def test_a_metric_of_counts(metric: str, classes: int):
    labels = RNG.integers(classes, size=(4, 50))
    predictions = np.where(RNG.random((4, 50)) < 0.5, labels, RNG.integers(classes, size=(4, 50)))
    predictions[0] = 0  # a model that says one thing only
    counts = np.stack(
        [
            np.bincount(true * classes + found, minlength=classes**2).reshape(classes, classes)
            for true, found in zip(labels, predictions, strict=True)
        ]
    )
    expected = [
        compute_metrics([metric], ScoredRows(KINDS["classification"], np.eye(classes)[found], true), None)[
            metric
        ]
        for true, found in zip(labels, predictions, strict=True)
    ]
    np.testing.assert_allclose(metric_of_counts(metric, counts.astype(float)), expected, atol=1e-12)


def test_the_bootstrap_is_that_of_the_central_limit():
    labels = RNG.integers(2, size=1500)
    ours, theirs = (np.where(RNG.random((3, 1500)) < share, labels, 1 - labels) for share in (0.85, 0.8))
    interval = bootstrap_interval("accuracy", labels, ours, theirs)
    by_row = ((ours == labels).astype(float) - (theirs == labels)).mean(axis=0)
    assert interval.mean == pytest.approx(by_row.mean(), abs=1e-12)
    reach = 1.96 * by_row.std() / math.sqrt(1500)
    assert interval.high - interval.mean == pytest.approx(reach, rel=0.1)
    assert interval.mean - interval.low == pytest.approx(reach, rel=0.1)
    nothing = bootstrap_interval("matthews_correlation", labels, ours, ours)
    assert nothing[:3] == (0, 0, 0)
