"""What a frozen teacher computes for every training row, kept in bfloat16 in memory or in files.

Row r of n tokens has, one value after the other and without padding,

    hidden_states     [layers + 1, n, dim]      bfloat16
    attention_scores  [layers, heads, n, n]     bfloat16
    logits            [labels]                  float32 (an embedder's vector; of tokens [n, labels])

Rows follow each other in the order in which they are computed, shorter ones first, so that files are only
ever appended to and one that a killed run left is continued.
"""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from tqdm import tqdm

from bert_emd_jax.devices.parallel import ShardedForward, replicate, rows_for_devices, split_for_prediction
from bert_emd_jax.encoding.batching import BatchRows, choose_bucket_lengths, evaluation_batches
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import alone_in
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.ensemble import inference_params
from bert_emd_jax.models.heads import ModelOutput, forward

logger = logging.getLogger(__name__)

KINDS = ("hidden_states", "attention_scores", "logits")
"""Of outputs that can be kept: fields of `ModelOutput`."""
KEPT_TYPES = {
    "hidden_states": ml_dtypes.bfloat16,
    "attention_scores": ml_dtypes.bfloat16,
    "logits": np.float32,
}
"""In which they are kept."""
_ROWS_AT_ONCE = 32
_MOST_BUCKETS = 8
_BATCHES_PER_COMPILATION = 30


class TeacherOutputs:
    """The outputs of one teacher for the rows of one dataset; one of the `fill` methods makes them."""

    def __init__(
        self, teacher: EncoderConfig, dataset: EncodedDataset, kinds: tuple[str, ...] = KINDS
    ) -> None:
        """Keeps the given `kinds`."""
        self._teacher = teacher
        self._dataset = dataset
        self._kinds = kinds
        lengths = self._lengths = dataset.lengths.astype(np.int64)
        batches = -(-len(dataset) // _ROWS_AT_ONCE)
        buckets = choose_bucket_lengths(
            lengths, int(lengths.max()), count=min(_MOST_BUCKETS, 1 + batches // _BATCHES_PER_COMPILATION)
        )
        self._batches = evaluation_batches(lengths, buckets, _ROWS_AT_ONCE)
        order = np.concatenate([batch.rows for batch in self._batches])
        last_rows = np.cumsum([len(batch.rows) for batch in self._batches]) - 1
        self._starts: dict[str, np.ndarray] = {}  # of every row's values
        self._batch_ends: dict[str, np.ndarray] = {}
        for kind in kinds:
            size_of = np.array([math.prod(self._shape(kind, n)) for n in range(int(lengths.max()) + 1)])
            ends = np.cumsum(size_of[lengths[order]])
            self._starts[kind] = np.empty(len(order), np.int64)
            self._starts[kind][order] = ends - size_of[lengths[order]]
            self._batch_ends[kind] = ends[last_rows]
        self._values: dict[str, np.ndarray] = {}

    @property
    def bytes(self) -> int:
        """How much there is to keep."""
        return sum(
            int(ends[-1]) * np.dtype(KEPT_TYPES[kind]).itemsize for kind, ends in self._batch_ends.items()
        )

    def fill_memory(self, module: nn.Module, params: Any) -> None:
        """Computes everything into memory.

        Args:
          module, params: the teacher, whose parameters are on the host.
        """
        for kind in self._kinds:
            self._values[kind] = np.empty(int(self._batch_ends[kind][-1]), KEPT_TYPES[kind])
        for number, outputs in self._computed(module, params, 0):
            for kind, values in outputs.items():
                end = int(self._batch_ends[kind][number])
                self._values[kind][end - len(values) : end] = values

    def fill_files(self, directory: Path, module: nn.Module, params: Any) -> None:
        """Maps the files of `directory`, once it has computed what they lack.

        Raises:
          UserError: they cannot be written.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            waiting = "%s: another run is computing the teacher's outputs; waiting for it"
            with alone_in(directory, lambda: logger.info(waiting, directory)):
                self._complete_files(directory, module, params)
        except OSError as error:
            raise UserError(
                f"--teacher_cache: {error.filename or directory} cannot be written"
                f" ({error.strerror or error}); choose another --cache_dir, or --teacher_cache off"
            ) from error
        for kind in self._kinds:
            self._values[kind] = np.memmap(directory / f"{kind}.bin", KEPT_TYPES[kind], "r").view(np.ndarray)

    def collate(self, rows: np.ndarray, length: int, rows_padded_to: int) -> dict[str, Any]:
        """What a batch brings along: under "teacher" the outputs of its rows, zeros where there is padding.

        `hidden_states` [R, layers+1, length, dim], `attention_scores` [R, layers, heads, length, length],
        `logits` [R, labels], as far as these kinds are kept.
        """
        batch = {}
        for kind in self._kinds:
            values, starts = self._values[kind], self._starts[kind]
            padded = np.zeros((rows_padded_to, *self._shape(kind, length)), KEPT_TYPES[kind])
            for position, row in enumerate(rows.tolist()):
                shape = self._shape(kind, int(self._lengths[row]))
                one = values[starts[row] : starts[row] + math.prod(shape)].reshape(shape)
                padded[position][tuple(map(slice, shape))] = one
            batch[kind] = padded
        return {"teacher": batch}

    def _shape(self, kind: str, length: int) -> tuple[int, ...]:
        """Of the values of a row of so many tokens."""
        teacher = self._teacher
        if kind == "hidden_states":
            return teacher.num_hidden_layers + 1, length, teacher.hidden_size
        if kind == "attention_scores":
            return teacher.num_hidden_layers, teacher.num_attention_heads, length, length
        return (length, teacher.num_labels) if predicts_tokens(teacher) else (teacher.output_size,)

    def _complete_files(self, directory: Path, module: nn.Module, params: Any) -> None:
        with contextlib.ExitStack() as stack:
            files, batches_in = {}, {}
            for kind in self._kinds:
                files[kind] = stack.enter_context((directory / f"{kind}.bin").open("ab"))
                ends = self._batch_ends[kind] * np.dtype(KEPT_TYPES[kind]).itemsize
                batches_in[kind] = int(np.searchsorted(ends, files[kind].tell(), side="right"))
                files[kind].truncate(int(ends[batches_in[kind] - 1]) if batches_in[kind] else 0)
            for number, outputs in self._computed(module, params, min(batches_in.values())):
                for kind, values in outputs.items():
                    if number >= batches_in[kind]:
                        files[kind].write(values.view(np.uint8).data)

    def _computed(
        self, module: nn.Module, params: Any, first: int
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """(number of a batch, the values of its rows by kind, without padding) from batch `first` on."""
        if first == len(self._batches):
            return
        padded_rows = rows_for_devices(_ROWS_AT_ONCE, jax.local_device_count())
        compute = ShardedForward(
            lambda params, batch: kept_outputs(forward(module, params, batch), self._kinds)
        )
        device_params = replicate(inference_params(module, params))

        def without_padding(batch: BatchRows, outputs: dict[str, Any]) -> dict[str, np.ndarray]:
            found = {}
            for kind in self._kinds:
                values = np.asarray(outputs[kind])
                values = values.reshape(padded_rows, *values.shape[2:])
                shapes = [self._shape(kind, int(length)) for length in self._lengths[batch.rows]]
                rows = [row[tuple(map(slice, shape))] for row, shape in zip(values, shapes, strict=False)]
                found[kind] = np.concatenate([row.ravel() for row in rows])
            return found

        # While the devices work on one batch, the host puts away the one before.
        under_way: tuple[int, BatchRows, dict[str, Any]] | None = None
        rows_before = sum(len(batch.rows) for batch in self._batches[:first])
        with tqdm(
            total=len(self._dataset), initial=rows_before, desc="teacher", unit="row", disable=None
        ) as bar:
            for number, batch in enumerate(self._batches[first:], first):
                arrays = self._dataset.collate(batch.rows, batch.length, padded_rows)
                outputs = compute(device_params, split_for_prediction(arrays))
                if under_way is not None:
                    yield under_way[0], without_padding(*under_way[1:])
                under_way = number, batch, outputs
                bar.update(len(batch.rows))
            assert under_way is not None
            yield under_way[0], without_padding(*under_way[1:])


def predicts_tokens(teacher: EncoderConfig) -> bool:
    """Whether a teacher has logits for every token."""
    return teacher.head in ("token", "answer")


def kept_outputs(output: ModelOutput, kinds: tuple[str, ...]) -> dict[str, jax.Array]:
    """A model's outputs by kind, rows first, in the types in which they are kept."""
    rows_first: dict[str, Callable[[], jax.Array]] = {
        "hidden_states": lambda: jnp.moveaxis(output.hidden_states, 1, 0),
        "attention_scores": lambda: jnp.moveaxis(output.attention_scores, 1, 0),
        "logits": lambda: output.logits,
    }
    return {kind: rows_first[kind]().astype(KEPT_TYPES[kind]) for kind in kinds}


def given_output(batch: Batch) -> ModelOutput | None:
    """The teacher's output that a batch brings along, if it does; kinds that were not kept are None."""
    if "teacher" not in batch:
        return None
    hidden, scores, logits = (batch["teacher"].get(kind) for kind in KINDS)
    embeddings, layers = (None, None) if hidden is None else (hidden[:, 0], jnp.moveaxis(hidden[:, 1:], 0, 1))
    scores = None if scores is None else jnp.moveaxis(scores, 0, 1)
    return ModelOutput(embeddings, layers, scores, None, logits)  # pyright: ignore[reportArgumentType]
