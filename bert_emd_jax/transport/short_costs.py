"""Squared differences of all pairs of layers whose values have 16 bits, without a float32 copy of them.

Products of 16-bit numbers are exact in float32, where all sums are made: only the sums lose something.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt32

from bert_emd_jax.devices.precision import wide_einsum

# A matrix unit sums a piece of so many products in one go, and rounds towards 0 on the way: costs of layers
# that resemble each other are then wrong by 2e-6, in pieces of 16,384 by 2e-4 (H200). The sums over pieces
# are float32's.
_PIECE = 512
# Stays above 0 as a mean over a billion elements, and is nothing beside any real difference.
_LEAST_DIFFERENCE = 1e-28
# Fingerprints of unequal layers may agree once in 2³² times: such layers differ by more than this share.
NEARLY_EQUAL = 1e-4


@jax.custom_vjp
def short_squared_differences(
    student: Float[Array, "S ..."], teacher: Float[Array, "T ..."], keep: Bool[Array, "..."]
) -> Float[Array, "S T"]:
    """Σ (student_i - teacher_j)² over the kept elements as |s|² + |t|² - 2 s·t, float32.

    0 for equal operands and for these alone. Its error is some 3e-7 of |s|² + |t|², which is below what
    rounding the operands to bfloat16 has changed.
    """
    kept = jnp.where(keep, student, 0)
    ours, theirs = _square_sums(kept), _square_sums(jnp.where(keep, teacher, 0))
    sums = ours[:, None] + theirs - 2 * _products(kept, teacher)
    prints = fingerprints(kept)[:, None] == fingerprints(jnp.where(keep, teacher, 0))
    equal = prints & (sums <= NEARLY_EQUAL * (ours[:, None] + theirs))
    return above_zero_unless_equal(sums, equal)


def above_zero_unless_equal(sums: Float[Array, "S T"], equal: Bool[Array, "S T"]) -> Float[Array, "S T"]:
    """Sums of squares that rounding may have left at or below 0: 0 for equal operands and these alone."""
    corrected = jnp.where(equal, 0, jnp.maximum(sums, _LEAST_DIFFERENCE))
    # A plain maximum would also set the gradient to 0. What is added here is exactly 0: the least difference,
    # added to the sums, would be lost in their rounding.
    return jax.lax.stop_gradient(corrected) + (sums - jax.lax.stop_gradient(sums))


def _forward(student: Array, teacher: Array, keep: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return short_squared_differences(student, teacher, keep), (student, teacher, keep)


def _backward(saved: tuple[Array, Array, Array], gradient: Array) -> tuple[Array, Array, None]:
    student, teacher, keep = saved
    # The same rounded factors for both operands of a difference, so that equal ones have no gradient.
    factors = gradient.astype(student.dtype)

    def towards(ours: Array, theirs: Array, factors: Array) -> Array:
        others = wide_einsum("st,t...->s...", factors, theirs)
        total = factors.astype(jnp.float32).sum(axis=1).reshape(-1, *(1,) * (ours.ndim - 1))
        difference = total * ours.astype(jnp.float32) - others
        return jnp.where(keep, 2 * difference, 0).astype(ours.dtype)

    return towards(student, teacher, factors), towards(teacher, student, factors.T), None


short_squared_differences.defvjp(_forward, _backward)


def _square_sums(values: Float[Array, "layers ..."]) -> Float[Array, " layers"]:
    return jnp.sum(jnp.square(values.astype(jnp.float32)), axis=range(1, values.ndim))


def _products(student: Float[Array, "S ..."], teacher: Float[Array, "T ..."]) -> Float[Array, "S T"]:
    pieces = [_in_pieces(values) for values in (student, teacher)]
    products = wide_einsum("spn,tpn->pst", *pieces)
    return products.sum(axis=0)


def _in_pieces(values: Float[Array, "layers ..."]) -> Float[Array, "layers pieces piece"]:
    flat = values.reshape(len(values), -1)
    filler = -flat.shape[1] % _PIECE
    return jnp.pad(flat, ((0, 0), (0, filler))).reshape(len(values), -1, _PIECE)


def fingerprints(values: Float[Array, "layers ..."]) -> UInt32[Array, " layers"]:
    """A number for each layer that depends on every bit, equal for equal layers and hardly for others."""
    bits = jax.lax.bitcast_convert_type(values, jnp.uint16).astype(jnp.uint32).reshape(len(values), -1)
    places = jnp.arange(bits.shape[1], dtype=jnp.uint32)
    # Knuth's multiplicative hash of the place, made odd: a single different element always shows.
    factors = (places * jnp.uint32(2654435761) ^ (places >> 15)) | 1
    return jnp.sum(bits * factors, axis=1, dtype=jnp.uint32)
