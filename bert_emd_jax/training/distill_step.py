"""The train step of BERT-EMD: teacher forward, student forward and backward, transport, cost attention."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from bert_emd_jax.bert.heads import BertOutput, forward
from bert_emd_jax.training.config import DistillConfig
from bert_emd_jax.training.gradients import Batch, global_rows, summed_gradients
from bert_emd_jax.training.objectives import soft_loss, task_loss
from bert_emd_jax.training.parallel import DEVICES
from bert_emd_jax.training.state import TrainState, apply_gradients, dropout_key
from bert_emd_jax.transport.cost import attention_cost_sums, embedding_cost_sums, hidden_cost_sums
from bert_emd_jax.transport.layer_weights import LayerWeights, update_shared_layer_weights
from bert_emd_jax.transport.mapping import exact_plan, mapping_plan
from bert_emd_jax.transport.names import uses_layer_weights
from bert_emd_jax.weights.initialization import PROJECTION

Measurements = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Objective:
    """Which terms of the loss are in use: the static part of the step, derived from the flags."""

    config: DistillConfig
    regression: bool

    @property
    def layers(self) -> bool:
        """Whether anything is learned from the teacher's layers."""
        config = self.config
        return config.mapping != "none" and config.objective != "prediction" and config.beta > 0

    @property
    def attention(self) -> bool:
        return self.layers and self.config.use_attention

    @property
    def hidden(self) -> bool:
        return self.layers and self.config.use_hidden

    @property
    def embedding(self) -> bool:
        return self.layers and self.config.use_embedding

    @property
    def prediction(self) -> bool:
        return self.config.objective != "intermediate"


def make_distill_step(
    student: nn.Module,
    teacher: nn.Module,
    optimizer: optax.GradientTransformation,
    objective: Objective,
) -> Callable[[TrainState, dict[str, Any], Batch], tuple[TrainState, Measurements]]:
    """A step for `pmap_step`: (state, frozen, batch [micro, rows, …]) -> (state, measurements).

    `frozen` holds what nobody differentiates: "teacher", its parameters, and "flow" [S, T], the plan of a
    fixed mapping (None for the others).

    Measurements beside the losses: `attention_` and `hidden_` `cost` [micro, S, T], `flow` [micro, S, T] and
    certified `gap` [micro], and the `layer_weights` that these plans were solved with.
    """
    config = objective.config

    def step(state: TrainState, frozen: dict[str, Any], batch: Batch) -> tuple[TrainState, Measurements]:
        rows = global_rows(batch)
        row_shares = rows / jnp.maximum(rows.sum(), 1)

        def loss_share(
            params: Any, micro: Batch, index: Any
        ) -> tuple[jax.Array, tuple[Measurements, Measurements]]:
            teacher_output = forward(teacher, frozen["teacher"], micro)
            student_output = forward(student, params, micro, dropout_key(state, index))
            layer_loss, of_layers, plans = _layer_losses(
                params, student_output, teacher_output, micro, state.layer_weights, frozen["flow"], objective
            )
            prediction, of_prediction = _prediction_losses(
                student_output, teacher_output, micro, jnp.maximum(rows[index], 1), objective
            )
            loss = config.beta * layer_loss + prediction
            shares = {"loss": loss, **of_layers, **of_prediction}
            loss, shares = jax.tree.map(lambda value: value * row_shares[index], (loss, shares))
            return loss, (shares, plans)

        gradients, shares, plans = summed_gradients(loss_share, state.params, batch)
        measurements = {
            **shares,
            **plans,
            "gradient_norm": optax.tree.norm(gradients),
            "layer_weights": state.layer_weights,
        }
        new_state = apply_gradients(state, gradients, optimizer)
        if state.layer_weights is not None and uses_layer_weights(config.mapping) and plans:
            new_state = new_state.replace(  # pyright: ignore[reportAttributeAccessIssue]
                layer_weights=_updated_weights(state.layer_weights, plans, row_shares, config)
            )
        return new_state, measurements

    return step


def project(hidden: Float[Array, "... student_dim"], projection: Any) -> Float[Array, "... teacher_dim"]:
    """Student states in the teacher's width, float32."""
    kernel = projection["kernel"].astype(hidden.dtype)
    projected = jnp.einsum("...d,de->...e", hidden, kernel, preferred_element_type=jnp.float32)
    return projected + projection["bias"]


def _layer_losses(
    params: Any,
    student: BertOutput,
    teacher: BertOutput,
    micro: Batch,
    weights: LayerWeights | None,
    fixed_flow: Float[Array, "S T"] | None,
    objective: Objective,
) -> tuple[jax.Array, Measurements, Measurements]:
    """(this device's share of θ(A + H) + E, its terms, the costs and plans: equal on all devices).

    The plans are solved from costs summed over all devices, under stop_gradient: by the envelope theorem
    they are constants of the backward pass, and no collective is differentiated.
    """
    config = objective.config
    mask, example_weights = micro["attention_mask"], micro["weights"]
    sums: dict[str, tuple[Array, Array]] = {}
    embedding_share = jnp.zeros(())
    if objective.attention:
        sums["attention"] = attention_cost_sums(
            student.attention_scores, teacher.attention_scores, mask, config.padding, example_weights
        )
    if objective.hidden or objective.embedding:
        projected = project(student.hidden_states, params[PROJECTION])
        teacher_hidden = teacher.hidden_states.astype(jnp.float32)
    if objective.hidden:
        sums["hidden"] = hidden_cost_sums(
            projected[1:], teacher_hidden[1:], mask, config.padding, example_weights
        )
    if objective.embedding:
        total, count = embedding_cost_sums(
            projected[0], teacher_hidden[0], mask, config.padding, example_weights
        )
        embedding_share = total / jnp.maximum(jax.lax.psum(count, DEVICES), 1)

    counts = {kind: jnp.maximum(jax.lax.psum(count, DEVICES), 1) for kind, (_, count) in sums.items()}
    costs = {
        kind: jax.lax.psum(jax.lax.stop_gradient(total), DEVICES) / counts[kind]
        for kind, (total, _) in sums.items()
    }
    plans: Measurements = {f"{kind}_cost": cost for kind, cost in costs.items()}
    terms: Measurements = {"embedding_loss": embedding_share} if objective.embedding else {}
    for kind, (flow, gap) in _plans(costs, weights, fixed_flow, objective).items():
        plans |= {f"{kind}_flow": flow, f"{kind}_gap": gap}
        terms[f"{kind}_loss"] = jnp.sum(flow * sums[kind][0]) / counts[kind]
    mapped = sum((terms[f"{kind}_loss"] for kind in sums), jnp.zeros(()))
    return config.theta * mapped + embedding_share, terms, plans


def _plans(
    costs: dict[str, Float[Array, "S T"]],
    weights: LayerWeights | None,
    fixed_flow: Float[Array, "S T"] | None,
    objective: Objective,
) -> dict[str, tuple[Float[Array, "S T"], Float[Array, ""]]]:
    """The (plan, certified gap) of each cost matrix; equal kinds are solved side by side."""
    if not costs:
        return {}
    kinds = list(costs)
    student = jnp.stack([getattr(weights, f"{kind}_student") for kind in kinds])
    teacher = jnp.stack([getattr(weights, f"{kind}_teacher") for kind in kinds])
    mapping = objective.config.mapping

    def solve(cost: Array, source: Array, target: Array) -> tuple[Array, Array]:
        flow, potentials = fixed_flow, None
        if mapping == "emd_exact":
            results = (
                jax.ShapeDtypeStruct(cost.shape, jnp.float32),
                jax.ShapeDtypeStruct(source.shape, jnp.float32),
            )
            flow, potentials = jax.pure_callback(
                exact_plan, results, cost, source, target, vmap_method="sequential"
            )
        plan = mapping_plan(
            mapping,
            cost,
            source,
            target,
            flow,
            epsilon=objective.config.epsilon,
            initial_potentials=potentials,
        )
        return plan.flow, plan.gap

    flows, gaps = jax.vmap(solve)(jnp.stack([costs[kind] for kind in kinds]), student, teacher)
    return {kind: (flows[index], gaps[index]) for index, kind in enumerate(kinds)}


def _prediction_losses(
    student: BertOutput, teacher: BertOutput, micro: Batch, rows: Array, objective: Objective
) -> tuple[jax.Array, Measurements]:
    """This device's share of α soft + (1 - α) hard, and its terms."""
    config = objective.config
    if not objective.prediction:
        return jnp.zeros(()), {}

    def share(per_example: Array) -> Array:
        return jnp.sum(per_example * micro["weights"]) / rows

    terms = {
        "soft_loss": share(
            soft_loss(student.logits, teacher.logits, config.temperature, objective.regression)
        ),
        "hard_loss": share(task_loss(student.logits, micro["labels"], objective.regression)),
    }
    loss = config.alpha * terms["soft_loss"] + (1 - config.alpha) * terms["hard_loss"]
    return loss, terms | {"prediction_loss": loss}


def _updated_weights(
    weights: LayerWeights, plans: Measurements, row_shares: Float[Array, " micro"], config: DistillConfig
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
