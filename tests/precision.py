"""What tests of numbers need of any supported JAX."""

import jax
import jaxlib.version
import pytest

try:
    enable_x64 = jax.enable_x64
except AttributeError:  # before jax 0.8
    from jax.experimental import enable_x64  # pyright: ignore[reportAttributeAccessIssue]

_JAXLIB = tuple(map(int, jaxlib.version.__version__.split(".")[:2]))

needs_good_sums = pytest.mark.skipif(
    _JAXLIB < (0, 10), reason="on CPUs, float32 sums of this jaxlib round five times more than those of 0.10"
)

__all__ = ["enable_x64", "needs_good_sums"]
