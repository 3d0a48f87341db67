"""The train step of BERT-EMD: teacher forward, student forward and backward, transport, cost attention."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from bert_emd_jax.devices.parallel import DEVICES
from bert_emd_jax.distillation.layer_losses import PlanStart, layer_losses, updated_weights
from bert_emd_jax.distillation.teacher_outputs import output_of
from bert_emd_jax.models.heads import BertOutput, forward
from bert_emd_jax.models.initialization import PROJECTION
from bert_emd_jax.training.config import DistillConfig, MappingConfig
from bert_emd_jax.training.gradients import Batch, Measurements, global_rows, summed_gradients
from bert_emd_jax.training.objectives import masked_lm_sums, soft_loss, task_loss
from bert_emd_jax.training.state import TrainState, apply_gradients, dropout_key, unless_bad
from bert_emd_jax.transport.layer_weights import LayerWeights, learned_layer_weights

LAYER_WEIGHT_LOGITS = "layer_weight_logits"
"""Key beside a student's parameters of the trained layer weights' logits."""


class OwnLoss(Protocol):
    """What a student learns beside the teacher's layers."""

    def __call__(
        self, student: BertOutput, teacher: BertOutput, micro: Batch, rows: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Measurements]:
        """This device's share of the loss, and its terms; `rows` are the real ones on all devices."""
        ...


def make_distill_step(
    student: nn.Module,
    teacher: nn.Module,
    optimizer: optax.GradientTransformation,
    config: MappingConfig,
    own_loss: OwnLoss,
    layer_factor: float = 1.0,
) -> Callable[[TrainState, dict[str, Any], Batch], tuple[TrainState, Measurements]]:
    """A step for `pmap_step`: (state, frozen, batch [micro, rows, …]) -> (state, measurements).

    `frozen` holds what nobody differentiates: "teacher", its parameters (None where batches bring its outputs
    along), and "flow" [S, T], the plan of a fixed mapping (None for the others). `layer_factor` weighs all
    that is learned from layers.

    Measurements beside the losses: `attention_` and `hidden_` `cost` [micro, S, T], `flow` [micro, S, T] and
    certified `gap` [micro], and the `layer_weights` that these plans were solved with.
    """

    def weights_of(params: Any, state: TrainState) -> LayerWeights | None:
        if config.trains_layer_weights:
            return learned_layer_weights(params[LAYER_WEIGHT_LOGITS], config.separate_layer_weights)
        return state.layer_weights

    def step(state: TrainState, frozen: dict[str, Any], batch: Batch) -> tuple[TrainState, Measurements]:
        rows = global_rows(batch)
        row_shares = rows / jnp.maximum(rows.sum(), 1)

        def loss_share(
            params: Any, micro: Batch, index: Any
        ) -> tuple[jax.Array, tuple[Measurements, Measurements]]:
            teacher_output = output_of(micro) or forward(
                teacher, frozen["teacher"], micro, logits_only=not config.learns_layers
            )
            student_output = forward(
                student, params, micro, dropout_key(state, index), logits_only=not config.learns_layers
            )
            start = PlanStart(weights_of(params, state), state.potentials, frozen["flow"])
            layer_loss, of_layers, plans = layer_losses(
                params.get(PROJECTION), student_output, teacher_output, micro, start, config
            )
            own, of_own = own_loss(student_output, teacher_output, micro, jnp.maximum(rows[index], 1))
            loss = layer_factor * layer_loss + own
            shares = {"loss": loss, **of_layers, **of_own}
            loss, shares = jax.tree.map(lambda value: value * row_shares[index], (loss, shares))
            return loss, (shares, plans)

        gradients, shares, plans = summed_gradients(loss_share, state.params, batch)
        # The next step's plans start where those of the last micro-batch ended.
        ended = {kind: each[-1] for kind, each in plans.pop("potentials").items()}
        new_state = apply_gradients(state, gradients, optimizer)
        if config.transports and state.layer_weights is not None and state.potentials is not None:
            if config.trains_layer_weights:
                weights = weights_of(new_state.params, new_state)
            else:
                weights = updated_weights(state.layer_weights, plans, row_shares, config)
            new_state = new_state.replace(  # pyright: ignore[reportAttributeAccessIssue]
                layer_weights=weights, potentials=state.potentials | ended
            )
        gradient_norm = optax.tree.norm(gradients)
        new_state = unless_bad(state, new_state, shares["loss"], gradient_norm)
        measurements = {
            **shares,
            **plans,
            "gradient_norm": gradient_norm,
            "bad_steps": new_state.bad_steps,
            "layer_weights": state.layer_weights,
        }
        return new_state, measurements

    return step


@dataclasses.dataclass(frozen=True)
class PredictionLoss:
    """α soft + (1 - α) hard: the teacher's predictions and the true labels."""

    config: DistillConfig
    regression: bool

    def __call__(
        self, student: BertOutput, teacher: BertOutput, micro: Batch, rows: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Measurements]:
        config = self.config
        if not config.learns_predictions:
            return jnp.zeros(()), {}

        def share(per_example: Array) -> Array:
            return jnp.sum(per_example * micro["weights"]) / rows

        soft = soft_loss(student.logits, teacher.logits, config.temperature, self.regression)
        hard = task_loss(student.logits, micro["labels"], self.regression)
        terms = {"soft_loss": share(soft), "hard_loss": share(hard)}
        loss = config.alpha * terms["soft_loss"] + (1 - config.alpha) * terms["hard_loss"]
        return loss, terms | {"prediction_loss": loss}


@dataclasses.dataclass(frozen=True)
class MaskedLMLoss:
    """The student's own masked-LM loss: the mean over all masked tokens of a micro-batch."""

    weight: float

    def __call__(
        self, student: BertOutput, teacher: BertOutput, micro: Batch, rows: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Measurements]:
        if not self.weight:
            return jnp.zeros(()), {}
        total, count = masked_lm_sums(student.logits, micro["masked_labels"], micro["weights"])
        loss = total / jnp.maximum(jax.lax.psum(count, DEVICES), 1)
        return self.weight * loss, {"masked_lm_loss": loss}
