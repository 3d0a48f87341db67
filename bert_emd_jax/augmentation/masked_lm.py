"""Predicts replacements of single words with a masked-language model, batched over texts and words."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from bert_emd_jax.checkpoints.hub import resolve_model
from bert_emd_jax.checkpoints.model_directory import LoadedModel, load_model, read_stored
from bert_emd_jax.devices.parallel import ShardedForward, rows_for_devices, split_for_prediction
from bert_emd_jax.encoding.batching import BatchRows, choose_bucket_lengths, evaluation_batches
from bert_emd_jax.encoding.dataset import EncodedDataset, check_rows
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.heads import MaskedLanguageModel, forward

# A compilation takes as long as some batches; padding to few lengths would cost more than that.
_MOST_BUCKETS = 8
_BATCHES_PER_COMPILATION = 8


def load_masked_lm(path: Path, do_lower_case: bool | None = None) -> LoadedModel:
    """Loads a masked-language model. Raises UserError if the path holds no such model."""
    path = resolve_model(path)
    if "lm_transform/kernel" not in read_stored(path).arrays:
        raise UserError(
            f"--bert_model {path}: has no masked-LM head (cls.predictions.*), so it cannot propose words;"
            " give a pretrained model with its head, such as google-bert/bert-base-uncased"
        )
    return load_model(path, head="masked_lm", do_lower_case=do_lower_case)


class WordPredictor:
    """The compiled prediction of masked words; each shape is compiled once."""

    def __init__(
        self, module: MaskedLanguageModel, is_proposable: Bool[np.ndarray, " vocab"], mask_id: int, count: int
    ) -> None:
        """Proposes the `count` likeliest tokens of those that are `is_proposable`."""
        self._mask_id = mask_id
        self._config = module.config
        self._count = min(count, module.config.vocab_size)
        admitted = np.zeros(module.config.vocab_size, bool)
        admitted[: len(is_proposable)] = is_proposable

        def likeliest(params: Any, batch: Mapping[str, jax.Array]) -> Int[jax.Array, "batch count"]:
            logits_BxV = forward(module, params, batch, logits_only=True).logits[:, 0]
            is_itself_BxV = jnp.arange(len(admitted))[None] == batch["original_ids"][:, None]
            logits_BxV = jnp.where(admitted[None] & ~is_itself_BxV, logits_BxV, -jnp.inf)
            return jax.lax.top_k(logits_BxV, self._count)[1]

        self._likeliest = ShardedForward(likeliest)

    def predict(
        self,
        params: Any,
        inputs: EncodedDataset,
        rows: Int[np.ndarray, " words"],
        positions: Int[np.ndarray, " words"],
        batch_size: int,
        progress: Callable[[int], object] = lambda words: None,
    ) -> Int[np.ndarray, "words count"]:
        """Returns the likeliest token ids at each word's position, likeliest first, without the word's own.

        If fewer than `count` tokens may be proposed, others follow them.

        Args:
          params: replicated parameters (`parallel.replicate`).
          rows: the row of `inputs` that each word is in.
          positions: the word's position in that row, which is masked.
          progress: called with the number of words done since last time.
        """
        results = np.empty((len(rows), self._count), np.int32)
        if len(rows) == 0:
            return results
        check_rows(inputs, self._config, "--bert_model")
        lengths = inputs.lengths[rows]
        count = min(_MOST_BUCKETS, 1 + len(rows) // batch_size // _BATCHES_PER_COMPILATION)
        buckets = choose_bucket_lengths(lengths, self._config.longest_input, count)
        padded_rows = rows_for_devices(batch_size, jax.local_device_count())

        def collect(batch: BatchRows, token_ids: jax.Array) -> None:
            results[batch.rows] = np.asarray(token_ids).reshape(padded_rows, -1)[: len(batch.rows)]
            progress(len(batch.rows))

        # While the devices compute one batch, the host assembles the next.
        pending: tuple[BatchRows, jax.Array] | None = None
        for batch in evaluation_batches(lengths, buckets, batch_size):
            arrays = self._masked(inputs, rows[batch.rows], positions[batch.rows], batch.length, padded_rows)
            token_ids = self._likeliest(params, split_for_prediction(arrays))
            if pending is not None:
                collect(*pending)
            pending = batch, token_ids
        assert pending is not None
        collect(*pending)
        return results

    def _masked(
        self, inputs: EncodedDataset, rows: np.ndarray, positions: np.ndarray, length: int, padded_rows: int
    ) -> dict[str, np.ndarray]:
        """Returns a batch with one token masked in every row; `original_ids` are the tokens masked."""
        arrays = inputs.collate(rows, length, padded_rows)
        positions = np.pad(positions, (0, padded_rows - len(positions))).astype(np.int32)
        every = np.arange(padded_rows)
        original_ids = arrays["input_ids"][every, positions]
        arrays["input_ids"][every, positions] = self._mask_id
        names = ("input_ids", "attention_mask", "token_type_ids")
        return {name: arrays[name] for name in names} | {
            "masked_positions": positions[:, None],
            "original_ids": original_ids,
        }
