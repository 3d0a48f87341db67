"""What is best on a kind of device: how layers are compiled, and what another compilation is worth."""

import functools
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jaxlib.version

# Before jaxlib 0.9 (seen with 0.7.2, 0.8.0) XNNPACK's products on a CPU keep their packed weights as long as
# the address of the weights stays: of new weights in the memory of old ones they go on with the old.
KEEPS_OLD_WEIGHTS = tuple(map(int, jaxlib.version.__version__.split(".")[:2])) < (0, 9)
WITHOUT_OLD_WEIGHTS: dict[str, bool | str] = {"xla_cpu_use_xnnpack": False}


class DeviceNeeds(NamedTuple):
    """What is best on a kind of device.

    loops_over_layers: layers are one compiled loop, rather than every layer code of its own.
    steps_for_another_length: so many steps a run must have for a second padded length, a third and so on. A
      further length costs a compilation, and shortens the steps of the rows that fit into it.
    compiles_ahead: what a run needs after its first step is compiled during it.
    copies_ahead: batches are copied to the device one step ahead.
    step_options: what the compiler is told for the step of a run with fewer training rows than
      `rows_for_tuning`, all epochs together (in a single process).
    """

    loops_over_layers: bool
    steps_for_another_length: tuple[int, ...]
    compiles_ahead: bool = False
    copies_ahead: bool = False
    rows_for_tuning: int = 0
    step_options: Mapping[str, bool | str] = MappingProxyType({})


# CPU: a compilation is worth some tens of steps, and the more lengths there are the less another one saves.
# Accelerators: on a H200 it takes 15 to 30 s, a step of 32 rows some 8 ms whatever the length, and one of 256
# rows 37 ms at 128 tokens.
_CPU = DeviceNeeds(False, (50, 100, 150, 1000, 2000))
if KEEPS_OLD_WEIGHTS:
    _CPU = _CPU._replace(rows_for_tuning=sys.maxsize, step_options=MappingProxyType(WITHOUT_OLD_WEIGHTS))
_ACCELERATOR = DeviceNeeds(True, (2000, 8000, 32000), compiles_ahead=True, copies_ahead=True)
# XLA tries its Triton matrix products one by one: 8 s, for steps that are 0.5 ms shorter at 32 rows, 2.8 ms
# shorter at 256 (H200).
QUICK_COMPILATION: dict[str, bool | str] = {"xla_gpu_enable_triton_gemm": False}
_GPU = _ACCELERATOR._replace(rows_for_tuning=500_000, step_options=MappingProxyType(QUICK_COMPILATION))
_NEEDS = {"cpu": _CPU, "gpu": _GPU}


@functools.cache
def device_needs() -> DeviceNeeds:
    """Those of JAX's default device."""
    return _NEEDS.get(jax.default_backend(), _ACCELERATOR)


def device_memory() -> int | None:
    """Bytes that JAX may use on each of its devices; None where the backend does not say, as CPUs."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
