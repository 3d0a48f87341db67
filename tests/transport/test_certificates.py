"""A certificate never lies, whatever numbers come: against exact rational arithmetic over all vertices."""

import itertools
from collections.abc import Sequence
from fractions import Fraction

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bert_emd_jax.transport import network_simplex, sinkhorn

SIZE = 3
solve = jax.jit(sinkhorn)


def fractions(values: np.ndarray) -> list[Fraction]:
    return [Fraction(float(value)) for value in values]


def optimum(cost: np.ndarray, supplies: list[Fraction], demands: list[Fraction]) -> Fraction:
    """The least cost of all vertices, the demands rescaled to the total of the supplies."""
    costs = [fractions(row) for row in cost]
    ratio = sum(supplies) / sum(demands)
    cells = list(itertools.product(range(SIZE), repeat=2))
    amounts = (
        flows_of_tree(tree, [*supplies, *(ratio * demand for demand in demands)])
        for tree in itertools.combinations(cells, 2 * SIZE - 1)
    )
    return min(
        sum(flow * costs[row][column] for (row, column), flow in flows.items())
        for flows in amounts
        if flows is not None and min(flows.values()) >= 0
    )


def flows_of_tree(
    tree: Sequence[tuple[int, int]], left: list[Fraction]
) -> dict[tuple[int, int], Fraction] | None:
    """What each cell carries, leaf by leaf; None if the cells close a cycle."""
    arcs, flows = {(row, SIZE + column) for row, column in tree}, {}
    while arcs:
        degrees = {node: [arc for arc in arcs if node in arc] for node in range(2 * SIZE)}
        leaf = next((node for node, own in degrees.items() if len(own) == 1), None)
        if leaf is None:
            return None
        (arc,) = degrees[leaf]
        other = arc[0] + arc[1] - leaf
        flows[arc[0], arc[1] - SIZE] = left[leaf]
        left[other] -= left[leaf]
        arcs.remove(arc)
    return flows


def numbers(least: int, most: int) -> st.SearchStrategy[float]:
    """Of every size that float32 holds, and some that often come together."""
    exponents = st.integers(least, most)
    scaled = st.builds(lambda digits, power: digits * 10.0**power, st.integers(1, 99), exponents)
    return st.one_of(st.just(0.0), st.integers(0, 9).map(float), scaled)


COSTS = st.one_of(numbers(-37, 36), numbers(-3, 2), numbers(12, 16))
WEIGHTS = st.one_of(st.integers(0, 4).map(float), numbers(-6, 0), numbers(-30, 30))
ODD = st.sampled_from([np.nan, np.inf, -np.inf])


def arrays(elements: st.SearchStrategy[float], *shape: int) -> st.SearchStrategy[np.ndarray]:
    count = int(np.prod(shape))
    return st.lists(elements, min_size=count, max_size=count).map(
        lambda values: np.array(values, np.float32).reshape(shape)
    )


BLOCKED = np.array([[1, 9, 1e14], [1e15, 1, 9], [4, 1e16, 2]], np.float32)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(arrays(COSTS, SIZE, SIZE), st.booleans(), arrays(WEIGHTS, SIZE), arrays(WEIGHTS, SIZE))
@example(BLOCKED, False, np.array([0.5, 0.25, 0.25], np.float32), np.full(SIZE, 1 / 3, np.float32))
@example(np.full((SIZE, SIZE), 3e38, np.float32), False, *[np.ones(SIZE, np.float32)] * 2)
@example(np.full((SIZE, SIZE), 1e-44, np.float32), True, *[np.ones(SIZE, np.float32)] * 2)
def test_what_is_called_exact_is_and_bounds_bound(cost, negative, source, target):
    if negative:
        cost = cost * np.array([1, -1, 1], np.float32)
    plan = jax.device_get(solve(cost, source, target))
    if source.sum() == 0 or target.sum() == 0:
        assert not plan.is_exact or (source.sum() == 0 and plan.cost == 0)
        return
    if plan.lower_bound == -np.inf:
        assert not plan.is_exact
        return
    exact = optimum(cost, fractions(source), fractions(target))
    mass = float(source.astype(float).sum())
    paid = float((np.float64(plan.flow) * np.abs(np.float64(cost))).sum())
    underflow = 1e-36 * max(mass, 1)  # below the normal numbers of float32 everything is 0
    assert Fraction(float(plan.lower_bound)) <= exact + Fraction(1e-7 * paid + underflow)
    if plan.is_exact:
        flow = np.array([fractions(row) for row in plan.flow])
        for_its_sums = optimum(cost, list(flow.sum(axis=1)), list(flow.sum(axis=0)))
        assert abs(Fraction(float(plan.cost)) - for_its_sums) <= Fraction(1.2e-5 * paid + underflow)
        np.testing.assert_allclose(plan.flow.sum(axis=1, dtype=float), source, atol=1e-6 * mass)
        scaled = target.astype(float) * (mass / target.sum(dtype=float))
        np.testing.assert_allclose(plan.flow.sum(axis=0, dtype=float), scaled, atol=1e-6 * mass)
        assert plan.flow.min() >= 0


@settings(max_examples=100, deadline=None, derandomize=True)
@given(arrays(st.one_of(COSTS, ODD), SIZE, SIZE), arrays(WEIGHTS, SIZE), st.integers(0, SIZE - 1), ODD)
def test_nothing_is_proven_of_what_is_no_problem(cost, weights, index, odd):
    equal = np.ones(SIZE, np.float32)
    negative = weights.copy()
    negative[index] = -1e-3
    not_finite = cost.copy()
    not_finite[index, 0] = odd
    for arguments in (
        (np.nan_to_num(cost, nan=1, posinf=1, neginf=1), negative, equal),
        (np.nan_to_num(cost, nan=1, posinf=1, neginf=1), equal, negative),
        (not_finite, equal, equal),
        (np.ones_like(cost), np.where(np.arange(SIZE) == index, odd, equal), equal),
        (np.ones_like(cost), equal, 0 * equal),
    ):
        plan = solve(*arguments)
        assert not plan.is_exact
        assert plan.lower_bound == -np.inf
        assert plan.gap == np.inf


@pytest.mark.parametrize("blocked", [1e4, 1e14, 1e20, 1e32])
def test_blocked_cells_do_not_take_the_digits_of_the_others(blocked):
    rng = np.random.default_rng(0)
    for _ in range(20):
        cost = rng.uniform(0.1, 4, (SIZE, SIZE)).astype(np.float32)
        free = np.eye(SIZE, dtype=bool) | (rng.random((SIZE, SIZE)) < 0.4)
        cost = np.where(free, cost, np.float32(blocked))
        weights = rng.dirichlet(np.ones(SIZE)).astype(np.float32)
        plan = solve(cost, weights, weights)
        assert plan.is_exact
        expected = optimum(cost, fractions(weights), fractions(weights))
        assert float(plan.cost) == pytest.approx(float(expected), rel=1e-6)
        assert network_simplex(cost, weights, weights).cost == pytest.approx(float(expected), rel=1e-6)
