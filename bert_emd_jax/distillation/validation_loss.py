"""The loss of general distillation on rows that are not learned from, by one plan for all of them."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.corpus.dataset import PretrainingDataset
from bert_emd_jax.devices.parallel import (
    ShardedForward,
    replicate,
    rows_for_devices,
    split_for_prediction,
)
from bert_emd_jax.distillation.distill_config import MappingConfig
from bert_emd_jax.distillation.layer_losses import Encoders, cost_sums, known_scales, relation_heads
from bert_emd_jax.encoding.batching import evaluation_batches
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.ensemble import inference_params
from bert_emd_jax.models.heads import forward
from bert_emd_jax.models.initialization import PROJECTION
from bert_emd_jax.models.losses import masked_lm_sums
from bert_emd_jax.transport.mappings import mapped_cost

VALIDATION_LOSS = "held_out_loss"
_MASKED_LM = "masked_lm"

Sums = dict[str, tuple[jax.Array, jax.Array]]


class ValidationLoss:
    """`held_out_loss` and its terms, for replicated parameters of the student.

    Plans are solved exactly, between equal layer weights, so that losses of different steps compare.
    """

    def __init__(
        self,
        layers: MappingConfig,
        masked_lm_weight: float,
        modules: tuple[nn.Module, nn.Module],
        teacher: LoadedModel,
        dataset: PretrainingDataset,
        rows: np.ndarray,
        bucket_lengths: tuple[int, ...],
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        """Measures on `rows` of the dataset; `modules` are the student's and the teacher's."""
        self._layers = layers
        self._teacher_params = replicate(inference_params(modules[1], teacher.params))
        self._dataset = dataset
        self._rows = rows
        self._bucket_lengths = bucket_lengths
        self._batch_size = batch_size
        self._seed = seed
        self._factors = {cost.name: layers.theta if cost.is_mapped else 1.0 for cost in layers.costs}
        if masked_lm_weight:
            self._factors[_MASKED_LM] = masked_lm_weight

        heads = relation_heads(layers, modules[0].config, teacher.config)

        def sums(params: tuple[Any, Any], batch: Batch) -> Sums:
            """(sum, count) of every term over one device's rows."""
            student, teacher = (
                forward(module, own, batch) for module, own in zip(modules, params, strict=True)
            )
            encoders = Encoders(params[0]["bert"], params[1]["bert"], heads)
            costs = cost_sums(params[0].get(PROJECTION), student, teacher, batch, layers, encoders)
            terms = {cost.name: parts for cost, parts in costs.items()}
            if masked_lm_weight:
                labels, weights = batch["masked_labels"], batch["weights"]
                terms[_MASKED_LM] = masked_lm_sums(student.logits, labels, weights)
            return terms

        self._sums = ShardedForward(sums)

    def __call__(self, params: Any, scales: Any = None) -> dict[str, float]:
        """The losses of replicated parameters.

        Args:
          scales: of costs that are balanced (`TransportState`), on the host.
        """
        padded_rows = rows_for_devices(self._batch_size, jax.local_device_count())
        lengths = self._dataset.lengths[self._rows]
        totals: dict[str, list[Any]] = {}
        for batch in evaluation_batches(lengths, self._bucket_lengths, self._batch_size):
            arrays = self._dataset.collate(self._rows[batch.rows], batch.length, padded_rows)
            sums = jax.device_get(self._sums((params, self._teacher_params), split_for_prediction(arrays)))
            for name, parts in sums.items():
                total = totals.setdefault(name, [0.0, 0.0])
                for index, by_device in enumerate(parts):
                    total[index] = total[index] + by_device.sum(axis=0, dtype=np.float64)
        means = {name: total / max(count, 1) for name, (total, count) in totals.items()}
        losses = {
            name: float(mean)
            if mean.ndim == 0
            else mapped_cost(self._layers.mapping, mean, self._seed, self._layers.options)
            for name, mean in means.items()
        }
        divisors: dict[str, float] = {}
        if scales is not None:
            names = [cost.name for cost in self._layers.costs]
            known = known_scales(scales, np.array([losses[name] for name in names]))
            divisors = dict(zip(names, map(float, known), strict=True))
        total = sum(self._factors[name] * loss / divisors.get(name, 1) for name, loss in losses.items())
        return {VALIDATION_LOSS: total} | {f"held_out_{name}_loss": loss for name, loss in losses.items()}
