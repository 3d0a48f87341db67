"""What training changes: one pytree, all of it in every checkpoint."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Int, UInt32

from bert_emd_jax.training.parallel import DEVICES
from bert_emd_jax.transport.layer_weights import LayerWeights

# The random-bit generator of the device: several times cheaper than JAX's default for dropout on a CPU.
DROPOUT_GENERATOR = "rbg"


@struct.dataclass
class TrainState:
    """Parameters, optimizer state, cost-attention weights, and the step they stand at.

    `params` holds the trained model and, when distilling, the projection `fit_dense`. `layer_weights` is
    None outside distillation. `dropout_key` is the raw key that all steps derive theirs from.
    """

    step: Int[Array, ""]
    params: Any
    optimizer_state: optax.OptState
    layer_weights: LayerWeights | None
    dropout_key: UInt32[Array, " words"]


def create_state(
    params: Any, optimizer: optax.GradientTransformation, seed: int, layer_weights: LayerWeights | None = None
) -> TrainState:
    """The state before the first step, on the host."""
    key = jax.random.key(seed, impl=DROPOUT_GENERATOR)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer_state=jax.jit(optimizer.init)(params),
        layer_weights=layer_weights,
        dropout_key=jax.random.key_data(key),
    )
    return jax.device_get(state)


def dropout_key(state: TrainState, micro_batch: Int[Array, ""] | int) -> Array:
    """The key of one micro-batch on this device: a function of (state, device) alone."""
    key = jax.random.wrap_key_data(state.dropout_key, impl=DROPOUT_GENERATOR)
    for part in (state.step, jax.lax.axis_index(DEVICES), micro_batch):
        key = jax.random.fold_in(key, part)
    return key


def apply_gradients(state: TrainState, gradients: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """One optimizer step."""
    updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
    return state.replace(  # pyright: ignore[reportAttributeAccessIssue]
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        optimizer_state=optimizer_state,
    )
