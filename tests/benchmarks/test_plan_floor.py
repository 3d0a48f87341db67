"""What no plan with equal weights can avoid, against vectors whose best groups are found by trying all."""

import itertools

import numpy as np
import pytest
from plan_floor import least_spread, spread
from scipy.spatial.distance import cdist


@pytest.fixture
def layers() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(6, 40))


def test_the_spread_is_the_distance_to_the_mean(layers: np.ndarray):
    flow = np.random.default_rng(4).random((4, 6))
    means = (flow @ layers) / flow.sum(axis=1, keepdims=True)
    distances = cdist(layers, layers, "sqeuclidean")
    np.testing.assert_allclose(spread(distances, flow), cdist(means, layers, "sqeuclidean"), rtol=1e-10)


def test_the_best_groups_are_found(layers: np.ndarray):
    """Where T is a multiple of S a vertex of the plans is a grouping of the layers, T/S in each group."""

    def left(grouping: tuple[int, ...]) -> float:
        groups = [layers[np.array(grouping) == group] for group in range(3)]
        return sum(float(((group - group.mean(axis=0)) ** 2).sum()) for group in groups) / 6

    best = min(left(grouping) for grouping in set(itertools.permutations((0, 0, 1, 1, 2, 2))))
    distances = cdist(layers, layers, "sqeuclidean")
    assert least_spread(distances, 3, searches=30) == pytest.approx(best, rel=1e-9)


def test_nothing_is_left_where_there_are_as_many_layers(layers: np.ndarray):
    assert least_spread(cdist(layers, layers, "sqeuclidean"), 6, searches=3) == pytest.approx(0, abs=1e-9)
