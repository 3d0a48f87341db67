"""The metrics against their textbook formulas, written out here without scikit-learn or scipy."""

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest

from bert_emd_jax.evaluation.metrics import compute_metrics

LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 1])
PREDICTED = np.array([1, 1, 1, 0, 0, 0, 1, 0, 0, 0])
# true positives 3, false negatives 2, false positives 1, true negatives 4


def _logits(predicted: np.ndarray, classes: int = 2) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, (len(predicted), classes))
    return (np.eye(classes)[predicted] + noise).astype(np.float32)


def test_binary_scores_follow_the_contingency_table():
    scores = compute_metrics(
        ["accuracy", "f1", "accuracy_and_f1", "matthews_correlation"], _logits(PREDICTED), LABELS
    )
    f1 = 2 * 3 / (2 * 3 + 1 + 2)
    assert scores["accuracy"] == pytest.approx(0.7, abs=1e-12)
    assert scores["f1"] == pytest.approx(f1, abs=1e-12)
    assert scores["accuracy_and_f1"] == pytest.approx((0.7 + f1) / 2, abs=1e-12)
    assert scores["matthews_correlation"] == pytest.approx(
        (3 * 4 - 1 * 2) / math.sqrt((3 + 1) * (3 + 2) * (4 + 1) * (4 + 2)), abs=1e-12
    )
    assert list(scores) == ["accuracy", "f1", "accuracy_and_f1", "matthews_correlation"]
    assert all(type(score) is float for score in scores.values())


def test_f1_is_of_class_1():
    swapped = compute_metrics(["f1"], _logits(1 - PREDICTED), 1 - LABELS)["f1"]
    assert swapped == pytest.approx(2 * 4 / (2 * 4 + 1 + 2), abs=1e-12)


def test_three_classes():
    predicted = np.array([0, 1, 2, 2, 1])
    labels = np.array([0, 1, 2, 1, 2])
    assert compute_metrics(["accuracy"], _logits(predicted, 3), labels) == {"accuracy": 0.6}
    for name in ("f1", "accuracy_and_f1"):
        with pytest.raises(ValueError, match="two classes"):
            compute_metrics([name], _logits(predicted, 3), labels)


def test_correlations():
    rng = np.random.default_rng(1)
    labels = rng.uniform(0, 5, 50)
    predictions = np.exp(labels) + rng.normal(0, 1, 50)
    scores = compute_metrics(["pearson", "spearman", "pearson_and_spearman"], predictions[:, None], labels)
    pearson = np.corrcoef(predictions, labels)[0, 1]
    ranks = [values.argsort().argsort() for values in (predictions, labels)]
    spearman = np.corrcoef(*ranks)[0, 1]
    assert scores["pearson"] == pytest.approx(pearson, abs=1e-12)
    assert scores["spearman"] == pytest.approx(spearman, abs=1e-12)
    assert scores["pearson_and_spearman"] == pytest.approx((pearson + spearman) / 2, abs=1e-12)


def test_spearman_gives_ties_their_mean_rank():
    score = compute_metrics(
        ["spearman"], np.array([[1.0], [1.0], [2.0], [3.0]]), np.array([1.0, 2.0, 3.0, 4.0])
    )
    assert score["spearman"] == pytest.approx(np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3, 4])[0, 1], abs=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.1, -3e4])
def test_constant_regression_scores_zero_without_a_warning(constant: float):
    names = ["pearson", "spearman", "pearson_and_spearman"]
    labels = np.linspace(0, 5, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(compute_metrics(names, np.full((20, 1), constant), labels).values()) == {0.0}
        assert set(compute_metrics(names, labels[:, None], np.full(20, constant)).values()) == {0.0}
        assert set(compute_metrics(names, np.ones((1, 1)), np.ones(1)).values()) == {0.0}


def test_constant_classes_score_zero_without_a_warning():
    names = ["f1", "matthews_correlation"]
    zeros = np.zeros(10, dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(compute_metrics(names, _logits(zeros), LABELS).values()) == {0.0}
        assert set(compute_metrics(names, _logits(zeros), zeros).values()) == {0.0}


@pytest.mark.parametrize(
    ("names", "logits", "labels", "message"),
    [
        (["bleu"], np.eye(2), np.array([0, 1]), "no metric 'bleu'"),
        (["pearson"], np.eye(2), np.array([0, 1]), "for classification"),
        (["accuracy"], np.ones((2, 1)), np.array([0.0, 1.0]), "for regression"),
        (["accuracy"], np.ones((3, 2)), np.array([0, 1]), r"\(3, 2\)"),
        (["accuracy"], np.ones((0, 2)), np.array([]), "rows"),
        (["accuracy"], np.array([[np.nan, 1.0]]), np.array([1]), "finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(names, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        compute_metrics(names, logits, labels)


def test_metrics_need_no_jax():
    code = "import sys, bert_emd_jax.evaluation.metrics; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
