"""The train step of plain fine-tuning."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from bert_emd_jax.models.heads import forward
from bert_emd_jax.training.gradients import Batch, global_rows, summed_gradients
from bert_emd_jax.training.objectives import task_loss
from bert_emd_jax.training.state import TrainState, apply_gradients, dropout_key, unless_bad


def make_finetune_step(
    model: nn.Module, optimizer: optax.GradientTransformation, *, regression: bool
) -> Callable[[TrainState, None, Batch], tuple[TrainState, dict[str, Any]]]:
    """A step for `pmap_step`: (state, None, batch [micro, rows, …]) -> (state, measurements).

    The loss is the mean over the real rows of the global batch, whatever devices and micro-batches they
    lie on.
    """

    def step(state: TrainState, frozen: None, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        del frozen
        rows = jnp.maximum(global_rows(batch).sum(), 1)

        def loss_share(params: Any, micro: Batch, index: Any) -> tuple[jax.Array, tuple[dict, dict]]:
            logits = forward(model, params, micro, dropout_key(state, index), logits_only=True).logits
            losses = task_loss(logits, micro["labels"], regression)
            share = jnp.sum(losses * micro["weights"]) / rows
            return share, ({"loss": share}, {})

        gradients, measurements, _ = summed_gradients(loss_share, state.params, batch)
        gradient_norm = optax.tree.norm(gradients)
        new_state = apply_gradients(state, gradients, optimizer)
        new_state = unless_bad(state, new_state, measurements["loss"], gradient_norm)
        return new_state, measurements | {"gradient_norm": gradient_norm, "bad_steps": new_state.bad_steps}

    return step
