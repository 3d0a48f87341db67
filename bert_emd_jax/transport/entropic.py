"""Entropy-regularised transport in the log domain: plain Sinkhorn, and annealed Newton on the semi-dual.

With the target potentials eliminated (each column of the plan sums to its weight by construction), the dual
is a concave function of the S source potentials alone, and a Newton step is one S x S linear system.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LARGEST_NEWTON_STEP = 8.0


def log_plan(
    cost: Float[Array, "S T"],
    log_source: Float[Array, " S"],
    log_target: Float[Array, " T"],
    source_potentials: Float[Array, " S"],
    epsilon: Float[Array, ""] | float,
) -> Float[Array, "S T"]:
    """Logarithm of the plan of these potentials, whose columns sum to the target weights."""
    log_kernel = log_source[:, None] + (source_potentials[:, None] - cost) / epsilon
    return log_target + jax.nn.log_softmax(log_kernel, axis=0)


def anneal(
    cost: Float[Array, "S T"],
    source: Float[Array, " S"],
    target: Float[Array, " T"],
    start: Float[Array, " S"],
    first_epsilon: Float[Array, ""],
    epsilon: Float[Array, ""] | float,
    iterations: int,
) -> Float[Array, " S"]:
    """Source potentials of the regularised problem at `epsilon`, coming from `start` at `first_epsilon`.

    The first three quarters of the iterations lower epsilon, the rest stay. Every iteration tries a
    Sinkhorn update and Newton steps of three lengths, and keeps the one with the smallest error of
    the row sums.
    """
    log_source, log_target = safe_log(source), safe_log(target)
    cooling = max(1, (3 * iterations) // 4)

    def step(iteration: Array, potentials: Array) -> Array:
        progress = jnp.minimum(1, (iteration + 1) / cooling).astype(cost.dtype)
        current = first_epsilon * (epsilon / first_epsilon) ** progress
        logs = log_plan(cost, log_source, log_target, potentials, current)
        log_rows = jax.nn.logsumexp(logs, axis=1)
        sinkhorn = jnp.where(source > 0, log_source - log_rows, 0)
        newton = newton_step(jnp.exp(logs), source, target)
        newton = jnp.clip(newton, -_LARGEST_NEWTON_STEP, _LARGEST_NEWTON_STEP)
        steps = jnp.stack([sinkhorn, newton, 0.5 * newton, 0.2 * newton])
        candidates = potentials + current * steps

        def row_error(candidate: Array) -> Array:
            plan = jnp.exp(log_plan(cost, log_source, log_target, candidate, current))
            return jnp.abs(plan.sum(axis=1) - source).sum()

        errors = jax.vmap(row_error)(candidates)
        return candidates[jnp.argmin(jnp.where(jnp.isfinite(errors), errors, jnp.inf))]

    return jax.lax.fori_loop(0, iterations, step, start)


def sinkhorn_iterations(
    cost: Float[Array, "S T"],
    source: Float[Array, " S"],
    target: Float[Array, " T"],
    start: Float[Array, " S"],
    epsilon: Float[Array, ""] | float,
    iterations: int,
) -> Float[Array, " S"]:
    """Source potentials after a few plain Sinkhorn iterations, as straight code."""
    log_source, log_target = safe_log(source), safe_log(target)
    potentials = start
    for _ in range(iterations):
        log_rows = jax.nn.logsumexp(log_plan(cost, log_source, log_target, potentials, epsilon), axis=1)
        potentials = potentials + epsilon * jnp.where(source > 0, log_source - log_rows, 0)
    return potentials


def newton_step(
    plan: Float[Array, "S T"], source: Float[Array, " S"], target: Float[Array, " T"]
) -> Float[Array, " S"]:
    """Newton step in units of epsilon: solves (diag(rows) - P diag(1/target) Pᵀ) x = source - rows."""
    # Only the right side is differentiated: at the solution the step is 0 whatever the matrix, so this
    # gives the implicit derivative, and nothing goes through a factorisation.
    fixed, fixed_target = jax.lax.stop_gradient((plan, target))
    rows = fixed.sum(axis=1)
    hessian = jnp.diag(rows) - jnp.matmul(
        fixed / jnp.where(fixed_target > 0, fixed_target, 1), fixed.T, precision=jax.lax.Precision.HIGHEST
    )
    return solve_laplacian(hessian, rows, source - plan.sum(axis=1))


def solve_laplacian(
    hessian: Float[Array, "S S"], rows: Float[Array, " S"], right: Float[Array, " S"]
) -> Float[Array, " S"]:
    """Solves a graph Laplacian's system: symmetric, semi-definite, constant vectors in its kernel.

    Scaled to a unit diagonal; the kernel is filled and a ridge of the size of rounding added, so that
    the matrix is positive definite also where the graph falls apart.
    """
    size = hessian.shape[0]
    scale = jnp.where(rows > 0, jax.lax.rsqrt(jnp.maximum(rows, jnp.finfo(rows.dtype).tiny)), 0)
    kernel = jnp.sqrt(rows)
    ridge = 8 * jnp.finfo(hessian.dtype).eps * size
    matrix = (
        hessian * scale[:, None] * scale
        + kernel[:, None] * kernel
        + ridge * jnp.eye(size, dtype=hessian.dtype)
    )
    factor = jnp.linalg.cholesky(matrix)
    half = jax.scipy.linalg.solve_triangular(factor, scale * right, lower=True)
    return scale * jax.scipy.linalg.solve_triangular(factor.T, half, lower=False)


def safe_log(weights: Float[Array, " n"]) -> Float[Array, " n"]:
    """log(weights), with a finite, negligible value for weights of 0."""
    positive = weights > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, weights, 1)), -1e4)
