"""Gradients of embedding tables: the same sums however they are made, and no scatter-add on accelerators."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_emd_jax.models.embedding_lookup import sorted_sums, take_rows


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 700),
    st.integers(1, 400),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 0.5, 0.99]),
    st.booleans(),
)
def test_sums_by_sorting_are_the_sums(count, rows, seed, share_of_one, leaves_out):
    rng = np.random.default_rng(seed)
    favourite = int(rng.integers(rows))
    ids = np.where(rng.random(count) < share_of_one, favourite, rng.integers(rows, size=count))
    values = rng.integers(-50, 50, (count, 3)).astype(np.float32)  # whole numbers: sums are exact
    untrained = favourite if leaves_out else None
    expected = np.zeros((rows, 3), np.float32)
    np.add.at(expected, ids, values)
    if leaves_out:
        expected[favourite] = 0
    ours = sorted_sums(jnp.asarray(ids), jnp.asarray(values), rows=rows, untrained=untrained)
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(("rows", "untrained"), [(2, None), (2, 0), (40, None), (40, 3)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_is_that_of_indexing(rows, untrained, dtype):
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.standard_normal((rows, 8)), jnp.float32)
    ids = jnp.asarray(rng.integers(rows, size=(6, 7)), jnp.int32)
    wave = jnp.asarray(rng.standard_normal((6, 7, 8)), dtype)

    def loss(take):
        return lambda table: jnp.sum(take(table).astype(dtype) * wave, dtype=jnp.float32)

    ours = jax.grad(loss(lambda table: take_rows(table, ids, untrained)))(table)
    expected = np.zeros((rows, 8))
    np.add.at(expected, np.asarray(ids), np.asarray(wave, np.float64))
    if untrained is not None:
        expected[untrained] = 0
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_never_add_to_the_same_row(platform):
    def gradient(table, ids, wave):
        return jax.grad(lambda table: jnp.sum(take_rows(table, ids, 0) * wave))(table)

    shapes = jnp.zeros((100, 8)), jnp.zeros((4, 64), jnp.int32), jnp.zeros((4, 64, 8))
    lowered = jax.export.export(jax.jit(gradient), platforms=[platform])(*shapes).mlir_module()
    scatters = [line for line in lowered.splitlines() if "stablehlo.scatter" in line]
    assert len(scatters) == 1
    assert "unique_indices = true" in scatters[0]
    few = jnp.zeros((2, 8)), *shapes[1:]
    assert "scatter" not in jax.export.export(jax.jit(gradient), platforms=[platform])(*few).mlir_module()
