"""What a student's vectors of texts learn from a teacher's."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_emd_jax.devices.parallel import DEVICES
from bert_emd_jax.models.pooling import normalize


def squared_vector_error(
    student: Float[Array, "batch dim"], teacher: Float[Array, "batch dim"]
) -> Float[Array, " batch"]:
    """The mean over dimensions of the squared difference: 2 (1 - cosine) / dim if both have length 1."""
    return jnp.mean(jnp.square(student - teacher), axis=-1)


def cosine_distance(
    student: Float[Array, "batch dim"], teacher: Float[Array, "batch dim"]
) -> Float[Array, " batch"]:
    """1 - cosine."""
    return 1 - jnp.sum(normalize(student) * normalize(teacher), axis=-1)


VECTOR_LOSSES: dict[str, Callable[[Array, Array], Array]] = {
    "mse": squared_vector_error,
    "cosine": cosine_distance,
}
"""`--embedding_loss` → the loss of each row's vector against the teacher's."""


def similarity_loss(
    student: Float[Array, "batch dim"],
    teacher: Float[Array, "batch width"],
    weights: Float[Array, " batch"],
) -> Float[Array, ""]:
    """This device's share of the mean over pairs of different rows of (student's cosine - teacher's)².

    Pairs are those of the rows of all devices. Every device takes its own rows against all, which come under
    `stop_gradient`, so that no collective is differentiated. The gradient that a row gets as the other one of
    a pair equals, by symmetry, the one that it gets here: it is doubled.

    Args:
      weights: 1 for rows, 0 for fillers.
    """
    student, teacher = normalize(student), jax.lax.stop_gradient(normalize(teacher))

    def of_all_devices(values: Array) -> Array:
        return jax.lax.all_gather(jax.lax.stop_gradient(values), DEVICES, tiled=True)

    all_weights = of_all_devices(weights)
    difference = student @ of_all_devices(student).T - teacher @ of_all_devices(teacher).T
    rows = all_weights.sum()
    pairs = jnp.maximum(rows * (rows - 1), 1)
    share = jnp.sum(jnp.square(difference) * weights[:, None] * all_weights) / pairs
    return 2 * share - jax.lax.stop_gradient(share)
