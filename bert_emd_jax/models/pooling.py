"""From the states of a text's tokens to one vector, as sentence-transformers computes it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bert_emd_jax.models.embedding_config import POOLINGS

_SHORTEST = 1e-12  # vectors are not scaled up from below this length, as in PyTorch's normalize


def pool(
    states: Float[Array, "batch seq dim"], mask: Int[Array, "batch seq"], pooling: tuple[str, ...]
) -> Float[Array, "batch pooled"]:
    """Returns pooled states in float32 at least, those of several ways side by side; 0 for empty rows."""
    wide = states.astype(jnp.promote_types(states.dtype, jnp.float32))
    is_token = mask[:, :, None].astype(bool)
    return jnp.concatenate([_POOLED[way](wide, is_token) for way in pooling], axis=-1)


def normalize(vectors: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """Returns vectors of length 1; those of length 0 stay, and have no gradient."""
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, _SHORTEST**2))


def project(
    vectors: Float[Array, "batch dim"], projection: Any, *, normalized: bool
) -> Float[Array, "batch width"]:
    """Returns vectors in another width, of length 1 if they are `normalized`; as they are for None."""
    if projection is None:
        return vectors
    projected = vectors @ projection["kernel"] + projection["bias"]
    return normalize(projected) if normalized else projected


def _count(is_token: Array) -> Array:
    return jnp.maximum(is_token.sum(axis=1), 1).astype(jnp.float32)


def _sum(states: Array, is_token: Array) -> Array:
    return jnp.where(is_token, states, 0).sum(axis=1)


def _max(states: Array, is_token: Array) -> Array:
    largest = jnp.where(is_token, states, jnp.finfo(states.dtype).min).max(axis=1)
    return jnp.where(is_token.any(axis=1), largest, 0)


_POOLED: dict[str, Callable[[Array, Array], Array]] = {
    "cls": lambda states, _: states[:, 0],
    "max": _max,
    "mean": lambda states, is_token: _sum(states, is_token) / _count(is_token),
    "mean_sqrt_len": lambda states, is_token: _sum(states, is_token) / jnp.sqrt(_count(is_token)),
}
assert tuple(_POOLED) == POOLINGS
