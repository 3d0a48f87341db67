"""Gradients of a step: summed over micro-batches here, over devices by the caller's loss and one psum."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from bert_emd_jax.devices.parallel import DEVICES

Batch = Mapping[str, jax.Array]
Measurements = dict[str, Any]
LossFunction = Callable[[Any, Batch, Any], tuple[jax.Array, tuple[Measurements, Measurements]]]


def summed_gradients(
    loss_function: LossFunction, params: Any, batch: Batch
) -> tuple[Any, Measurements, Measurements]:
    """Gradients summed over micro-batches and devices, and the measurements beside them.

    Args:
      loss_function: `(params, micro_batch, index) -> (loss, (shares, global values))`. Loss and shares are
        this device's part: over all devices and micro-batches they add up to those of the step. Global
        values are equal on all devices.
      batch: arrays [micro_batches, rows, …] of this device.

    Returns:
      (gradients, shares summed over micro-batches and devices, global values [micro_batches, …]).
    """
    gradient_function = jax.grad(loss_function, has_aux=True)
    micro_batches = next(iter(batch.values())).shape[0]

    def one(index: Any) -> tuple[Any, tuple[Measurements, Measurements]]:
        return gradient_function(params, jax.tree.map(lambda values: values[index], batch), index)

    def accumulate(sums: Any, index: Any) -> tuple[Any, Measurements]:
        gradients, (shares, global_values) = one(index)
        return jax.tree.map(jnp.add, sums, (gradients, shares)), global_values

    if micro_batches == 1:  # the usual case, without a loop around the model
        gradients, (shares, global_values) = one(0)
        global_values = jax.tree.map(lambda value: value[None], global_values)
    else:
        shapes = jax.eval_shape(one, jnp.asarray(0))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[0], shapes[1][0]))
        (gradients, shares), global_values = jax.lax.scan(accumulate, zeros, jnp.arange(micro_batches))
    gradients, shares = jax.lax.psum((gradients, shares), DEVICES)
    return gradients, shares, global_values


def global_rows(batch: Batch) -> jax.Array:
    """Real rows (weight 1) of each micro-batch over all devices, [micro_batches]."""
    return jax.lax.psum(batch["weights"].sum(axis=1), DEVICES)
