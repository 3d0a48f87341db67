"""The metrics against scikit-learn, scipy and textbook formulas; drawn rows against copies of them."""

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy import stats

from bert_emd_jax.data.kinds import KINDS
from bert_emd_jax.evaluation.metrics import (
    METRICS,
    ScoredRows,
    compute_metrics,
    drawn_scores,
    scores_by_label,
)

CLASSIFICATION, REGRESSION, MULTI_LABEL = (
    KINDS[name] for name in ("classification", "regression", "multi_label")
)
LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 1])
PREDICTED = np.array([1, 1, 1, 0, 0, 0, 1, 0, 0, 0])
# true positives 3, false negatives 2, false positives 1, true negatives 4
NAMES = ("bad", "so so", "good", "never")


def classes(predicted: np.ndarray, labels: np.ndarray, count: int = 2) -> ScoredRows:
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, (len(predicted), count))
    logits = (np.eye(count)[predicted] + noise).astype(np.float32)
    return ScoredRows(CLASSIFICATION, CLASSIFICATION.predictions(logits), labels)


def values(predicted: object, labels: object) -> ScoredRows:
    return ScoredRows(REGRESSION, np.asarray(predicted, float), np.asarray(labels, float))


def multi_label(rows: int = 60, labels: int = 4, seed: int = 0) -> ScoredRows:
    """Labels of differing frequency, the last of which no row has; probabilities with many ties."""
    rng = np.random.default_rng(seed)
    truths = (rng.random((rows, labels)) < np.linspace(0.6, 0, labels)).astype(np.float32)
    predictions = np.clip(0.35 + 0.3 * truths + rng.normal(0, 0.25, truths.shape), 0, 1).round(1)
    return ScoredRows(MULTI_LABEL, predictions, truths)


def of_sklearn(scored: ScoredRows) -> dict[str, float]:
    """All scores of a kind by scikit-learn, whose warnings of undefined scores are not of interest."""
    metrics = pytest.importorskip("sklearn.metrics")
    truths, answers = scored.truths, scored.kind.answers(scored.predictions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = {
            f"f1_{average}": metrics.f1_score(truths, answers, average=average)
            for average in ("micro", "macro", "weighted")
        }
        if scored.kind is MULTI_LABEL:
            mean = metrics.average_precision_score(truths, scored.predictions, average="macro")
            return scores | {
                "mean_average_precision": mean,
                "subset_accuracy": metrics.accuracy_score(truths, answers),
            }
        return scores | {
            "accuracy": metrics.accuracy_score(truths, answers),
            "balanced_accuracy": metrics.balanced_accuracy_score(truths, answers),
            "matthews_correlation": metrics.matthews_corrcoef(truths, answers),
        }


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_scores_of_classes_are_those_of_scikit_learn(count: int, seed: int):
    rng = np.random.default_rng(seed)
    # Few rows: some classes have none, or are never predicted, or both.
    rows = (6, 200)[seed % 2]
    labels = rng.integers(0, count, rows)
    scored = classes(np.where(rng.random(rows) < 0.6, labels, rng.integers(0, count, rows)), labels, count)
    assert compute_metrics(CLASSIFICATION.metrics, scored, NAMES[:count]) == pytest.approx(
        of_sklearn(scored), abs=1e-12
    )


@pytest.mark.parametrize("seed", range(4))
def test_scores_of_several_labels_are_those_of_scikit_learn(seed: int):
    scored = multi_label(rows=(5, 300)[seed % 2], seed=seed)
    assert compute_metrics(MULTI_LABEL.metrics, scored, NAMES) == pytest.approx(of_sklearn(scored), abs=1e-12)


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_scores_by_label_are_those_of_scikit_learn(kind: str):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(5)
    scored = multi_label() if kind == "labels" else classes(rng.integers(0, 3, 80), rng.integers(0, 4, 80), 4)
    answers = scored.kind.answers(scored.predictions)
    expected = metrics.classification_report(
        scored.truths, answers, labels=range(4), target_names=NAMES, output_dict=True, zero_division=0
    )
    table = scores_by_label(scored, NAMES)
    for label in NAMES:
        theirs = expected[label]
        assert table[label]["true"] == theirs["support"]
        for ours, name in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert table[label][ours] == pytest.approx(theirs[name], abs=1e-12)
            assert compute_metrics([f"{ours}_{label}"], scored, NAMES) == {
                f"{ours}_{label}": table[label][ours]
            }
    assert sum(table[label]["predicted"] for label in NAMES) == (80 if kind == "classes" else answers.sum())
    assert scores_by_label(values([1, 2], [1, 2]), None) == {}


CASES = [
    *((name, classes(LABELS ^ (np.arange(10) % 3 == 0), LABELS)) for name in ("f1", "accuracy_and_f1")),
    *(
        (name, classes(*np.random.default_rng(2).integers(0, 3, (2, 40)), 3))
        for name in (*CLASSIFICATION.metrics, "recall_so so")
    ),
    *((name, multi_label(rows=40)) for name in (*MULTI_LABEL.metrics, "precision_bad")),
    *(
        (name, values(*np.random.default_rng(3).normal(size=(2, 40)).round(1)))
        for name in ("pearson", "spearman", "pearson_and_spearman")
    ),
]


def test_every_metric_is_drawn():
    of_entities = {name for name in METRICS if name.startswith("entity_")}  # test_entity_scores.py
    assert {name for name, _ in CASES} >= set(METRICS) - of_entities


@pytest.mark.parametrize(("name", "scored"), CASES)
def test_drawn_rows_score_as_copies_of_them(name: str, scored: ScoredRows):
    draws = np.random.default_rng(1).integers(len(scored), size=(20, len(scored)))
    draws[0] = 3  # one row over and over
    expected = [
        compute_metrics(
            [name], ScoredRows(scored.kind, scored.predictions[rows], scored.truths[rows]), NAMES
        )[name]
        for rows in draws
    ]
    np.testing.assert_allclose(drawn_scores(name, scored, NAMES, draws), expected, atol=1e-12)


def test_binary_scores_follow_the_contingency_table():
    names = ["accuracy", "f1", "accuracy_and_f1", "matthews_correlation"]
    scores = compute_metrics(names, classes(PREDICTED, LABELS), None)
    f1 = 2 * 3 / (2 * 3 + 1 + 2)
    assert scores["accuracy"] == pytest.approx(0.7, abs=1e-12)
    assert scores["f1"] == pytest.approx(f1, abs=1e-12)
    assert scores["accuracy_and_f1"] == pytest.approx((0.7 + f1) / 2, abs=1e-12)
    assert scores["matthews_correlation"] == pytest.approx(
        (3 * 4 - 1 * 2) / math.sqrt((3 + 1) * (3 + 2) * (4 + 1) * (4 + 2)), abs=1e-12
    )
    assert list(scores) == names
    assert all(type(score) is float for score in scores.values())


def test_f1_is_of_class_1():
    swapped = compute_metrics(["f1"], classes(1 - PREDICTED, 1 - LABELS), None)["f1"]
    assert swapped == pytest.approx(2 * 4 / (2 * 4 + 1 + 2), abs=1e-12)


def test_three_classes():
    scored = classes(np.array([0, 1, 2, 2, 1]), np.array([0, 1, 2, 1, 2]), 3)
    assert compute_metrics(["accuracy"], scored, None) == {"accuracy": 0.6}
    for name in ("f1", "accuracy_and_f1"):
        with pytest.raises(ValueError, match="two classes"):
            compute_metrics([name], scored, None)


def test_correlations():
    rng = np.random.default_rng(1)
    labels = rng.uniform(0, 5, 50).round(1)  # with ties
    predictions = np.exp(labels) + rng.normal(0, 1, 50)
    scores = compute_metrics(REGRESSION.metrics, values(predictions, labels), None)
    pearson = np.corrcoef(predictions, labels)[0, 1]
    spearman = np.asarray(stats.spearmanr(predictions, labels))[0]
    assert scores["pearson"] == pytest.approx(pearson, abs=1e-12)
    assert scores["spearman"] == pytest.approx(spearman, abs=1e-12)
    assert scores["pearson_and_spearman"] == pytest.approx((pearson + spearman) / 2, abs=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.1, -3e4])
def test_constant_regression_scores_zero_without_a_warning(constant: float):
    labels = np.linspace(0, 5, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scored in (
            values([constant] * 20, labels),
            values(labels, [constant] * 20),
            values([1.0], [1.0]),
        ):
            assert set(compute_metrics(REGRESSION.metrics, scored, None).values()) == {0.0}


def test_constant_classes_score_zero_without_a_warning():
    zeros = np.zeros(10, dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for labels in (LABELS, zeros):
            scores = compute_metrics(["f1", "matthews_correlation"], classes(zeros, labels), None)
            assert set(scores.values()) == {0.0}


@pytest.mark.parametrize(
    ("kind", "name", "predictions", "labels", "message"),
    [
        (CLASSIFICATION, "bleu", np.eye(2), np.array([0, 1]), "no metric 'bleu' of kind classification"),
        (CLASSIFICATION, "f1_other", np.eye(2), np.array([0, 1]), "no metric 'f1_other'"),
        (REGRESSION, "f1_bad", np.ones(2), np.array([0.0, 1.0]), "no metric 'f1_bad' of kind regression"),
        (CLASSIFICATION, "accuracy", np.ones((3, 2)), np.array([0, 1]), r"\(3, 2\)"),
        (MULTI_LABEL, "f1_micro", np.ones((3, 2)), np.ones((3, 1)), r"\(3, 2\)"),
        (CLASSIFICATION, "accuracy", np.ones((0, 2)), np.array([]), "rows"),
        (CLASSIFICATION, "accuracy", np.array([[np.nan, 1.0]]), np.array([1]), "finite"),
        (REGRESSION, "pearson", np.array([np.inf, 1.0]), np.ones(2), "finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(kind, name, predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        compute_metrics([name], ScoredRows(kind, predictions, labels), NAMES)


def test_metrics_need_no_jax():
    code = "import sys, bert_emd_jax.evaluation.metrics; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
