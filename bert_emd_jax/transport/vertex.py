"""The exact optimal plan on the device: from a nearly optimal plan to an optimal vertex.

A basis is a spanning tree of S + T - 1 cells. Its inverse has only the entries -1, 0 and 1, so floating point
updates it without rounding, and each pivot of the simplex method is a handful of small dense operations.
Row v of the inverse belongs to the arc that hung node v on the tree; the row of the root has no arc.
Nodes are the S sources, then the T sinks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_HIGHEST = jax.lax.Precision.HIGHEST


class Vertex(NamedTuple):
    """A feasible vertex; `is_optimal` says whether its potentials prove it optimal."""

    flow: Float[Array, "S T"]
    source_potentials: Float[Array, " S"]
    target_potentials: Float[Array, " T"]
    is_optimal: Bool[Array, ""]
    pivots: Int[Array, ""]


class _Basis(NamedTuple):
    inverse: Float[Array, "n n"]
    row: Int[Array, " n"]
    column: Int[Array, " n"]
    is_arc: Bool[Array, " n"]


class _State(NamedTuple):
    basis: _Basis
    potentials: Float[Array, "3 n"]
    cell: Int[Array, ""]
    improvable: Bool[Array, ""]
    pivots: Int[Array, ""]


def optimal_vertex(
    cost: Float[Array, "S T"],
    source: Float[Array, " S"],
    target: Float[Array, " T"],
    log_plan: Float[Array, "S T"],
    max_pivots: int,
) -> Vertex:
    """A vertex that the plan points to, improved by at most `max_pivots` pivots of the simplex method.

    Costs and weights should not exceed about 1; the target weights are rescaled to the total of the sources.
    `log_plan` is the logarithm of a nearly optimal plan.
    """
    sources = source.shape[0]
    supplies = _balanced_supplies(source, target)
    costs = _parts(cost)
    tolerance = optimality_tolerance(cost)

    def priced(basis: _Basis, pivots: Array) -> _State:
        basic_costs = jnp.where(basis.is_arc, costs[:, basis.row, basis.column], 0)
        potentials = jnp.matmul(basic_costs, basis.inverse, precision=_HIGHEST)
        reduced = _total(costs - potentials[:, :sources, None] - potentials[:, None, sources:])
        cell = jnp.argmin(reduced).astype(jnp.int32)
        return _State(basis, potentials, cell, reduced.min() < -tolerance, pivots)

    def improve(state: _State) -> _State:
        return priced(_pivot(state.basis, supplies, state.cell, target.shape[0]), state.pivots + 1)

    state = jax.lax.while_loop(
        lambda state: state.improvable & (state.pivots < max_pivots),
        improve,
        priced(_spanning_tree(source, target, log_plan), jnp.zeros((), jnp.int32)),
    )
    basis = state.basis
    flow = jnp.zeros_like(cost).at[basis.row, basis.column].add(_amounts(basis, supplies))
    potentials = _total(state.potentials)
    return Vertex(flow, potentials[:sources], potentials[sources:], ~state.improvable, state.pivots)


def optimality_tolerance(cost: Float[Array, "S T"]) -> float:
    """How negative a reduced cost may be at the optimum, for costs up to 1.

    Parts of 13 binary digits leave rounding of the order of the square of the machine precision.
    """
    return float(64 * sum(cost.shape) * jnp.finfo(cost.dtype).eps ** 2)


def _parts(values: Float[Array, "..."]) -> Float[Array, "3 ..."]:
    """Three arrays that add up to the values; sums of some hundred entries of the first two are exact.

    They are multiples of a power of 2 with few digits, as long as the values do not exceed about 1.
    """
    coarse = jnp.round(values * 2**13) / 2**13
    middle = jnp.round((values - coarse) * 2**26) / 2**26
    return jnp.stack([coarse, middle, values - coarse - middle])


def _total(parts: Float[Array, "3 ..."]) -> Float[Array, "..."]:
    return parts[0] + parts[1] + parts[2]


def _balanced_supplies(source: Float[Array, " S"], target: Float[Array, " T"]) -> Float[Array, "3 n"]:
    """The weights in parts, the targets rescaled: their float32 totals differ in the last digits."""
    sources, targets = _parts(source), _parts(target)
    surplus = _total(sources.sum(axis=1) - targets.sum(axis=1))
    mass = target.sum()
    targets = targets.at[2].add(target * (surplus / jnp.where(mass > 0, mass, 1)))
    return jnp.concatenate([sources, targets], axis=1)


def _amounts(basis: _Basis, supplies: Float[Array, "3 n"]) -> Float[Array, " n"]:
    amounts = _total(jnp.matmul(supplies, basis.inverse.T, precision=_HIGHEST))
    return jnp.where(basis.is_arc, jnp.maximum(amounts, 0), 0)


def _spanning_tree(
    source: Float[Array, " S"], target: Float[Array, " T"], log_plan: Float[Array, "S T"]
) -> _Basis:
    """A feasible tree, built from its leaves.

    A leaf of the optimal tree is a cell that carries all that is left of its row or its column. So the
    cell with the largest plan / min(left of row, left of column) goes next; it takes that minimum, and
    the used-up row or column leaves the game. The last node left is the root.
    """
    sources, targets = log_plan.shape
    nodes = sources + targets
    dtype = log_plan.dtype
    negligible = jnp.finfo(dtype).tiny
    node = jnp.arange(nodes)

    def hang_leaf(_: int, state: tuple[_Basis, Array, Array]) -> tuple[_Basis, Array, Array]:
        # Row v of `inverse`: what is left at node v as a function of all weights.
        basis, left, alive = state
        log_left = jnp.log(jnp.maximum(left, negligible))
        score = log_plan - jnp.minimum(log_left[:sources, None], log_left[sources:])
        score = jnp.where(alive[:sources, None] & alive[sources:], score, -jnp.inf)
        cell = jnp.argmax(score).astype(jnp.int32)
        row, sink = cell // targets, sources + cell % targets
        rows_left, sinks_left = alive[:sources].sum(), alive[sources:].sum()
        drop_row = (sinks_left == 1) | ((rows_left > 1) & (left[row] <= left[sink]))
        leaf, other = jnp.where(drop_row, row, sink), jnp.where(drop_row, sink, row)
        is_leaf, is_other = node == leaf, node == other
        basis = _Basis(
            inverse=basis.inverse - is_other[:, None] * basis.inverse[leaf],
            row=jnp.where(is_leaf, row, basis.row),
            column=jnp.where(is_leaf, sink - sources, basis.column),
            is_arc=basis.is_arc | is_leaf,
        )
        return basis, left - is_other * left[leaf], alive & ~is_leaf

    empty = _Basis(
        inverse=jnp.eye(nodes, dtype=dtype),
        row=jnp.zeros(nodes, jnp.int32),
        column=jnp.zeros(nodes, jnp.int32),
        is_arc=jnp.zeros(nodes, bool),
    )
    weights = jnp.concatenate([source, target])
    basis, _, _ = jax.lax.fori_loop(0, nodes - 1, hang_leaf, (empty, weights, jnp.ones(nodes, bool)))
    return basis


def _pivot(basis: _Basis, supplies: Float[Array, "3 n"], cell: Int[Array, ""], targets: int) -> _Basis:
    """Enters a cell into the basis: pushes flow round its cycle until an arc is empty, which leaves."""
    sources = basis.inverse.shape[0] - targets
    row, column = cell // targets, cell % targets
    change = basis.inverse[:, row] + basis.inverse[:, sources + column]
    leaving = jnp.argmin(jnp.where(basis.is_arc & (change > 0), _amounts(basis, supplies), jnp.inf))
    is_leaving = jnp.arange(change.shape[0]) == leaving
    others = jnp.where(is_leaving, 0, change)
    return _Basis(
        inverse=basis.inverse - others[:, None] * basis.inverse[leaving],
        row=jnp.where(is_leaving, row, basis.row),
        column=jnp.where(is_leaving, column, basis.column),
        is_arc=basis.is_arc,
    )
