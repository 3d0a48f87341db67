"""The machine that something was timed on: processor, cores, accelerator, how busy it was. No JAX here."""

import os
import platform
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Machine:
    """Where and under which load milliseconds were measured.

    `device` is the kind of the accelerator, or "cpu". `cores` are those that the program may use, of
    `machine_cores`. Loads are means over a minute, None where the system has none.
    """

    device: str
    processor: str
    cores: int
    machine_cores: int
    load_before: float | None
    load_after: float | None

    @property
    def is_busy(self) -> bool:
        """Whether the load was above half the cores, the program's own work counted."""
        loads = [load for load in (self.load_before, self.load_after) if load is not None]
        return max(loads, default=0.0) > self.machine_cores / 2

    @property
    def name(self) -> str:
        """What did the work, in words."""
        cores = "1 core" if self.machine_cores == 1 else f"{self.machine_cores} cores"
        if self.cores != self.machine_cores:
            cores = f"{self.cores} of {cores}"
        host = f"{self.processor}, {cores}"
        return host if self.device == "cpu" else f"{self.device}, beside {host}"

    @property
    def load_text(self) -> str:
        """How busy it was, in words."""
        if self.load_before is None or self.load_after is None:
            return "load unknown"
        load = f"load {self.load_before:.1f} before, {self.load_after:.1f} after"
        return f"{load}: busy (the program's own work counts)" if self.is_busy else load

    def __str__(self) -> str:
        return f"{self.name}; {self.load_text}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"busy": self.is_busy}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        return cls(**{field.name: content[field.name] for field in fields(cls)})


def machine(device: str, load_before: float | None) -> Machine:
    """Describes this machine once the timing is done.

    Args:
      device: the kind of the accelerator, or "cpu".
      load_before: `load_average()` from before.
    """
    everywhere = os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else everywhere
    return Machine(device, processor_name(), cores, everywhere, load_before, load_average())


def processor_name() -> str:
    """Returns what the system calls its processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def load_average() -> float | None:
    """Returns the mean number of running programs in the last minute; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None
