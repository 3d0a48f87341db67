"""The loss against true labels, with weights of classes and smoothed labels."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from bert_emd_jax.data.kind import LearnedKind
from bert_emd_jax.data.kinds import CLASSIFICATION, TOKEN
from bert_emd_jax.encoding.task_data import TaskData
from bert_emd_jax.encoding.token_rows import TokenRows
from bert_emd_jax.errors import UserError
from bert_emd_jax.training.training_config import BALANCED, LabelLossConfig


class LabelLoss:
    """`kind.hard_loss` of a task, as the flags want it.

    With class weights w and smoothing ε the loss of a row of class y is, as in torch's `CrossEntropyLoss`,
    (1 - ε) w_y (-log p_y) + ε mean over classes c of w_c (-log p_c). Its mean is taken over rows or tokens,
    not over their weights.
    """

    def __init__(self, config: LabelLossConfig, data: TaskData) -> None:
        """Raises UserError if the task has no classes, or others than the weights."""
        kind = data.task.kind
        assert isinstance(kind, LearnedKind)  # others are refused before
        self._kind = kind
        self._smoothing = config.label_smoothing
        self._weights: Float[np.ndarray, " classes"] | None = None
        if (config.class_weights or config.label_smoothing) and kind not in (CLASSIFICATION, TOKEN):
            flag = "--class_weights" if config.class_weights else "--label_smoothing"
            raise UserError(f"{flag}: not for kind {kind.name}, which has no classes; leave it out")
        if config.class_weights:
            self._weights = _weights(config.class_weights, data)

    def __call__(
        self, logits: Float[Array, "batch ... outputs"], truths: Num[Array, "batch ..."]
    ) -> Float[Array, "batch ..."]:
        losses = self._kind.hard_loss(logits, truths)
        weights = None if self._weights is None else jnp.asarray(self._weights, jnp.float32)
        if weights is not None:
            losses = losses * weights[jnp.maximum(truths, 0)]
        if self._smoothing:
            surprises = -jax.nn.log_softmax(logits, axis=-1)
            surprises = surprises if weights is None else surprises * weights
            losses = (1 - self._smoothing) * losses + self._smoothing * surprises.mean(axis=-1)
        return losses


def _weights(given: Sequence[str], data: TaskData) -> Float[np.ndarray, " classes"]:
    labels = data.task.labels or ()
    if tuple(given) == (BALANCED,):
        rows = data.labelled_train
        if rows is None:
            raise UserError(f"--class_weights {BALANCED}: the training rows have no labels; leave it out")
        truths = rows.word_labels if isinstance(rows, TokenRows) else rows.labels
        assert truths is not None
        counts = np.bincount(truths, minlength=len(labels))
        return np.where(counts > 0, len(truths) / (len(labels) * np.maximum(counts, 1)), 0.0)
    if len(given) != len(labels):
        raise UserError(
            f"--class_weights {','.join(given)}: {len(given)} weights for {len(labels)} labels,"
            f" {', '.join(labels)}; give one each, or {BALANCED}"
        )
    return np.array([float(weight) for weight in given])
