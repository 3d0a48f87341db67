"""Attention costs from queries and keys: those of the scores, in values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import enable_x64

from bert_emd_jax.transport.costs import attention_cost_sums
from bert_emd_jax.transport.factored_costs import factored_attention_cost_sums

STUDENT, TEACHER, ROWS, LENGTH, HEADS = 2, 3, 4, 7, 3
MASK = (np.arange(LENGTH) < np.array([7, 4, 1, 0])[:, None]).astype(np.int32)
WEIGHTS = np.array([1, 1, 0, 1.0])


def factors(layers: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    query, key = np.random.default_rng(seed).normal(size=(2, layers, ROWS, LENGTH, HEADS, width))
    return query, key


def scores(query, key):
    return jnp.einsum("nbqhk,nbvhk->nbhqv", query, key) / query.shape[-1] ** 0.5


@pytest.mark.parametrize("padding", ["mask", "include"])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_values_and_gradients_are_those_of_the_scores(padding, weights):
    rest = MASK, padding, weights
    flow = np.random.default_rng(2).random((STUDENT, TEACHER))
    with enable_x64(True):
        student, teacher = factors(STUDENT, 5, 0), factors(TEACHER, 8, 1)

        def factored(query, key):
            sums, count = factored_attention_cost_sums((query, key), teacher, *rest)
            return jnp.sum(flow * sums), (sums, count)

        def direct(query, key):
            sums, count = attention_cost_sums(scores(query, key), scores(*teacher), *rest)
            return jnp.sum(flow * sums), (sums, count)

        (ours, theirs) = (
            jax.jit(jax.value_and_grad(form, (0, 1), has_aux=True))(*student) for form in (factored, direct)
        )
        for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-11)


def test_a_student_that_resembles_its_teacher_in_bfloat16():
    """Costs near 0 are more exact than those of scores rounded to bfloat16, and equal layers cost nothing."""
    teacher = [jnp.asarray(side, jnp.bfloat16) for side in factors(TEACHER, 8, 1)]
    nearly = [side[:STUDENT] * (1 + jnp.bfloat16(2**-6)) for side in teacher]
    ones = np.ones((ROWS, LENGTH), np.int32)
    sums, _ = factored_attention_cost_sums(nearly, teacher, ones)  # pyright: ignore[reportArgumentType]
    with enable_x64(True):
        wide = [[np.asarray(side, np.float64) for side in sides] for sides in (nearly, teacher)]
        exact, _ = attention_cost_sums(scores(*wide[0]), scores(*wide[1]), ones)
        exact = np.asarray(exact)
    rounded = [scores(*sides).astype(jnp.bfloat16) for sides in (nearly, teacher)]
    direct, _ = attention_cost_sums(*rounded, ones)
    near = np.eye(STUDENT, TEACHER, dtype=bool)
    assert exact[near].max() < 0.01 * exact[~near].min()

    def error(found):
        return np.abs(np.asarray(found, np.float64) / exact - 1)[near].max()

    np.testing.assert_allclose(sums, exact, rtol=1e-3)
    assert error(sums) < 0.1 * error(direct)

    equal, _ = factored_attention_cost_sums([side[:2] for side in teacher], teacher, ones)  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(np.asarray(equal) == 0, near)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_gradients_of_16_bits_are_as_near_as_their_rounding(dtype):
    flow = np.random.default_rng(2).random((STUDENT, TEACHER))
    student, teacher = (
        [jnp.asarray(side, dtype) for side in factors(*sizes)] for sizes in ((STUDENT, 5, 0), (TEACHER, 8, 1))
    )

    def factored(query, key):
        return jnp.sum(flow * factored_attention_cost_sums((query, key), teacher, MASK)[0])  # pyright: ignore[reportArgumentType]

    def direct(query, key):
        return jnp.sum(flow * attention_cost_sums(scores(query, key), scores(*wide_teacher), MASK)[0])

    ours = jax.jit(jax.grad(factored, (0, 1)))(*student)
    with enable_x64(True):
        wide_student, wide_teacher = (
            [np.asarray(side, np.float64) for side in sides] for sides in (student, teacher)
        )
        theirs = jax.grad(direct, (0, 1))(*wide_student)
        theirs = [np.asarray(side) for side in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == dtype
        error = np.abs(np.asarray(one, np.float64) - other).max() / np.abs(other).max()
        assert error < 2 * float(jnp.finfo(dtype).eps)


def test_padding_does_not_count_whatever_it_holds():
    student, teacher = (
        [jnp.asarray(side, jnp.bfloat16) for side in factors(*sizes)]
        for sizes in ((STUDENT, 8, 0), (TEACHER, 8, 1))
    )
    sums, count = factored_attention_cost_sums(student, teacher, MASK)  # pyright: ignore[reportArgumentType]
    assert count == HEADS * (49 + 16 + 1)
    mask = jnp.asarray(MASK)[None, :, :, None, None]
    other = [jnp.where(mask > 0, side, jnp.bfloat16(100)) for side in student]
    again, _ = factored_attention_cost_sums(other, teacher, MASK)  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(sums, again)


def test_other_numbers_of_heads_are_refused():
    student, teacher = factors(STUDENT, 8, 0), factors(TEACHER, 8, 1)
    with pytest.raises(ValueError, match="3 and 2 heads"):
        factored_attention_cost_sums(student, tuple(side[:, :, :, :2] for side in teacher), MASK)  # pyright: ignore[reportArgumentType]
