import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_emd_jax.transport.costs import (
    attention_cost,
    attention_cost_sums,
    embedding_cost,
    embedding_cost_sums,
    hidden_cost,
    hidden_cost_sums,
    match_heads,
)

RNG = np.random.default_rng(0)
STUDENT = RNG.normal(size=(2, 3, 5, 4)).astype(np.float32)
TEACHER = RNG.normal(size=(4, 3, 5, 4)).astype(np.float32)
STUDENT_SCORES = RNG.normal(size=(2, 3, 2, 5, 5)).astype(np.float32)
TEACHER_SCORES = RNG.normal(size=(4, 3, 2, 5, 5)).astype(np.float32)
LENGTHS = np.array([5, 3, 2])
MASK = (np.arange(5) < LENGTHS[:, None]).astype(np.int32)


def direct_hidden(student, teacher, keep):
    """float64, one pair after the other; keep [B, L]."""
    difference = student.astype(np.float64)[:, None] - teacher.astype(np.float64)[None]
    return np.square(difference[:, :, keep]).mean(axis=(2, 3))


def test_hidden_cost_is_the_mean_over_real_tokens():
    expected = direct_hidden(STUDENT, TEACHER, MASK.astype(bool))
    np.testing.assert_allclose(hidden_cost(STUDENT, TEACHER, MASK), expected, rtol=1e-5)
    everything = direct_hidden(STUDENT, TEACHER, np.ones((3, 5), bool))
    np.testing.assert_allclose(hidden_cost(STUDENT, TEACHER, MASK, padding="include"), everything, rtol=1e-5)


def test_attention_cost_is_the_mean_over_real_pairs():
    total, count = np.zeros((2, 4)), 0
    for example, length in enumerate(LENGTHS):
        student = STUDENT_SCORES[:, example, :, :length, :length].astype(np.float64)
        teacher = TEACHER_SCORES[:, example, :, :length, :length].astype(np.float64)
        total += np.square(student[:, None] - teacher[None]).sum(axis=(2, 3, 4))
        count += 2 * length**2
    np.testing.assert_allclose(attention_cost(STUDENT_SCORES, TEACHER_SCORES, MASK), total / count, rtol=1e-5)
    sums, counted = attention_cost_sums(STUDENT_SCORES, TEACHER_SCORES, MASK)
    np.testing.assert_allclose(sums, total, rtol=1e-5)
    assert counted == count
    assert sums.dtype == counted.dtype == jnp.float32


def test_included_padding_zeroes_masked_keys_and_counts_everything():
    keys = MASK[None, :, None, None, :]
    difference = (STUDENT_SCORES * keys).astype(np.float64)[:, None] - (TEACHER_SCORES * keys)[None]
    found = attention_cost(STUDENT_SCORES, TEACHER_SCORES, MASK, padding="include")
    np.testing.assert_allclose(found, np.square(difference).mean(axis=(2, 3, 4, 5)), rtol=1e-5)


@pytest.mark.parametrize("padding", ["mask", "include"])
@pytest.mark.parametrize("kind", [bool, np.int32, np.float32])
@pytest.mark.parametrize("library", [np, jnp])
def test_masks_of_every_kind(padding, kind, library):
    mask = library.asarray(MASK.astype(kind))
    expected = hidden_cost(STUDENT, TEACHER, MASK, padding)
    np.testing.assert_array_equal(hidden_cost(STUDENT, TEACHER, mask, padding), expected)
    expected = attention_cost(STUDENT_SCORES, TEACHER_SCORES, MASK, padding)
    np.testing.assert_array_equal(attention_cost(STUDENT_SCORES, TEACHER_SCORES, mask, padding), expected)


@pytest.mark.parametrize("padding", ["mask", "include"])
def test_filler_rows_do_not_count(padding):
    weights = np.array([1, 1, 0])
    for cost, student, teacher in (
        (hidden_cost, STUDENT, TEACHER),
        (attention_cost, STUDENT_SCORES, TEACHER_SCORES),
    ):
        found = cost(student, teacher, MASK, padding, example_weights=weights)
        expected = cost(student[:, :2], teacher[:, :2], MASK[:2], padding)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(
        embedding_cost(STUDENT[0], TEACHER[0], MASK, padding, weights),
        embedding_cost(STUDENT[0, :2], TEACHER[0, :2], MASK[:2], padding),
        rtol=1e-5,
    )


@pytest.mark.parametrize("padding", ["mask", "include"])
def test_sums_of_two_halves_make_the_cost_of_the_whole(padding):
    for whole, sums, student, teacher in (
        (hidden_cost, hidden_cost_sums, STUDENT, TEACHER),
        (attention_cost, attention_cost_sums, STUDENT_SCORES, TEACHER_SCORES),
    ):
        first, second = (
            sums(student[:, half], teacher[:, half], MASK[half], padding) for half in (slice(2), slice(2, 3))
        )
        found = (first[0] + second[0]) / (first[1] + second[1])
        np.testing.assert_allclose(found, whole(student, teacher, MASK, padding), rtol=1e-5)


def test_all_rows_filler_costs_nothing():
    assert (hidden_cost(STUDENT, TEACHER, np.zeros_like(MASK)) == 0).all()
    sums, count = attention_cost_sums(STUDENT_SCORES, TEACHER_SCORES, MASK, "include", np.zeros(3))
    assert count == 0
    assert (sums == 0).all()


def test_embedding_cost_is_one_layer_of_hidden_cost():
    expected = hidden_cost(STUDENT, TEACHER, MASK)[1, 2]
    np.testing.assert_allclose(embedding_cost(STUDENT[1], TEACHER[2], MASK), expected, rtol=1e-5)
    total, count = embedding_cost_sums(STUDENT[1], TEACHER[2], MASK)
    np.testing.assert_allclose(total / count, expected, rtol=1e-5)
    assert count == 4 * LENGTHS.sum()


def test_padding_may_hold_anything():
    student, scores = STUDENT.copy(), STUDENT_SCORES.copy()
    student[:, MASK == 0] = np.nan
    scores.swapaxes(2, 4)[:, MASK == 0] = np.inf
    scores.swapaxes(2, 3)[:, MASK == 0] = np.nan
    np.testing.assert_array_equal(hidden_cost(student, TEACHER, MASK), hidden_cost(STUDENT, TEACHER, MASK))
    np.testing.assert_array_equal(
        attention_cost(scores, TEACHER_SCORES, MASK), attention_cost(STUDENT_SCORES, TEACHER_SCORES, MASK)
    )
    gradient = jax.grad(lambda s: hidden_cost(s, TEACHER, MASK).sum())(student)
    assert np.isfinite(gradient).all()


def test_different_head_counts_compare_averages():
    teacher = RNG.normal(size=(4, 3, 6, 5, 5)).astype(np.float32)
    student_mean, teacher_mean = match_heads(jnp.asarray(STUDENT_SCORES), jnp.asarray(teacher))
    assert student_mean.shape == (2, 3, 1, 5, 5)
    np.testing.assert_allclose(teacher_mean[:, :, 0], teacher.mean(axis=2), atol=1e-6)
    found = attention_cost(STUDENT_SCORES, teacher, MASK)
    expected = attention_cost(
        STUDENT_SCORES.mean(axis=2, keepdims=True), teacher.mean(axis=2, keepdims=True), MASK
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_bfloat16_is_compared_in_float32():
    student, teacher = jnp.asarray(STUDENT, jnp.bfloat16), jnp.asarray(TEACHER, jnp.bfloat16)
    found = hidden_cost(student, teacher, MASK)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(
        found, hidden_cost(student.astype(jnp.float32), teacher.astype(jnp.float32), MASK), rtol=1e-6
    )


def outlier_states(noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Student layers near teacher layers; a few features are 20 to 100 times the others, as in BERT."""
    rng = np.random.default_rng(1)
    examples, tokens, features = 8, 64, 256
    offset = np.zeros(features)
    offset[rng.choice(features, 5, replace=False)] = [20, -40, 60, -80, 100]
    layers = []
    state = rng.normal(size=(examples, tokens, features))
    for layer in range(6):
        state = state + 0.3 * rng.normal(size=state.shape)
        layers.append(
            state + offset * (1 + 0.05 * layer) * (1 + 0.05 * rng.normal(size=(examples, tokens, 1)))
        )
    teacher = np.stack(layers).astype(np.float32)
    student = (teacher[1::2] + noise * rng.normal(size=teacher[1::2].shape)).astype(np.float32)
    return student, teacher


@pytest.mark.parametrize(("noise", "tolerance"), [(0.1, 1e-4), (0.01, 1e-2)])
def test_outlier_features_do_not_spoil_small_costs(noise, tolerance):
    student, teacher = outlier_states(noise)
    mask = np.arange(64) < np.random.default_rng(0).integers(20, 65, 8)[:, None]
    expected = np.array([direct_hidden(layer[None], teacher, mask)[0] for layer in student])
    assert expected.min() == pytest.approx(noise**2, rel=0.05)
    np.testing.assert_allclose(jax.jit(hidden_cost)(student, teacher, mask), expected, rtol=tolerance)


@pytest.mark.parametrize("padding", ["mask", "include"])
@pytest.mark.parametrize("size", [1, 1000])
def test_a_cost_is_zero_for_equal_operands_and_for_these_alone(padding, size):
    """A student cut from its teacher; features of a hundred times the usual size make rounding large."""
    rng = np.random.default_rng(size)
    teacher = rng.normal(size=(4, 3, 5, 4 * size)).astype(np.float32)
    teacher[..., 0] += 300
    student = teacher[[1, 3]].copy()
    costs = np.asarray(jax.jit(hidden_cost, static_argnums=3)(student, teacher, MASK, padding))
    assert (costs == 0).tolist() == [[False, True, False, False], [False, False, False, True]]
    for index in ((0, 0, 0, 0), (1, 2, 1, 4 * size - 1)):  # of a real token
        student = teacher[[1, 3]].copy()
        student[index] = np.nextafter(student[index], np.inf)
        costs = np.asarray(jax.jit(hidden_cost, static_argnums=3)(student, teacher, MASK, padding))
        assert np.sum(costs == 0) == 1
        assert costs.min() >= 0
    student = np.where(MASK[None, :, :, None], teacher[[1, 3]], 7)  # differs in the padding
    costs = np.asarray(hidden_cost(student, teacher, MASK, padding))
    assert np.sum(costs == 0) == (2 if padding == "mask" else 0)
    scores = np.asarray(attention_cost(TEACHER_SCORES[[2]], TEACHER_SCORES, MASK, padding))
    assert (scores == 0).tolist() == [[False, False, True, False]]


def test_gradient_is_that_of_the_direct_form():
    weights = jnp.asarray(RNG.random((2, 4)), jnp.float32)

    def direct(student, teacher):
        difference = (student[:, None] - teacher[None]) * MASK[None, None, :, :, None]
        return (weights * jnp.square(difference).sum(axis=(2, 3, 4))).sum() / (4 * MASK.sum())

    def ours(student, teacher):
        return (weights * hidden_cost(student, teacher, MASK)).sum()

    arguments = jnp.asarray(STUDENT), jnp.asarray(TEACHER)
    expected = jax.grad(direct, (0, 1))(*arguments)
    for found, wanted in zip(jax.jit(jax.grad(ours, (0, 1)))(*arguments), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_clamp_at_zero_keeps_the_gradient():
    cost, gradient = jax.value_and_grad(lambda s: hidden_cost(s, TEACHER, MASK)[0, 0])(
        jnp.asarray(TEACHER[:1] * (1 + 1e-7))
    )
    assert 0 <= cost < 1e-10
    exact = 2 * (TEACHER[0] * np.float32(1 + 1e-7) - TEACHER[0]) * MASK[:, :, None] / (4 * MASK.sum())
    np.testing.assert_allclose(gradient[0], exact, atol=1e-8)


def test_backward_pass_saves_nothing_of_the_size_of_all_pairs():
    student, teacher = jnp.zeros((3, 2, 8, 16)), jnp.zeros((5, 2, 8, 16))
    _, pullback = jax.vjp(lambda s: hidden_cost(s, teacher, jnp.ones((2, 8))), student)
    saved = sum(leaf.size for leaf in jax.tree.leaves(pullback) if hasattr(leaf, "size"))
    assert saved <= 2 * (student.size + teacher.size)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="padding must be one of mask, include, not 'all'"):
        hidden_cost(STUDENT, TEACHER, MASK, padding="all")
    with pytest.raises(ValueError, match=r"hidden cost: student \(3, 5, 4\) and teacher \(3, 5, 3\)"):
        hidden_cost(STUDENT, TEACHER[..., :3], MASK)
    with pytest.raises(ValueError, match="attention cost"):
        attention_cost(STUDENT_SCORES[:, :2], TEACHER_SCORES, MASK)
