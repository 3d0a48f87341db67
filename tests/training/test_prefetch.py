"""Two hosts read disjoint rows, which together are the batch that one host would have read."""

import contextlib

import jax
import numpy as np
import pytest

from bert_emd_jax.encoding.batching import BatchRows
from bert_emd_jax.training.prefetch import prefetched

DEVICES = 8


class Rows:
    """Steps of 21 rows, whose ids are their arrays; it remembers which rows it was asked for."""

    steps_per_epoch = 100

    def __init__(self) -> None:
        self.read: list[np.ndarray] = []

    def prepared(self):
        return contextlib.nullcontext()

    def batch(self, step: int) -> BatchRows:
        return BatchRows(np.random.default_rng(step).permutation(1000)[:21], 4)

    def arrays(self, step: int, batch: BatchRows, padded_rows: int) -> dict[str, np.ndarray]:
        if step == 13:
            raise ValueError("step 13")
        self.read.append(batch.rows)
        return {"rows": np.pad(batch.rows, (0, padded_rows - len(batch.rows)), constant_values=-1)}


def inputs_of_host(host: int, hosts: int, monkeypatch: pytest.MonkeyPatch, steps=range(3)):
    local = DEVICES // hosts
    with monkeypatch.context() as patched:
        patched.setattr(jax, "process_index", lambda: host)
        patched.setattr(jax, "device_count", lambda: DEVICES)
        patched.setattr(jax, "local_device_count", lambda: local)
        rows = Rows()
        return rows, list(prefetched(rows, steps.start, steps.stop, padded_rows=32, micro_batches=2))


def test_hosts_share_the_rows(monkeypatch):
    _, whole = inputs_of_host(0, 1, monkeypatch)
    halves = [inputs_of_host(host, 2, monkeypatch) for host in range(2)]
    for step, (batch_rows, arrays) in enumerate(whole):
        assert arrays["rows"].shape == (8, 2, 2)
        parts = [inputs[step] for _, inputs in halves]
        assert [rows for rows, _ in parts] == [batch_rows] * 2
        np.testing.assert_array_equal(np.concatenate([part[1]["rows"] for part in parts]), arrays["rows"])
        read = [rows.read[step] for rows, _ in halves]
        rows = Rows().batch(step).rows
        assert batch_rows == len(rows)
        assert sorted(np.concatenate(read)) == sorted(rows)
        # The fillers of a short batch are spread over devices and micro-batches.
        assert (arrays["rows"] >= 0).sum(axis=2).min() >= 1


def test_an_error_comes_at_its_step_and_the_thread_ends(monkeypatch):
    inputs = prefetched(Rows(), 11, 20, padded_rows=32, micro_batches=1)
    assert [next(inputs)[0] for _ in range(2)] == [21, 21]
    with pytest.raises(ValueError, match="step 13"):
        next(inputs)
    assert list(prefetched(Rows(), 5, 5, padded_rows=32, micro_batches=1)) == []
