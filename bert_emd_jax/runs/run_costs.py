"""What a run takes: seconds to its first step, seconds of compilation, and the most memory."""

import functools
import logging
import resource
import sys
import time
from typing import Any

import jax

from bert_emd_jax.devices.compile_ahead import in_background
from bert_emd_jax.devices.device_config import SpeedConfig
from bert_emd_jax.files import cache_directory

logger = logging.getLogger(__name__)

_COMPILATION_EVENT = "/jax/core/compile/backend_compile_duration"


_MOST_BYTES_KEPT = 4 << 30  # then those go that were used least recently


def keep_compiled_programs(config: SpeedConfig) -> None:
    """Keeps compiled programs for later runs: where flags or JAX's own settings say, else in our cache."""
    settings = jax.config
    if not config.compilation_cache:
        settings.update("jax_enable_compilation_cache", False)
    elif config.compilation_cache_dir is not None:
        settings.update("jax_compilation_cache_dir", str(config.compilation_cache_dir.absolute()))
    elif settings.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        settings.update("jax_compilation_cache_dir", str(cache_directory() / "compiled"))
        settings.update("jax_compilation_cache_max_size", _MOST_BYTES_KEPT)


class RunCosts:
    """Counts from when it is made; `close` ends its count of compilations."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._compiling = 0.0
        self._to_first_step: float | None = None
        _listen_once()
        _counting.append(self)

    def first_step_is_done(self) -> None:
        """Says how long that took."""
        self._to_first_step = time.perf_counter() - self._start
        logger.info(
            "first step after %.1f s, %.1f s of it for compilation", self._to_first_step, self._compiling
        )

    def so_far(self) -> dict[str, Any]:
        """Seconds, and peak bytes of this process and of the fullest device (where that is known)."""
        peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
        known = [peak for peak in peaks if peak is not None]
        unit = 1 if sys.platform == "darwin" else 1024
        return {
            "seconds": time.perf_counter() - self._start,
            "seconds_to_first_step": self._to_first_step,
            "seconds_compiling": self._compiling,
            "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
            "peak_device_bytes": max(known) if known else None,
        }

    def close(self) -> None:
        _counting.remove(self)

    def note_compilation(self, seconds: float) -> None:
        self._compiling += seconds


_counting: list[RunCosts] = []


@functools.cache
def _listen_once() -> None:
    """One listener for the life of the process: older versions of JAX cannot take one back."""

    def note(event: str, duration_secs: float, **kwargs: Any) -> None:
        if event == _COMPILATION_EVENT and not in_background():
            for costs in _counting:
                costs.note_compilation(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(note)
