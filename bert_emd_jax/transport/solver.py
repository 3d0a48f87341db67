"""Optimal transport on the device: a Sinkhorn plan, made exact and certified."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from bert_emd_jax.transport.entropic import anneal, log_plan, newton_step, safe_log, sinkhorn_iterations
from bert_emd_jax.transport.rounding import (
    certified_bound,
    conjugate,
    feasible_potentials,
    relative_gap,
    round_to_marginals,
    summation_error,
)
from bert_emd_jax.transport.vertex import optimal_vertex, optimality_tolerance

GRADIENTS = ("envelope", "implicit", "unrolled")
# Pivots finish what few iterations leave, at a lower price: on the costs of real runs three of a coarse plan
# leave as few as a fine one does. A regularised plan has no pivots to rely on.
EXACT_ITERATIONS = 3
EXACT_EPSILON = 0.05
REGULARISED_ITERATIONS = 24
REGULARISED_EPSILON = 2e-3

# Costs so many times the largest one in use are cut off for the simplex: its digits end at the largest cost.
_OUT_OF_REACH = 128
_UNUSED = 1e-6
# How far above the optimum an exact plan's cost may be, relative to what is paid.
_EXACT = 1e-5


class Plan(NamedTuple):
    """A feasible transport plan with its certificate.

    flow: [S, T], rows sum to the source weights, columns to the target weights, or at most to the capacities
      of `transport.capped`, whose price the bound includes.
    cost: Σ flow·cost. lower_bound: a dual value, so lower_bound ≤ optimum ≤ cost; -inf if nothing is proven:
      costs that are not finite, negative weights, weights that cannot be met, overflow.
    gap: (cost - lower_bound) / max(cost, 1e-4 · largest cost).
    is_exact: whether the plan is a vertex whose reduced costs prove it optimal: at most 1e-5 of what it pays
      above the optimum for its own row and column sums, which are the weights but for rounding.
    source_potentials, target_potentials: the dual-feasible potentials of the bound.
    pivots: how many simplex pivots the vertex needed.
    """

    flow: Float[Array, "S T"]
    cost: Float[Array, ""]
    lower_bound: Float[Array, ""]
    gap: Float[Array, ""]
    is_exact: Bool[Array, ""]
    source_potentials: Float[Array, " S"]
    target_potentials: Float[Array, " T"]
    pivots: Int[Array, ""]


def sinkhorn(
    cost: Float[Array, "S T"],
    source_weights: Float[Array, " S"],
    target_weights: Float[Array, " T"],
    epsilon: float | None = None,
    max_iterations: int | None = None,
    gradient: str = "envelope",
    initial_potentials: Float[Array, " S"] | None = None,
    max_pivots: int | None = None,
) -> Plan:
    """The plan of least Σ flow·cost between the weights; jit-, vmap- and differentiable.

    epsilon: regularisation relative to the cost's scale, which is the largest entry after the smallest of
      each row and then of each column is subtracted. By default 0.05 where pivots follow: an exact plan does
      not depend on it, only how many pivots it takes. Else 0.002, to which it is annealed.
    max_iterations: by default 3 plain Sinkhorn iterations where pivots follow, else 24 Sinkhorn-Newton
      iterations, each with an S x S solve.
    gradient: "envelope": `flow` is the optimal vertex and a constant, and only `cost` has a gradient:
      the flow in the costs, the potentials in the weights. "implicit" and "unrolled": `flow` is the
      regularised plan (of its limit, a vertex, the derivative is 0), differentiable by the linear system of
      the marginals or through the iterations, where Newton's matrix counts as a constant.
    initial_potentials: source potentials [S] of a similar problem, to start from; annealing starts lower, the
      smaller the gap that they leave.
    max_pivots: limit of the simplex pivots, 10 (S + T) by default.

    The target weights are rescaled to the total of the source weights. Layers of weight 0 are allowed.
    """
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient must be one of {', '.join(GRADIENTS)}, not {gradient!r}")
    if isinstance(epsilon, int | float) and not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    dtype = jnp.promote_types(jnp.result_type(cost), jnp.float32)
    cost, source, target = (jnp.asarray(x, dtype) for x in (cost, source_weights, target_weights))
    if cost.ndim != 2 or 0 in cost.shape or cost.shape != (*source.shape, *target.shape):
        raise ValueError(f"cost {cost.shape} does not fit weights {source.shape} and {target.shape}")
    pivots_follow = gradient == "envelope" and max_pivots != 0
    if epsilon is None:
        epsilon = EXACT_EPSILON if pivots_follow else REGULARISED_EPSILON
    if max_iterations is None:
        max_iterations = EXACT_ITERATIONS if pivots_follow else REGULARISED_ITERATIONS
    if max_pivots is None:
        max_pivots = 10 * sum(cost.shape)
    # The Newton system has the size of the source side: put the smaller side there.
    if cost.shape[0] > cost.shape[1]:
        if initial_potentials is not None:
            initial_potentials = conjugate(cost, jnp.asarray(initial_potentials, dtype))
        plan = sinkhorn(
            cost.T, target, source, epsilon, max_iterations, gradient, initial_potentials, max_pivots
        )
        return plan._replace(
            flow=plan.flow.T,
            source_potentials=plan.target_potentials,
            target_potentials=plan.source_potentials,
        )
    if gradient != "envelope":
        return _regularised(cost, source, target, epsilon, max_iterations, gradient, initial_potentials)
    constants = jax.lax.stop_gradient((cost, source, target))
    start = jax.lax.stop_gradient(initial_potentials)
    plan = jax.lax.stop_gradient(_exact(*constants, epsilon, max_iterations, start, max_pivots))
    # Each difference is 0: they give the cost its gradient.
    differentiable_cost = (
        plan.cost
        + (plan.flow * (cost - constants[0])).sum()
        + (plan.source_potentials * (source - constants[1])).sum()
        + (plan.target_potentials * (target - constants[2])).sum()
    )
    return plan._replace(cost=differentiable_cost)


def given_plan(
    cost: Float[Array, "S T"],
    flow: Float[Array, "S T"],
    source_potentials: Float[Array, " S"] | None = None,
) -> Plan:
    """A plan that was made without the solver, with the bound that its potentials prove.

    `flow` is a constant; `cost` has the flow as its gradient in the costs. Without potentials the plan is
    compared with what each source would pay at its cheapest target.
    """
    constant_cost = jax.lax.stop_gradient(cost)
    flow = jax.lax.stop_gradient(jnp.asarray(flow, cost.dtype))
    if source_potentials is not None:
        potentials = feasible_potentials(constant_cost, jax.lax.stop_gradient(source_potentials))
        bound = certified_bound(constant_cost, flow.sum(axis=1), flow.sum(axis=0), *potentials)
    else:
        potentials = (constant_cost.min(axis=1), jnp.zeros(cost.shape[1], cost.dtype))
        bound = (flow.sum(axis=1) * potentials[0]).sum()
    total = (flow * cost).sum()
    is_finite = jax.lax.stop_gradient(jnp.isfinite(total)) & jnp.isfinite(bound)
    bound = jnp.where(is_finite, bound, -jnp.inf)
    return Plan(
        flow=flow,
        cost=total,
        lower_bound=bound,
        gap=relative_gap(constant_cost, jax.lax.stop_gradient(total), bound),
        is_exact=jnp.asarray(source_potentials is not None) & is_finite,
        source_potentials=potentials[0],
        target_potentials=potentials[1],
        pivots=jnp.zeros((), jnp.int32),
    )


# Compiled also when nobody else compiles, where operations by themselves take a second each call; inside a
# compiled step they are a part of it.
@functools.partial(jax.jit, static_argnames=("max_iterations", "max_pivots"), inline=True)
def _exact(
    cost: Array,
    source: Array,
    target: Array,
    epsilon: float,
    max_iterations: int,
    start: Array | None,
    max_pivots: int,
) -> Plan:
    problem = _normalise(cost, source, target)
    if max_pivots:
        weights = problem.source, problem.target
        first = jnp.zeros_like(source) if start is None else (start - problem.row_minima) / problem.scale
        potentials = sinkhorn_iterations(problem.cost, *weights, first, epsilon, max_iterations)
    else:
        potentials = _anneal(problem, epsilon, max_iterations, start)
    logs = log_plan(problem.cost, safe_log(problem.source), safe_log(problem.target), potentials, epsilon)
    rounded = round_to_marginals(jnp.exp(logs), problem.source, problem.target)
    # A plan that is optimal for costs cut off, and pays none of those, is optimal.
    in_use = jnp.exp(logs) > _UNUSED * jnp.minimum(problem.source[:, None], problem.target)
    limit = _OUT_OF_REACH * jnp.max(jnp.where(in_use, jnp.abs(cost), 0))
    within_reach = jnp.where(limit > 0, jnp.minimum(cost, limit), cost)
    # The vertex is computed from the costs as they came, which no subtraction has rounded.
    unit = _power_of_two(jnp.abs(within_reach).max())
    # Totals that differ by their rounding alone are balanced there, with more digits.
    differ = jnp.abs(source.sum() - target.sum()) > 1e-3 * source.sum()
    target_share = jnp.where(differ, problem.target, target / problem.mass)
    vertex = optimal_vertex(within_reach / unit, problem.source, target_share, logs, max_pivots)
    # Both are feasible; the vertex is the cheaper one unless the pivots ran out.
    take_vertex = vertex.is_optimal | ((vertex.flow * problem.cost).sum() <= (rounded * problem.cost).sum())
    flow = jnp.where(take_vertex, vertex.flow, rounded) * problem.mass
    potentials = problem.row_minima + problem.scale * potentials
    potentials = jnp.where(vertex.is_optimal, unit * vertex.source_potentials, potentials)
    is_optimal = vertex.is_optimal & ~jnp.any((flow > 0) & (within_reach < cost))
    reduced_from = jnp.where(is_optimal, jnp.abs(within_reach).max(), jnp.inf)
    return _certified(cost, source, target, flow, problem, potentials, reduced_from, vertex.pivots)


@functools.partial(jax.jit, static_argnames=("max_iterations", "gradient"), inline=True)
def _regularised(
    cost: Array,
    source: Array,
    target: Array,
    epsilon: float,
    max_iterations: int,
    gradient: str,
    start: Array | None,
) -> Plan:
    problem = _normalise(cost, source, target)
    log_source, log_target = safe_log(problem.source), safe_log(problem.target)
    if gradient == "unrolled":
        potentials = _anneal(problem, epsilon, max_iterations, start)
    else:
        fixed = jax.lax.stop_gradient(problem)
        potentials = jax.lax.stop_gradient(_anneal(fixed, epsilon, max_iterations, start))
        # A Newton step whose matrix is constant: its derivative at the solution is the implicit one.
        plan = jnp.exp(log_plan(problem.cost, log_source, log_target, potentials, epsilon))
        step = epsilon * newton_step(plan, problem.source, problem.target)
        potentials = potentials + (step - jax.lax.stop_gradient(step))
    plan = jnp.exp(log_plan(problem.cost, log_source, log_target, potentials, epsilon))
    fixed_plan, fixed = jax.lax.stop_gradient((plan, problem))
    rounding = round_to_marginals(fixed_plan, fixed.source, fixed.target) - fixed_plan
    flow = (plan + rounding) * problem.mass
    certified = _certified(
        *jax.lax.stop_gradient(
            (cost, source, target, flow, problem, problem.row_minima + problem.scale * potentials)
        ),
        reduced_from=jnp.full((), jnp.inf, cost.dtype),
        pivots=jnp.zeros((), jnp.int32),
    )
    return certified._replace(flow=flow, cost=(flow * cost).sum())


class _Problem(NamedTuple):
    """Costs from 0 to 1 with a 0 in every row and column, weights that sum to about 1, and the way back."""

    cost: Float[Array, "S T"]
    source: Float[Array, " S"]
    target: Float[Array, " T"]
    row_minima: Float[Array, " S"]
    scale: Float[Array, ""]
    mass: Float[Array, ""]


def _normalise(cost: Array, source: Array, target: Array) -> _Problem:
    row_minima = cost.min(axis=1)
    column_minima = (cost - row_minima[:, None]).min(axis=0)
    scale = (cost - row_minima[:, None] - column_minima).max()
    scale = jnp.where(scale > 0, scale, 1)
    # A power of 2, so that the division rounds nothing.
    mass, target_mass = _power_of_two(source.sum()), target.sum()
    ratio = source.sum() / jnp.where(target_mass > 0, target_mass, 1)
    # Plans do not depend on what is subtracted from whole rows and columns, only the scale does.
    row_constant, column_constant = jax.lax.stop_gradient((row_minima, column_minima))
    return _Problem(
        cost=(cost - row_constant[:, None] - column_constant) / scale,
        source=source / mass,
        target=target / mass * ratio,
        row_minima=row_constant,
        scale=scale,
        mass=mass,
    )


def _anneal(problem: _Problem, epsilon: float, iterations: int, start: Array | None) -> Array:
    """Source potentials of the normalised problem."""
    cost, source, target = problem.cost, problem.source, problem.target
    if start is None:
        first = jnp.maximum(jnp.ones((), cost.dtype), epsilon)
        return anneal(cost, source, target, jnp.zeros_like(source), first, epsilon, iterations)
    start = (jnp.asarray(start, cost.dtype) - problem.row_minima) / problem.scale
    start, conjugate_start = feasible_potentials(cost, jax.lax.stop_gradient(start))
    logs = log_plan(cost, safe_log(source), safe_log(target), start, epsilon)
    flow = round_to_marginals(jnp.exp(logs), source, target)
    gap = (flow * (cost - start[:, None] - conjugate_start)).sum()
    # A tenth of the gap: most of it is spread over many cells whose potentials are nearly right.
    first = jax.lax.stop_gradient(jnp.clip(0.1 * gap, epsilon, jnp.maximum(1.0, epsilon)))
    return anneal(cost, source, target, start, first, epsilon, iterations)


def _certified(
    cost: Array,
    source: Array,
    target: Array,
    flow: Array,
    problem: _Problem,
    potentials: Array,
    reduced_from: Array,
    pivots: Array,
) -> Plan:
    """The plan of this flow, with the bound that the source potentials prove.

    reduced_from: the largest cost that the reduced costs were computed from; inf if they prove nothing.
    """
    source_potentials, target_potentials = feasible_potentials(cost, potentials)
    # The flow has the rescaled target weights.
    scaled_target = problem.target * problem.mass
    dual_bound = certified_bound(cost, source, scaled_target, source_potentials, target_potentials)
    total, mass, paid = (flow * cost).sum(), source.sum(), (flow * jnp.abs(cost)).sum()
    # An exact plan's cost is the optimum but for rounding, of reduced costs and of amounts: a closer bound.
    largest_potential = jnp.abs(source_potentials).max() + jnp.abs(target_potentials).max()
    excess = 2 * optimality_tolerance(cost) * mass * (reduced_from + largest_potential)
    rescaling = jnp.abs(target - scaled_target).max() * largest_potential * jnp.finfo(cost.dtype).eps * 4
    rounding = summation_error(flow * cost) + excess + rescaling
    lower_bound = jnp.maximum(dual_bound, total - rounding)
    is_exact = (excess <= _EXACT * paid) | (jnp.isfinite(excess) & (total <= dual_bound))
    # A bound holds for problems alone that are in order, and whose numbers have stayed in range.
    unmet = jnp.maximum(
        jnp.abs(flow.sum(axis=1) - source).max(), jnp.abs(flow.sum(axis=0) - scaled_target).max()
    )
    few_units = 8 * sum(cost.shape) * jnp.finfo(cost.dtype).eps
    in_order = (source >= 0).all() & (target >= 0).all() & (unmet <= few_units * mass)
    in_order &= jnp.isfinite(cost).all() & jnp.isfinite(total + lower_bound) & jnp.isfinite(mass)
    gap = relative_gap(cost, total, lower_bound)
    return Plan(
        flow=flow,
        cost=total,
        lower_bound=jnp.where(in_order, lower_bound, -jnp.inf),
        gap=jnp.where(in_order, gap, jnp.inf),
        is_exact=is_exact & in_order,
        source_potentials=source_potentials,
        target_potentials=target_potentials,
        pivots=pivots,
    )


def _power_of_two(value: Float[Array, ""]) -> Float[Array, ""]:
    """The power of 2 nearest to a positive value, else 1; one that float32 holds."""
    value = jax.lax.stop_gradient(value)
    exponent = jnp.round(jnp.log2(jnp.where(value > 0, value, 1)))
    return jnp.where(value > 0, jnp.exp2(jnp.clip(exponent, -126, 127)), 1)
