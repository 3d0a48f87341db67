"""The arrays of the training steps, put together one step ahead of the devices."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bert_emd_jax.data.batching import BatchRows
from bert_emd_jax.devices.parallel import rows_of_this_host, split_for_training
from bert_emd_jax.training.row_source import RowSource


def step_inputs(
    source: RowSource, first: int, last: int, padded_rows: int, micro_batches: int
) -> Generator[tuple[BatchRows, dict[str, np.ndarray]]]:
    """The rows of all hosts and this host's arrays, for the steps from `first` up to `last`.

    Args:
      padded_rows: of a whole batch (`parallel.rows_for_devices`).

    Yields:
      (the whole batch, arrays [local devices, micro-batches, rows, …]).
    """
    places = rows_of_this_host(padded_rows, micro_batches)

    def inputs(step: int) -> tuple[BatchRows, dict[str, np.ndarray]]:
        batch = source.batch(step)
        # Only these rows are read, tokenised or parsed here.
        mine = BatchRows(batch.rows[places[places < len(batch.rows)]], batch.length)
        return batch, split_for_training(source.arrays(step, mine, len(places)), micro_batches)

    with ThreadPoolExecutor(1, "step_inputs") as worker:
        ahead = worker.submit(inputs, first) if first < last else None
        for step in range(first, last):
            assert ahead is not None
            current, ahead = ahead, worker.submit(inputs, step + 1) if step + 1 < last else None
            yield current.result()
