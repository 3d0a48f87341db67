"""The activations of published BERT configs, by their Hugging Face names."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Activation = Callable[[Float[Array, "..."]], Float[Array, "..."]]


def _gelu_exact(x: Array) -> Array:
    # As PyTorch computes it, in float32 at least; jax.nn.gelu takes erfc, which is slower.
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (wide * 0.5 * (1 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


def _gelu_tanh(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=True)


def _mish(x: Array) -> Array:
    return x * jnp.tanh(jax.nn.softplus(x))


_ACTIVATIONS: dict[str, Activation] = {
    "gelu": _gelu_exact,  # BERT's own; jax.nn.gelu defaults to the tanh form
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
    "mish": _mish,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
}


def activation(name: str) -> Activation:
    """Returns the activation with this `hidden_act` name; names are checked by the configs."""
    return _ACTIVATIONS[name]
