"""Dropout that draws 16 random bits per element, on CPUs from a generator that is fast there."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt16


def dropout(
    x: Float[Array, "... rows dim"], rate: float, bits: UInt16[Array, "... rows dim"] | None
) -> Float[Array, "... rows dim"]:
    """Zeroes elements with probability `rate` and scales the rest by 1/(1 - rate); `x` itself without bits.

    The rate is rounded to a multiple of 2⁻¹⁶, and the scale uses the rounded rate, so the expectation is
    exact. Half the random bits are noticeably cheaper where drawing them dominates (on a CPU).

    Args:
      bits: uniform, of the shape of `x`, perhaps with more rows, of which the first are taken.
    """
    dropped_of_65536 = _dropped_of_65536(rate)
    if bits is None or dropped_of_65536 == 0:
        return x
    kept = bits[..., : x.shape[-2], :] >= jnp.uint16(dropped_of_65536)
    return jnp.where(kept, x / (1 - dropped_of_65536 / 65536), jnp.zeros_like(x))


class Draw(NamedTuple):
    """What one place draws bits for."""

    rate: float
    shape: tuple[int, ...]


def draw_bits(key: Array | None, draws: Sequence[Draw]) -> tuple[UInt16[Array, "..."] | None, ...]:
    """Returns the bits for every draw, made in one go; None where nothing is dropped, all None without a key.

    Every call of a generator is some hundred operations to compile: one call for a whole model.
    """
    if key is None:  # shapes may be unknown here
        return (None,) * len(draws)
    sizes = [math.prod(draw.shape) if _dropped_of_65536(draw.rate) else 0 for draw in draws]
    if not any(sizes):
        return (None,) * len(draws)
    parts = jnp.split(random_uint16(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    return tuple(
        part.reshape(draw.shape) if part.size else None for part, draw in zip(parts, draws, strict=True)
    )


def _dropped_of_65536(rate: float) -> int:
    return round(rate * 65536)


def random_uint16(key: Array, shape: tuple[int, ...]) -> UInt16[Array, "..."]:
    """Returns uniform bits of the key's generator, on CPUs of Threefry seeded with the key's first words.

    On CPUs XLA's own generator ("rbg", Philox) computes every block of words once for each of them, and draws
    32 bits for 16. Here both halves of a word are used.
    """

    def own(key: Array) -> Array:
        return jax.random.bits(key, shape, jnp.uint16)

    def threefry(key: Array) -> Array:
        count = math.prod(shape)
        first_words = jax.random.key_data(key)[:2]
        key = jax.random.wrap_key_data(first_words, impl="threefry2x32")
        words = jax.random.bits(key, (-(-count // 2),), jnp.uint32)
        halves = jnp.concatenate([(words >> 16).astype(jnp.uint16), words.astype(jnp.uint16)])
        return halves[:count].reshape(shape)

    return jax.lax.platform_dependent(key, cpu=threefry, default=own)
