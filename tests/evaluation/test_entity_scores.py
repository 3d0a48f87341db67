"""Scores of entities, against seqeval's."""

import itertools

import numpy as np
import pytest

from bert_emd_jax.data.kinds import TOKEN
from bert_emd_jax.evaluation.entity_scores import scored_entities
from bert_emd_jax.evaluation.intervals import difference_interval, score_interval
from bert_emd_jax.evaluation.metrics import compute_metrics, drawn_scores, scores_by_label

LABELS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")


def sentences(seed: int, count: int = 60):
    rng = np.random.default_rng(seed)
    starts = np.cumsum([0, *rng.integers(1, 12, count)])
    truths = rng.integers(len(LABELS), size=starts[-1])
    # Some words are said wrongly, so that scores lie in between.
    said = np.where(rng.random(starts[-1]) < 0.2, rng.integers(len(LABELS), size=starts[-1]), truths)
    return starts, truths, said


def by_sentence(starts, indices) -> list[list[str]]:
    return [[LABELS[i] for i in indices[a:b]] for a, b in itertools.pairwise(starts)]


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_seqeval(seed):
    metrics = pytest.importorskip("seqeval.metrics")
    starts, truths, said = sentences(seed)
    scored = scored_entities(TOKEN, LABELS, said, truths, starts)
    y_true, y_pred = by_sentence(starts, truths), by_sentence(starts, said)
    assert compute_metrics(TOKEN.metrics, scored, LABELS) == pytest.approx(
        {
            "entity_f1": metrics.f1_score(y_true, y_pred),
            "entity_precision": metrics.precision_score(y_true, y_pred),
            "entity_recall": metrics.recall_score(y_true, y_pred),
            "accuracy": metrics.accuracy_score(y_true, y_pred),
        }
    )
    report = metrics.classification_report(y_true, y_pred, output_dict=True)
    for name, scores in scores_by_label(scored, LABELS).items():
        assert [scores["precision"], scores["recall"], scores["f1"], scores["true"]] == pytest.approx(
            [report[name][key] for key in ("precision", "recall", "f1-score", "support")]
        )
    assert compute_metrics(["f1_PER"], scored, LABELS)["f1_PER"] == pytest.approx(report["PER"]["f1-score"])


def test_without_entities_scores_are_zero_and_not_undefined():
    outside = np.full(4, LABELS.index("O"))
    scored = scored_entities(TOKEN, LABELS, outside, outside, np.array([0, 1, 4]))
    expected = {"entity_f1": 0, "entity_precision": 0, "entity_recall": 0, "accuracy": 1}
    assert compute_metrics(TOKEN.metrics, scored, LABELS) == expected


def test_resampled_splits_draw_whole_sentences():
    starts, truths, said = sentences(0)
    scored = scored_entities(TOKEN, LABELS, said, truths, starts)
    assert len(scored) == len(starts) - 1
    draws = np.random.default_rng(1).integers(len(scored), size=(3, len(scored)))
    counts = scored.counts(draws)
    for draw, rows, right in zip(draws, counts.rows, counts.right, strict=True):
        words = np.concatenate([np.arange(starts[row], starts[row + 1]) for row in draw])
        assert rows == len(words)
        assert right == (truths[words] == said[words]).sum()
        # As copies of these sentences, one after the other.
        lengths = np.cumsum([0, *(starts[row + 1] - starts[row] for row in draw)])
        copies = scored_entities(TOKEN, LABELS, said[words], truths[words], lengths)
        for name in (*TOKEN.metrics, "recall_LOC"):
            drawn = drawn_scores(name, scored, LABELS, draw[None])
            assert drawn[0] == pytest.approx(compute_metrics([name], copies, LABELS)[name])
    low, high = score_interval("entity_f1", scored, LABELS)
    assert low < compute_metrics(["entity_f1"], scored, LABELS)["entity_f1"] < high
    assert difference_interval("entity_f1", [scored], [scored], LABELS) == (0, 0)
