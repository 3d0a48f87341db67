"""Dropout that draws 16 random bits per element, on CPUs from a generator that is fast there."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt16


def dropout(x: Float[Array, "..."], rate: float, key: Array | None) -> Float[Array, "..."]:
    """Zeroes elements with probability `rate` and scales the rest by 1/(1 - rate); `x` itself without a key.

    The rate is rounded to a multiple of 2⁻¹⁶, and the scale uses the rounded rate, so the expectation is
    exact. Half the random bits are noticeably cheaper where drawing them dominates (on a CPU).
    """
    dropped_of_65536 = round(rate * 65536)
    if key is None or dropped_of_65536 == 0:
        return x
    kept = random_uint16(key, x.shape) >= jnp.uint16(dropped_of_65536)
    return jnp.where(kept, x / (1 - dropped_of_65536 / 65536), jnp.zeros_like(x))


def keys_at(key: Array | None, places: Array | int) -> Array | None:
    """The keys of numbered places where something is drawn, made all at once; None without dropout."""
    if key is None:
        return None
    fold = jax.random.fold_in
    return fold(key, places) if jnp.ndim(places) == 0 else jax.vmap(keys_at, (None, 0))(key, places)


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
