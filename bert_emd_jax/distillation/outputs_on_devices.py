"""A frozen teacher's outputs for all training rows in the devices' own memory, a copy on each of them.

Nothing crosses the bus again: a batch brings the numbers of its rows, and the step reads these rows' outputs
from tables that hold the entries of all rows one after the other, without padding:

    hidden_states     [layers + 1, tokens, dim]        bfloat16
    attention_scores  [layers, heads, pairs of tokens] bfloat16
    logits            [rows, labels]                   float32 (of tokens: [tokens, labels])
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from tqdm import tqdm

from bert_emd_jax.devices.device_needs import device_needs
from bert_emd_jax.devices.parallel import (
    DEVICES,
    replicate,
    replicated_update,
    replicated_zeros,
    rows_for_devices,
    split_for_prediction,
)
from bert_emd_jax.distillation.teacher_outputs import KEPT_TYPES, KINDS, predicts_tokens
from bert_emd_jax.encoding.batching import choose_bucket_lengths, evaluation_batches
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.ensemble import inference_params
from bert_emd_jax.models.heads import ModelOutput, forward

_ROWS_AT_ONCE = 64
_AXES_BEFORE = {"hidden_states": 1, "attention_scores": 2, "logits": 0}
"""Axes of a table before that of the entries."""


class Tables(NamedTuple):
    """The outputs of all rows, and where those of each row begin.

    values: a table of every kind that is kept. starts: the first entry of every row, by the power of its
    length that says how many entries it has. lengths: tokens of every row.
    """

    values: dict[str, Array]
    starts: dict[int, Int[Array, " rows"]]
    lengths: Int[Array, " rows"]


class OutputsOnDevices:
    """The outputs of one teacher for the rows of one dataset; `fill` computes them."""

    tables: Tables

    def __init__(
        self, teacher: EncoderConfig, dataset: EncodedDataset, kinds: tuple[str, ...] = KINDS
    ) -> None:
        """Keeps the given `kinds`."""
        self._dataset = dataset
        self._axes = {kind: _token_axes(kind, teacher) for kind in kinds}
        lengths = dataset.lengths.astype(np.int64)
        count = -(-len(dataset) // _ROWS_AT_ONCE)
        more_lengths = sum(count >= least for least in device_needs().steps_for_another_length)
        buckets = choose_bucket_lengths(lengths, int(lengths.max()), count=1 + more_lengths)
        # Longest first: the room that a padded batch takes behind its own entries is used by the next ones.
        self._batches = evaluation_batches(lengths, buckets, _ROWS_AT_ONCE)[::-1]
        self._padded_rows = rows_for_devices(_ROWS_AT_ONCE, jax.local_device_count())
        order = np.concatenate([batch.rows for batch in self._batches])
        self._starts: dict[int, np.ndarray] = {}
        sizes = {}
        for axes in set(self._axes.values()):
            counts = lengths[order] ** axes
            starts = self._starts[axes] = np.empty(len(order), np.int64)
            starts[order] = np.cumsum(counts) - counts
            sizes[axes] = max(
                int(starts[batch.rows[0]]) + self._padded_rows * batch.length**axes for batch in self._batches
            )
        self._shapes = {kind: _table_shape(kind, teacher, sizes[axes]) for kind, axes in self._axes.items()}

    @property
    def bytes(self) -> int:
        """The size of one copy."""
        return sum(
            math.prod(shape) * np.dtype(KEPT_TYPES[kind]).itemsize for kind, shape in self._shapes.items()
        )

    def fill(self, module: nn.Module, params: Any) -> None:
        """Computes everything, the rows of a batch spread over this host's devices.

        Args:
          module, params: the teacher, whose parameters are on the host.
        """
        values = {kind: replicated_zeros(shape, KEPT_TYPES[kind]) for kind, shape in self._shapes.items()}
        append = replicated_update(functools.partial(_append, module, self._axes))
        device_params = replicate(inference_params(module, params))
        starts = {axes: entries.astype(np.int32) for axes, entries in self._starts.items()}
        with tqdm(total=len(self._dataset), desc="teacher", unit="row", disable=None) as bar:
            for batch in self._batches:
                arrays = self._dataset.collate(batch.rows, batch.length, self._padded_rows)
                begin = {axes: entries[batch.rows[0]] for axes, entries in starts.items()}
                values = append(values, (device_params, begin), split_for_prediction(arrays))
                bar.update(len(batch.rows))
        self.tables = Tables(values, *replicate((starts, self._dataset.lengths.astype(np.int32))))

    def collate(self, rows: np.ndarray, length: int, rows_padded_to: int) -> dict[str, Any]:
        """What a batch brings along: the numbers of its rows."""
        numbers = np.full(rows_padded_to, -1, np.int32)
        numbers[: len(rows)] = rows
        return {"kept_rows": numbers}


def outputs_from_tables(tables: Tables, rows: Int[Array, " batch"], length: int) -> ModelOutput:
    """The outputs of some rows, padded to `length` tokens with zeros; kinds that are not kept are None.

    Args:
      rows: `kept_rows` of a batch.
    """
    is_row = rows >= 0
    lengths = jnp.where(is_row, tables.lengths[rows], 0)
    token = jnp.arange(length)
    is_token = token < lengths[:, None]

    def read(kind: str, axes: int) -> Array:
        """With the axis of rows where the table has that of entries, those of tokens behind it."""
        first = tables.starts[axes][rows]
        if axes == 0:
            place, kept = first, is_row
        elif axes == 1:
            place, kept = first[:, None] + token, is_token
        else:
            within = token[:, None] * lengths[:, None, None] + token
            place, kept = first[:, None, None] + within, is_token[:, :, None] & is_token[:, None, :]
        values, before = tables.values[kind], _AXES_BEFORE[kind]
        found = jnp.take(values, place, axis=before, mode="clip")
        return jnp.where(kept.reshape(*kept.shape, *(1,) * (values.ndim - before - 1)), found, 0)

    embeddings = layers = scores = logits = None
    if "hidden_states" in tables.values:
        hidden = read("hidden_states", 1)
        embeddings, layers = hidden[0], hidden[1:]
    if "attention_scores" in tables.values:
        scores = jnp.moveaxis(read("attention_scores", 2), 1, 2)
    if "logits" in tables.values:
        logits = read("logits", min(tables.starts))
    return ModelOutput(embeddings, layers, scores, None, logits)  # pyright: ignore[reportArgumentType]


def _append(
    module: nn.Module, axes_of: Mapping[str, int], values: dict[str, Array], constants: Any, batch: Batch
) -> dict[str, Array]:
    """Writes the outputs of a batch behind those before it; every device has the whole tables, and some rows.

    Args:
      axes_of: of tokens, by kind.
      constants: the teacher's parameters, and the first entries of the batch by number of axes.
    """
    params, starts = constants
    output = forward(module, params, batch)
    lengths = jax.lax.all_gather(batch["attention_mask"].sum(axis=1), DEVICES, tiled=True)
    written = {}
    for kind, axes in axes_of.items():
        before = _AXES_BEFORE[kind]
        ours = _rows_before_tokens(kind, output).astype(KEPT_TYPES[kind])
        padded = jax.lax.all_gather(ours, DEVICES, axis=before, tiled=True)
        flat = padded.reshape(*padded.shape[:before], -1, *padded.shape[before + 1 + axes :])
        source = _padded_places(lengths, batch["input_ids"].shape[1], axes)
        packed = jnp.take(flat, source, axis=before, mode="clip")
        written[kind] = jax.lax.dynamic_update_slice_in_dim(values[kind], packed, starts[axes], before)
    return written


def _padded_places(lengths: Int[Array, " rows"], padded: int, axes: int) -> Int[Array, " entries"]:
    """Where the entries of the rows, one after the other, are among padded ones.

    As many places as there are padded entries: behind those of the rows lie some of no meaning, which the
    next batch overwrites.
    """
    counts = lengths**axes
    ends = jnp.cumsum(counts)
    entry = jnp.arange(len(lengths) * padded**axes)
    row = jnp.minimum(jnp.searchsorted(ends, entry, side="right"), len(lengths) - 1)
    if axes == 0:
        return row
    within = entry - (ends - counts)[row]
    if axes == 1:
        return row * padded + within
    length = jnp.maximum(lengths[row], 1)
    return (row * padded + within // length) * padded + within % length


def _rows_before_tokens(kind: str, output: ModelOutput) -> Array:
    """An output with the axis of rows where its table has that of entries, those of tokens behind it."""
    if kind == "attention_scores":
        return jnp.moveaxis(output.attention_scores, 2, 1)
    return getattr(output, kind)


def _token_axes(kind: str, teacher: EncoderConfig) -> int:
    if kind == "logits":
        return int(predicts_tokens(teacher))
    return 1 if kind == "hidden_states" else 2


def _table_shape(kind: str, teacher: EncoderConfig, entries: int) -> tuple[int, ...]:
    if kind == "hidden_states":
        return teacher.num_hidden_layers + 1, entries, teacher.hidden_size
    if kind == "attention_scores":
        return teacher.num_hidden_layers, teacher.num_attention_heads, entries
    return entries, teacher.num_labels if predicts_tokens(teacher) else teacher.output_size
