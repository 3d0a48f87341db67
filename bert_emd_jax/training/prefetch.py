"""The arrays of the training steps, put together one step ahead of the devices."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

from bert_emd_jax.devices.parallel import rows_of_this_host, split_for_training
from bert_emd_jax.encoding.batching import BatchRows
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.training.row_source import RowSource


def prefetched(
    source: RowSource,
    first: int,
    last: int,
    padded_rows: int,
    micro_batches: int,
    put: Callable[[Batch], Batch] = lambda batch: batch,
) -> Generator[tuple[int, Batch]]:
    """This host's arrays for the steps from `first` up to `last`.

    Args:
      padded_rows: of a whole batch (`parallel.rows_for_devices`).
      put: called on the arrays of each step, ahead like all else.

    Yields:
      (rows of the whole batch over all hosts, arrays [local devices, micro-batches, rows, …]).
    """
    positions = rows_of_this_host(padded_rows, micro_batches)

    def inputs(step: int) -> tuple[int, Batch]:
        batch = source.batch(step)
        # Only these rows are read, tokenised or parsed here.
        mine = BatchRows(batch.rows[positions[positions < len(batch.rows)]], batch.length)
        arrays = source.arrays(step, mine, len(positions))
        return len(batch.rows), put(split_for_training(arrays, micro_batches))

    with ThreadPoolExecutor(1, "prefetch") as worker:
        ahead = worker.submit(inputs, first) if first < last else None
        for step in range(first, last):
            assert ahead is not None
            current, ahead = ahead, worker.submit(inputs, step + 1) if step + 1 < last else None
            yield current.result()
