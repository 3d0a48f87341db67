import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import enable_x64

from bert_emd_jax.transport import sinkhorn

STEP = 1e-6


def random_problem(sources, targets, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.random((sources, targets)),
        rng.dirichlet(np.ones(sources)),
        rng.dirichlet(np.ones(targets)),
        rng.normal(size=(sources, targets)),
    )


def central_difference(function, value, direction):
    return (function(value + STEP * direction) - function(value - STEP * direction)) / (2 * STEP)


def mass_keeping_direction(size, seed):
    direction = np.random.default_rng(seed).normal(size=size)
    return direction - direction.mean()


def assert_matches_differences(function, gradients, cost, source, target, rtol=1e-6):
    """Cost gradients in every entry; weight gradients in directions that keep the total."""
    differences = [
        central_difference(
            lambda c: function(c, source, target), cost, np.eye(cost.size)[k].reshape(cost.shape)
        )
        for k in range(cost.size)
    ]
    np.testing.assert_allclose(np.ravel(gradients[0]), differences, rtol=rtol, atol=1e-7)
    for seed in range(3):
        move = mass_keeping_direction(source.size, seed)
        difference = central_difference(lambda s: function(cost, s, target), source, move)
        np.testing.assert_allclose(gradients[1] @ move, difference, rtol=rtol, atol=1e-7)
        move = mass_keeping_direction(target.size, seed)
        difference = central_difference(lambda t: function(cost, source, t), target, move)
        np.testing.assert_allclose(gradients[2] @ move, difference, rtol=rtol, atol=1e-7)


@pytest.mark.parametrize("shape", [(4, 12), (6, 3)])
def test_envelope_gradients_are_flow_and_potentials(shape):
    cost, source, target, _ = random_problem(*shape)
    with enable_x64(True):

        def cost_and_flow(c, s, t):
            plan = sinkhorn(c, s, t)
            return plan.cost, plan.flow

        run = jax.jit(jax.value_and_grad(cost_and_flow, (0, 1, 2), has_aux=True))
        (_, flow), gradients = run(cost, source, target)
        np.testing.assert_array_equal(gradients[0], flow)
        assert_matches_differences(lambda *at: run(*at)[0][0], gradients, cost, source, target)


def test_envelope_keeps_the_rest_of_the_plan_constant():
    cost, source, target, coefficients = random_problem(4, 12)
    with enable_x64(True):

        def function(c):
            plan = sinkhorn(c, source, target)
            return (plan.flow * coefficients).sum() + plan.gap + plan.source_potentials.sum()

        assert (jax.jit(jax.grad(function))(cost) == 0).all()


@pytest.mark.parametrize(("shape", "epsilon"), [((4, 12), 0.02), ((4, 12), 2e-3), ((6, 3), 0.05)])
def test_implicit_and_unrolled_gradients_of_the_plan(shape, epsilon):
    cost, source, target, coefficients = random_problem(*shape)
    with enable_x64(True):

        def functional(gradient):
            def function(c, s, t):
                plan = sinkhorn(c, s, t, epsilon, 60, gradient=gradient)
                return (plan.flow * coefficients).sum() + plan.cost

            return jax.jit(jax.value_and_grad(function, (0, 1, 2)))

        implicit, unrolled = functional("implicit"), functional("unrolled")
        _, gradients = implicit(cost, source, target)
        assert_matches_differences(lambda *at: implicit(*at)[0], gradients, cost, source, target, rtol=1e-5)
        _, through = unrolled(cost, source, target)
        for one, other in zip(gradients, through, strict=True):
            # A weight gradient is defined up to a constant, as only changes that keep the total count.
            centre = (lambda x: x) if one.ndim == 2 else (lambda x: x - x.mean())
            np.testing.assert_allclose(centre(one), centre(other), rtol=1e-8, atol=1e-9)


def test_forward_mode_agrees_with_reverse_mode():
    cost, source, target, coefficients = random_problem(4, 12)
    with enable_x64(True):

        def function(c):
            return (sinkhorn(c, source, target, 0.05, 40, gradient="implicit").flow * coefficients).sum()

        tangent = np.random.default_rng(1).normal(size=cost.shape)
        forward = jax.jit(lambda c: jax.jvp(function, (c,), (tangent,))[1])(cost)
        np.testing.assert_allclose(forward, (jax.jit(jax.grad(function))(cost) * tangent).sum(), rtol=1e-9)


def test_float32_gradients_stay_finite_for_every_epsilon():
    def total(gradient):
        def function(cost, source, target, coefficients, epsilon):
            return (sinkhorn(cost, source, target, epsilon, gradient=gradient).flow * coefficients).sum()

        return jax.jit(jax.vmap(jax.grad(function, (0, 1, 2)), in_axes=(0, 0, 0, 0, None)))

    drawn = [random_problem(6, 12, seed) for seed in range(16)]
    cost, source, target, coefficients = (np.stack(p).astype(np.float32) for p in zip(*drawn, strict=True))
    source[::2, 0], target[::2, 1] = 0, 0
    cost[::3] = np.round(4 * cost[::3])
    for gradient in ("implicit", "unrolled"):
        run = total(gradient)
        for epsilon in (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
            for side in run(cost, source, target, coefficients, jnp.float32(epsilon)):
                assert np.isfinite(side).all(), (gradient, epsilon)


def test_float32_implicit_gradient_is_close_to_float64():
    cost, source, target, coefficients = random_problem(4, 12)

    def gradient(dtype):
        arguments = [np.asarray(x, dtype) for x in (cost, source, target)]

        def function(c):
            return (sinkhorn(c, *arguments[1:], 0.02, 60, gradient="implicit").flow * coefficients).sum()

        return jax.jit(jax.grad(function))(arguments[0])

    single = gradient(np.float32)
    with enable_x64(True):
        double = np.asarray(gradient(np.float64))
    np.testing.assert_allclose(single, double, atol=1e-3 * np.abs(double).max())
