"""From which probability on a label is given: chosen on rows whose labels are known."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num

from bert_emd_jax.data.kind import Kind, Labels
from bert_emd_jax.evaluation.metrics import ScoredRows, compute_metrics
from bert_emd_jax.models.encoder_config import EncoderConfig

_MOST_CANDIDATES = 200


def best_thresholds(
    kind: Kind,
    labels: Labels,
    predictions: Float[np.ndarray, "rows labels"],
    truths: Num[np.ndarray, "rows ..."],
    metric: str,
) -> tuple[float, ...]:
    """Returns the threshold with the best score on some rows, as `EncoderConfig.thresholds` has it.

    Candidates lie in the middle between two probabilities that occur, or 0 and 1, at most 200 of them. Of
    those with the same score the one nearest to one half is taken, which is a candidate itself.

    Args:
      kind: classification with two labels, or multi-label, all of whose labels get the same threshold.
    """
    of_classes = truths.ndim == 1
    count = 1 if of_classes else predictions.shape[1]

    def score(threshold: float) -> float:
        scored = ScoredRows(kind.deciding_by((threshold,) * count), predictions, truths)
        return compute_metrics([metric], scored, labels)[metric]

    candidates = _candidates(predictions[:, 1] if of_classes else predictions.ravel())
    return (max(candidates, key=score),) * count


def best_thresholds_by_label(
    predictions: Float[np.ndarray, "rows labels"], truths: Num[np.ndarray, "rows labels"]
) -> tuple[float, ...]:
    """Returns the threshold of each label with its best F1, chosen as in `best_thresholds`."""

    def best(probabilities: np.ndarray, has: np.ndarray) -> float:
        def f1(threshold: float) -> float:
            given = probabilities > threshold
            return 2 * float(np.sum(given & has)) / max(float(np.sum(given) + np.sum(has)), 1.0)

        return max(_candidates(probabilities), key=f1)

    return tuple(best(predictions[:, k], truths[:, k] > 0) for k in range(predictions.shape[1]))


def thresholds_of(config: EncoderConfig) -> dict[str, list[float]]:
    """What a results file says of a model that gives labels from other probabilities on than one half."""
    return {} if config.thresholds is None else {"thresholds": list(config.thresholds)}


def _candidates(probabilities: Float[np.ndarray, " values"]) -> Sequence[float]:
    """The nearest to one half first, since `max` takes the first of equals."""
    known = np.unique([0.0, *probabilities, 1.0])  # all may be given, or none
    middles = (known[1:] + known[:-1]) / 2
    if len(middles) > _MOST_CANDIDATES:
        middles = middles[np.linspace(0, len(middles) - 1, _MOST_CANDIDATES).round().astype(int)]
    return sorted({0.5, *middles.tolist()}, key=lambda threshold: (abs(threshold - 0.5), threshold))
