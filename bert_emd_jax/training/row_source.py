"""Where training rows come from: a task's, the same in every epoch, or a corpus with a file per epoch."""

import contextlib
import dataclasses
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from jaxtyping import Int

from bert_emd_jax.corpus.dataset import PregeneratedData, PretrainingDataset
from bert_emd_jax.encoding.batching import BatchRows, BatchSchedule
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.models.batch import Batch


class RowSource(Protocol):
    """Which rows make up step k, a function of the seed and k alone, and their arrays."""

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """Tokens of every row (of the first epoch)."""
        ...

    def prepared(self) -> AbstractContextManager[None]:
        """Around the training: makes ready what its steps need, which may take long, and puts it away."""
        ...

    def batch(self, step: int) -> BatchRows:
        """The rows of a step, counted from 0, and the length that they are padded to."""
        ...

    def arrays(self, step: int, batch: BatchRows, padded_rows: int) -> Batch:
        """The model's inputs and what it learns from, [padded_rows, …]."""
        ...


@dataclasses.dataclass(frozen=True)
class TaskRows:
    """The training rows of a task."""

    dataset: EncodedDataset
    schedule: BatchSchedule

    @property
    def steps_per_epoch(self) -> int:
        return self.schedule.steps_per_epoch

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        return self.dataset.lengths

    def prepared(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def batch(self, step: int) -> BatchRows:
        return self.schedule.batch(step)

    def arrays(self, step: int, batch: BatchRows, padded_rows: int) -> Batch:
        return self.dataset.collate(batch.rows, batch.length, padded_rows)


class CorpusRows:
    """The rows of pregenerated epochs, but for the last ones of each, which are held out.

    Epochs differ by some rows, since sentences are joined anew in each: the shortest one's number is used.
    """

    def __init__(
        self,
        data: PregeneratedData,
        bucket_lengths: tuple[int, ...],
        batch_size: int,
        seed: int,
        held_out_rows: int,
    ) -> None:
        """`held_out_rows` must be fewer than the rows of every epoch."""
        self._data = data
        self._count = min(data.example_count(epoch) for epoch in range(data.epochs)) - held_out_rows
        self._bucket_lengths = bucket_lengths
        self._batch_size = batch_size
        self._seed = seed
        self._held_out_rows = held_out_rows
        self._opened: tuple[int, PretrainingDataset, BatchSchedule] | None = None
        self.steps_per_epoch: int = -(-self._count // batch_size)

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        return self._data.epoch(0).lengths[: -self._held_out_rows]

    def prepared(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def batch(self, step: int) -> BatchRows:
        return self._open(step // self.steps_per_epoch)[1].batch(step)

    def arrays(self, step: int, batch: BatchRows, padded_rows: int) -> Batch:
        dataset, _ = self._open(step // self.steps_per_epoch)
        return dataset.collate(batch.rows, batch.length, padded_rows)

    def _open(self, epoch: int) -> tuple[PretrainingDataset, BatchSchedule]:
        opened = self._opened  # at once: another thread may ask for another epoch
        if opened is None or opened[0] != epoch:
            dataset = self._data.epoch(epoch)
            lengths = dataset.lengths[: self._count]
            schedule = BatchSchedule(lengths, self._bucket_lengths, self._batch_size, self._seed)
            opened = self._opened = epoch, dataset, schedule
        return opened[1:]
