"""Worker processes: order, and what becomes of one that dies."""

import os
import time

import pytest

from bert_emd_jax.corpus.workers import results_in_order, worker_pool
from bert_emd_jax.errors import UserError


def test_results_come_in_order():
    delays = [0.2, 0.0, 0.1, 0.0, 0.0]
    with worker_pool(2, time.sleep, (0,)) as pool:
        assert [delay for delay, _ in results_in_order(pool, time.sleep, delays, 3)] == delays


def test_a_dead_worker_is_one_line():
    with pytest.raises(UserError, match="--num_workers"), worker_pool(2, os._exit, (1,)) as pool:
        list(results_in_order(pool, abs, [1, 2, 3], 2))
