"""Rows of an embedding table by their ids, with a gradient that does not depend on fast scatters.

A scatter-add of a batch's gradients adds those of the same token one after the other: a third of a train step
on a GPU, and hundreds of times more where the compiler makes a compare-and-swap loop of it (jaxlib 0.10.2 and
0.11.0: openxla/xla issue 46225).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

_FEW_ROWS = 16
_TILE = 128
_HIGHEST = jax.lax.Precision.HIGHEST


def take_rows(
    table: Float[Array, "rows dim"], ids: Int[Array, "batch seq"], untrained: int | None = None
) -> Float[Array, "batch seq dim"]:
    """Returns the rows of these ids; NaN for an id beyond the table.

    Args:
      untrained: the id whose row has no gradient (PyTorch's padding_idx).
    """
    return _take_rows(table, ids, untrained)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _take_rows(table: Array, ids: Array, untrained: int | None) -> Array:
    return jnp.take(table, ids, axis=0)


def _forward(table: Array, ids: Array, untrained: int | None) -> tuple[Array, tuple[Array, Array]]:
    return _take_rows(table, ids, untrained), (ids, jnp.zeros((len(table), 0), table.dtype))


def _backward(untrained: int | None, saved: tuple[Array, Array], gradient: Array) -> tuple[Array, np.ndarray]:
    ids, like = jnp.asarray(saved[0]), saved[1]  # constants are no arrays of JAX's here in its version 0.7
    rows = len(like)
    wide = jnp.promote_types(gradient.dtype, jnp.float32)
    flat, given = ids.ravel(), gradient.astype(wide).reshape(-1, gradient.shape[-1])
    if rows <= _FEW_ROWS:
        total = _sums_of_few_rows(flat, given, rows, untrained)
    else:
        total = jax.lax.platform_dependent(
            flat,
            given,
            cpu=functools.partial(_scattered_sums, rows=rows, untrained=untrained),
            default=functools.partial(sorted_sums, rows=rows, untrained=untrained),
        )
    return total.astype(like.dtype), np.zeros(ids.shape, jax.dtypes.float0)


_take_rows.defvjp(_forward, _backward)


def _sums_of_few_rows(ids: Array, values: Array, rows: int, untrained: int | None) -> Array:
    numbers = jnp.arange(rows)
    counted = (ids == numbers[:, None]) & (numbers[:, None] != (-1 if untrained is None else untrained))
    return jnp.matmul(counted.astype(values.dtype), values, precision=_HIGHEST)


def _scattered_sums(ids: Array, values: Array, *, rows: int, untrained: int | None) -> Array:
    """For CPUs, which add one row after the other anyway."""
    if untrained is not None:
        values = jnp.where((ids == untrained)[:, None], 0, values)
    return jnp.zeros((rows, values.shape[1]), values.dtype).at[ids].add(values)


def sorted_sums(
    ids: Int[Array, " n"], values: Float[Array, "n dim"], *, rows: int, untrained: int | None = None
) -> Float[Array, "rows dim"]:
    """Sums of the values of each id, from matrix products: nothing is added in memory that others write to.

    In the order of their ids, values of one id are a run. Of every tile the sums of its runs are a product
    with a matrix of zeros and ones; a run that began in tiles before gets what these have of it by another
    product, of the tiles' ends. The last value of every run then holds its whole sum, and is stored.
    """
    count, dim = values.shape
    order = jnp.argsort(ids)
    tiles = -(-count // _TILE)
    filler = tiles * _TILE - count
    ids = jnp.pad(ids[order], (0, filler), constant_values=rows).reshape(tiles, _TILE)
    values = jnp.pad(values[order], ((0, filler), (0, 0))).reshape(tiles, _TILE, dim)
    in_run = (ids[:, :, None] == ids[:, None]) & jnp.tri(_TILE, dtype=bool)
    sums = jnp.einsum("tij,tjd->tid", in_run.astype(values.dtype), values, precision=_HIGHEST)
    goes_on = (ids[:, :1] == ids[:, -1]) & jnp.tri(tiles, k=-1, dtype=bool)
    before = jnp.matmul(goes_on.astype(values.dtype), sums[:, -1], precision=_HIGHEST)
    sums = (sums + jnp.where((ids == ids[:, :1])[:, :, None], before[:, None], 0)).reshape(-1, dim)
    ids = ids.ravel()
    is_last = ids != jnp.append(ids[1:], rows)
    if untrained is not None:
        is_last &= ids != untrained
    # Indices beyond the table are dropped; all are different, so that no store waits for another.
    target = jnp.where(is_last, ids, rows + jnp.arange(len(ids)))
    empty = jnp.zeros((rows, dim), values.dtype)
    return empty.at[target].set(sums, mode="drop", unique_indices=True)
