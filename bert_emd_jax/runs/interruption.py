"""SIGTERM and SIGINT (a preempted machine, Ctrl-C): the run ends at a point that it can go on from."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(Exception):  # noqa: N818  (nothing went wrong)
    """The run should end here."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.signal = number


class StopRequest:
    """While it is entered, the first signal is noted, and a second one ends the program at once.

    Signals reach Python between two calls into compiled code, so never in the middle of a step.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._interruptible = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        # On several hosts the signal may come to one alone; JAX tells the others of SIGTERM, by a handler
        # of its own, and `check` asks it. Python has handlers in the main thread only.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def check(self, step: int) -> None:
        """Raises StopRequested where the run should end after this step: on all hosts or on none."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        if self.signal is not None:
            raise StopRequested(self.signal)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Work that may be left anywhere and done again: the signal raises StopRequested in it."""
        self._interruptible = True
        try:
            if self.signal is not None:
                raise StopRequested(self.signal)
            yield
        finally:
            self._interruptible = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        logger.info("%s: ending the run; once more ends it at once", self.signal.name)
        if self._interruptible:
            raise StopRequested(self.signal)
