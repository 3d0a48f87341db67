"""What is best on a kind of device: how layers are compiled, and what another compilation is worth."""

import functools
from typing import NamedTuple

import jax


class DeviceNeeds(NamedTuple):
    """What is best on a kind of device.

    loops_over_layers: layers are one compiled loop, rather than every layer code of its own.
    steps_for_another_length: so many steps a run must have for a second padded length, a third and so on. A
      further length costs a compilation, and shortens the steps of the rows that fit into it.
    """

    loops_over_layers: bool
    steps_for_another_length: tuple[int, ...]


# CPU: a compilation is worth some tens of steps, and the more lengths there are the less another one saves.
# Accelerators: on a H200 it takes 15 to 30 s, a step of 32 rows some 8 ms whatever the length, and one of 256
# rows 37 ms at 128 tokens.
_CPU = DeviceNeeds(False, (50, 100, 150, 1000, 2000))
_ACCELERATOR = DeviceNeeds(True, (2000, 8000, 32000))


@functools.cache
def device_needs() -> DeviceNeeds:
    """Those of JAX's default device."""
    return _CPU if jax.default_backend() == "cpu" else _ACCELERATOR
