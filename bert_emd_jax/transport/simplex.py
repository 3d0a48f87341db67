"""The exact earth mover's distance on the host: a network simplex for dense transportation problems.

A basis is a spanning tree over S sources and T sinks, rooted at a sink. Each pivot enters the cell of the
most negative reduced cost, pushes flow around the cycle that it closes, and drops a blocking cell. The
trees are strongly feasible (Cunningham 1976: every tree arc without flow points to the root) and the
dropped cell is the last blocking one after the apex of the cycle, so degenerate pivots cannot cycle.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

_MASS_TOLERANCE = 1e-5
# Of reduced costs, where the costs span 0 to 1: above the rounding of potentials along a path of 100 arcs.
_OPTIMALITY_TOLERANCE = 5e-14
_REACH = 1e6


class ExactPlan(NamedTuple):
    """An optimal plan; its potentials prove it: source_i + target_j ≤ cost_ij, equal where flow > 0."""

    flow: Float[np.ndarray, "S T"]
    cost: float
    source_potentials: Float[np.ndarray, " S"]
    target_potentials: Float[np.ndarray, " T"]


def network_simplex(
    cost: ArrayLike,
    source_weights: ArrayLike,
    target_weights: ArrayLike,
) -> ExactPlan:
    """The plan of least Σ flow·cost whose rows sum to source_weights and columns to target_weights.

    Shapes [S, T], [S] and [T], anything that NumPy can read; computed in float64.
    The target weights are rescaled to the sources' total, as float32 weights never sum equally. Raises
    ValueError on wrong shapes, non-finite costs or weights, negative weights, no mass, or totals that
    differ by more than 1e-5 relative.
    """
    cost, source, target = _checked(cost, source_weights, target_weights)
    # Layers of weight 0 carry nothing; without them every basis of the start has positive supplies.
    rows, columns = np.flatnonzero(source), np.flatnonzero(target)
    shift, inner = cost.min(), np.ix_(rows, columns)
    flow = np.zeros_like(cost)
    for limit in _limits(cost[inner] - shift):
        within_reach = np.minimum(cost[inner] - shift, limit)
        scale = max(within_reach.max(), np.finfo(np.float64).tiny)
        tree = _Tree(within_reach / scale, source[rows], target[columns])
        potentials = np.array(tree.optimize())
        flow[inner] = tree.flow_matrix()
        # A plan that is optimal for costs cut off, and pays none of those, is optimal.
        if not np.any((flow[inner] > 0) & (cost[inner] - shift > limit)):
            break
    source_potentials = np.empty(len(source))
    target_potentials = np.empty(len(target))
    target_potentials[columns] = potentials[len(rows) :] * scale
    source_potentials[rows] = potentials[: len(rows)] * scale + shift
    empty_rows, empty_columns = np.flatnonzero(source == 0), np.flatnonzero(target == 0)
    source_potentials[empty_rows] = (cost[np.ix_(empty_rows, columns)] - target_potentials[columns]).min(
        axis=1, initial=np.inf
    )
    target_potentials[empty_columns] = (cost[:, empty_columns] - source_potentials[:, None]).min(axis=0)
    return ExactPlan(flow, float((flow * cost).sum()), source_potentials, target_potentials)


def _limits(cost: Float[np.ndarray, "S T"]) -> Iterator[float]:
    """Where costs are cut off, since digits end at the largest one; mostly that alone."""
    largest = cost.max()
    smallest = cost.min(initial=largest, where=cost > 0)
    limit = _REACH * max(cost.min(axis=1).max(), cost.min(axis=0).max(), smallest)
    while limit < largest:
        yield limit
        limit *= _REACH
    yield largest


def _checked(
    cost: ArrayLike, source: ArrayLike, target: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cost = np.asarray(cost, np.float64)
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if cost.ndim != 2 or 0 in cost.shape:
        raise ValueError(f"cost must be a matrix with at least one row and column, got shape {cost.shape}")
    if (source.shape, target.shape) != ((cost.shape[0],), (cost.shape[1],)):
        raise ValueError(
            f"cost {cost.shape} needs {cost.shape[0]} source and {cost.shape[1]} target weights, "
            f"got shapes {source.shape} and {target.shape}"
        )
    for name, values in (("cost", cost), ("source_weights", source), ("target_weights", target)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite")
    for name, values in (("source_weights", source), ("target_weights", target)):
        if (values < 0).any():
            raise ValueError(f"{name} must not be negative, got {values.min():g}")
    source_mass, target_mass = source.sum(), target.sum()
    if source_mass == 0 or target_mass == 0:
        raise ValueError("source_weights and target_weights must have a positive total")
    if abs(source_mass - target_mass) > _MASS_TOLERANCE * max(source_mass, target_mass):
        raise ValueError(
            f"source_weights total {source_mass:g} and target_weights total {target_mass:g}: "
            f"they must agree to {_MASS_TOLERANCE:g} relative"
        )
    return cost, source, target * (source_mass / target_mass)


class _Tree:
    """A spanning tree basis. Nodes 0..S-1 are sources, S..S+T-1 sinks; the last sink is the root.

    `flow[v]` belongs to the arc between v and its parent, which runs from the source to the sink of the two.
    """

    def __init__(self, cost: np.ndarray, source: np.ndarray, target: np.ndarray) -> None:
        self.cost = cost
        self.cost_rows = cost.tolist()
        self.sources, self.nodes = len(source), len(source) + len(target)
        self.supply = [*source.tolist(), *(-target).tolist()]
        self.parent = [-1] * self.nodes
        self.depth = [-1] * self.nodes
        self.flow = [0.0] * self.nodes
        self.potential = [0.0] * self.nodes
        self.neighbours: list[set[int]] = [set() for _ in range(self.nodes)]
        amounts = self._cheapest_cells_first()
        for row, sink in amounts:
            self.neighbours[row].add(sink)
            self.neighbours[sink].add(row)
        self._hang(self.nodes - 1)
        for node in range(self.nodes - 1):
            self.flow[node] = amounts[self._arc(node, self.parent[node])]

    def optimize(self) -> list[float]:
        """Pivots to an optimal tree and returns its potentials."""
        # Pivots of such problems number a few times the nodes; the limit only guards against a defect.
        for _ in range(1000 + self.nodes**3):
            row, sink = self._most_negative_cell()
            if row < 0:
                # Potentials were updated piece by piece: confirm with freshly computed ones.
                self._hang(self.nodes - 1)
                row, sink = self._most_negative_cell()
                if row < 0:
                    return self.potential
            self._pivot(row, sink)
        raise RuntimeError("network simplex did not end: please report the problem that causes it")

    def flow_matrix(self) -> np.ndarray:
        """The flows of the tree, computed anew from the supplies: free of the pivots' rounding."""
        flow = np.zeros_like(self.cost)
        supply = list(self.supply)
        for node in sorted(range(self.nodes - 1), key=self.depth.__getitem__, reverse=True):
            row, sink = self._arc(node, self.parent[node])
            flow[row, sink - self.sources] = max(0.0, supply[node] if node == row else -supply[node])
            supply[self.parent[node]] += supply[node]
        return flow

    def _cheapest_cells_first(self) -> dict[tuple[int, int], float]:
        """A feasible start: walks the cells by cost and ships all that is left of the row or of the column.

        The second entry of each amount is an infinitesimal: every node but the root has one unit more to
        send to the root. Positive amounts in this order are what makes the tree strongly feasible.
        """
        root = self.nodes - 1
        left = [(abs(supply), 1 if node < self.sources else -1) for node, supply in enumerate(self.supply)]
        left[root] = (left[root][0], root)
        alive = [True] * self.nodes
        rows_left, sinks_left = self.sources, self.nodes - self.sources
        columns = self.nodes - self.sources
        amounts: dict[tuple[int, int], float] = {}
        for cell in np.argsort(self.cost, axis=None, kind="stable").tolist():
            row, sink = cell // columns, self.sources + cell % columns
            if not (alive[row] and alive[sink]):
                continue
            drop_row = sinks_left == 1 or (rows_left > 1 and left[row] <= left[sink])
            done, other = (row, sink) if drop_row else (sink, row)
            amount, tiny = left[done]
            amounts[row, sink] = max(amount, 0.0)
            left[other] = (left[other][0] - amount, left[other][1] - tiny)
            alive[done] = False
            rows_left, sinks_left = rows_left - drop_row, sinks_left - (not drop_row)
            if len(amounts) == self.nodes - 1:
                break
        return amounts

    def _most_negative_cell(self) -> tuple[int, int]:
        potential = np.array(self.potential)
        reduced = self.cost - potential[: self.sources, None] - potential[self.sources :]
        cell = int(reduced.argmin())
        if reduced.flat[cell] >= -_OPTIMALITY_TOLERANCE:
            return -1, -1
        columns = self.nodes - self.sources
        return cell // columns, self.sources + cell % columns

    def _pivot(self, row: int, sink: int) -> None:
        """Enters the arc row → sink and drops the last blocking arc of its cycle, counted from the apex."""
        parent, depth, flow = self.parent, self.depth, self.flow
        # The cycle runs apex → row → sink → apex. Flow falls on arcs above sources on the row's side
        # and above sinks on the sink's side, and rises on the others.
        row_side, sink_side = [], []
        up_row, up_sink = row, sink
        while up_row != up_sink:
            if depth[up_row] >= depth[up_sink]:
                row_side.append(up_row)
                up_row = parent[up_row]
            else:
                sink_side.append(up_sink)
                up_sink = parent[up_sink]
        leaving, amount = -1, np.inf
        for node in row_side:
            if node < self.sources and flow[node] < amount:
                leaving, amount = node, flow[node]
        for node in sink_side:
            if node >= self.sources and flow[node] <= amount:
                leaving, amount = node, flow[node]
        for node in row_side:
            flow[node] += -amount if node < self.sources else amount
        for node in sink_side:
            flow[node] += -amount if node >= self.sources else amount

        self.neighbours[leaving].remove(parent[leaving])
        self.neighbours[parent[leaving]].remove(leaving)
        self.neighbours[row].add(sink)
        self.neighbours[sink].add(row)
        # The cut-off piece hangs on the entering arc now: parents on the way to its old top turn round.
        node, new_parent = (row, sink) if leaving < self.sources else (sink, row)
        piece_top, carried = node, amount
        while True:
            old_parent, old_flow = parent[node], flow[node]
            parent[node], flow[node] = new_parent, carried
            if node == leaving:
                break
            node, new_parent, carried = old_parent, node, old_flow
        self._hang(piece_top)

    def _hang(self, top: int) -> None:
        """Sets parents, depths and potentials below `top`, whose own parent is known."""
        stack = [(top, self.parent[top])]
        while stack:
            node, parent = stack.pop()
            self.parent[node] = parent
            if parent >= 0:
                self.depth[node] = self.depth[parent] + 1
                row, sink = self._arc(node, parent)
                self.potential[node] = self.cost_rows[row][sink - self.sources] - self.potential[parent]
            stack.extend((child, node) for child in self.neighbours[node] if child != parent)

    def _arc(self, node: int, parent: int) -> tuple[int, int]:
        return (node, parent) if node < parent else (parent, node)
