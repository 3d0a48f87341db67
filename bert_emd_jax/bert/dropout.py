"""Dropout that draws 16 random bits for an element, from the cheapest generator of the device."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt16


class Dropout(nn.Module):
    """Zeroes elements with probability `rate` and scales the rest by 1/(1 - rate).

    The rate is rounded to a multiple of 2⁻¹⁶, and the scale uses the rounded rate, so the expectation is
    exact. On CPUs, where drawing bits takes a good part of a step, half of them are twice as fast.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "..."], deterministic: bool) -> Float[Array, "..."]:
        dropped_of_65536 = round(self.rate * 65536)
        if deterministic or dropped_of_65536 == 0:
            return x
        bits = random_halves(self.make_rng("dropout"), x.size).reshape(x.shape)
        kept = bits >= jnp.uint16(dropped_of_65536)
        return jnp.where(kept, x / (1 - dropped_of_65536 / 65536), jnp.zeros_like(x))


def random_halves(key: Array, count: int) -> UInt16[Array, " count"]:
    """16 random bits each, two of every 32 drawn: XLA draws 32 for uint16, too, and throws half of them away.

    The bits are those of the key's generator, but on CPUs. There XLA's own ("rbg", Philox) computes every
    block four times, and Threefry, from the key's first two words, is several times faster.
    """
    words = -(-count // 2)

    def of_key(key: Array) -> Array:
        return jax.random.bits(key, (words,), jnp.uint32)

    def of_threefry(key: Array) -> Array:
        first = jax.random.key_data(key)[:2]
        return of_key(jax.random.wrap_key_data(first, impl="threefry2x32"))

    drawn = jax.lax.platform_dependent(key, cpu=of_threefry, default=of_key)
    return jnp.concatenate([(drawn >> 16).astype(jnp.uint16), drawn.astype(jnp.uint16)])[:count]
