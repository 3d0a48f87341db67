"""Pivots as accelerators make them, without a loop that the host must follow, end where a CPU's end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_emd_jax.transport import sinkhorn
from bert_emd_jax.transport.vertex import _enough_pivots, optimal_vertex


def problems(students, teachers, count, seed=0):
    """Random costs and those of layers that grow from each other; weights equal or not, and some 0."""
    rng = np.random.default_rng(seed)
    ours, theirs = (
        np.cumsum(rng.normal(size=(count, layers, 16)) * np.sqrt(teachers / layers), axis=1)
        for layers in (students, teachers)
    )
    grown = np.square(ours[:, :, None] - theirs[:, None]).mean(axis=-1)
    costs = np.where(rng.random((count, 1, 1)) < 0.5, rng.random((count, students, teachers)), grown)
    weights = []
    for layers in (students, teachers):
        drawn = np.exp(rng.choice([0.0, 0.5], (count, 1)) * rng.normal(size=(count, layers)))
        drawn[: count // 4, 1:2] = 0
        weights.append(drawn / drawn.sum(axis=1, keepdims=True))
    return [np.asarray(array, np.float32) for array in (costs, *weights)]


def on(platform, monkeypatch, function, *arrays):
    """What the function gives where `platform_dependent` takes the platform's branch."""

    def chosen(*operands, default, **branches):
        return branches.get(platform, default)(*operands)

    with monkeypatch.context() as patched:
        patched.setattr(jax.lax, "platform_dependent", chosen)
        jax.clear_caches()  # of what was traced with another branch
        return jax.device_get(jax.jit(jax.vmap(function))(*arrays))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("shape", [(4, 12), (12, 12), (5, 1)])
def test_plans_are_those_of_a_cpu(platform, shape, monkeypatch):
    arrays = problems(*shape, 200)
    ours, theirs = (on(name, monkeypatch, sinkhorn, *arrays) for name in (platform, "cpu"))
    assert theirs.is_exact.all()
    if shape == (4, 12):
        assert theirs.pivots.max() > 8
    for name, one, other in zip(ours._fields, ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("shape", [(3, 6), (4, 12), (6, 6), (8, 12), (4, 24)])
def test_a_gpu_makes_enough_pivots(shape):
    plan = jax.jit(jax.vmap(sinkhorn))(*problems(*shape, 2000, seed=1))
    assert plan.is_exact.all()
    assert 2 < plan.pivots.max() <= _enough_pivots(*shape) < 10 * sum(shape)


@pytest.mark.parametrize("limit", [0, 1, 3, 11, 19])
def test_no_more_pivots_than_are_allowed(limit, monkeypatch):
    arrays = problems(12, 12, 20)

    def vertex(cost, source, target):
        log_plan = jnp.log(jnp.maximum(source[:, None] * target, 1e-9))
        return optimal_vertex(cost / cost.max(), source, target, log_plan, limit)

    ours, theirs = (on(platform, monkeypatch, vertex, *arrays) for platform in ("cuda", "cpu"))
    assert not theirs.is_optimal.all()
    for name, one, other in zip(ours._fields, ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6, err_msg=name)


def test_a_plan_that_needs_more_than_a_gpu_makes_says_so(monkeypatch):
    monkeypatch.setattr("bert_emd_jax.transport.vertex._enough_pivots", lambda students, teachers: 2)
    arrays = problems(4, 12, 50)
    plan, exact = (on(platform, monkeypatch, sinkhorn, *arrays) for platform in ("cuda", "cpu"))
    assert plan.pivots.max() == 2
    unfinished = exact.pivots > 2
    assert not plan.is_exact[unfinished].any()
    assert plan.is_exact[~unfinished].all()
    assert (plan.cost >= exact.cost).all()
    assert (plan.lower_bound <= exact.cost).all()
    # Feasible all the same.
    np.testing.assert_allclose(plan.flow.sum(axis=2), arrays[1], atol=1e-6)
    np.testing.assert_allclose(plan.flow.sum(axis=1), arrays[2], atol=1e-6)
