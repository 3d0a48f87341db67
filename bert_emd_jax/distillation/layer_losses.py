"""What the student learns from the teacher's layers: costs, one plan for all devices, cost attention."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from bert_emd_jax.devices.parallel import DEVICES
from bert_emd_jax.devices.precision import wide_einsum
from bert_emd_jax.distillation.distill_config import MappingConfig
from bert_emd_jax.distillation.layer_costs import LayerCost, LayerFeatures
from bert_emd_jax.models.attention_projections import PROJECTIONS, attention_projection
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import ModelOutput
from bert_emd_jax.models.params import Params
from bert_emd_jax.transport.hidden_forms import HIDDEN_FORMS
from bert_emd_jax.transport.layer_weights import (
    LayerWeights,
    divergence_from_uniform,
    uniform_layer_weights,
    update_all_layer_weights,
)
from bert_emd_jax.transport.mappings import mapping_plan
from bert_emd_jax.transport.solver import Plan

_LEAST_SHARE = 1e-3


@struct.dataclass
class TransportState:
    """What steps hand on of the plans of K costs, in the order of `MappingConfig.mapped_costs`.

    weights: the marginals of the plans. scales: what the loss of every cost (`MappingConfig.costs`) is
      divided by, 0 before the first step; None if they are not balanced.
    """

    weights: tuple[LayerWeights, ...]
    scales: Float[Array, " costs"] | None = None


class LayerPlans(NamedTuple):
    """The plans of K costs with what they were solved from; a step has one of each for every micro-batch."""

    cost: Float[Array, "*micro K S T"]
    flow: Float[Array, "*micro K S T"]
    gap: Float[Array, "*micro K"]


class Encoders(NamedTuple):
    """The parameters of both encoders and the number of heads, which relations are made of."""

    student: Params
    teacher: Params
    heads: int


def relation_heads(layers: MappingConfig, student: EncoderConfig, teacher: EncoderConfig) -> int:
    """Into how many heads relations split the vectors of both models."""
    return layers.relation_heads or math.gcd(student.num_attention_heads, teacher.num_attention_heads)


def initial_transport_state(
    config: MappingConfig, student_layers: int, teacher_layers: int
) -> TransportState:
    """Equal layer weights, and no scales yet."""
    weights = uniform_layer_weights(student_layers, teacher_layers)
    scales = jnp.zeros(len(config.costs)) if config.balance == "costs" else None
    return TransportState((weights,) * len(config.mapped_costs), scales)


def layer_losses(
    projection: Any,
    student: ModelOutput,
    teacher: ModelOutput,
    micro: Batch,
    start: TransportState | None,
    given_flow: Float[Array, "S T"] | None,
    config: MappingConfig,
    encoders: Encoders | None = None,
) -> tuple[Float[Array, ""], dict[str, Array], LayerPlans | None]:
    """Returns this device's share of θ(A + H) + E, its terms, and the plans, equal on all devices.

    The plans are solved from costs summed over all devices, under stop_gradient: by the envelope theorem
    they are constants of the backward pass, and no collective is differentiated.

    Args:
      projection: the student's `fit_dense`; attention alone needs none.
      start: of the plans, if there are any; only the rule "learned" differentiates its weights.
      given_flow: the plan of a fixed mapping.
      encoders: for relations; nothing else needs them.
    """
    sums = cost_sums(projection, student, teacher, micro, config, encoders)
    counts = {cost: jnp.maximum(jax.lax.psum(count, DEVICES), 1) for cost, (_, count) in sums.items()}
    unmapped = {cost: sums[cost][0] / counts[cost] for cost in config.costs if not cost.is_mapped}
    terms = {cost.loss_name: loss for cost, loss in unmapped.items()}
    if start is None:
        return sum(unmapped.values(), jnp.zeros(())), terms, None

    costs = jnp.stack([_over_devices(sums[cost][0]) / counts[cost] for cost in config.mapped_costs])
    plans = _plans(costs, start, given_flow, config)
    mapped: dict[LayerCost, Array] = {}
    for index, cost in enumerate(config.mapped_costs):
        mapped[cost] = jnp.sum(plans.flow[index] * sums[cost][0]) / counts[cost]
        terms[cost.loss_name] = mapped[cost]
        if config.trains_layer_weights:
            terms[cost.penalty_name] = _weight_penalty(plans, start.weights[index], index, config)
            mapped[cost] += terms[cost.penalty_name]
    if start.scales is not None:
        values = jnp.stack([_over_devices(terms[cost.loss_name]) for cost in config.costs])
        scales = dict(zip(config.costs, known_scales(start.scales, values), strict=True))
        unmapped, mapped = (
            {cost: loss / scales[cost] for cost, loss in side.items()} for side in (unmapped, mapped)
        )
    loss = config.theta * sum(mapped.values()) + sum(unmapped.values(), jnp.zeros(()))
    return loss, terms, LayerPlans(costs, plans.flow, plans.gap)


def cost_sums(
    projection: Any,
    student: ModelOutput,
    teacher: ModelOutput,
    batch: Batch,
    config: MappingConfig,
    encoders: Encoders | None = None,
) -> dict[LayerCost, tuple[Array, Array]]:
    """(sum, count) of every cost that is learned from, over one device's rows; see `layer_losses`."""
    masks = batch["attention_mask"], config.padding, batch["weights"]
    ours, theirs = ((output.embeddings, output.layer_outputs) for output in (student, teacher))
    if reads(config.costs, "hidden_states"):
        form = HIDDEN_FORMS[config.hidden_cost].apply
        ours = project(ours[0], projection), form(project(ours[1], projection))
        theirs = theirs[0], form(theirs[1])
    sides = LayerFeatures(student.attention_scores, ours), LayerFeatures(teacher.attention_scores, theirs)
    if reads(config.costs, "projections"):
        assert encoders is not None
        dtype = student.layer_outputs.dtype  # that of a teacher whose outputs are kept is another one
        ours, theirs = (
            side._replace(projections=_projections(params, output, dtype), relation_heads=encoders.heads)
            for side, params, output in zip(sides, encoders[:2], (student, teacher), strict=True)
        )
        sides = ours, theirs
    return {cost: cost.sums(*sides, *masks) for cost in config.costs}


def _projections(bert: Params, output: ModelOutput, dtype: Any) -> list[Callable[[], Array]]:
    """Queries, keys and values of all layers of an encoder, when they are asked for."""
    inputs = jnp.concatenate([output.embeddings[None], output.layer_outputs[:-1]]).astype(dtype)
    return [functools.partial(attention_projection, bert, name, inputs) for name in PROJECTIONS]


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


def known_scales(scales: Any, values: Any) -> Float[Array, " costs"]:
    """The scales of balanced costs: before there are some, the values of the costs in this step.

    A cost of next to nothing, as that of embeddings that are the teacher's, would weigh without limit: none
    counts as less than a thousandth of the largest.
    """
    first = jnp.maximum(values, _LEAST_SHARE * jnp.max(values))
    return jnp.where(scales > 0, scales, jnp.where(first > 0, first, 1))


def updated_scales(
    scales: Float[Array, " costs"] | None, losses: dict[str, Array], config: MappingConfig
) -> Float[Array, " costs"] | None:
    """The scales of balanced costs after a step: those of the first one, for good."""
    if scales is None:
        return None
    return known_scales(scales, jnp.stack([losses[cost.loss_name] for cost in config.costs]))


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


def _over_devices(values: Array) -> Array:
    """The sum over devices, as a constant."""
    return jax.lax.psum(jax.lax.stop_gradient(values), DEVICES)


def _difference(weights: Array) -> Array:
    return weights - jax.lax.stop_gradient(weights)
