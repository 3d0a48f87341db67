"""Transport to targets that take no more than their capacities, and need not take anything."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from bert_emd_jax.transport.simplex import network_simplex

if TYPE_CHECKING:
    from jax import Array

    from bert_emd_jax.transport.solver import Plan


def capped(
    cost: "Float[Array, 'S T']",
    source_weights: "Float[Array, ' S']",
    target_weights: "Float[Array, ' T']",
    capacity: float,
    epsilon: float | None = None,
) -> "Plan":
    """The plan of least Σ flow·cost in which a target takes at most `capacity` times its weight.

    Rows sum to the source weights, columns to at most min(capacity · target weight, 1) of their total, with
    target weights rescaled to it. capacity 1 is `sinkhorn`; at T/S, with equal weights, a vertex pairs layers
    one to one; where it is large, each source takes its cheapest target.

    One more source, from which everything costs nothing, carries what the targets could take beyond the mass
    of the others; it is cut from `flow`. The bound holds for the problem with capacities: `target_potentials`
    are at most 0, and Σ source · source_potentials + Σ capacities · target_potentials is the dual value.
    jit-, vmap- and differentiable as `sinkhorn` is.

    Args:
      capacity: from 1 on, finite.
      epsilon: of `sinkhorn`.

    Raises:
      ValueError: another capacity, for which there is no plan, or shapes that do not fit.
    """
    import jax.numpy as jnp

    from bert_emd_jax.transport.solver import sinkhorn

    check_capacity(capacity)
    dtype = jnp.promote_types(jnp.result_type(cost), jnp.float32)
    cost, source, target = (jnp.asarray(x, dtype) for x in (cost, source_weights, target_weights))
    plan = sinkhorn(*_with_idle_source(cost, source, target, capacity, jnp), epsilon=epsilon)
    idle = plan.source_potentials[-1]
    return plan._replace(
        flow=plan.flow[:-1],
        source_potentials=plan.source_potentials[:-1] - idle,
        target_potentials=plan.target_potentials + idle,
    )


def capped_on_host(
    cost: Float[np.ndarray, "S T"],
    source_weights: Float[np.ndarray, " S"],
    target_weights: Float[np.ndarray, " T"],
    capacity: float,
) -> float:
    """The cost of the same plan, by the network simplex in float64. Raises ValueError as that does."""
    check_capacity(capacity)
    cost, source, target = (np.asarray(x, np.float64) for x in (cost, source_weights, target_weights))
    return network_simplex(*_with_idle_source(cost, source, target, capacity, np)).cost


def check_capacity(capacity: float) -> None:
    """Raises ValueError for a capacity with which there is no plan."""
    if not 1 <= capacity < math.inf:
        raise ValueError(f"capacity must be at least 1 and finite, got {capacity}")


def _with_idle_source(cost: Any, source: Any, target: Any, capacity: float, xp: Any) -> tuple[Any, Any, Any]:
    """The same as a problem whose masses are equal; `xp` is NumPy or its like."""
    mass = source.sum()
    capacities = xp.minimum(capacity * target * (mass / target.sum()), mass)
    spare = xp.maximum(capacities.sum() - mass, 0)  # rounding may leave a little less
    return (
        xp.concatenate([cost, xp.zeros_like(cost[:1])]),
        xp.concatenate([source, spare[None]]),
        capacities,
    )
