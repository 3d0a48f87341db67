"""Logits of a classifier, or vectors of an embedder, batched by length, over the devices of all hosts."""

from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from bert_emd_jax.devices.hosts import sum_of_processes
from bert_emd_jax.devices.parallel import ShardedForward, rows_for_devices, split_for_prediction
from bert_emd_jax.encoding.batching import BatchRows, evaluation_batches
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.models.ensemble import Ensemble
from bert_emd_jax.models.heads import (
    AnswerFinder,
    SentenceEmbedder,
    SequenceClassifier,
    TokenClassifier,
    forward,
)


class Predictor:
    """The compiled forward pass of one module; a shape is compiled once, whatever the parameters."""

    def __init__(
        self,
        module: SequenceClassifier | TokenClassifier | AnswerFinder | SentenceEmbedder | Ensemble,
        *,
        of: Literal["logits", "tokens"] = "logits",
    ) -> None:
        """Computes logits (an embedder's vectors), or the last layer's states of tokens."""
        self.outputs = module.config.output_size
        self._forward = ShardedForward(
            (lambda params, batch: forward(module, params, batch, logits_only=True).logits)
            if of == "logits"
            else lambda params, batch: forward(module, params, batch).layer_outputs[-1].astype(jnp.float32)
        )

    def compile(
        self, params: Any, dataset: EncodedDataset, bucket_lengths: tuple[int, ...], batch_size: int
    ) -> None:
        """Compiles what `logits` needs for parameters of these shapes, for the cache of programs."""
        padded_rows = rows_for_devices(batch_size, jax.local_device_count())
        batches = evaluation_batches(dataset.lengths, bucket_lengths, batch_size)
        for batch in {batch.length: batch for batch in batches}.values():
            arrays = dataset.collate(batch.rows, batch.length, padded_rows)
            self._forward.compile(params, split_for_prediction(arrays))

    def logits(
        self,
        params: Any,
        dataset: EncodedDataset,
        bucket_lengths: tuple[int, ...],
        batch_size: int,
        *,
        by_all_processes: bool = False,
    ) -> Float[np.ndarray, "predicted labels"]:
        """Logits of every row, word (`TokenRows`) or token (`QuestionRows`), in the dataset's order.

        Args:
          params: replicated parameters (`parallel.replicate`).
          bucket_lengths: padded lengths in use; the longest must hold the longest row.
          by_all_processes: all processes call this together: each predicts its share, and has the result.
        """
        batches = evaluation_batches(dataset.lengths, bucket_lengths, batch_size)
        if by_all_processes:
            batches = batches[jax.process_index() :: jax.process_count()]
        results = np.zeros((dataset.predicted, self.outputs), np.float32)
        for rows, logits in self._computed(params, dataset, batches, batch_size):
            dataset.place(results, rows, logits)
        return sum_of_processes(results) if by_all_processes else results

    def token_states(
        self, params: Any, dataset: EncodedDataset, bucket_lengths: tuple[int, ...], batch_size: int
    ) -> list[Float[np.ndarray, "tokens dim"]]:
        """The states of every row's tokens, in the dataset's order; the predictor is one of tokens."""
        batches = evaluation_batches(dataset.lengths, bucket_lengths, batch_size)
        found: dict[int, np.ndarray] = {}
        for rows, states in self._computed(params, dataset, batches, batch_size):
            lengths = dataset.lengths[rows]
            of_rows = zip(rows.tolist(), states, lengths, strict=True)
            found |= {row: of_row[:length].copy() for row, of_row, length in of_rows}
        return [found[row] for row in range(len(dataset))]

    def _computed(
        self, params: Any, dataset: EncodedDataset, batches: list[BatchRows], batch_size: int
    ) -> Iterator[tuple[Int[np.ndarray, " rows"], Float[np.ndarray, "rows ..."]]]:
        padded_rows = rows_for_devices(batch_size, jax.local_device_count())
        for batch in tqdm(batches, desc="evaluating", unit="batch", leave=False, disable=None):
            arrays = dataset.collate(batch.rows, batch.length, padded_rows)
            outputs = np.asarray(self._forward(params, split_for_prediction(arrays)))
            yield batch.rows, outputs.reshape(padded_rows, *outputs.shape[2:])[: len(batch.rows)]
