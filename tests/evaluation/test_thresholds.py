"""Thresholds chosen on rows with labels; scikit-learn as the oracle."""

import numpy as np
import pytest

from bert_emd_jax.data.kinds import CLASSIFICATION, MULTI_LABEL
from bert_emd_jax.evaluation.metrics import ScoredRows, compute_metrics
from bert_emd_jax.evaluation.thresholds import best_thresholds, best_thresholds_by_label


def skewed(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a label that is rare, and whether rows have it."""
    rng = np.random.default_rng(seed)
    has = rng.random(rows) < 0.2
    return np.clip(rng.beta(2, 8, rows) + 0.2 * has, 0, 1), has


@pytest.mark.parametrize("seed", range(5))
def test_the_best_f1_of_every_label_is_that_of_the_whole_curve(seed):
    curve = pytest.importorskip("sklearn.metrics").precision_recall_curve
    columns = [skewed(150, 10 * seed + label) for label in range(3)]
    predictions, truths = (np.stack(side, axis=1) for side in zip(*columns, strict=True))
    chosen = best_thresholds_by_label(predictions, truths.astype(np.float32))
    for label, threshold in enumerate(chosen):
        precision, recall, _ = curve(truths[:, label], predictions[:, label])
        given, has = predictions[:, label] > threshold, truths[:, label]
        ours = 2 * np.sum(given & has) / (given.sum() + has.sum())
        sums = precision + recall
        best = np.max(2 * precision * recall / np.where(sums > 0, sums, 1))
        assert ours == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro", "matthews_correlation", "f1_rare"])
def test_no_other_threshold_of_two_classes_scores_more(metric):
    second, has = skewed(150, 3)
    predictions, labels = np.stack([1 - second, second], axis=1), ("usual", "rare")

    def score(threshold: float) -> float:
        scored = ScoredRows(CLASSIFICATION.deciding_by((threshold,)), predictions, has.astype(int))
        return compute_metrics([metric], scored, labels)[metric]

    (chosen,) = best_thresholds(CLASSIFICATION, labels, predictions, has.astype(int), metric)
    assert score(chosen) == max(map(score, np.linspace(0.001, 0.999, 2000)))
    assert (
        score(chosen)
        >= compute_metrics([metric], ScoredRows(CLASSIFICATION, predictions, has.astype(int)), labels)[metric]
    )


def test_all_labels_share_one_threshold_which_does_not_move_without_reason():
    columns = [skewed(2000, label) for label in range(2)]  # more values than candidates
    predictions, truths = (np.stack(side, axis=1) for side in zip(*columns, strict=True))
    chosen = best_thresholds(MULTI_LABEL, ("a", "b"), predictions, truths.astype(np.float32), "f1_micro")
    assert chosen[0] == chosen[1] < 0.5
    given = predictions > chosen[0]
    ours = 2 * np.sum(given & truths) / (given.sum() + truths.sum())
    brute = max(
        2 * np.sum((predictions > t) & truths) / (np.sum(predictions > t) + truths.sum())
        for t in np.linspace(0, 1, 1000)
    )
    assert ours >= brute - 0.005
    # A score of the order alone is the same for all: one half stays.
    by_order = best_thresholds(MULTI_LABEL, None, predictions, truths, "mean_average_precision")
    assert by_order == (0.5, 0.5)
