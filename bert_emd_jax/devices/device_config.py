"""The flags that say how the devices and processes of a run are used. No JAX here."""

import dataclasses
from pathlib import Path

from bert_emd_jax.configs import Config, SameResult


@dataclasses.dataclass(frozen=True, init=False)
class SpeedConfig(Config):
    """Memory, compilation and profiling."""

    remat: bool = False
    """Compute what is inside a layer again in the backward pass: less memory, more time."""
    compilation_cache: SameResult[bool] = True
    """Keep compiled programs: the next run with the same shapes starts at once."""
    compilation_cache_dir: SameResult[Path | None] = None
    """Keep them there; default: at most 4 GB in the user's cache, or where JAX's own setting says."""
    trace_steps: SameResult[int] = 0
    """Write a profiler trace of N steps, after the first ten, to --output_dir/trace (for XProf, Perfetto)."""

    def check(self) -> None:
        self.require("trace_steps", self.trace_steps >= 0, "at least 0")


@dataclasses.dataclass(frozen=True, init=False)
class MultiHostConfig(Config):
    """Several processes that train one model."""

    distributed: SameResult[bool] = False
    """Join the other processes of a TPU pod, a Slurm or an MPI job: each runs this same command line."""
    coordinator_address: SameResult[str | None] = None
    """Or join them by hand: host:port of process 0, the same for all."""
    num_processes: SameResult[int | None] = None
    """With --coordinator_address: how many processes there are."""
    process_id: SameResult[int | None] = None
    """With --coordinator_address: which of them this is, from 0."""
