from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_emd_jax.errors import UserError
from bert_emd_jax.transport import network_simplex
from bert_emd_jax.transport.capacities import capped_on_host
from bert_emd_jax.transport.mappings import (
    MAPPINGS,
    MappingOptions,
    fixed_layers,
    fixed_plan,
    mapped_cost,
    mapping_plan,
)

FIXED_MAPPINGS = [name for name, mapping in MAPPINGS.items() if mapping.layers is not None]

COST = jnp.asarray(np.random.default_rng(0).random((4, 12)), jnp.float32)
STUDENT = jnp.asarray([0.1, 0.2, 0.3, 0.4])
TEACHER = jnp.full(12, 1 / 12)


@pytest.mark.parametrize(
    ("mapping", "student", "teacher", "layers"),
    [
        ("uniform", 4, 12, [2, 5, 8, 11]),
        ("uniform", 6, 12, [1, 3, 5, 7, 9, 11]),
        ("uniform", 3, 6, [1, 3, 5]),
        ("uniform", 4, 6, [1, 2, 4, 5]),
        ("uniform", 3, 12, [3, 7, 11]),
        ("top", 4, 12, [8, 9, 10, 11]),
        ("bottom", 4, 12, [0, 1, 2, 3]),
        ("reverse", 4, 12, [11, 8, 5, 2]),
        ("last", 4, 12, [-1, -1, -1, 11]),
        ("last", 12, 4, [-1] * 11 + [3]),
        ("all_to_one", 3, 12, [11, 11, 11]),
    ],
)
def test_fixed_layers(mapping, student, teacher, layers):
    assert fixed_layers(mapping, student, teacher).tolist() == layers


def test_uniform_rounds_halves_up_as_the_formula():
    for teacher in range(1, 30):
        for student in range(1, teacher + 1):
            layers = [int(np.floor(i * teacher / student + 0.5 + 1e-9)) - 1 for i in range(1, student + 1)]
            assert fixed_layers("uniform", student, teacher).tolist() == layers


def test_random_layers_depend_on_seed_and_epoch_alone():
    draws = [tuple(fixed_layers("random", 4, 12, seed=7, epoch=epoch)) for epoch in range(40)]
    assert draws == [tuple(fixed_layers("random", 4, 12, seed=7, epoch=epoch)) for epoch in range(40)]
    assert len(set(draws)) > 20
    assert all(list(draw) == sorted(set(draw)) and 0 <= draw[0] <= draw[-1] < 12 for draw in draws)
    assert {layer for draw in draws for layer in draw} == set(range(12))
    assert draws != [tuple(fixed_layers("random", 4, 12, seed=8, epoch=epoch)) for epoch in range(40)]


@pytest.mark.parametrize("mapping", FIXED_MAPPINGS)
def test_fixed_plan_gives_each_student_layer_its_share(mapping):
    flow, layers = fixed_plan(mapping, 4, 12), fixed_layers(mapping, 4, 12)
    learning = np.flatnonzero(layers >= 0)
    np.testing.assert_allclose(flow.sum(), 1)
    np.testing.assert_allclose(flow[learning].sum(axis=1), 1 / len(learning))
    assert np.count_nonzero(flow) == len(learning)
    assert flow[learning].argmax(axis=1).tolist() == layers[learning].tolist()


def test_all_to_one_layer():
    assert fixed_layers("all_to_one", 3, 12, layer=4).tolist() == [4, 4, 4]
    options = MappingOptions(layer=4)
    cost = np.asarray(COST, np.float64)
    assert mapped_cost("all_to_one", cost, options=options) == pytest.approx(cost[:, 4].mean(), rel=1e-6)
    with pytest.raises(UserError, match="--mapping_layer 12: the teacher has layers 0 to 11"):
        fixed_layers("all_to_one", 3, 12, layer=12)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_every_mapping_in_a_compiled_step(mapping):
    given = fixed_plan(mapping, 4, 12) if mapping in FIXED_MAPPINGS else None
    solve = jax.jit(lambda cost, flow: mapping_plan(mapping, cost, STUDENT, TEACHER, flow))
    plan = solve(COST, given)
    optimum = network_simplex(np.asarray(COST), np.asarray(STUDENT), np.asarray(TEACHER)).cost
    np.testing.assert_allclose(plan.flow.sum(), 0 if mapping == "none" else 1, rtol=1e-6)
    np.testing.assert_allclose(plan.cost, (plan.flow * COST).sum(), rtol=1e-6)
    assert float(plan.lower_bound) <= float(plan.cost)
    if MAPPINGS[mapping].transports:
        if mapping == "capped":  # at T/S
            optimum = capped_on_host(COST, STUDENT, TEACHER, 3)
        np.testing.assert_allclose(plan.cost, optimum, rtol=1e-6)
        np.testing.assert_allclose(plan.flow.sum(axis=1), STUDENT, rtol=1e-6)
        assert plan.gap < 1e-5
        assert plan.is_exact
    elif mapping != "none":
        np.testing.assert_allclose(
            plan.flow.sum(axis=1), [0, 0, 0, 1] if mapping == "last" else 0.25, rtol=1e-6
        )
        cheapest = COST.min(axis=1)
        np.testing.assert_allclose(
            plan.lower_bound, cheapest[-1] if mapping == "last" else cheapest.mean(), rtol=1e-6
        )
    if mapping == "nearest":
        assert plan.flow.argmax(axis=1).tolist() == COST.argmin(axis=1).tolist()
        np.testing.assert_allclose(plan.gap, 0, atol=1e-6)
    gradient = jax.grad(lambda cost: solve(cost, given).cost)(COST)
    np.testing.assert_allclose(gradient, plan.flow, atol=1e-7)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_what_a_mapping_pays_on_the_host(mapping):
    """Against its own plan between equal layer weights."""
    equal = jnp.full(4, 1 / 4)
    given = fixed_plan(mapping, 4, 12, seed=3) if mapping in FIXED_MAPPINGS else None
    plan = mapping_plan(mapping, COST, equal, TEACHER, given)
    np.testing.assert_allclose(mapped_cost(mapping, np.asarray(COST, np.float64), 3), plan.cost, rtol=1e-6)


def test_a_deeper_student_may_use_nearest_and_emd():
    deep = partial(mapping_plan, cost=COST.T, student_weights=TEACHER, teacher_weights=STUDENT)
    np.testing.assert_allclose(deep("nearest").flow.sum(), 1, rtol=1e-6)
    assert deep("emd").is_exact
    with pytest.raises(UserError, match="use emd, emd_exact, capped, last, all_to_one, nearest or none"):
        deep("uniform")


def test_a_host_made_mapping_needs_its_flow():
    with pytest.raises(ValueError, match="needs given_flow"):
        mapping_plan("top", COST, STUDENT, TEACHER)
    with pytest.raises(ValueError, match="does not fix its layers"):
        fixed_layers("nearest", 4, 12)
