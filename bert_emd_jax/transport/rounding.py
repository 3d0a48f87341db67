"""From approximate potentials and plans to feasible ones: certified bounds and exact marginals."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def round_to_marginals(
    flow: Float[Array, "S T"], source: Float[Array, " S"], target: Float[Array, " T"]
) -> Float[Array, "S T"]:
    """A plan with the given marginals near a non-negative `flow` (Altschuler et al. 2017, algorithm 2)."""
    flow = flow * _shrink(source, flow.sum(axis=1))[:, None]
    flow = flow * _shrink(target, flow.sum(axis=0))
    missing_source = jnp.maximum(source - flow.sum(axis=1), 0)
    missing_target = jnp.maximum(target - flow.sum(axis=0), 0)
    missing = missing_target.sum()
    return flow + missing_source[:, None] * (missing_target / jnp.where(missing > 0, missing, 1))


def conjugate(cost: Float[Array, "S T"], source_potentials: Float[Array, " S"]) -> Float[Array, " T"]:
    """The largest target potentials that are feasible with these source potentials: min_i cost_ij - f_i."""
    return jnp.min(cost - source_potentials[:, None], axis=0)


def feasible_potentials(
    cost: Float[Array, "S T"], source_potentials: Float[Array, " S"]
) -> tuple[Float[Array, " S"], Float[Array, " T"]]:
    """Dual-feasible potentials whose value is at least that of (source_potentials, their conjugate)."""
    target_potentials = conjugate(cost, source_potentials)
    source_potentials = conjugate(cost.T, target_potentials)
    return source_potentials, target_potentials


def certified_bound(
    cost: Float[Array, "S T"],
    source: Float[Array, " S"],
    target: Float[Array, " T"],
    source_potentials: Float[Array, " S"],
    target_potentials: Float[Array, " T"],
) -> Float[Array, ""]:
    """The dual value of feasible potentials, less all that rounding can have added to it.

    Rounding comes from the differences that made the potentials (half a unit in the last place of their
    operands), from the sums over layers, and from weights whose totals differ by their own rounding.
    """
    source_part, target_part = source * source_potentials, target * target_potentials
    magnitude = (
        jnp.abs(source_part).sum()
        + jnp.abs(target_part).sum()
        + source.sum() * (jnp.abs(source_potentials).max() + jnp.abs(target_potentials).max())
    )
    rounding = jnp.finfo(cost.dtype).eps * (2 + 0.5 * sum(cost.shape)) * magnitude
    bound = source_part.sum() + target_part.sum() - rounding
    return jnp.where(cost.min() >= 0, jnp.maximum(bound, 0), bound)


def summation_error(terms: Float[Array, "S T"]) -> Float[Array, ""]:
    """The largest rounding error of a sum of S + T products among zeros, one unit per term to spare."""
    return jnp.finfo(terms.dtype).eps * (2 + sum(terms.shape)) * jnp.abs(terms).sum()


def relative_gap(
    cost: Float[Array, "S T"], total: Float[Array, ""], lower_bound: Float[Array, ""]
) -> Float[Array, ""]:
    """(total - lower_bound) / max(total, 1e-4 · largest cost), 0 where all costs are 0."""
    reference = jnp.maximum(total, 1e-4 * jnp.abs(cost).max())
    return (total - lower_bound) / jnp.where(reference > 0, reference, 1)


def _shrink(wanted: Float[Array, " n"], present: Float[Array, " n"]) -> Float[Array, " n"]:
    return jnp.where(present > wanted, wanted / jnp.where(present > 0, present, 1), 1)
