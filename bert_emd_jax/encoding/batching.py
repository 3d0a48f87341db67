"""Batches of rows of similar length: the lengths to pad to, and the rows of each step."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class BatchRows(NamedTuple):
    """The rows of one batch and the length in tokens that they are padded to."""

    rows: Int[np.ndarray, " rows"]
    length: int


def choose_bucket_lengths(
    lengths: Int[np.ndarray, " rows"], max_length: int, count: int = 4, multiple: int | None = None
) -> tuple[int, ...]:
    """Returns at most `count` increasing padded lengths that give the fewest padding tokens.

    A row is padded to the first of them that holds it; the last one holds the longest row.

    Args:
      lengths: tokens of every row.
      max_length: the largest length that may be returned.
      multiple: all lengths are multiples of this, or `max_length`. None: 4 if most rows are shorter than
        32 tokens, else 8.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) == 0 or count < 1:
        raise ValueError("bucket lengths need at least one row and one bucket")
    if lengths.max() > max_length:
        raise ValueError(f"a row of {lengths.max()} tokens is longer than max_length {max_length}")
    if multiple is None:
        multiple = 4 if np.median(lengths) < 32 else 8
    rounded = np.minimum(-(-np.maximum(lengths, 1) // multiple) * multiple, max_length)
    # Bucket lengths that no row has only add padding, so these are all the candidates.
    candidates, rows = np.unique(rounded, return_counts=True)
    rows_up_to = np.concatenate([[0], np.cumsum(rows)])
    # cost[i]: tokens of the rows up to candidates[i - 1], where the last bucket so far ends.
    cost = np.full(len(candidates) + 1, np.inf)
    cost[0] = 0
    choices: list[np.ndarray] = []
    for _ in range(min(count, len(candidates))):
        start_end = cost[:, None] + (rows_up_to[1:] - rows_up_to[:, None]) * candidates
        ends = np.arange(1, len(candidates) + 1)
        start_end[np.arange(len(candidates) + 1)[:, None] >= ends] = np.inf
        choice = np.argmin(start_end, axis=0)
        cost = np.concatenate([[np.inf], start_end[choice, ends - 1]])
        choices.append(choice)
    # Another bucket never costs more while candidates remain, so the fullest count is the cheapest.
    chosen: list[int] = []
    end = len(candidates)
    for choice in reversed(choices):
        chosen.append(int(candidates[end - 1]))
        end = int(choice[end - 1])
    return tuple(reversed(chosen))


class BatchSchedule:
    """The `BatchRows` of every training step, a function of the seed and the step alone.

    Each epoch visits every row once, in a new random order. Rows are grouped by bucket; rows left over
    from a bucket move up to the next longer one, so that at most one batch of an epoch is not full.
    """

    def __init__(
        self, lengths: Int[np.ndarray, " rows"], bucket_lengths: tuple[int, ...], batch_size: int, seed: int
    ):
        """Assigns every row to a bucket.

        Args:
          lengths: tokens of every row.
          bucket_lengths: increasing padded lengths; the last one holds the longest row.
        """
        if len(lengths) == 0 or batch_size < 1:
            raise ValueError("a schedule needs at least one row and a batch size of at least 1")
        self._buckets = _bucket_of(lengths, bucket_lengths)
        self._bucket_lengths = tuple(bucket_lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._plan: tuple[int, list[BatchRows]] = -1, []
        self.steps_per_epoch: int = -(-len(lengths) // batch_size)

    def batch(self, step: int) -> BatchRows:
        """Returns the rows of a step, counted from 0 over all epochs."""
        if step < 0:
            raise ValueError(f"steps count from 0, not {step}")
        epoch, index = divmod(step, self.steps_per_epoch)
        planned, batches = self._plan  # read once: another thread may replace it
        if planned != epoch:
            batches = self._plan_epoch(epoch)
            self._plan = epoch, batches
        return batches[index]

    def _plan_epoch(self, epoch: int) -> list[BatchRows]:
        generator = np.random.default_rng((self._seed, epoch))
        order = generator.permutation(len(self._buckets))
        batches = _fill_batches(order, self._buckets, self._bucket_lengths, self._batch_size)
        return [batches[index] for index in generator.permutation(len(batches))]


def evaluation_batches(
    lengths: Int[np.ndarray, " rows"], bucket_lengths: tuple[int, ...], batch_size: int
) -> list[BatchRows]:
    """Returns batches that cover every row once, shortest bucket first, in row order within a bucket."""
    if batch_size < 1:
        raise ValueError("batch size must be at least 1")
    return _fill_batches(
        np.arange(len(lengths)), _bucket_of(lengths, bucket_lengths), bucket_lengths, batch_size
    )


def _bucket_of(lengths: Int[np.ndarray, " rows"], bucket_lengths: tuple[int, ...]) -> np.ndarray:
    """Returns the index of the first bucket that holds each row."""
    if list(bucket_lengths) != sorted(set(bucket_lengths)):
        raise ValueError(f"bucket lengths must increase: {bucket_lengths}")
    buckets = np.searchsorted(np.asarray(bucket_lengths), np.asarray(lengths))
    if len(buckets) and buckets.max() >= len(bucket_lengths):
        raise ValueError(f"a row of {np.max(lengths)} tokens fits into none of the buckets {bucket_lengths}")
    return buckets


def _fill_batches(
    order: np.ndarray, buckets: np.ndarray, bucket_lengths: tuple[int, ...], batch_size: int
) -> list[BatchRows]:
    batches: list[BatchRows] = []
    carried = np.zeros(0, np.int64)
    for bucket, length in enumerate(bucket_lengths):
        rows = np.concatenate([carried, order[buckets[order] == bucket]])
        full = len(rows) // batch_size * batch_size
        batches += [BatchRows(part, length) for part in rows[:full].reshape(-1, batch_size)]
        carried = rows[full:]
    if len(carried):
        # Pads the last rows only to the bucket of the longest one among them.
        batches.append(BatchRows(carried, bucket_lengths[int(buckets[carried].max())]))
    return batches
