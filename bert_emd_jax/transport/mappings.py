"""Every way to pair layers, one entry each; all give plans of total 1 for the same cost matrices.

Imports no JAX: programs read the names of the mappings before they pay for it.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bert_emd_jax.errors import UserError
from bert_emd_jax.transport.capacities import capped, capped_on_host
from bert_emd_jax.transport.simplex import network_simplex

if TYPE_CHECKING:
    from jax import Array

    from bert_emd_jax.transport.solver import Plan


class MappingOptions(NamedTuple):
    """What some mappings can be told.

    layer: the teacher layer of `all_to_one`, 0-based; None is the last one.
    capacity: of `capped`, how much more than its weight a teacher layer takes; None is T/S, or 1 for a deeper
      student.
    """

    layer: int | None = None
    capacity: float | None = None

    def capacity_for(self, student_layers: int, teacher_layers: int) -> float:
        """The capacity between so many layers."""
        return max(teacher_layers / student_layers, 1.0) if self.capacity is None else self.capacity


DEFAULT_OPTIONS = MappingOptions()


class FixedPairs(NamedTuple):
    """What a mapping that does not depend on costs follows from: layers, the seed, the epoch, and options."""

    students: int
    teachers: int
    seed: int = 0
    epoch: int = 0
    layer: int | None = None


@dataclasses.dataclass(frozen=True)
class Mapping:
    """A way to pair layers.

    text: what it does, for the documentation.
    layers: the teacher layer of each student layer, [S] and 0-based, or -1 for one that learns from none;
      only for a mapping that does not depend on costs.
    solve: the plan inside a compiled step, see `mapping_plan`; None if `layers` gives it.
    exact: the cost of that plan by the network simplex on the host: (cost, student weights, teacher weights,
      options=), if it transports.
    transports: plans lie between layer weights, which cost attention moves; others keep 1/S.
    moves_teacher_weights: cost attention moves those of the teacher as well.
    calls_host: `solve` calls the host from inside the step.
    learns: anything is learned from layers at all.
    needs_depth: the student may have no more layers than the teacher.
    """

    name: str
    text: str
    layers: Callable[[FixedPairs], np.ndarray] | None = None
    solve: "Callable[..., Plan] | None" = None
    exact: Callable[..., float] | None = None
    moves_teacher_weights: bool = True
    calls_host: bool = False
    learns: bool = True
    needs_depth: bool = False

    @property
    def transports(self) -> bool:
        return self.exact is not None


def _emd(cost: "Array", students: "Array", teachers: "Array", *, epsilon: float | None, **_: Any) -> "Plan":
    from bert_emd_jax.transport.solver import sinkhorn

    return sinkhorn(cost, students, teachers, epsilon=epsilon)


def _capped(
    cost: "Array", students: "Array", teachers: "Array", *, options: MappingOptions, **solver: Any
) -> "Plan":
    return capped(cost, students, teachers, options.capacity_for(*cost.shape), **solver)


def _exact_cost(cost: np.ndarray, students: np.ndarray, teachers: np.ndarray, **_: Any) -> float:
    return network_simplex(cost, students, teachers).cost


def _exact_capped_cost(
    cost: np.ndarray, students: np.ndarray, teachers: np.ndarray, *, options: MappingOptions
) -> float:
    return capped_on_host(cost, students, teachers, options.capacity_for(*cost.shape))


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


def _uniform_layers(pairs: FixedPairs) -> np.ndarray:
    # ⌊(2iT + S) / 2S⌋ in integers: no rounding at the halves.
    numbers = np.arange(1, pairs.students + 1)
    return (2 * numbers * pairs.teachers + pairs.students) // (2 * pairs.students) - 1


def _random_layers(pairs: FixedPairs) -> np.ndarray:
    generator = np.random.default_rng((pairs.seed, pairs.epoch))
    return np.sort(generator.permutation(pairs.teachers)[: pairs.students])


def _last_layers(pairs: FixedPairs) -> np.ndarray:
    return np.array([-1] * (pairs.students - 1) + [pairs.teachers - 1])


def _one_layer(pairs: FixedPairs) -> np.ndarray:
    layer = pairs.teachers - 1 if pairs.layer is None else pairs.layer
    if not 0 <= layer < pairs.teachers:
        raise UserError(f"--mapping_layer {layer}: the teacher has layers 0 to {pairs.teachers - 1}")
    return np.full(pairs.students, layer)


MAPPINGS = {
    mapping.name: mapping
    for mapping in (
        Mapping("emd", "optimal transport, solved on the device", solve=_emd, exact=_exact_cost),
        Mapping(
            "emd_exact",
            "optimal transport, solved on the host by the network simplex",
            solve=_emd_exact,
            exact=_exact_cost,
            calls_host=True,
        ),
        Mapping(
            "capped",
            "transport in which a teacher layer takes at most --teacher_capacity times its share, or nothing",
            solve=_capped,
            exact=_exact_capped_cost,
            moves_teacher_weights=False,  # a layer without mass would never have any again
        ),
        Mapping(
            "uniform",
            "student layer i takes teacher layer ⌊i·T/S + ½⌋ (TinyBERT)",
            _uniform_layers,
            needs_depth=True,
        ),
        Mapping(
            "reverse",
            "the layers of uniform, the other way round",
            lambda pairs: _uniform_layers(pairs)[::-1],
            needs_depth=True,
        ),
        Mapping(
            "top",
            "the last S teacher layers",
            lambda pairs: np.arange(pairs.teachers - pairs.students, pairs.teachers),
            needs_depth=True,
        ),
        Mapping(
            "bottom", "the first S teacher layers", lambda pairs: np.arange(pairs.students), needs_depth=True
        ),
        Mapping("last", "the last student layer takes the last teacher layer, others nothing", _last_layers),
        Mapping("all_to_one", "each student layer takes teacher layer --mapping_layer", _one_layer),
        Mapping("nearest", "each student layer takes the teacher layer that costs least", solve=_nearest),
        Mapping(
            "random", "sorted teacher layers, drawn anew in every epoch", _random_layers, needs_depth=True
        ),
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
    if mapping.needs_depth and student_layers > teacher_layers:
        *others, last = (other.name for other in MAPPINGS.values() if not other.needs_depth)
        raise UserError(
            f"--mapping {name}: the student has {student_layers} layers and the teacher only "
            f"{teacher_layers}; use {', '.join(others)} or {last}."
        )
    return mapping


def fixed_layers(
    name: str,
    student_layers: int,
    teacher_layers: int,
    seed: int = 0,
    epoch: int = 0,
    layer: int | None = None,
) -> Int[np.ndarray, " S"]:
    """The 0-based teacher layer of each student layer, for a mapping that does not depend on costs.

    -1 stands for a student layer that learns from none.

    Raises UserError for layers that it cannot map, and ValueError for a mapping that follows costs.
    """
    mapping = validate_mapping(name, student_layers, teacher_layers)
    if mapping.layers is None:
        fixed = ", ".join(other.name for other in MAPPINGS.values() if other.layers)
        raise ValueError(f"mapping {name!r} does not fix its layers; only {fixed} do")
    return mapping.layers(FixedPairs(student_layers, teacher_layers, seed, epoch, layer))


def fixed_plan(
    name: str,
    student_layers: int,
    teacher_layers: int,
    seed: int = 0,
    epoch: int = 0,
    layer: int | None = None,
) -> Float[np.ndarray, "S T"]:
    """The plan of a fixed mapping: at each (student layer, its teacher layer) the same, 1 in all."""
    flow = np.zeros((student_layers, teacher_layers), np.float32)
    layers = fixed_layers(name, student_layers, teacher_layers, seed, epoch, layer)
    students = np.flatnonzero(layers >= 0)
    flow[students, layers[students]] = 1 / len(students)
    return flow


def mapping_plan(
    name: str,
    cost: "Float[Array, 'S T']",
    student_weights: "Float[Array, ' S']",
    teacher_weights: "Float[Array, ' T']",
    given_flow: "Float[Array, 'S T'] | None" = None,
    *,
    epsilon: float | None = None,
    options: MappingOptions = DEFAULT_OPTIONS,
) -> "Plan":
    """The plan of a mapping inside a compiled step.

    `flow` is a constant; `cost` has the flow as its gradient in the costs. "none" has a flow of zeros.
    Mappings that do not transport are compared with what each student layer would pay with its cheapest
    teacher layer: that is their `lower_bound`, and their gap is 0 for `nearest`.

    Args:
      given_flow: the plan that a fixed mapping has made on the host (`fixed_plan`).
      epsilon: of `sinkhorn`, for a mapping that uses it.
      options: for mappings that have some.

    Raises:
      UserError: such layers cannot have this mapping.
      ValueError: a fixed mapping without its plan.
    """
    mapping = validate_mapping(name, *cost.shape)
    if mapping.solve is not None:
        return mapping.solve(cost, student_weights, teacher_weights, epsilon=epsilon, options=options)
    if given_flow is None:
        raise ValueError(f"mapping {name!r} needs given_flow, the plan that the host has made")
    from bert_emd_jax.transport.solver import given_plan

    return given_plan(cost, given_flow)


def mapped_cost(
    name: str, cost: Float[np.ndarray, "S T"], seed: int = 0, options: MappingOptions = DEFAULT_OPTIONS
) -> float:
    """What a mapping pays for costs on the host, transport solved exactly between equal layer weights."""
    students, teachers = cost.shape
    mapping = validate_mapping(name, students, teachers)
    if mapping.layers is not None:
        return float(np.sum(cost * fixed_plan(name, students, teachers, seed, layer=options.layer)))
    if mapping.exact is not None:
        equal = np.full(students, 1 / students), np.full(teachers, 1 / teachers)
        return mapping.exact(cost, *equal, options=options)
    return float(cost.min(axis=1).mean()) if mapping.learns else 0.0
