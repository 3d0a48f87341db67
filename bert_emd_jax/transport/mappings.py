"""Every way to pair layers, one entry each; all give plans of total 1 for the same cost matrices.

Imports no JAX: programs read the names of the mappings before they pay for it.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from bert_emd_jax.errors import UserError
from bert_emd_jax.transport.simplex import network_simplex

if TYPE_CHECKING:
    from jax import Array

    from bert_emd_jax.transport.solver import Plan


@dataclasses.dataclass(frozen=True)
class Mapping:
    """A way to pair layers.

    text: what it does, for the documentation.
    layers: (student layers S, teacher layers T, seed, epoch) to the teacher layer of each student layer, [S]
      and 0-based; only for a mapping that does not depend on costs.
    solve: the plan inside a compiled step, see `mapping_plan`; None if `layers` gives it.
    transports: plans lie between layer weights, which cost attention moves; others keep 1/S.
    calls_host: `solve` calls the host from inside the step.
    learns: anything is learned from layers at all.
    """

    name: str
    text: str
    layers: Callable[[int, int, int, int], np.ndarray] | None = None
    solve: "Callable[..., Plan] | None" = None
    transports: bool = False
    calls_host: bool = False
    learns: bool = True


def _emd(cost: "Array", student_weights: "Array", teacher_weights: "Array", **options: Any) -> "Plan":
    from bert_emd_jax.transport.solver import sinkhorn

    return sinkhorn(cost, student_weights, teacher_weights, **options)


def _emd_exact(cost: "Array", student_weights: "Array", teacher_weights: "Array", **_: Any) -> "Plan":
    import jax
    import jax.numpy as jnp

    from bert_emd_jax.transport.solver import given_plan

    shapes = (
        jax.ShapeDtypeStruct(cost.shape, jnp.float32),
        jax.ShapeDtypeStruct(student_weights.shape, jnp.float32),
    )
    constants = jax.lax.stop_gradient((cost, student_weights, teacher_weights))
    flow, potentials = jax.pure_callback(_exact_on_host, shapes, *constants, vmap_method="sequential")
    return given_plan(cost, flow, potentials)


def _exact_on_host(
    cost: Float[np.ndarray, "S T"],
    student_weights: Float[np.ndarray, " S"],
    teacher_weights: Float[np.ndarray, " T"],
) -> tuple[Float[np.ndarray, "S T"], Float[np.ndarray, " S"]]:
    """Flow and source potentials, float32."""
    cost, student_weights, teacher_weights = map(np.asarray, (cost, student_weights, teacher_weights))
    if not np.isfinite(cost).all():  # the step that asks will be skipped; an error here would end the run
        return np.full_like(cost, np.nan), np.full_like(student_weights, np.nan)
    exact = network_simplex(cost, student_weights, teacher_weights)
    return exact.flow.astype(np.float32), exact.source_potentials.astype(np.float32)


def _nearest(cost: "Array", *_: Any, **__: Any) -> "Plan":
    import jax

    from bert_emd_jax.transport.solver import given_plan

    cheapest = jax.lax.stop_gradient(cost).argmin(axis=1)
    return given_plan(cost, jax.nn.one_hot(cheapest, cost.shape[1], dtype=cost.dtype) / cost.shape[0])


def _none(cost: "Array", *_: Any, **__: Any) -> "Plan":
    import jax.numpy as jnp

    from bert_emd_jax.transport.solver import given_plan

    return given_plan(cost, jnp.zeros_like(cost))


def _uniform_layers(students: int, teachers: int, seed: int, epoch: int) -> np.ndarray:
    # ⌊(2iT + S) / 2S⌋ in integers: no rounding at the halves.
    numbers = np.arange(1, students + 1)
    return (2 * numbers * teachers + students) // (2 * students) - 1


def _random_layers(students: int, teachers: int, seed: int, epoch: int) -> np.ndarray:
    return np.sort(np.random.default_rng((seed, epoch)).permutation(teachers)[:students])


MAPPINGS = {
    mapping.name: mapping
    for mapping in (
        Mapping("emd", "optimal transport, solved on the device", solve=_emd, transports=True),
        Mapping(
            "emd_exact",
            "optimal transport, solved on the host by the network simplex",
            solve=_emd_exact,
            transports=True,
            calls_host=True,
        ),
        Mapping("uniform", "student layer i takes teacher layer ⌊i·T/S + ½⌋ (TinyBERT)", _uniform_layers),
        Mapping("top", "the last S teacher layers", lambda s, t, seed, epoch: np.arange(t - s, t)),
        Mapping("bottom", "the first S teacher layers", lambda s, t, seed, epoch: np.arange(s)),
        Mapping("nearest", "each student layer takes the teacher layer that costs least", solve=_nearest),
        Mapping("random", "sorted teacher layers, drawn anew in every epoch", _random_layers),
        Mapping("none", "nothing is learned from layers", solve=_none, learns=False),
    )
}
"""The mappings by name. TinyBERT: arXiv 1909.10351."""


def validate_mapping(name: str, student_layers: int, teacher_layers: int) -> Mapping:
    """The entry of a mapping; raises UserError if it is unknown or cannot map so many student layers."""
    if name not in MAPPINGS:
        raise UserError(f"--mapping {name}: unknown; choose one of {', '.join(MAPPINGS)}.")
    if student_layers < 1 or teacher_layers < 1:
        raise UserError(
            f"--mapping {name}: needs at least one layer on each side, "
            f"got {student_layers} student and {teacher_layers} teacher layers."
        )
    mapping = MAPPINGS[name]
    if mapping.layers and student_layers > teacher_layers:
        *others, last = (other.name for other in MAPPINGS.values() if not other.layers)
        raise UserError(
            f"--mapping {name}: the student has {student_layers} layers and the teacher only "
            f"{teacher_layers}; use {', '.join(others)} or {last}."
        )
    return mapping


def fixed_layers(
    name: str, student_layers: int, teacher_layers: int, seed: int = 0, epoch: int = 0
) -> Int[np.ndarray, " S"]:
    """The 0-based teacher layer of each student layer, for a mapping that does not depend on costs.

    Raises UserError for more student than teacher layers, and ValueError for a mapping that follows costs.
    """
    mapping = validate_mapping(name, student_layers, teacher_layers)
    if mapping.layers is None:
        fixed = ", ".join(other.name for other in MAPPINGS.values() if other.layers)
        raise ValueError(f"mapping {name!r} does not fix its layers; only {fixed} do")
    return mapping.layers(student_layers, teacher_layers, seed, epoch)


def fixed_plan(
    name: str, student_layers: int, teacher_layers: int, seed: int = 0, epoch: int = 0
) -> Float[np.ndarray, "S T"]:
    """The plan of a fixed mapping, 1/S at each (student layer, its teacher layer)."""
    flow = np.zeros((student_layers, teacher_layers), np.float32)
    layers = fixed_layers(name, student_layers, teacher_layers, seed, epoch)
    flow[np.arange(student_layers), layers] = 1 / student_layers
    return flow


def mapping_plan(
    name: str,
    cost: "Float[Array, 'S T']",
    student_weights: "Float[Array, ' S']",
    teacher_weights: "Float[Array, ' T']",
    given_flow: "Float[Array, 'S T'] | None" = None,
    *,
    epsilon: float | None = None,
) -> "Plan":
    """The plan of a mapping inside a compiled step.

    `flow` is a constant; `cost` has the flow as its gradient in the costs. "none" has a flow of zeros.
    Mappings that do not transport are compared with what each student layer would pay with its cheapest
    teacher layer: that is their `lower_bound`, and their gap is 0 for `nearest`.

    Args:
      given_flow: the plan that a fixed mapping has made on the host (`fixed_plan`).
      epsilon: of `sinkhorn`, for a mapping that uses it.

    Raises:
      UserError: such layers cannot have this mapping.
      ValueError: a fixed mapping without its plan.
    """
    mapping = validate_mapping(name, *cost.shape)
    if mapping.solve is not None:
        return mapping.solve(cost, student_weights, teacher_weights, epsilon=epsilon)
    if given_flow is None:
        raise ValueError(f"mapping {name!r} needs given_flow, the plan that the host has made")
    from bert_emd_jax.transport.solver import given_plan

    return given_plan(cost, given_flow)


def mapped_cost(name: str, cost: Float[np.ndarray, "S T"], seed: int = 0) -> float:
    """What a mapping pays for costs on the host, transport solved exactly between equal layer weights."""
    students, teachers = cost.shape
    mapping = validate_mapping(name, students, teachers)
    if mapping.layers is not None:
        return float(np.sum(cost * fixed_plan(name, students, teachers, seed)))
    if mapping.transports:
        equal = np.full(students, 1 / students), np.full(teachers, 1 / teachers)
        return network_simplex(cost, *equal).cost
    return float(cost.min(axis=1).mean()) if mapping.learns else 0.0
