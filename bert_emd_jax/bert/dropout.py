"""Dropout that draws 16 random bits for an element instead of 32."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Dropout(nn.Module):
    """Zeroes elements with probability `rate` and scales the rest by 1/(1 - rate).

    The rate is rounded to a multiple of 2⁻¹⁶, and the scale uses the rounded rate, so the expectation is
    exact. Half the random bits are noticeably cheaper where drawing them dominates (on a CPU).
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "..."], deterministic: bool) -> Float[Array, "..."]:
        dropped_of_65536 = round(self.rate * 65536)
        if deterministic or dropped_of_65536 == 0:
            return x
        bits = jax.random.bits(self.make_rng("dropout"), x.shape, jnp.uint16)
        kept = bits >= jnp.uint16(dropped_of_65536)
        return jnp.where(kept, x / (1 - dropped_of_65536 / 65536), jnp.zeros_like(x))
