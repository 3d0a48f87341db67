"""Transport to targets with capacities, against HiGHS, and what it is at its ends."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, linprog

from bert_emd_jax.transport import capped, network_simplex, sinkhorn
from bert_emd_jax.transport.capacities import capped_on_host

SIZES = [(1, 1), (1, 5), (4, 1), (3, 6), (4, 12), (6, 12), (12, 4), (7, 7)]


def problem(students: int, teachers: int, seed: int):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(students)), rng.dirichlet(np.full(teachers, 2.0))
    return (rng.random((students, teachers)) * 3).astype(np.float32), *(w.astype(np.float32) for w in weights)


def highs(cost, source, target, capacity):
    """Flow, cost, and the derivatives of the cost in source weights and capacities."""
    students, teachers = cost.shape
    capacities = np.minimum(capacity * target / target.sum(), 1) * source.sum()
    rows, columns = np.kron(np.eye(students), np.ones(teachers)), np.kron(np.ones(students), np.eye(teachers))
    found = linprog(cost.ravel(), A_eq=rows, b_eq=source, A_ub=columns, b_ub=capacities)
    assert found.success
    return found.x.reshape(cost.shape), found.fun, found.eqlin.marginals, found.ineqlin.marginals


@pytest.mark.parametrize("capacity", [1.0, 1.3, 2.0, 3.0, 50.0])
@pytest.mark.parametrize("size", SIZES)
def test_the_plan_is_that_of_highs(size, capacity):
    for seed in range(4):
        cost, source, target = problem(*size, seed)
        plan = jax.jit(capped, static_argnums=3)(cost, source, target, capacity)
        # Capacities that add up to the mass leave no room for what float32 rounds.
        exact = [array.astype(np.float64) for array in (cost, source / source.sum(), target / target.sum())]
        room = capacity + (1e-9 if capacity == 1 else 0)
        _, optimum, _, _ = highs(*exact, room)
        assert plan.cost == pytest.approx(optimum, rel=2e-6)
        assert plan.is_exact
        assert plan.gap < 1e-5
        assert plan.lower_bound <= plan.cost
        np.testing.assert_allclose(plan.flow.sum(axis=1), source, rtol=1e-5)
        capacities = np.minimum(capacity * target / target.sum(), 1) * source.sum()
        assert (plan.flow.sum(axis=0) <= capacities * (1 + 1e-5) + 1e-7).all()
        assert (np.asarray(plan.flow) >= 0).all()
        # The potentials prove it: feasible, at most 0 at targets, and worth what the plan costs.
        f, g = np.asarray(plan.source_potentials), np.asarray(plan.target_potentials)
        assert (f[:, None] + g <= cost + 1e-5).all()
        assert (g <= 1e-6).all()
        assert source @ f + capacities @ g == pytest.approx(optimum, rel=1e-4, abs=1e-5)
        assert capped_on_host(*exact, capacity) == pytest.approx(optimum, rel=1e-7)


def test_its_ends():
    cost, source, target = problem(4, 12, 0)
    emd = sinkhorn(cost, source, target)
    np.testing.assert_allclose(capped(cost, source, target, 1.0).flow, emd.flow, atol=1e-6)
    nearest = np.eye(12)[cost.argmin(axis=1)] * source[:, None]
    np.testing.assert_allclose(capped(cost, source, target, 1e6).flow, nearest, atol=1e-6)
    equal = np.full(4, 0.25, np.float32), np.full(12, 1 / 12, np.float32)
    one_to_one = np.zeros((4, 12))
    one_to_one[linear_sum_assignment(cost)] = 0.25
    np.testing.assert_allclose(capped(cost, *equal, 3.0).flow, one_to_one, atol=1e-6)


def test_more_capacity_never_costs_more():
    cost, source, target = problem(6, 12, 1)
    costs = [float(capped(cost, source, target, c).cost) for c in (1, 1.2, 1.5, 2, 3, 5, 9, 20)]
    assert all(after <= before + 1e-6 for before, after in itertools.pairwise(costs))
    assert costs[0] == pytest.approx(network_simplex(cost, source, target).cost, rel=1e-5)
    assert costs[-1] < costs[0]


def test_gradients_are_the_flow_and_the_prices():
    cost, source, target = problem(4, 9, 2)

    def paid(cost, source):
        return capped(cost, source, target, 2.0).cost

    of_cost, of_source = jax.grad(paid, argnums=(0, 1))(cost, source)
    np.testing.assert_allclose(of_cost, capped(cost, source, target, 2.0).flow, atol=1e-6)
    exact = [array.astype(np.float64) for array in (cost, source, target)]
    step = 1e-5
    for layer in range(4):
        moved = []
        for sign in (1, -1):
            weights = exact[1].copy()
            weights[layer] += sign * step
            moved.append(highs(exact[0], weights, exact[2], 2.0)[1])
        assert of_source[layer] == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-3)


def test_many_problems_side_by_side():
    problems = [problem(3, 6, seed) for seed in range(20)]
    stacked = [jnp.stack(side) for side in zip(*problems, strict=True)]
    plans = jax.vmap(lambda *one: capped(*one, 2.0))(*stacked)
    assert plans.is_exact.all()
    for index, one in enumerate(problems):
        np.testing.assert_allclose(plans.flow[index], capped(*one, 2.0).flow, atol=1e-6)


@pytest.mark.parametrize("capacity", [0.5, 0.999, 0, -1, float("nan"), float("inf")])
def test_a_capacity_without_a_plan_is_refused(capacity):
    with pytest.raises(ValueError, match="capacity must be at least 1 and finite"):
        capped(*problem(3, 6, 0), capacity)
    with pytest.raises(ValueError, match="capacity must be at least 1 and finite"):
        capped_on_host(*problem(3, 6, 0), capacity)


def test_costs_that_are_not_finite_prove_nothing():
    cost, source, target = problem(3, 6, 0)
    plan = capped(jnp.asarray(cost).at[0, 0].set(jnp.nan), source, target, 2.0)
    assert not plan.is_exact
    assert plan.lower_bound == -jnp.inf
