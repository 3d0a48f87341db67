"""A profiler trace of some steps of a run."""

from pathlib import Path
from typing import Any

import jax

# The first steps compile, and wait for what was compiled to be loaded.
_FIRST = 10


class StepTrace:
    """Traces `steps` steps, after the first ten, into a directory; 0 traces none."""

    def __init__(self, directory: Path, steps: int) -> None:
        self._directory = directory
        self._steps = steps
        self._is_running = False

    def before_step(self, done: int, state: Any) -> None:
        """Begins or ends the trace where it is time; `done` counts the steps of this process."""
        if self._steps and done in (_FIRST, _FIRST + self._steps):
            jax.block_until_ready(state)  # else steps that were started before would be in the trace
            self.close()
            if done == _FIRST:
                jax.profiler.start_trace(str(self._directory))
                self._is_running = True

    def close(self) -> None:
        if self._is_running:
            jax.profiler.stop_trace()
            self._is_running = False
