"""Compiles in the background what a run needs later, for the cache of compiled programs."""

import logging
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

logger = logging.getLogger(__name__)

_THREADS = "compile_ahead"
# A first step that takes longer is being compiled; one whose program is in the cache goes first.
_PATIENCE_SECONDS = 1.5

Task = tuple[str, Callable[[], object]]
"""(what needs it, a call that compiles it)"""


class CompileAhead:
    """Runs tasks in threads: XLA compiles without Python's lock. Their programs are in JAX's cache then.

    A task that fails is left to the call that needs its program, which will say why.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), _THREADS)
        self._pending: dict[str, list[Future[object]]] = {}
        self._may_begin = threading.Event()
        self._is_closed = False

    def start(self, tasks: Iterable[Task]) -> None:
        """Begins when the first step is done, or takes long."""
        timer = threading.Timer(_PATIENCE_SECONDS, self._may_begin.set)
        timer.daemon = True
        timer.start()
        for need, compile_program in tasks:
            self._pending.setdefault(need, []).append(self._pool.submit(self._run, compile_program))

    def first_step_is_done(self) -> None:
        self._may_begin.set()

    def wait(self, need: str) -> None:
        """Returns when all is compiled for this need; to compile it here as well would be twice the work."""
        for task in self._pending.pop(need, []):
            if (error := task.exception()) is not None:
                logger.debug("compiling ahead failed: %s", error)

    def close(self) -> None:
        """Waits for what is being compiled, and begins nothing more."""
        self._is_closed = True
        self._may_begin.set()
        self._pool.shutdown(cancel_futures=True)

    def _run(self, task: Callable[[], object]) -> object:
        self._may_begin.wait()
        return None if self._is_closed else task()


def in_background() -> bool:
    """Whether this is one of the threads, whose seconds nobody waits for."""
    return threading.current_thread().name.startswith(_THREADS)
