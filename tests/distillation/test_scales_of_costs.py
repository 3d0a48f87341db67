"""Costs without the scale of hidden states, and costs that are balanced by their first values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distillation.test_distill_step import assert_trees_close, config, run_steps
from scipy.stats import pearsonr

from bert_emd_jax.distillation.layer_losses import known_scales
from bert_emd_jax.transport.costs import hidden_cost
from bert_emd_jax.transport.hidden_forms import HIDDEN_FORMS

RNG = np.random.default_rng(0)
STUDENT = RNG.normal(size=(2, 3, 5, 8)).astype(np.float32) * 3 + 1
TEACHER = RNG.normal(size=(4, 3, 5, 8)).astype(np.float32) * 50
MASK = (np.arange(5) < np.array([5, 3, 2])[:, None]).astype(np.int32)


def cost_of(form: str, student=STUDENT, teacher=TEACHER):
    return hidden_cost(*(HIDDEN_FORMS[form].apply(jnp.asarray(side)) for side in (student, teacher)), MASK)


@pytest.mark.parametrize("form", ["cosine", "normalised"])
def test_costs_are_those_of_their_formulas(form):
    expected = np.zeros((2, 4))
    for i, j in np.ndindex(2, 4):
        pairs = list(zip(STUDENT[i][MASK > 0], TEACHER[j][MASK > 0], strict=True))
        if form == "cosine":
            each = [1 - s @ t / np.linalg.norm(s) / np.linalg.norm(t) for s, t in pairs]
        else:
            each = [2 * (1 - pearsonr(s, t)[0]) for s, t in pairs]
        expected[i, j] = np.mean(each)
    np.testing.assert_allclose(cost_of(form), expected, rtol=1e-5)
    # A scale of either side changes nothing.
    np.testing.assert_allclose(cost_of(form, STUDENT * 0.01, TEACHER * 7), cost_of(form), rtol=1e-4)
    assert cost_of("mse")[0, 0] != pytest.approx(float(cost_of("mse", STUDENT * 0.01)[0, 0]), rel=1e-2)


@pytest.mark.parametrize("form", ["cosine", "normalised"])
def test_gradients_are_those_of_finite_differences(form):
    with jax.enable_x64():
        student, teacher = (jnp.asarray(side, jnp.float64) for side in (STUDENT, TEACHER))

        def total(student):
            return cost_of(form, student, teacher).sum()

        gradient = jax.grad(total)(student)
        for place in ((0, 0, 0, 0), (1, 1, 2, 3), (0, 2, 1, 7)):
            step = 1e-5
            differences = [float(total(student.at[place].add(sign * step))) for sign in (1, -1)]
            expected = (differences[0] - differences[1]) / (2 * step)
            assert float(gradient[place]) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_states_of_16_bits_and_of_zeros():
    for form in ("cosine", "normalised"):
        short = cost_of(form, *(jnp.asarray(side, jnp.bfloat16) for side in (STUDENT, TEACHER)))
        np.testing.assert_allclose(short, cost_of(form), rtol=2e-2)
        zeros = cost_of(form, np.zeros_like(STUDENT))
        assert np.isfinite(zeros).all()
        assert np.isfinite(
            jax.grad(lambda s, form=form: cost_of(form, s).sum())(jnp.zeros(STUDENT.shape))
        ).all()


def test_balanced_costs_weigh_the_same_at_the_first_step():
    flags = config(balance="costs", alpha=1.0, temperature=1.0, theta=0.5)
    state, history = run_steps(flags, devices=1, steps=3)
    names = [f"{name}_loss" for name in ("attention", "hidden", "embedding")]
    first = np.array([history[0][name] for name in names])
    np.testing.assert_allclose(state.method.scales, first, rtol=1e-6)
    for measured in history:
        of_layers = np.array([measured[name] for name in names]) / first
        expected = 0.5 * (0.5 * (of_layers[0] + of_layers[1]) + of_layers[2]) + measured["prediction_loss"]
        assert measured["loss"] == pytest.approx(expected, rel=1e-5)
    plain, unbalanced = run_steps(config(alpha=1.0, temperature=1.0, theta=0.5), devices=1, steps=1)
    assert unbalanced[0]["attention_loss"] == pytest.approx(history[0]["attention_loss"], rel=1e-6)
    assert plain.method.scales is None


def test_a_cost_of_next_to_nothing_does_not_weigh_without_limit():
    first = known_scales(np.zeros(3), np.array([5.0, 0.0, 1e-9]))
    np.testing.assert_allclose(first, [5, 5e-3, 5e-3])
    np.testing.assert_allclose(known_scales(first, np.array([0.1, 7.0, 7.0])), first)  # for good
    np.testing.assert_allclose(known_scales(np.zeros(2), np.zeros(2)), 1)


@pytest.mark.parametrize("hidden_cost", ["cosine", "normalised"])
def test_devices_and_micro_batches_agree(hidden_cost):
    flags = config(balance="costs", hidden_cost=hidden_cost)
    one, history = run_steps(flags, devices=1, steps=3)
    many, others = run_steps(flags, devices=4, steps=3)
    assert_trees_close(one.params, many.params, 2e-5)
    assert_trees_close(one.method, many.method, 2e-5)
    for a, b in zip(history, others, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-5)
