"""The scores of the GLUE tasks, by scikit-learn and scipy."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


def _f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    if not np.any((predictions == 1) & (labels == 1)):
        return 0.0  # scikit-learn warns where neither side has a 1
    return float(f1_score(labels, predictions, pos_label=1, average="binary"))


def _accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    return float(accuracy_score(labels, predictions))


def _is_constant(values: np.ndarray) -> bool:
    # A hair above exact equality: below this spread a correlation is rounding noise.
    return bool(np.ptp(values) <= 1e-12 * np.max(np.abs(values)))


def _matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    if _is_constant(predictions) or _is_constant(labels):
        return 0.0
    return float(matthews_corrcoef(labels, predictions))


def _pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    if _is_constant(predictions) or _is_constant(labels):
        return 0.0
    return float(np.asarray(stats.pearsonr(predictions, labels))[0])


def _spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    if _is_constant(predictions) or _is_constant(labels):
        return 0.0
    return float(np.asarray(stats.spearmanr(predictions, labels))[0])


CLASSIFICATION_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "accuracy_and_f1": lambda predictions, labels: (
        (_accuracy(predictions, labels) + _f1(predictions, labels)) / 2
    ),
    "matthews_correlation": _matthews,
}
REGRESSION_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "pearson": _pearson,
    "spearman": _spearman,
    "pearson_and_spearman": lambda predictions, labels: (
        (_pearson(predictions, labels) + _spearman(predictions, labels)) / 2
    ),
}


def compute_metrics(metric_names: Sequence[str], logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The named scores of `logits` [rows, classes], or [rows, 1] for regression, against `labels` [rows].

    Each score is at most 1. A correlation with a constant is 0. Raises ValueError for an unknown name,
    a metric that does not suit the task (f1 of more than two classes, a correlation of classes), shapes
    that do not match, no rows, or values that are not finite.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or 0 in logits.shape:
        raise ValueError(
            f"expected logits [rows, classes] and labels [rows], got {logits.shape} and {labels.shape}"
        )
    if not (np.isfinite(logits).all() and np.isfinite(labels).all()):
        # argmax would quietly name a class for a row of NaN, and a diverged model would get a score.
        raise ValueError("logits and labels must be finite: the model has diverged, or a label is missing")
    classes = logits.shape[1]
    suitable = REGRESSION_METRICS if classes == 1 else CLASSIFICATION_METRICS
    scores = {}
    for name in metric_names:
        if name not in suitable:
            task = "regression" if classes == 1 else "classification"
            raise ValueError(f"no metric {name!r} for {task}: choose from {', '.join(suitable)}")
        if classes > 2 and name in ("f1", "accuracy_and_f1"):
            raise ValueError(f"{name} is for two classes, these logits have {classes}: use accuracy")
        predictions = logits[:, 0] if classes == 1 else logits.argmax(axis=1)
        scores[name] = suitable[name](predictions, labels)
    return scores
