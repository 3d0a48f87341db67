from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_emd_jax.transport import network_simplex
from bert_emd_jax.transport.costs import attention_cost, hidden_cost
from bert_emd_jax.transport.layer_weights import (
    LayerWeights,
    uniform_layer_weights,
    update_all_layer_weights,
    update_layer_weights,
)

# What the authors' own functions compute for random tensors, four steps in a row: fixtures/README.md.
REFERENCE = np.load(Path(__file__).parent / "fixtures" / "reference_losses.npz")


@pytest.fixture(scope="module")
def costs():
    mask = REFERENCE["attention_mask"]
    return [
        (
            attention_cost(
                REFERENCE["student_attention_scores"][step],
                REFERENCE["teacher_attention_scores"][step],
                mask,
                padding="include",
            ),
            hidden_cost(
                REFERENCE["student_hidden_states"][step, 1:],
                REFERENCE["teacher_hidden_states"][step, 1:],
                mask,
                padding="include",
            ),
        )
        for step in range(4)
    ]


@pytest.mark.parametrize("sharing", ["shared", "separate"])
@pytest.mark.parametrize("temperature", [1, 5])
@pytest.mark.parametrize("rule", ["normalize", "softmax", "double_softmax"])
def test_four_steps_equal_the_authors(costs, rule, temperature, sharing):
    key = f"{rule}/T{temperature}/{sharing}"
    weights = (uniform_layer_weights(4, 12),) * 2
    for step, (attention, hidden) in enumerate(costs):
        attention_plan, hidden_plan = (
            network_simplex(cost, *sides) for cost, sides in zip((attention, hidden), weights, strict=True)
        )
        np.testing.assert_allclose(attention_plan.cost, REFERENCE[f"{key}/attention_loss"][step], rtol=1e-5)
        np.testing.assert_allclose(hidden_plan.cost, REFERENCE[f"{key}/hidden_loss"][step], rtol=1e-5)
        weights = update_all_layer_weights(
            weights,
            [
                jnp.asarray(attention_plan.flow, jnp.float32) * attention,
                jnp.asarray(hidden_plan.flow, jnp.float32) * hidden,
            ],
            rule,
            temperature,
            separate=sharing == "separate",
        )
        np.testing.assert_allclose(
            np.concatenate(jax.tree.leaves(weights)),
            REFERENCE[f"{key}/layer_weights"][step],
            rtol=0,
            atol=1e-5,
        )


FLOW = jnp.array([[0.25, 0.25, 0.0], [0.0, 0.25, 0.25]])
COST = jnp.array([[1.0, 2.0, 9.0], [9.0, 4.0, 2.0]])
HALVES, THIRDS = jnp.array([0.5, 0.5]), jnp.array([0.25, 0.5, 0.25])


def test_normalize_by_hand():
    # Unit costs: rows 1.5 and 3, columns 1, 3 and 2; weights are proportional to their inverses.
    student, teacher = update_layer_weights(FLOW, COST, HALVES, THIRDS)
    np.testing.assert_allclose(student, [2 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(teacher, np.array([6, 2, 3]) / 11, rtol=1e-6)


def test_softmax_by_hand():
    student, _ = update_layer_weights(FLOW, COST, HALVES, THIRDS, rule="softmax", temperature=2.0)
    values = np.exp(np.array([3.0, 1.5]) / 2)
    np.testing.assert_allclose(student, values / values.sum(), rtol=1e-6)


def test_fixed_rule_keeps_the_weights():
    student, teacher = update_layer_weights(FLOW, COST, HALVES, THIRDS, rule="fixed")
    np.testing.assert_array_equal(student, HALVES)
    np.testing.assert_array_equal(teacher, THIRDS)


def test_a_layer_without_cost_or_weight_gets_none():
    student, teacher = update_layer_weights(FLOW, COST.at[0].set(0), HALVES, THIRDS)
    np.testing.assert_allclose(student, [0, 1])
    assert teacher[0] == 0
    flow = jnp.array([[0.0, 0.0, 0.0], [0.25, 0.5, 0.25]])
    student, _ = update_layer_weights(flow, COST, jnp.array([0.0, 1.0]), THIRDS)
    np.testing.assert_allclose(student, [0, 1])


@pytest.mark.parametrize("rule", ["normalize", "softmax", "double_softmax"])
def test_no_cost_at_all_keeps_the_weights(rule):
    student, teacher = update_layer_weights(FLOW, jnp.zeros((2, 3)), HALVES, THIRDS, rule)
    np.testing.assert_array_equal(student, HALVES)
    np.testing.assert_array_equal(teacher, THIRDS)


@pytest.mark.parametrize("rule", ["normalize", "softmax"])
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_extreme_costs_stay_finite(rule, scale):
    cost = (COST * scale).at[0, 0].set(1e-38)
    for side in jax.jit(update_layer_weights, static_argnums=4)(FLOW, cost, HALVES, THIRDS, rule):
        assert np.isfinite(side).all()
        np.testing.assert_allclose(side.sum(), 1, rtol=1e-6)


def test_sharing_averages_over_the_plans_that_there_are():
    start = LayerWeights(HALVES, THIRDS)
    both = update_all_layer_weights([start, start], [FLOW * COST, FLOW * COST**2])
    attention = update_layer_weights(FLOW, COST, HALVES, THIRDS)
    hidden = update_layer_weights(FLOW, COST**2, HALVES, THIRDS)
    np.testing.assert_allclose(both[0].teacher, (attention[1] + hidden[1]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(both[0].student, both[1].student)
    (one,) = update_all_layer_weights([start], [FLOW * COST])
    np.testing.assert_array_equal(one.teacher, attention[1])
    apart = update_all_layer_weights([start, start], [FLOW * COST, FLOW * COST**2], separate=True)
    np.testing.assert_array_equal(apart[0].teacher, attention[1])
    np.testing.assert_array_equal(apart[1].teacher, hidden[1])


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="normalize, softmax, double_softmax, fixed"):
        update_layer_weights(FLOW, COST, HALVES, THIRDS, rule="mean")
