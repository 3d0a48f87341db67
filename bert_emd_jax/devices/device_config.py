"""The flags that say how the devices and processes of a run are used. No JAX here."""

import dataclasses
from pathlib import Path

from bert_emd_jax.configs import Config, SameResult


@dataclasses.dataclass(frozen=True, init=False)
class SpeedConfig(Config):
    """Memory, compilation and profiling."""

    remat: bool = False
    """Recompute the inside of each layer in the backward pass: less memory, more time."""
    compilation_cache: SameResult[bool] = True
    """Cache compiled programs, so that the next run with the same shapes starts at once."""
    compilation_cache_dir: SameResult[Path | None] = None
    """Directory of that cache; default: in the user's cache, at most 4 GB, or as set for JAX itself."""
    trace_steps: SameResult[int] = 0
    """Write a profiler trace of N steps, after the first ten, to --output_dir/trace (for XProf, Perfetto)."""

    def check(self) -> None:
        self.require("trace_steps", self.trace_steps >= 0, "at least 0")


@dataclasses.dataclass(frozen=True, init=False)
class MultiHostConfig(Config):
    """Training one model with several processes."""

    distributed: SameResult[bool] = False
    """Join the other processes of a TPU pod, Slurm or MPI job; all run this same command line."""
    coordinator_address: SameResult[str | None] = None
    """Manual alternative: host:port of process 0, the same for all processes."""
    num_processes: SameResult[int | None] = None
    """With --coordinator_address: number of processes."""
    process_id: SameResult[int | None] = None
    """With --coordinator_address: index of this process, from 0."""
