"""Costs of 16-bit values, against the same values in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import needs_good_sums

from bert_emd_jax.transport.costs import attention_cost, hidden_cost
from bert_emd_jax.transport.short_costs import _PIECE

DTYPES = ["bfloat16", "float16"]
MASK = np.ones((3, 20), np.int32)
MASK[1, 13:] = MASK[2, 4:] = 0


def layers(seed: int, count: int, *shape: int, outlier: float = 30.0) -> np.ndarray:
    """Layers that resemble each other, with a feature much larger than the rest, as BERT's have."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) + 0.3 * rng.standard_normal((count, *shape))
    values[..., 0] += outlier
    return values


def exact(student, teacher, keep) -> np.ndarray:
    """Sums of squared differences over kept elements in float64."""
    pairs = [[np.sum(((s - t) ** 2)[keep]) for t in teacher] for s in student]
    return np.array(pairs)


def wide(values) -> np.ndarray:
    return np.asarray(jnp.asarray(values), np.float64)


@needs_good_sums
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding", ["mask", "include"])
def test_costs_are_those_of_the_same_values_in_float64(dtype, padding):
    hidden = [jnp.asarray(layers(seed, count, 3, 20, 64), dtype) for seed, count in ((0, 2), (0, 5))]
    scores = [jnp.asarray(layers(seed, count, 3, 4, 20, 20), dtype) for seed, count in ((1, 2), (2, 5))]
    tokens = np.broadcast_to(MASK.astype(bool)[:, :, None], (3, 20, 64))
    keys = np.broadcast_to(MASK.astype(bool)[:, None, None, :], (3, 4, 20, 20))
    both = keys & MASK.astype(bool)[:, None, :, None]
    everything = np.ones_like(tokens)
    masked = padding == "mask"
    expected = (
        exact(*map(wide, hidden), tokens if masked else everything) / (tokens if masked else everything).sum()
    )
    np.testing.assert_allclose(hidden_cost(*hidden, MASK, padding), expected, rtol=1e-4)
    expected = exact(*map(wide, scores), both if masked else keys) / (both.sum() if masked else both.size)
    np.testing.assert_allclose(attention_cost(*scores, MASK, padding), expected, rtol=1e-4)


@needs_good_sums
@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_that_nearly_agree(dtype):
    teacher = layers(0, 4, 3, 20, 64)
    student = jnp.asarray(teacher + 1e-2 * np.random.default_rng(1).standard_normal(teacher.shape), dtype)
    teacher = jnp.asarray(teacher, dtype)
    keep = np.broadcast_to(MASK.astype(bool)[:, :, None], (3, 20, 64))
    norm = (wide(teacher)[0][keep] ** 2).mean()
    ours = np.asarray(hidden_cost(student, teacher, MASK))
    expected = exact(wide(student), wide(teacher), keep) / keep.sum()
    # Some units in the last place of what is subtracted from each other, not of the difference. How many
    # depends on a processor's vectors, which share a sum out; n roundings in a row come to sqrt(n).
    assert np.abs(ours - expected).max() <= np.sqrt(_PIECE) * 2**-24 * 2 * norm
    assert (ours > 0).all()


@needs_good_sums
@pytest.mark.parametrize("dtype", DTYPES)
def test_only_equal_layers_cost_nothing(dtype):
    teacher = jnp.asarray(layers(0, 4, 3, 20, 64), dtype)
    student = teacher[jnp.array([2, 0])]
    nearly = jax.lax.bitcast_convert_type(
        jax.lax.bitcast_convert_type(student, jnp.uint16).at[0, 0, 3, 5].add(1), student.dtype
    )
    padded = student.at[0, 1, 15, 5].add(1)  # which padding alone holds
    zero = np.zeros((2, 4), bool)
    zero[0, 2] = zero[1, 0] = True
    np.testing.assert_array_equal(np.asarray(hidden_cost(student, teacher, MASK)) == 0, zero)
    np.testing.assert_array_equal(np.asarray(hidden_cost(padded, teacher, MASK)) == 0, zero)
    zero[0, 2] = False
    cost = np.asarray(hidden_cost(nearly, teacher, MASK))
    np.testing.assert_array_equal(cost == 0, zero)
    assert (cost >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_those_of_float64(dtype):
    student, teacher = (
        jnp.asarray(layers(seed, count, 3, 20, 64), dtype) for seed, count in ((0, 2), (0, 5))
    )
    flow = 1e3 * np.random.default_rng(3).random((2, 5))  # small gradients are no normal numbers of float16
    keep = MASK.astype(bool)[:, :, None]

    def loss(student, teacher):
        return jnp.sum(jnp.asarray(flow, jnp.float32) * hidden_cost(student, teacher, MASK))

    ours = jax.grad(loss, argnums=(0, 1))(student, teacher)
    factors = wide(jnp.asarray(flow / (keep.sum() * 64), dtype))
    difference = wide(student)[:, None] - wide(teacher)[None]
    expected = 2 * np.einsum("st,stblh->sblh", factors, difference) * keep
    np.testing.assert_allclose(wide(ours[0]), expected, rtol=2**-7, atol=1e-6 * np.abs(expected).max())
    expected = -2 * np.einsum("st,stblh->tblh", factors, difference) * keep
    np.testing.assert_allclose(wide(ours[1]), expected, rtol=2**-7, atol=1e-6 * np.abs(expected).max())
    same = jax.grad(loss)(teacher[:2], teacher)
    assert np.isfinite(wide(same)).all()


def test_other_types_are_compared_in_float32():
    student, teacher = layers(0, 2, 3, 20, 64), layers(1, 3, 3, 20, 64)
    mixed = hidden_cost(jnp.asarray(student, jnp.float32), jnp.asarray(teacher, jnp.bfloat16), MASK)
    alike = hidden_cost(
        jnp.asarray(student, jnp.float32), jnp.asarray(teacher, jnp.bfloat16).astype(jnp.float32), MASK
    )
    np.testing.assert_array_equal(mixed, alike)
