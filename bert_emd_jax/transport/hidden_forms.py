"""In which form hidden states are compared, one entry each: as they are, or without their scale.

Imports no JAX: programs read the names of the forms before they pay for it.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jax import Array


@dataclasses.dataclass(frozen=True)
class HiddenForm:
    """What is done to the states of every token, of either side, before their mean squared difference.

    text: the cost of two states, for the documentation.
    apply: [..., dim] to [..., dim], computed in float32 and returned in the type of the states.
    """

    name: str
    text: str
    apply: "Callable[[Array], Array]"


def _cosine(states: "Array") -> "Array":
    import jax
    import jax.numpy as jnp

    wide = states.astype(jnp.promote_types(states.dtype, jnp.float32))
    squares = jnp.sum(jnp.square(wide), axis=-1, keepdims=True)
    # Of such states the mean over features of the squared difference is 1 - cosine.
    scale = jax.lax.rsqrt(squares + _LEAST) * (states.shape[-1] / 2) ** 0.5
    return (wide * scale).astype(states.dtype)


def _normalised(states: "Array") -> "Array":
    import jax
    import jax.numpy as jnp

    wide = states.astype(jnp.promote_types(states.dtype, jnp.float32))
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + _LEAST)).astype(states.dtype)


_LEAST = 1e-12  # of a state of zeros, whose direction is nowhere

HIDDEN_FORMS = {
    form.name: form
    for form in (
        HiddenForm("mse", "mean squared difference", lambda states: states),
        HiddenForm("cosine", "1 - cosine", _cosine),
        HiddenForm(
            "normalised",
            "mean squared difference of states with mean 0 and variance 1, which is 2 (1 - Pearson's r)",
            _normalised,
        ),
    )
}
"""The forms by name, of `--hidden_cost`."""
