"""What the student learns from the teacher's layers: costs, one plan for all devices, cost attention."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from bert_emd_jax.devices.parallel import DEVICES
from bert_emd_jax.devices.precision import wide_einsum
from bert_emd_jax.distillation.distill_config import MappingConfig
from bert_emd_jax.distillation.layer_costs import LayerCost, LayerFeatures
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.heads import ModelOutput
from bert_emd_jax.transport.layer_weights import (
    LayerWeights,
    divergence_from_uniform,
    uniform_layer_weights,
    update_all_layer_weights,
)
from bert_emd_jax.transport.mappings import mapping_plan
from bert_emd_jax.transport.solver import Plan


@struct.dataclass
class TransportState:
    """The marginals of the plans of K costs, in the order of `MappingConfig.mapped_costs`."""

    weights: tuple[LayerWeights, ...]


class LayerPlans(NamedTuple):
    """The plans of K costs with what they were solved from; a step has one of each for every micro-batch."""

    cost: Float[Array, "*micro K S T"]
    flow: Float[Array, "*micro K S T"]
    gap: Float[Array, "*micro K"]


def initial_transport_state(
    config: MappingConfig, student_layers: int, teacher_layers: int
) -> TransportState:
    """Equal layer weights."""
    weights = uniform_layer_weights(student_layers, teacher_layers)
    return TransportState((weights,) * len(config.mapped_costs))


def layer_losses(
    projection: Any,
    student: ModelOutput,
    teacher: ModelOutput,
    micro: Batch,
    start: TransportState | None,
    given_flow: Float[Array, "S T"] | None,
    config: MappingConfig,
) -> tuple[Float[Array, ""], dict[str, Array], LayerPlans | None]:
    """Returns this device's share of θ(A + H) + E, its terms, and the plans, equal on all devices.

    The plans are solved from costs summed over all devices, under stop_gradient: by the envelope theorem
    they are constants of the backward pass, and no collective is differentiated.

    Args:
      projection: the student's `fit_dense`; attention alone needs none.
      start: of the plans, if there are any; only the rule "learned" differentiates its weights.
      given_flow: the plan of a fixed mapping.
    """
    terms: dict[str, Array] = {}
    unmapped, mapped = jnp.zeros(()), jnp.zeros(())
    sums = cost_sums(projection, student, teacher, micro, config)
    counts = {cost: jnp.maximum(jax.lax.psum(count, DEVICES), 1) for cost, (_, count) in sums.items()}
    for cost in config.costs:
        if not cost.is_mapped:
            terms[cost.loss_name] = sums[cost][0] / counts[cost]
            unmapped += terms[cost.loss_name]
    if start is None:
        return unmapped, terms, None

    costs = jnp.stack(
        [
            jax.lax.psum(jax.lax.stop_gradient(sums[cost][0]), DEVICES) / counts[cost]
            for cost in config.mapped_costs
        ]
    )
    plans = _plans(costs, start, given_flow, config)
    for index, cost in enumerate(config.mapped_costs):
        terms[cost.loss_name] = jnp.sum(plans.flow[index] * sums[cost][0]) / counts[cost]
        mapped += terms[cost.loss_name]
        if config.trains_layer_weights:
            terms[cost.penalty_name] = _weight_penalty(plans, start.weights[index], index, config)
            mapped += terms[cost.penalty_name]
    return config.theta * mapped + unmapped, terms, LayerPlans(costs, plans.flow, plans.gap)


def cost_sums(
    projection: Any, student: ModelOutput, teacher: ModelOutput, batch: Batch, config: MappingConfig
) -> dict[LayerCost, tuple[Array, Array]]:
    """(sum, count) of every cost that is learned from, over one device's rows."""
    masks = batch["attention_mask"], config.padding, batch["weights"]
    ours, theirs = ((output.embeddings, output.layer_outputs) for output in (student, teacher))
    if reads(config.costs, "hidden_states"):
        ours = project(ours[0], projection), project(ours[1], projection)
    sides = LayerFeatures(student.attention_scores, ours), LayerFeatures(teacher.attention_scores, theirs)
    return {cost: cost.sums(*sides, *masks) for cost in config.costs}


def reads(costs: Sequence[LayerCost], output: str) -> bool:
    """Whether one of the costs compares that field of the models' outputs."""
    return any(cost.reads == output for cost in costs)


def project(hidden: Float[Array, "... student_dim"], projection: Any) -> Float[Array, "... teacher_dim"]:
    """Student states in the teacher's width, summed in float32 and returned in their own type."""
    kernel = projection["kernel"].astype(hidden.dtype)
    # As one matrix: XLA computes the gradient of a product with more axes more slowly on CPUs.
    flat = hidden.reshape(-1, hidden.shape[-1])
    projected = wide_einsum("nd,de->ne", flat, kernel) + projection["bias"]
    return projected.reshape(*hidden.shape[:-1], -1).astype(hidden.dtype)


def updated_weights(
    weights: Sequence[LayerWeights],
    plans: LayerPlans,
    row_shares: Float[Array, " micro"],
    config: MappingConfig,
) -> tuple[LayerWeights, ...]:
    """Cost attention, once per optimizer step, on the mean transported cost of its micro-batches."""
    transported = [
        jnp.einsum("m,mst->st", row_shares, plans.flow[:, k] * plans.cost[:, k])
        for k in range(plans.cost.shape[1])
    ]
    updated = update_all_layer_weights(
        weights,
        transported,
        rule=config.layer_weight_rule,
        temperature=config.emd_temperature,
        separate=config.separate_layer_weights,
    )
    return weights_that_move(updated, config)


def weights_that_move(weights: Sequence[LayerWeights], config: MappingConfig) -> tuple[LayerWeights, ...]:
    """The weights, with equal ones of teacher layers under a mapping that leaves these alone."""
    if config.how.moves_teacher_weights:
        return tuple(weights)
    return tuple(uniform_layer_weights(*map(len, sides))._replace(student=sides.student) for sides in weights)


def _plans(
    costs: Float[Array, "K S T"],
    start: TransportState,
    given_flow: Float[Array, "S T"] | None,
    config: MappingConfig,
) -> Plan:
    """The plans of all costs, solved side by side."""

    def solve(cost: Array, student: Array, teacher: Array) -> Plan:
        options = {"epsilon": config.epsilon, "options": config.options}
        return mapping_plan(config.mapping, cost, student, teacher, given_flow, **options)

    student, teacher = map(jnp.stack, zip(*jax.lax.stop_gradient(start.weights), strict=True))
    return jax.vmap(solve)(costs, student, teacher)


def _weight_penalty(
    plans: Plan, weights: LayerWeights, index: int, config: MappingConfig
) -> Float[Array, ""]:
    """This device's share of what the rule "learned" adds to the loss of one cost."""
    student, teacher = weights
    penalty = (
        config.layer_weight_entropy
        * jax.lax.stop_gradient(plans.cost[index])
        * (divergence_from_uniform(student) + divergence_from_uniform(teacher))
    )
    # By the envelope theorem the potentials are the gradient of the plan's cost in its marginals.
    # The difference adds that gradient and nothing else: its value is 0.
    marginals = jnp.vdot(plans.source_potentials[index], _difference(student)) + jnp.vdot(
        plans.target_potentials[index], _difference(teacher)
    )
    # Equal on all devices, whose losses are summed.
    return (marginals + penalty) / jax.lax.psum(1, DEVICES)


def _difference(weights: Array) -> Array:
    return weights - jax.lax.stop_gradient(weights)
