"""The loss of general distillation on rows that are held out, by one plan for all of them."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from bert_emd_jax.checkpoints.model_directory import Model
from bert_emd_jax.corpus.dataset import PretrainingDataset
from bert_emd_jax.data.batching import evaluation_batches
from bert_emd_jax.devices.parallel import pmap_forward, replicate, rows_for_devices, split_for_prediction
from bert_emd_jax.distillation.layer_losses import project
from bert_emd_jax.models.heads import forward
from bert_emd_jax.models.initialization import PROJECTION
from bert_emd_jax.training.config import GeneralDistillConfig
from bert_emd_jax.training.gradients import Batch
from bert_emd_jax.training.objectives import masked_lm_sums
from bert_emd_jax.transport.costs import attention_cost_sums, embedding_cost_sums, hidden_cost_sums
from bert_emd_jax.transport.mappings import fixed_plan
from bert_emd_jax.transport.names import FIXED_MAPPINGS
from bert_emd_jax.transport.simplex import network_simplex

Sums = dict[str, tuple[jax.Array, jax.Array]]


class HeldOutLoss:
    """`held_out_loss` and its terms, for parameters of the student.

    Plans are solved exactly, between equal layer weights, so that losses of different steps compare.
    """

    def __init__(
        self,
        config: GeneralDistillConfig,
        student: nn.Module,
        teacher: nn.Module,
        teacher_model: Model,
        dataset: PretrainingDataset,
        rows: np.ndarray,
        bucket_lengths: tuple[int, ...],
    ) -> None:
        self._config = config
        self._teacher_params = replicate(teacher_model.params)
        self._dataset = dataset
        self._rows = rows
        self._bucket_lengths = bucket_lengths

        def sums(params: Any, batch: Batch) -> Sums:
            return _sums(
                config,
                forward(student, params[0], batch),
                forward(teacher, params[1], batch),
                params[0].get(PROJECTION),
                batch,
            )

        self._sums = pmap_forward(sums)

    def of_model(self, model: Model) -> dict[str, float]:
        """The losses of a model on the host."""
        return self(replicate(dict(model.params) | {PROJECTION: model.projection}))

    def __call__(self, params: Any) -> dict[str, float]:
        """The losses for replicated parameters."""
        config = self._config
        padded_rows = rows_for_devices(config.eval_batch_size, jax.local_device_count())
        lengths = self._dataset.lengths[self._rows]
        totals: dict[str, list[Any]] = {}
        for batch in evaluation_batches(lengths, self._bucket_lengths, config.eval_batch_size):
            arrays = self._dataset.collate(self._rows[batch.rows], batch.length, padded_rows)
            sums = jax.device_get(self._sums((params, self._teacher_params), split_for_prediction(arrays)))
            for name, parts in sums.items():
                total = totals.setdefault(name, [0.0, 0.0])
                for index, by_device in enumerate(parts):
                    total[index] = total[index] + by_device.sum(axis=0, dtype=np.float64)
        means = {name: total / max(count, 1) for name, (total, count) in totals.items()}
        losses = {
            f"held_out_{name}_loss": float(value) if value.ndim == 0 else self._mapped(value)
            for name, value in means.items()
        }
        factors = {
            "attention": config.theta,
            "hidden": config.theta,
            "embedding": 1.0,
            "masked_lm": config.masked_lm_weight,
        }
        total = sum(factors[name] * losses[f"held_out_{name}_loss"] for name in means)
        return {"held_out_loss": total, **losses}

    def _mapped(self, cost: np.ndarray) -> float:
        """What the mapping pays for a cost matrix [S, T]."""
        mapping, (students, teachers) = self._config.mapping, cost.shape
        if mapping in FIXED_MAPPINGS:
            return float(np.sum(cost * fixed_plan(mapping, students, teachers, self._config.seed)))
        if mapping == "nearest":
            return float(cost.min(axis=1).mean())
        return network_simplex(cost, np.full(students, 1 / students), np.full(teachers, 1 / teachers)).cost


def _sums(config: GeneralDistillConfig, student: Any, teacher: Any, projection: Any, batch: Batch) -> Sums:
    """(sum, count) of every term over one device's rows."""
    mask, weights = batch["attention_mask"], batch["weights"]
    sums: Sums = {}
    if config.learns_attention:
        scores = student.attention_scores, teacher.attention_scores
        sums["attention"] = attention_cost_sums(*scores, mask, config.padding, weights)
    if config.learns_hidden or config.learns_embedding:
        ours, theirs = project(student.hidden_states, projection), teacher.hidden_states.astype("float32")
        if config.learns_hidden:
            sums["hidden"] = hidden_cost_sums(ours[1:], theirs[1:], mask, config.padding, weights)
        if config.learns_embedding:
            sums["embedding"] = embedding_cost_sums(ours[0], theirs[0], mask, config.padding, weights)
    if config.masked_lm_weight:
        sums["masked_lm"] = masked_lm_sums(student.logits, batch["masked_labels"], weights)
    return sums
