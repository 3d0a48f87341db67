"""The exact optimal plan on the device: from an approximate plan to an optimal vertex.

On a GPU all is few small operations: there a launch costs more than the work, and a loop whose length the
host must read costs most, for the device then waits for the host behind it. So pivots are made there a number
of times that is enough, and change nothing once the vertex is optimal. Elsewhere a loop ends with the last.

A basis is a spanning tree of S + T - 1 cells. Its inverse has only the entries -1, 0 and 1, so floating point
updates it without rounding, and each pivot of the simplex method is a handful of small dense operations.
Row v of the inverse belongs to the arc that hung node v on the tree; the row of the root has no arc.
Nodes are the S sources, then the T sinks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# On costs of real layers (4 x 12) 99 of 100 plans need no more than that from where the staircase is.
_USUAL_PIVOTS = 8


def _enough_pivots(sources: int, targets: int) -> int:
    """No one of 256,000 random problems of fourteen sizes up to 24 x 24 has needed more."""
    return sources * targets // 4 + min(sources, targets)


class Vertex(NamedTuple):
    """A feasible vertex; `is_optimal` says whether its potentials prove it optimal."""

    flow: Float[Array, "S T"]
    source_potentials: Float[Array, " S"]
    target_potentials: Float[Array, " T"]
    is_optimal: Bool[Array, ""]
    pivots: Int[Array, ""]


class _Tree(NamedTuple):
    """A basis. `table` is [inverse | cell of each arc] over [potentials of the costs' three parts | unused].

    In one array, so that a pivot changes it in one operation. A cell is counted along the rows of the costs.
    """

    table: Float[Array, "n+3 n+1"]
    is_arc: Bool[Array, " n"]

    @property
    def inverse(self) -> Float[Array, "n n"]:
        return self.table[:-3, :-1]

    @property
    def cell(self) -> Int[Array, " n"]:
        return self.table[:-3, -1].astype(jnp.int32)

    @property
    def potentials(self) -> Float[Array, "3 n"]:
        return self.table[-3:, :-1]


class _State(NamedTuple):
    """cell: that with the least reduced cost, which enters the basis if this is below 0."""

    tree: _Tree
    cell: Int[Array, ""]
    least: Float[Array, ""]
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
    `log_plan` is the logarithm of a plan that is near the optimum, or not far from it.
    """
    sources = cost.shape[0]
    supplies = _balanced_supplies(source, target)
    costs = _parts(cost)
    tolerance = optimality_tolerance(cost)

    def priced(tree: _Tree, pivots: Array) -> _State:
        reduced = _total(_reduced_costs(costs, tree.potentials)).ravel()
        return _State(tree, jnp.argmin(reduced).astype(jnp.int32), jnp.min(reduced), pivots)

    def is_improvable(state: _State) -> Array:
        return state.least < -tolerance

    @jax.jit  # traced once
    def improve(state: _State, wanted: Array) -> _State:
        """The state after a pivot, which is not counted; the same one if that is not wanted."""
        return priced(_pivot(state.tree, costs, supplies, state.cell, wanted), state.pivots)

    def straight(state: _State, count: int) -> _State:
        """So many pivots without a loop, or fewer."""
        made = []
        for _ in range(count):
            made.append(is_improvable(state))
            # Else pivots are fused with those before them, each anew: many times the code to compile.
            state = jax.lax.optimization_barrier(improve(state, made[-1]))
        return state._replace(pivots=sum(made, state.pivots))

    def until_optimal(state: _State) -> _State:
        def goes_on(state: _State) -> Array:
            return is_improvable(state) & (state.pivots < max_pivots)

        def pivot(state: _State) -> _State:
            return improve(state, jnp.ones((), bool))._replace(pivots=state.pivots + 1)

        return jax.lax.while_loop(goes_on, pivot, state)

    def on_gpu(state: _State) -> _State:
        count = min(max_pivots, _enough_pivots(*cost.shape))
        if count <= 2 * _USUAL_PIVOTS:
            return straight(state, count)
        blocks, rest = divmod(count, _USUAL_PIVOTS)
        state = jax.lax.fori_loop(0, blocks, lambda _, state: straight(state, _USUAL_PIVOTS), state)
        return straight(state, rest)

    tree = _with_potentials(_staircase(source, target, log_plan), costs)
    state = priced(tree, jnp.zeros((), jnp.int32))
    state = jax.lax.platform_dependent(
        state,
        cpu=until_optimal,
        tpu=lambda state: until_optimal(straight(state, min(max_pivots, _USUAL_PIVOTS))),
        default=on_gpu,
    )
    # Anew, without what pivots may have rounded.
    tree = _with_potentials(state.tree, costs)
    amounts = _amounts(tree, supplies)
    is_cell = tree.cell[:, None] == jnp.arange(cost.size)
    flow = jnp.sum(jnp.where(is_cell, amounts[:, None], 0), axis=0).reshape(cost.shape)
    potentials = _total(tree.potentials)
    is_optimal = ~is_improvable(priced(tree, state.pivots))
    return Vertex(flow, potentials[:sources], potentials[sources:], is_optimal, state.pivots)


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


def _reduced_costs(costs: Float[Array, "3 S T"], potentials: Float[Array, "3 n"]) -> Float[Array, "3 S T"]:
    sources = costs.shape[1]
    return costs - potentials[:, :sources, None] - potentials[:, None, sources:]


def _with_potentials(tree: _Tree, costs: Float[Array, "3 S T"]) -> _Tree:
    """The tree with the potentials that make the reduced costs of its arcs 0."""
    basic_costs = jnp.where(tree.is_arc, costs.reshape(3, -1)[:, tree.cell], 0)
    potentials = jnp.sum(basic_costs[:, :, None] * tree.inverse, axis=1)
    return tree._replace(table=jnp.concatenate([tree.table[:-3], jnp.pad(potentials, ((0, 0), (0, 1)))]))


def _amounts(tree: _Tree, supplies: Float[Array, "3 n"]) -> Float[Array, " n"]:
    amounts = _total(jnp.sum(supplies[:, None] * tree.inverse, axis=2))
    return jnp.where(tree.is_arc, jnp.maximum(amounts, 0), 0)


def _staircase(
    source: Float[Array, " S"], target: Float[Array, " T"], log_plan: Float[Array, "S T"]
) -> _Tree:
    """A feasible tree by the north-west corner rule, sources and sinks in the order that the plan suggests.

    Each source in turn fills the sinks in theirs. The order in which nodes are used up says all: the arc of
    a node is the last cell that it has a part in. If the node before was of the same side, the arc carries
    all of its node; else what is used up until then on its node's side beyond that on the other side. The
    last sink is the root. The potentials are not computed.
    """
    flow = jnp.exp(log_plan)
    rows, columns = jnp.arange(flow.shape[0]), jnp.arange(flow.shape[1])
    row_rank = _ranks(_means(flow, columns.astype(flow.dtype)))
    column_rank = _ranks(_means(flow.T, row_rank.astype(flow.dtype)))
    row_end, column_end = _ends(source, row_rank), _ends(target, column_rank)
    row_first = row_end[:, None] <= column_end  # [S, T]; never both of the last ones
    row_first = jnp.where(row_rank[:, None] == rows[-1], column_rank == columns[-1], row_first)
    row_first = jnp.where(column_rank == columns[-1], True, row_first)
    # The sink at work when a source is used up, and the source when a sink is.
    column = jnp.sum(~row_first, axis=1)
    row = jnp.minimum(jnp.sum(row_first, axis=0), rows[-1])
    column_of_row = jnp.sum(jnp.where(column_rank == column[:, None], columns, 0), axis=1)
    row_of_column = jnp.sum(jnp.where(row_rank == row[:, None], rows, 0), axis=1)
    # [v, u]: whether u is used up once v is.
    rows_done, columns_done = row_rank <= row_rank[:, None], column_rank <= column_rank[:, None]
    of_rows = jnp.concatenate([1.0 * rows_done, -1.0 * ~row_first], axis=1)
    of_columns = jnp.concatenate([-1.0 * row_first.T, 1.0 * columns_done], axis=1)
    after_other_side = jnp.concatenate(
        [
            jnp.any(jnp.sum(row_first, axis=0) == row_rank[:, None], axis=1),
            jnp.any(column == column_rank[:, None], axis=1),
        ]
    )
    whole_node = jnp.eye(sum(flow.shape))
    inverse = jnp.where(after_other_side[:, None], jnp.concatenate([of_rows, of_columns]), whole_node)
    cell = jnp.concatenate([rows * len(columns) + column_of_row, row_of_column * len(columns) + columns])
    table = jnp.concatenate([inverse, cell[:, None].astype(inverse.dtype)], axis=1)
    return _Tree(
        table=jnp.pad(table.astype(flow.dtype), ((0, 3), (0, 0))),
        is_arc=jnp.concatenate([rows >= 0, column_rank != columns[-1]]),
    )


def _means(flow: Float[Array, "n m"], places: Float[Array, " m"]) -> Float[Array, " n"]:
    """Where the flow of each node goes on average."""
    total = flow.sum(axis=1)
    return jnp.sum(flow * places, axis=1) / jnp.where(total > 0, total, 1)


def _ranks(values: Float[Array, " n"]) -> Int[Array, " n"]:
    """The place of each value in increasing order, from 0; of equal ones the first comes first."""
    number = jnp.arange(len(values))
    before = (values < values[:, None]) | ((values == values[:, None]) & (number < number[:, None]))
    return jnp.sum(before, axis=1)


def _ends(weights: Float[Array, " n"], rank: Int[Array, " n"]) -> Float[Array, " n"]:
    """The sum of each weight and those before it."""
    return jnp.sum(jnp.where(rank <= rank[:, None], weights, 0), axis=1)


def _pivot(
    tree: _Tree,
    costs: Float[Array, "3 S T"],
    supplies: Float[Array, "3 n"],
    cell: Int[Array, ""],
    wanted: Bool[Array, ""],
) -> _Tree:
    """Enters a cell into the basis: pushes flow round its cycle until an arc is empty, which leaves.

    The same basis if that is not wanted.
    """
    _, sources, targets = costs.shape
    row, column = cell // targets, sources + cell % targets
    at_ends = jnp.where(wanted, _at(tree.table, row, 1) + _at(tree.table, column, 1), 0)
    cost = jnp.where(wanted, _at(costs.reshape(3, -1), cell, 1), 0)
    change, reduced = at_ends[:-3], cost - at_ends[-3:]
    leaving = jnp.argmin(jnp.where(tree.is_arc & (change > 0), _amounts(tree, supplies), jnp.inf))
    is_leaving = (jnp.arange(len(at_ends)) == leaving) & wanted
    # The row of the arc that leaves is that of the one that enters; it is taken off the other rows as often
    # as their arcs are on the cycle, and added to the potentials as often as the cell is too cheap.
    factors = jnp.where(is_leaving, 0, jnp.concatenate([change, -reduced]))
    table = tree.table - factors[:, None] * _at(tree.table, leaving, 0)
    is_number = jnp.arange(table.shape[1]) == table.shape[1] - 1
    numbers = jnp.where(is_leaving, cell.astype(table.dtype), tree.table[:, -1])
    return tree._replace(table=jnp.where(is_number, numbers[:, None], table))


def _at(values: Array, index: Int[Array, ""], axis: int) -> Array:
    """Values at an index that is computed; unsigned, without the operations for negative ones."""
    return jax.lax.dynamic_index_in_dim(values, index.astype(jnp.uint32), axis, keepdims=False)
