import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import enable_x64, needs_good_sums

from bert_emd_jax.transport import network_simplex, sinkhorn

solve = jax.jit(sinkhorn)


@functools.cache
def batched(**options):
    return jax.jit(jax.vmap(functools.partial(sinkhorn, **options)))


def problems(problem, sources, targets, count=56, seed=0):
    """Stacked float32 costs and weights, every kind of each, and the exact costs in float64."""
    rng = np.random.default_rng(seed)
    drawn = [problem(rng, sources, targets, number) for number in range(count)]
    cost, source, target = (np.stack(parts).astype(np.float32) for parts in zip(*drawn, strict=True))
    exact = np.array([network_simplex(*one).cost for one in zip(cost, source, target, strict=True)])
    return cost, source, target, exact


def check_certificates(plan, cost, source, target, exact, slack=3e-7):
    """Marginals, lower_bound ≤ exact ≤ cost up to rounding, and a reported gap that covers the true one."""
    flow = np.float64(plan.flow)
    assert flow.min() >= 0
    np.testing.assert_allclose(flow.sum(axis=2), source, atol=3e-7)
    np.testing.assert_allclose(flow.sum(axis=1), target, atol=3e-7)
    np.testing.assert_allclose(plan.cost, (flow * cost).sum(axis=(1, 2)), rtol=1e-6)
    assert (np.float64(plan.lower_bound) <= exact * (1 + slack)).all()
    assert (np.float64(plan.cost) >= exact * (1 - slack)).all()
    assert (np.float64(plan.lower_bound) >= 0).all()
    reference = np.maximum(exact, 1e-4 * cost.max(axis=(1, 2)))
    excess = (flow * cost).sum(axis=(1, 2)) - exact
    of_cost = np.maximum(np.float64(plan.cost), 1e-4 * cost.max(axis=(1, 2)))
    assert (excess <= (np.float64(plan.gap) + slack) * of_cost).all()
    potentials = np.float64(plan.source_potentials)[:, :, None] + np.float64(plan.target_potentials)[:, None]
    assert ((potentials - cost).max(axis=(1, 2)) <= 1e-6 * cost.max(axis=(1, 2))).all()
    return excess / np.where(reference > 0, reference, 1)


SIZES = [(1, 1), (1, 5), (4, 12), (12, 4), (24, 48)]


@pytest.mark.parametrize(("sources", "targets"), SIZES)
def test_exact_and_certified_on_every_kind_of_problem(problem, sources, targets):
    *arguments, exact = problems(problem, sources, targets)
    plan = batched()(*arguments)
    true_gap = check_certificates(plan, *arguments, exact)
    assert plan.is_exact.all()
    assert true_gap.max() <= 1e-6
    assert plan.gap.max() <= 2e-5


@pytest.mark.parametrize(("sources", "targets"), [(4, 12), (24, 48)])
def test_the_rounded_plan_stands_where_pivots_are_forbidden(problem, sources, targets):
    *arguments, exact = problems(problem, sources, targets)
    plan = batched(max_pivots=0)(*arguments)
    true_gap = check_certificates(plan, *arguments, exact)
    assert np.quantile(true_gap, 0.9) <= 1e-2
    assert 0.1 < plan.is_exact.mean() < 1
    assert true_gap[plan.is_exact].max() <= 1e-6


@needs_good_sums
def test_the_regularised_plan_is_certified_too(problem):
    *arguments, exact = problems(problem, 12, 24)
    plan = batched(gradient="implicit", epsilon=1e-3, max_iterations=60)(*arguments)
    true_gap = check_certificates(plan, *arguments, exact)
    assert not plan.is_exact.any()
    assert np.median(true_gap) <= 1e-3


def test_the_regularised_plan_equals_pot():
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(0)
    regularised = jax.jit(functools.partial(sinkhorn, epsilon=0.05, max_iterations=60, gradient="unrolled"))
    for _ in range(5):
        cost, source, target = rng.random((4, 12)), rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(12))
        reduced = cost - cost.min(axis=1, keepdims=True)
        scale = (reduced - reduced.min(axis=0)).max()
        with enable_x64(True):
            plan = regularised(cost, source, target)
        expected = ot.sinkhorn(
            source, target, cost, 0.05 * scale, method="sinkhorn_log", stopThr=1e-14, numItermax=10**5
        )
        np.testing.assert_allclose(plan.flow, expected, atol=1e-10)


def test_float64(problem):
    rng = np.random.default_rng(0)
    with enable_x64(True):
        run = jax.jit(sinkhorn)
        for number in range(28):
            cost, source, target = problem(rng, 4, 12, number)
            plan = run(cost, source, target)
            assert plan.flow.dtype == np.float64
            assert plan.is_exact
            exact = network_simplex(cost, source, target)
            np.testing.assert_allclose(plan.cost, exact.cost, rtol=1e-12, atol=1e-15 * cost.max())
            np.testing.assert_allclose(plan.flow.sum(axis=1), source, atol=1e-15)


def test_exact_in_float32_although_the_costs_differ_in_the_last_digits():
    rng = np.random.default_rng(0)
    for _ in range(20):
        cost = (1000 + 1e-2 * rng.random((4, 12))).astype(np.float32)
        source, target = (rng.dirichlet(np.ones(size)).astype(np.float32) for size in cost.shape)
        plan = solve(cost, source, target)
        potentials = network_simplex(cost - 1000, source, target)
        found = (np.float64(plan.flow) * (cost - 1000)).sum()
        np.testing.assert_allclose(found, potentials.cost, rtol=1e-5)


def test_costs_of_sixteen_orders_of_magnitude_in_one_matrix():
    rng = np.random.default_rng(0)
    cost = (10.0 ** rng.uniform(-8, 8, (40, 4, 12))).astype(np.float32)
    source = rng.dirichlet(np.ones(4), 40).astype(np.float32)
    target = rng.dirichlet(np.ones(12), 40).astype(np.float32)
    exact = np.array([network_simplex(*one).cost for one in zip(cost, source, target, strict=True)])
    plan = batched()(cost, source, target)
    assert check_certificates(plan, cost, source, target, exact).max() <= 1e-6


@pytest.mark.parametrize("value", [0.0, 1e-8, 1.0, 1e8])
def test_equal_costs(value):
    plan = solve(jnp.full((4, 12), value), jnp.full(4, 0.25), jnp.full(12, 1 / 12))
    np.testing.assert_allclose(plan.cost, value, rtol=1e-6)
    np.testing.assert_allclose(plan.flow.sum(axis=1), 0.25, rtol=1e-6)
    np.testing.assert_allclose(plan.lower_bound, value, rtol=1e-5)
    assert np.isfinite(np.concatenate([plan.source_potentials, plan.target_potentials])).all()


def test_totals_other_than_one_and_negative_costs():
    rng = np.random.default_rng(0)
    cost = rng.normal(size=(4, 12)).astype(np.float32)
    source, target = 37 * rng.dirichlet(np.ones(4)), 37 * rng.dirichlet(np.ones(12))
    plan = solve(cost, source, target)
    np.testing.assert_allclose(plan.cost, network_simplex(cost, source, target).cost, rtol=1e-6)
    np.testing.assert_allclose(plan.flow.sum(axis=1), source, rtol=1e-6)
    assert plan.lower_bound <= plan.cost


def test_no_weight_at_all_and_non_finite_costs_end():
    plan = solve(jnp.ones((4, 12)), jnp.zeros(4), jnp.zeros(12))
    assert (plan.flow == 0).all()
    assert plan.cost == 0
    assert jnp.isnan(solve(jnp.full((4, 12), jnp.nan), jnp.full(4, 0.25), jnp.full(12, 1 / 12)).cost)


def test_a_warm_start_needs_fewer_iterations():
    rng = np.random.default_rng(0)
    cost = rng.random((40, 4, 12)).astype(np.float32)
    source = rng.dirichlet(np.ones(4), 40).astype(np.float32)
    target = rng.dirichlet(np.ones(12), 40).astype(np.float32)
    before = batched()(cost, source, target)
    moved = (cost + 0.005 * rng.random(cost.shape)).astype(np.float32)
    few = functools.partial(sinkhorn, max_iterations=4, max_pivots=0)
    cold = jax.jit(jax.vmap(few))(moved, source, target)
    warm = jax.jit(jax.vmap(lambda c, s, t, start: few(c, s, t, initial_potentials=start)))(
        moved, source, target, before.source_potentials
    )
    # A rounded plan without pivots: its gap is that of the regularisation.
    assert np.median(warm.gap) < 5e-2 * np.median(cold.gap)
    transposed = jax.jit(jax.vmap(lambda c, s, t, start: few(c.T, t, s, initial_potentials=start)))(
        moved, source, target, before.target_potentials
    )
    assert np.median(transposed.gap) < 5e-2 * np.median(cold.gap)


def test_wrong_arguments_are_refused():
    cost, source, target = jnp.ones((2, 3)), jnp.ones(2) / 2, jnp.ones(3) / 3
    with pytest.raises(ValueError, match="envelope, implicit, unrolled"):
        sinkhorn(cost, source, target, gradient="none")
    with pytest.raises(ValueError, match="epsilon must be positive"):
        sinkhorn(cost, source, target, epsilon=0.0)
    with pytest.raises(ValueError, match=r"cost \(2, 3\) does not fit weights \(3,\) and \(2,\)"):
        sinkhorn(cost, target, source)


@pytest.mark.parametrize("gradient", ["envelope", "implicit", "unrolled"])
def test_exports_for_tpu_and_cuda(gradient):
    def loss(cost, source, target):
        plan = sinkhorn(cost, source, target, gradient=gradient)
        return plan.cost, plan

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 4, 12), (2, 4), (2, 12))]
    step = jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1, 2), has_aux=True)))
    exported = jax.export.export(step, platforms=["tpu", "cuda"])(*shapes)
    assert exported.platforms == ("tpu", "cuda")
