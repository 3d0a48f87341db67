"""Logits of a classifier for a whole dataset, batched by length, over all local devices."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from bert_emd_jax.data.batching import evaluation_batches
from bert_emd_jax.data.encoding import EncodedDataset
from bert_emd_jax.devices.parallel import rows_for_devices, sharded_forward, split_for_prediction
from bert_emd_jax.models.heads import forward


class Predictor:
    """The compiled forward pass of one module; a shape is compiled once, whatever the parameters."""

    def __init__(self, module: nn.Module) -> None:
        self._logits = sharded_forward(
            lambda params, batch: forward(module, params, batch, logits_only=True).logits
        )

    def logits(
        self, params: Any, dataset: EncodedDataset, bucket_lengths: tuple[int, ...], batch_size: int
    ) -> Float[np.ndarray, "rows labels"]:
        """Logits of every row, in the dataset's order.

        Args:
          params: replicated parameters (`parallel.replicate`).
          bucket_lengths: padded lengths in use; the longest must hold the longest row.
        """
        padded_rows = rows_for_devices(batch_size, jax.local_device_count())
        batches = evaluation_batches(dataset.lengths, bucket_lengths, batch_size)
        results: np.ndarray | None = None
        for batch in tqdm(batches, desc="evaluating", unit="batch", leave=False, disable=None):
            arrays = dataset.collate(batch.rows, batch.length, padded_rows)
            logits = np.asarray(self._logits(params, split_for_prediction(arrays)))
            logits = logits.reshape(padded_rows, -1)[: len(batch.rows)]
            if results is None:
                results = np.empty((len(dataset), logits.shape[1]), np.float32)
            results[batch.rows] = logits
        if results is None:
            raise ValueError("the dataset has no rows")
        return results
