"""Worker processes whose results come in order."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from bert_emd_jax.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def worker_pool(
    workers: int, start: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[ProcessPoolExecutor]:
    """Starts worker processes, which each call `start`; on exit tasks that have not begun are cancelled.

    Raises UserError if a worker dies.
    """
    # Forking would copy the threads of the tokenizers library in an undefined state.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _initialize, (start, *arguments))
    try:
        yield pool
    except BrokenProcessPool:
        raise UserError(
            "--num_workers: a worker process died, perhaps for want of memory; try fewer"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _initialize(start: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; only the parent handles it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start(*arguments)


def _end_with_parent() -> None:
    """Ends this process when the parent was killed, instead of waiting for tasks forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def results_in_order(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[tuple[Item, Result]]:
    """Yields every item with its result, in the order of the items; at most `ahead` are in progress."""
    pending: deque[tuple[Item, Future[Result]]] = deque()
    for item in items:
        pending.append((item, pool.submit(function, item)))
        if len(pending) >= ahead:
            first, future = pending.popleft()
            yield first, future.result()
    for item, future in pending:
        yield item, future.result()
