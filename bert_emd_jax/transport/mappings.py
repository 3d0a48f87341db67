"""Every way to pair layers behind one name: each gives a plan of total 1 for the same cost matrices."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bert_emd_jax.transport.names import FIXED_MAPPINGS, validate_mapping
from bert_emd_jax.transport.rounding import certified_bound, feasible_potentials, relative_gap
from bert_emd_jax.transport.simplex import network_simplex
from bert_emd_jax.transport.solver import DEFAULT_EPSILON, Plan, sinkhorn


def fixed_layers(
    mapping: str, student_layers: int, teacher_layers: int, seed: int = 0, epoch: int = 0
) -> Int[np.ndarray, " S"]:
    """The 0-based teacher layer of each student layer, for uniform, top, bottom and random.

    "uniform" is TinyBERT's (arXiv 1909.10351): student layer i takes teacher layer ⌊i·T/S + ½⌋, counted
    from 1. "random" draws sorted layers without replacement from (seed, epoch). Raises UserError for
    more student than teacher layers.
    """
    validate_mapping(mapping, student_layers, teacher_layers)
    if mapping == "uniform":
        # ⌊(2iT + S) / 2S⌋ in integers: no rounding at the halves.
        return np.array(
            [
                (2 * i * teacher_layers + student_layers) // (2 * student_layers) - 1
                for i in range(1, student_layers + 1)
            ]
        )
    if mapping == "top":
        return np.arange(teacher_layers - student_layers, teacher_layers)
    if mapping == "bottom":
        return np.arange(student_layers)
    if mapping == "random":
        return np.sort(np.random.default_rng((seed, epoch)).permutation(teacher_layers)[:student_layers])
    raise ValueError(f"mapping {mapping!r} does not fix its layers; only {', '.join(FIXED_MAPPINGS)} do")


def fixed_plan(
    mapping: str, student_layers: int, teacher_layers: int, seed: int = 0, epoch: int = 0
) -> Float[np.ndarray, "S T"]:
    """The plan of a fixed mapping, 1/S at each (student layer, its teacher layer); all 0 for "none"."""
    validate_mapping(mapping, student_layers, teacher_layers)
    flow = np.zeros((student_layers, teacher_layers), np.float32)
    if mapping != "none":
        layers = fixed_layers(mapping, student_layers, teacher_layers, seed, epoch)
        flow[np.arange(student_layers), layers] = 1 / student_layers
    return flow


def exact_plan(
    cost: Float[np.ndarray, "S T"],
    student_weights: Float[np.ndarray, " S"],
    teacher_weights: Float[np.ndarray, " T"],
) -> tuple[Float[np.ndarray, "S T"], Float[np.ndarray, " S"]]:
    """Flow and source potentials of "emd_exact", solved on the host, float32.

    A compiled step takes them as `given_flow` and `initial_potentials` of `mapping_plan`.
    """
    cost, student_weights, teacher_weights = map(np.asarray, (cost, student_weights, teacher_weights))
    if not np.isfinite(cost).all():  # the step that asks will be skipped; an error here would end the run
        return np.full_like(cost, np.nan), np.full_like(student_weights, np.nan)
    exact = network_simplex(cost, student_weights, teacher_weights)
    return exact.flow.astype(np.float32), exact.source_potentials.astype(np.float32)


def mapping_plan(
    mapping: str,
    cost: Float[Array, "S T"],
    student_weights: Float[Array, " S"],
    teacher_weights: Float[Array, " T"],
    given_flow: Float[Array, "S T"] | None = None,
    epsilon: float = DEFAULT_EPSILON,
    max_iterations: int | None = None,
    initial_potentials: Float[Array, " S"] | None = None,
) -> Plan:
    """The plan of a mapping inside a compiled step: `emd` and `nearest` follow the cost, others `given_flow`.

    `flow` is a constant; `cost` has the flow as its gradient in the costs. "none" has a flow of zeros.
    Mappings that are no transport (all but emd and emd_exact) are compared with what each student layer
    would pay with its cheapest teacher layer: that is their `lower_bound`, and their gap is 0 for
    `nearest`. Raises UserError for a mapping that such layers cannot have.
    """
    validate_mapping(mapping, *cost.shape)
    if mapping == "emd":
        return sinkhorn(
            cost,
            student_weights,
            teacher_weights,
            epsilon,
            max_iterations,
            initial_potentials=initial_potentials,
        )
    constant_cost = jax.lax.stop_gradient(cost)
    layers, teacher_layers = cost.shape
    if mapping == "nearest":
        flow = jax.nn.one_hot(constant_cost.argmin(axis=1), teacher_layers, dtype=cost.dtype) / layers
    elif mapping == "none":
        flow = jnp.zeros_like(cost)
    elif given_flow is None:
        raise ValueError(f"mapping {mapping!r} needs given_flow, the plan that the host has made")
    else:
        flow = jax.lax.stop_gradient(jnp.asarray(given_flow, cost.dtype))
    if mapping == "emd_exact" and initial_potentials is not None:
        potentials = feasible_potentials(constant_cost, jax.lax.stop_gradient(initial_potentials))
        bound = certified_bound(constant_cost, flow.sum(axis=1), flow.sum(axis=0), *potentials)
    else:
        potentials = (constant_cost.min(axis=1), jnp.zeros(teacher_layers, cost.dtype))
        bound = (flow.sum(axis=1) * potentials[0]).sum()
    total = (flow * cost).sum()
    return Plan(
        flow=flow,
        cost=total,
        lower_bound=bound,
        gap=relative_gap(constant_cost, jax.lax.stop_gradient(total), bound),
        is_exact=jnp.asarray(mapping == "emd_exact"),
        source_potentials=potentials[0],
        target_potentials=potentials[1],
        pivots=jnp.zeros((), jnp.int32),
    )
