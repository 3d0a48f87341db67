"""Our transport solvers beside OTT-JAX and POT: microseconds and true gap, every solver in turn, one process.

    python benchmarks/transport.py [--run student_dir] [--smoke]

Problems have uniform random costs and Dirichlet weights. The gap is (cost - optimum) / optimum, the optimum
by POT in float64; plans of OTT-JAX, whose marginals are off where it stops early, are rounded to feasible
ones first (outside the clock). `--run` solves the cost matrices that a distillation has logged, each problem
starting from the one before, as the train step does.
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ot
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn as ott_sinkhorn

from bert_emd_jax.transport import network_simplex, sinkhorn
from bert_emd_jax.transport.rounding import round_to_marginals

SIZES = ((4, 12), (6, 12), (12, 24), (24, 48))
BATCH = 64
# Final regularisation of OTT-JAX, costs from 0 to 1: its default is about 0.025 for such costs.
OTT_EPSILONS = (5e-2, 1e-2, 1e-3)

Problems = tuple[np.ndarray, np.ndarray, np.ndarray]


def random_problems(count: int, sources: int, targets: int) -> Problems:
    """(costs, source weights, target weights), float32."""
    rng = np.random.default_rng(0)
    return (
        rng.uniform(size=(count, sources, targets)).astype(np.float32),
        rng.dirichlet(np.ones(sources), count).astype(np.float32),
        rng.dirichlet(np.ones(targets), count).astype(np.float32),
    )


def ott_plan(epsilon: float, cost: jax.Array, source: jax.Array, target: jax.Array) -> jax.Array:
    """The plan of OTT-JAX at its own stopping rule, with iterations to spare."""
    problem = linear_problem.LinearProblem(geometry.Geometry(cost, epsilon=epsilon), source, target)
    return ott_sinkhorn.Sinkhorn(max_iterations=5000)(problem).matrix


def our_plan(cost: jax.Array, source: jax.Array, target: jax.Array) -> jax.Array:
    plan = sinkhorn(cost, source, target)
    # All outputs are asked for, so that nothing of the certificate is optimised away.
    return plan.flow + 0 * (plan.lower_bound + plan.gap + plan.is_exact)


def balanced(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The float32 weights in float64, each of total 1: POT insists on it."""
    source, target = np.float64(source), np.float64(target)
    return source / source.sum(), target / target.sum()


def pot_plan(cost: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    return ot.emd(*balanced(source, target), np.float64(cost))


def simplex_plan(cost: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    return network_simplex(cost, source, target).flow


def microseconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median time of each call, the calls taken in turn."""
    for call in calls.values():
        jax.block_until_ready(call())
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - start)
    return {name: 1e6 * statistics.median(values) for name, values in times.items()}


def true_gaps(plans: np.ndarray, problems: Problems) -> np.ndarray:
    """(cost of the plan rounded to the marginals - optimum) / optimum."""
    costs, sources, targets = problems
    gaps = []
    with jax.enable_x64(True):
        for plan, cost, source, target in zip(plans, costs, sources, targets, strict=True):
            weights = balanced(source, target)
            optimum = float(np.sum(ot.emd(*weights, np.float64(cost)) * cost))
            rounded = np.asarray(
                round_to_marginals(jnp.asarray(plan, jnp.float64), *map(jnp.asarray, weights))
            )
            gaps.append((np.sum(rounded * cost) - optimum) / max(optimum, 1e-4 * cost.max()))
    return np.array(gaps)


def compare(sources: int, targets: int, rounds: int) -> None:
    """Prints one size."""
    problems = random_problems(BATCH, sources, targets)
    on_device = {"sinkhorn (ours)": our_plan} | {
        f"OTT-JAX, epsilon {epsilon:g}": functools.partial(ott_plan, epsilon) for epsilon in OTT_EPSILONS
    }
    on_host = {"network_simplex (ours)": simplex_plan, "POT emd": pot_plan}
    single, batched = {}, {}
    plans: dict[str, np.ndarray] = {}
    arrays = [jnp.asarray(values) for values in problems]
    singles = [tuple(values[index] for values in arrays) for index in range(BATCH)]
    turn = iter(int(index) for index in np.random.default_rng(1).integers(0, BATCH, 10**6))
    for name, solve in on_device.items():
        compiled, vmapped = jax.jit(solve), jax.jit(jax.vmap(solve))
        plans[name] = np.asarray(vmapped(*arrays))
        # Every call solves another problem: iterations depend on it.
        single[name] = lambda compiled=compiled: compiled(*singles[next(turn)])
        batched[name] = lambda vmapped=vmapped: vmapped(*arrays)
    for name, solve in on_host.items():
        rows = list(zip(*problems, strict=True))
        plans[name] = np.stack([solve(*row) for row in rows])
        single[name] = lambda solve=solve, rows=rows: solve(*rows[next(turn)])
        batched[name] = lambda solve=solve, rows=rows: [solve(*row) for row in rows]
    one, many = microseconds(single, rounds), microseconds(batched, max(3, rounds // 10))
    print(f"\n{sources} x {targets}: {'µs, one':>19}{'µs, 64 at once':>18}{'gap, median':>14}{'worst':>11}")
    for name in single:
        gaps = true_gaps(plans[name], problems)
        print(f"  {name:<26}{one[name]:>9.0f}{many[name]:>15.0f}{np.median(gaps):>17.1e}{gaps.max():>13.1e}")


def logged_costs(run: Path) -> None:
    """Exactness and pivots on the costs of a real run."""
    with np.load(run / "layer_mapping.npz") as stored:
        mapping = {name: stored[name] for name in stored.files}
    for kind in ("attention", "hidden"):
        problems = [mapping[f"{kind}_{what}"] for what in ("cost", "student_weights", "teacher_weights")]
        solve = jax.jit(sinkhorn)
        exact, pivots, gaps = [], [], []
        for problem in zip(*problems, strict=True):
            plan = solve(*problem)
            exact.append(bool(plan.is_exact))
            pivots.append(int(plan.pivots))
            gaps.append(float(plan.gap))
        print(
            f"\n{run}, {kind}, {len(exact)} problems of {'x'.join(map(str, problems[0].shape[1:]))}: exact in"
            f" {100 * np.mean(exact):.1f} %, pivots mean {np.mean(pivots):.2f}, most {max(pivots)};"
            f" certified gap at most {max(gaps):.1e}"
        )


def share_of_a_step(run: Path) -> None:
    """What the two plans of a step take, beside the run's own seconds per step (run it on this machine)."""
    with np.load(run / "layer_mapping.npz") as stored:
        problems = [
            jnp.stack([stored[f"{kind}_{what}"][-1] for kind in ("attention", "hidden")])
            for what in ("cost", "student_weights", "teacher_weights")
        ]
    solve = jax.jit(jax.vmap(sinkhorn))
    plans = microseconds({"plans": lambda: solve(*problems)}, 300)["plans"] / 1e6
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = [row["examples_per_second"] for row in rows if row["kind"] == "train"]
    batch = json.loads((run / "run_config.json").read_text())["flags"]["train_batch_size"]
    step = batch / statistics.median(rates)
    print(
        f"\n{run}: {1e3 * step:.0f} ms per step, both plans {1e3 * plans:.2f} ms: {100 * plans / step:.2f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", type=Path, help="a distillation's output directory")
    parser.add_argument("--smoke", action="store_true", help="one size, few rounds")
    args = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}")
    for sources, targets in SIZES[:1] if args.smoke else SIZES:
        compare(sources, targets, rounds=20 if args.smoke else 300)
    if args.run:
        logged_costs(args.run)
        share_of_a_step(args.run)


if __name__ == "__main__":
    main()
