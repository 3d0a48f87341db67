"""The queries, keys and values of all layers, computed anew from the states that went into the layers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_emd_jax.devices.precision import wide_einsum
from bert_emd_jax.models.params import STACKED_LAYERS, Params

PROJECTIONS = ("query", "key", "value")


def attention_projection(
    bert: Params, name: str, inputs: Float[Array, "layers batch seq dim"]
) -> Float[Array, "layers batch seq dim"]:
    """Returns one of `PROJECTIONS` of every layer, in the type of its input, for all heads side by side.

    Args:
      bert: the encoder's parameters, those of `stack_layers`, too.
      inputs: the embedding output and the outputs of all layers but the last.
    """
    if STACKED_LAYERS in bert:
        params = bert[STACKED_LAYERS]["attention"][name]
    else:
        layers = [bert[f"layer_{number}"]["attention"][name] for number in range(len(inputs))]
        params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    kernels, bias = params["kernel"].astype(inputs.dtype), params["bias"]
    projected = wide_einsum("nbld,nde->nble", inputs, kernels) + bias[:, None, None]
    return projected.astype(inputs.dtype)
