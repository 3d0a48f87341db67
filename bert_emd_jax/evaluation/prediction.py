"""Logits of a classifier for a whole dataset, batched by length, over the devices of one or all hosts."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from bert_emd_jax.data.batching import evaluation_batches
from bert_emd_jax.data.encoding import EncodedDataset
from bert_emd_jax.devices.hosts import sum_of_processes
from bert_emd_jax.devices.parallel import ShardedForward, rows_for_devices, split_for_prediction
from bert_emd_jax.models.heads import SequenceClassifier, forward


class Predictor:
    """The compiled forward pass of one module; a shape is compiled once, whatever the parameters."""

    def __init__(self, module: SequenceClassifier) -> None:
        self._outputs = module.config.num_labels
        self._logits = ShardedForward(
            lambda params, batch: forward(module, params, batch, logits_only=True).logits
        )

    def compile(
        self, params: Any, dataset: EncodedDataset, bucket_lengths: tuple[int, ...], batch_size: int
    ) -> None:
        """Compiles what `logits` needs for parameters of these shapes, for the cache of programs."""
        padded_rows = rows_for_devices(batch_size, jax.local_device_count())
        batches = evaluation_batches(dataset.lengths, bucket_lengths, batch_size)
        for batch in {batch.length: batch for batch in batches}.values():
            arrays = dataset.collate(batch.rows, batch.length, padded_rows)
            self._logits.compile(params, split_for_prediction(arrays))

    def logits(
        self,
        params: Any,
        dataset: EncodedDataset,
        bucket_lengths: tuple[int, ...],
        batch_size: int,
        *,
        by_all_processes: bool = False,
    ) -> Float[np.ndarray, "rows labels"]:
        """Logits of every row, in the dataset's order.

        Args:
          params: replicated parameters (`parallel.replicate`).
          bucket_lengths: padded lengths in use; the longest must hold the longest row.
          by_all_processes: all processes call this together: each predicts its share, and has the result.
        """
        padded_rows = rows_for_devices(batch_size, jax.local_device_count())
        batches = evaluation_batches(dataset.lengths, bucket_lengths, batch_size)
        if by_all_processes:
            batches = batches[jax.process_index() :: jax.process_count()]
        results = np.zeros((len(dataset), self._outputs), np.float32)
        for batch in tqdm(batches, desc="evaluating", unit="batch", leave=False, disable=None):
            arrays = dataset.collate(batch.rows, batch.length, padded_rows)
            logits = np.asarray(self._logits(params, split_for_prediction(arrays)))
            results[batch.rows] = logits.reshape(padded_rows, -1)[: len(batch.rows)]
        return sum_of_processes(results) if by_all_processes else results
