"""What the student learns from the teacher's layers: costs, one plan for all devices, cost attention."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_emd_jax.devices.parallel import DEVICES
from bert_emd_jax.models.heads import BertOutput
from bert_emd_jax.training.config import MappingConfig
from bert_emd_jax.training.gradients import Batch, Measurements
from bert_emd_jax.transport.costs import attention_cost_sums, embedding_cost_sums, hidden_cost_sums
from bert_emd_jax.transport.layer_weights import (
    LayerWeights,
    divergence_from_uniform,
    update_shared_layer_weights,
)
from bert_emd_jax.transport.mappings import exact_plan, mapping_plan
from bert_emd_jax.transport.solver import Plan

# Iterations from the potentials of the step before: on the costs of real runs more of them do not pay, since
# the pivots that follow find the optimum anyway.
_WARM_ITERATIONS = 4


class PlanStart(NamedTuple):
    """What the plans of a step are made from beside its costs, equal on all devices.

    weights: the marginals; only the rule "learned" differentiates them. potentials: by kind, the student
    side's of the step before. flow: the plan [S, T] of a fixed mapping, else None.
    """

    weights: LayerWeights | None
    potentials: Mapping[str, Float[Array, " S"]] | None
    flow: Float[Array, "S T"] | None


def layer_losses(
    projection: Any,
    student: BertOutput,
    teacher: BertOutput,
    micro: Batch,
    start: PlanStart,
    config: MappingConfig,
) -> tuple[jax.Array, Measurements, Measurements]:
    """(this device's share of θ(A + H) + E, its terms, the costs and plans: equal on all devices).

    Args:
      projection: the student's `fit_dense`; attention alone needs none.

    The plans are solved from costs summed over all devices, under stop_gradient: by the envelope theorem
    they are constants of the backward pass, and no collective is differentiated.
    """
    mask, example_weights = micro["attention_mask"], micro["weights"]
    sums: dict[str, tuple[Array, Array]] = {}
    embedding_share = jnp.zeros(())
    if config.learns_attention:
        sums["attention"] = attention_cost_sums(
            student.attention_scores, teacher.attention_scores, mask, config.padding, example_weights
        )
    if config.learns_hidden or config.learns_embedding:
        projected = project(student.hidden_states, projection)
        teacher_hidden = teacher.hidden_states.astype(jnp.float32)
    if config.learns_hidden:
        sums["hidden"] = hidden_cost_sums(
            projected[1:], teacher_hidden[1:], mask, config.padding, example_weights
        )
    if config.learns_embedding:
        total, count = embedding_cost_sums(
            projected[0], teacher_hidden[0], mask, config.padding, example_weights
        )
        embedding_share = total / jnp.maximum(jax.lax.psum(count, DEVICES), 1)

    counts = {kind: jnp.maximum(jax.lax.psum(count, DEVICES), 1) for kind, (_, count) in sums.items()}
    costs = {
        kind: jax.lax.psum(jax.lax.stop_gradient(total), DEVICES) / counts[kind]
        for kind, (total, _) in sums.items()
    }
    plans: Measurements = {f"{kind}_cost": cost for kind, cost in costs.items()} | {"potentials": {}}
    terms: Measurements = {"embedding_loss": embedding_share} if config.learns_embedding else {}
    mapped = jnp.zeros(())
    for kind, plan in _plans(costs, start, config).items():
        plans |= {f"{kind}_flow": plan.flow, f"{kind}_gap": plan.gap}
        plans["potentials"][kind] = plan.source_potentials
        terms[f"{kind}_loss"] = jnp.sum(plan.flow * sums[kind][0]) / counts[kind]
        mapped += terms[f"{kind}_loss"]
        if config.trains_layer_weights and start.weights is not None:
            student_weights, teacher_weights = weights_of(start.weights, kind)
            penalty = (
                config.layer_weight_entropy
                * jax.lax.stop_gradient(plan.cost)
                * (divergence_from_uniform(student_weights) + divergence_from_uniform(teacher_weights))
            )
            # By the envelope theorem the potentials are the gradient of the plan's cost in its marginals.
            # The difference adds that gradient and nothing else: its value is 0.
            marginals = jnp.vdot(plan.source_potentials, _moved(student_weights)) + jnp.vdot(
                plan.target_potentials, _moved(teacher_weights)
            )
            # Equal on all devices, whose losses are summed.
            share = (marginals + penalty) / jax.lax.psum(1, DEVICES)
            terms[f"{kind}_weight_penalty"] = share
            mapped += share
    return config.theta * mapped + embedding_share, terms, plans


def project(hidden: Float[Array, "... student_dim"], projection: Any) -> Float[Array, "... teacher_dim"]:
    """Student states in the teacher's width, float32."""
    kernel = projection["kernel"].astype(hidden.dtype)
    projected = jnp.einsum("...d,de->...e", hidden, kernel, preferred_element_type=jnp.float32)
    return projected + projection["bias"]


def weights_of(weights: LayerWeights, kind: str) -> tuple[Float[Array, " S"], Float[Array, " T"]]:
    """The (student, teacher) weights of the attention plan or of the hidden plan."""
    return getattr(weights, f"{kind}_student"), getattr(weights, f"{kind}_teacher")


def updated_weights(
    weights: LayerWeights, plans: Measurements, row_shares: Float[Array, " micro"], config: MappingConfig
) -> LayerWeights:
    """Cost attention, once per optimizer step, on the mean transported cost of its micro-batches."""

    def transported(kind: str) -> tuple[Array | None, Array | None]:
        if f"{kind}_flow" not in plans:
            return None, None
        each = plans[f"{kind}_flow"] * plans[f"{kind}_cost"]
        mean = jnp.einsum("m,mst->st", row_shares, each)
        # The rules look at flow·cost alone, so the mean product stands for the flow, at cost 1.
        return mean, jnp.ones_like(mean)

    return update_shared_layer_weights(
        weights,
        *transported("attention"),
        *transported("hidden"),
        rule=config.layer_weight_rule,
        temperature=config.emd_temperature,
        separate=config.separate_layer_weights,
    )


def _moved(weights: Array) -> Array:
    return weights - jax.lax.stop_gradient(weights)


def _plans(costs: dict[str, Float[Array, "S T"]], start: PlanStart, config: MappingConfig) -> dict[str, Plan]:
    """The plan of each cost matrix; equal kinds are solved side by side."""
    if not costs:
        return {}
    assert start.weights is not None  # these two are None outside distillation only
    assert start.potentials is not None
    kinds = list(costs)
    weights = jax.lax.stop_gradient([weights_of(start.weights, kind) for kind in kinds])
    student, teacher = (jnp.stack(side) for side in zip(*weights, strict=True))
    mapping = config.mapping

    def solve(cost: Array, source: Array, target: Array, potentials: Array) -> Plan:
        flow = start.flow
        if mapping == "emd_exact":
            results = (
                jax.ShapeDtypeStruct(cost.shape, jnp.float32),
                jax.ShapeDtypeStruct(source.shape, jnp.float32),
            )
            flow, potentials = jax.pure_callback(
                exact_plan, results, cost, source, target, vmap_method="sequential"
            )
        return mapping_plan(mapping, cost, source, target, flow, config.epsilon, _WARM_ITERATIONS, potentials)

    potentials = jnp.stack([start.potentials[kind] for kind in kinds])
    plans = jax.vmap(solve)(jnp.stack([costs[kind] for kind in kinds]), student, teacher, potentials)
    return {
        kind: jax.tree.map(lambda leaf, index=index: leaf[index], plans) for index, kind in enumerate(kinds)
    }
