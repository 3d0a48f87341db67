"""Transport problems that the tests of both solvers share."""

from collections.abc import Callable

import numpy as np
import pytest

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_problem(rng: np.random.Generator, sources: int, targets: int, kind: int) -> Problem:
    """Costs and weights: random, tied, equal rows, badly scaled, geometric, sparse; weights of four kinds."""
    costs = {
        0: lambda: rng.random((sources, targets)),
        1: lambda: rng.integers(0, 4, (sources, targets)).astype(float),
        2: lambda: np.repeat(rng.random((1, targets)), sources, axis=0),
        3: lambda: rng.random((sources, targets)) * 10.0 ** rng.uniform(-8, 8),
        4: lambda: np.subtract.outer(np.arange(sources) / sources, np.arange(targets) / targets) ** 2,
        5: lambda: (rng.random((sources, targets)) < 0.2).astype(float),
        6: lambda: np.full((sources, targets), rng.choice([0.0, 1e-8, 1.0, 1e8])),
    }
    cost = costs[kind % 7]()
    weights = (kind // 7) % 4
    if weights == 0:
        return cost, np.full(sources, 1 / sources), np.full(targets, 1 / targets)
    if weights == 1:
        # Whole numbers: many partial sums coincide, and some weights are 0.
        source = rng.integers(0, 4, sources).astype(float)
        source[0] += 1
        return (
            cost,
            source / source.sum(),
            rng.multinomial(source.sum(), np.ones(targets) / targets) / source.sum(),
        )
    source, target = rng.dirichlet(np.ones(sources)), rng.dirichlet(np.ones(targets))
    if weights == 3:
        source[1:][rng.random(sources - 1) < 0.3] = 0
        target[1:][rng.random(targets - 1) < 0.3] = 0
        source, target = source / source.sum(), target / target.sum()
    return cost, source, target


@pytest.fixture(scope="session")
def problem() -> Callable[..., Problem]:
    return make_problem
