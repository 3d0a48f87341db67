"""What training changes: one pytree, all of it in every checkpoint."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training.dynamic_scale import DynamicScale
from jaxtyping import Array, Float, Int, UInt32

from bert_emd_jax.devices.parallel import DEVICES
from bert_emd_jax.models.params import with_word_embeddings, without_word_embeddings
from bert_emd_jax.training.loss_scale import is_overflow, next_loss_scale

# The generator of the device: nearly free on an accelerator. On CPUs `bert.dropout` draws otherwise.
DROPOUT_GENERATOR = "rbg"


class Frozen(NamedTuple):
    """Which parameters are not trained, as two functions.

    Attributes:
      trained: from all parameters to those that are trained, which have gradients and moments.
      whole: (trained, all parameters before) to all.
    """

    trained: Callable[[Any], Any]
    whole: Callable[[Any, Any], Any]


NOTHING_FROZEN = Frozen(lambda params: params, lambda trained, _: trained)
WORD_EMBEDDINGS_FROZEN = Frozen(without_word_embeddings, with_word_embeddings)


@struct.dataclass
class TrainState:
    """Parameters, optimizer state, what the kind of training keeps, and the step that all stand at.

    `params` holds the trained model and, when distilling, the projection `fit_dense`. `method` is what a
    kind of training keeps beside them from step to step, if anything: layer weights of a distillation.
    `bad_steps` counts the steps in a row, up to this one, whose loss or gradient was not finite.
    `dropout_key` is the raw key that all steps derive theirs from. `loss_scale` is that of float16.
    """

    step: Int[Array, ""]
    bad_steps: Int[Array, ""]
    params: Any
    optimizer_state: optax.OptState
    method: Any
    dropout_key: UInt32[Array, " words"]
    loss_scale: DynamicScale | None = None


def create_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    seed: int,
    method: Any = None,
    loss_scale: DynamicScale | None = None,
    frozen: Frozen = NOTHING_FROZEN,
) -> TrainState:
    """The state before the first step, on the host."""
    key = jax.random.key(seed, impl=DROPOUT_GENERATOR)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        bad_steps=jnp.zeros((), jnp.int32),
        params=params,
        optimizer_state=jax.jit(optimizer.init)(frozen.trained(params)),
        method=method,
        dropout_key=jax.random.key_data(key),
        loss_scale=loss_scale,
    )
    return jax.device_get(state)


def dropout_key(state: TrainState, micro_batch: Int[Array, ""] | int, micro_batches: int) -> Array:
    """The key of one of the micro-batches on this device: a function of (state, device) alone."""
    key = jax.random.wrap_key_data(state.dropout_key, impl=DROPOUT_GENERATOR)
    part = state.step * jax.lax.psum(1, DEVICES) + jax.lax.axis_index(DEVICES)
    return jax.random.fold_in(key, part * micro_batches + micro_batch)


def apply_gradients(
    state: TrainState,
    gradients: Any,
    optimizer: optax.GradientTransformation,
    frozen: Frozen = NOTHING_FROZEN,
) -> TrainState:
    """One optimizer step; gradients are those of what is trained."""
    trained = frozen.trained(state.params)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, trained)
    return state.replace(  # pyright: ignore[reportAttributeAccessIssue]
        step=state.step + 1,
        params=frozen.whole(optax.apply_updates(trained, updates), state.params),
        optimizer_state=optimizer_state,
    )


def unless_nonfinite(
    before: TrainState, after: TrainState, loss: Float[Array, ""], gradient_norm: Float[Array, ""]
) -> TrainState:
    """`after`; if loss or gradient is not finite, `before` with the step counted and nothing learned.

    A step that float16 was too narrow for, with this loss scale, is not among the `bad_steps`.
    """
    good = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
    chosen = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, before)
    is_fault = ~good & ~is_overflow(before.loss_scale, loss, gradient_norm)
    return chosen.replace(  # pyright: ignore[reportAttributeAccessIssue]
        step=after.step,
        bad_steps=jnp.where(is_fault, before.bad_steps + 1, 0),
        loss_scale=next_loss_scale(before.loss_scale, jnp.isfinite(gradient_norm)),
    )
