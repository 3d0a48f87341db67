import os

import numpy as np
import pytest
from scipy.optimize import linprog

from bert_emd_jax.transport import network_simplex

# `make bench` sets 10000, which takes some minutes.
PROBLEMS = int(os.environ.get("NETWORK_SIMPLEX_PROBLEMS", "500"))


def highs_cost(cost, source, target):
    sources, targets = cost.shape
    rows = np.kron(np.eye(sources), np.ones(targets))
    columns = np.kron(np.ones(sources), np.eye(targets))
    solved = linprog(
        cost.ravel(), A_eq=np.vstack([rows, columns])[:-1], b_eq=[*source, *target[:-1]], method="highs"
    )
    assert solved.status == 0
    return solved.fun


def assert_optimal(exact, cost, source, target):
    """The plan has the marginals, and its potentials prove that no plan is cheaper."""
    size = max(np.abs(cost).max(), 1e-300)
    target = target * (source.sum() / target.sum())
    np.testing.assert_allclose(exact.flow.sum(axis=1), source, atol=1e-13 * source.sum())
    np.testing.assert_allclose(exact.flow.sum(axis=0), target, atol=1e-13 * source.sum())
    assert exact.flow.min() >= 0
    reduced = cost - exact.source_potentials[:, None] - exact.target_potentials
    assert reduced.min() >= -1e-12 * size
    assert np.abs(reduced[exact.flow > 0]).max() <= 1e-12 * size
    assert exact.cost == pytest.approx((exact.flow * cost).sum(), rel=1e-14)


def test_equals_pot_and_proves_itself_optimal(problem):
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(0)
    for number in range(PROBLEMS):
        cost, source, target = problem(rng, rng.integers(1, 26), rng.integers(1, 51), number)
        exact = network_simplex(cost, source, target)
        assert_optimal(exact, cost, source, target)
        plan = ot.emd(source, target * (source.sum() / target.sum()), cost, numItermax=10**6)
        assert exact.cost == pytest.approx((plan * cost).sum(), rel=1e-9, abs=1e-13 * cost.max()), number


def test_equals_highs(problem):
    rng = np.random.default_rng(1)
    for number in range(PROBLEMS):
        cost, source, target = problem(rng, rng.integers(1, 26), rng.integers(1, 51), number)
        scale = cost.max() or 1.0
        found = network_simplex(cost / scale, source, target).cost
        assert found == pytest.approx(highs_cost(cost / scale, source, target), rel=1e-9, abs=1e-9), number


def test_one_layer_on_a_side_has_one_plan():
    exact = network_simplex(np.array([[3.0, 1.0]]), np.array([1.0]), np.array([0.25, 0.75]))
    np.testing.assert_allclose(exact.flow, [[0.25, 0.75]])
    assert exact.cost == pytest.approx(1.5)
    assert network_simplex(np.array([[2.0]]), np.array([1.0]), np.array([1.0])).cost == 2


def test_negative_costs_and_totals_other_than_one():
    cost = np.array([[-1.0, 2.0], [0.0, -5.0]])
    exact = network_simplex(cost, np.array([3.0, 1.0]), np.array([2.0, 2.0]))
    np.testing.assert_allclose(exact.flow, [[2, 1], [0, 1]])
    assert exact.cost == pytest.approx(-5)


def test_weights_of_float32_need_not_sum_equally():
    source, target = np.full(3, 1 / 3, np.float32), np.full(12, 1 / 12, np.float32)
    exact = network_simplex(np.random.default_rng(0).random((3, 12)), source, target)
    np.testing.assert_allclose(exact.flow.sum(axis=1), source, rtol=1e-12)
    np.testing.assert_allclose(exact.flow.sum(axis=0), target, rtol=1e-6)


@pytest.mark.parametrize(
    ("cost", "source", "target", "message"),
    [
        ([[np.nan]], [1], [1], "cost must be finite"),
        ([[np.inf]], [1], [1], "cost must be finite"),
        ([[1.0]], [np.nan], [1], "source_weights must be finite"),
        ([[1.0, 1.0]], [1], [2, -1], "target_weights must not be negative"),
        ([[1.0]], [1], [1.001], "must agree to 1e-05 relative"),
        ([[1.0]], [0], [0], "positive total"),
        ([[1.0, 2.0]], [1], [1], "needs 1 source and 2 target weights"),
        ([1.0, 2.0], [1], [1], "must be a matrix"),
    ],
)
def test_bad_input_is_refused(cost, source, target, message):
    with pytest.raises(ValueError, match=message):
        network_simplex(cost, source, target)
