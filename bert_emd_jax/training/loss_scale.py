"""The loss scale of float16, whose small gradients would be 0 without it: a step's function of the state."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.training.dynamic_scale import DynamicScale
from jaxtyping import Array, Bool, Float

_SMALLEST = 1.0


def initial_loss_scale(dtype: str) -> DynamicScale | None:
    """Returns what a state starts with: 2¹⁶ for float16, None for types with the exponents of float32."""
    if dtype != "float16":
        return None
    scale = DynamicScale(minimum_scale=_SMALLEST)
    return scale.replace(fin_steps=np.int32(0), scale=np.float32(scale.scale))


def unscaled(gradients: object, scale: DynamicScale | None) -> object:
    """Returns the gradients of the loss itself."""
    return gradients if scale is None else jax.tree.map(lambda leaf: leaf / scale.scale, gradients)


def is_overflow(
    scale: DynamicScale | None, loss: Float[Array, ""], gradient_norm: Float[Array, ""]
) -> Bool[Array, ""]:
    """Whether a step's gradients are not finite although its loss is: the scale is too large for it."""
    if scale is None:
        return jnp.zeros((), bool)
    return jnp.isfinite(loss) & ~jnp.isfinite(gradient_norm) & (scale.scale > _SMALLEST)


def next_loss_scale(scale: DynamicScale | None, is_finite: Bool[Array, ""]) -> DynamicScale | None:
    """Returns the scale of the next step, by the rule of `DynamicScale`, whose own gradient knows one device.

    Half of it after a step whose gradients, over all devices and micro-batches, are not finite; twice of it
    after `growth_interval` good steps in a row.
    """
    if scale is None:
        return None
    grows = is_finite & (scale.fin_steps == scale.growth_interval)
    largest = jnp.finfo(jnp.float32).max
    larger = jnp.minimum(scale.scale * scale.growth_factor, largest)
    smaller = jnp.maximum(scale.scale * scale.backoff_factor, _SMALLEST)
    value = jnp.where(is_finite, jnp.where(grows, larger, scale.scale), smaller)
    steps = jnp.where(grows | ~is_finite, 0, scale.fin_steps + 1)
    return scale.replace(scale=value.astype(jnp.float32), fin_steps=steps.astype(jnp.int32))
