"""Squared differences of attention scores of all pairs of layers, from queries and keys alone.

⟨Q Kᵀ, Q' K'ᵀ⟩ = Σ (Qᵀ Q') ∘ (Kᵀ K'): nothing of the size of the scores is formed. Where queries and keys have
16 bits this is more exact than scores that are rounded to 16 bits. It cancels: with operands of 32 bits the
direct difference is the better one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Num

from bert_emd_jax.devices.precision import wide_einsum
from bert_emd_jax.transport.costs import kept_pairs
from bert_emd_jax.transport.short_costs import NEARLY_EQUAL, above_zero_unless_equal, fingerprints

Factors = tuple[Float[Array, "layers B L H width"], Float[Array, "layers B L H width"]]
"""Queries and keys; the scores are their products over the square root of the width."""


def factored_attention_cost_sums(
    student: Factors,
    teacher: Factors,
    attention_mask: Num[ArrayLike, "B L"] | Bool[ArrayLike, "B L"],
    padding: str = "mask",
    example_weights: Num[ArrayLike, " B"] | Bool[ArrayLike, " B"] | None = None,
) -> tuple[Float[Array, "S T"], Float[Array, ""]]:
    """What `attention_cost_sums` returns for the scores; the teacher's are constants.

    Both sides have the same heads, whatever their widths.
    """
    heads = student[0].shape[3], teacher[0].shape[3]
    if heads[0] != heads[1]:
        raise ValueError(f"attention cost by factors: {heads[0]} and {heads[1]} heads")
    (queries, keys), count = kept_pairs(attention_mask, padding, example_weights)
    ours, theirs = (
        (jnp.where(queries[:, :, None, None], query, 0), jnp.where(keys[:, :, None, None], key, 0))
        for query, key in (student, teacher)
    )
    return _squared_distances(ours, jax.lax.stop_gradient(theirs)), count * heads[0]


@jax.custom_vjp
def _squared_distances(student: Factors, teacher: Factors) -> Float[Array, "S T"]:
    """|A_i - B_j|² of scores as |A_i|² + |B_j|² - 2⟨A_i, B_j⟩: 0 for equal factors, and above for others."""

    def of_head(ours: Factors, theirs: Factors) -> tuple[Array, Array, Array]:
        products = _cross_gram(ours[0], theirs[0]) * _cross_gram(ours[1], theirs[1])
        return _square_sums(ours), _square_sums(theirs), products.sum(axis=(0, 2, 4))

    widths = student[0].shape[-1], teacher[0].shape[-1]
    own, others, products = (part.sum(axis=0) for part in _by_head(of_head, student, teacher))
    own, others = own / widths[0], others / widths[1]
    sums = own[:, None] + others - 2 * products / (widths[0] * widths[1]) ** 0.5
    return above_zero_unless_equal(sums, _equal(student, teacher, sums, own[:, None] + others))


def _forward(student: Factors, teacher: Factors) -> tuple[Array, tuple[Factors, Factors]]:
    return _squared_distances(student, teacher), (student, teacher)


def _backward(saved: tuple[Factors, Factors], gradient: Array) -> tuple[Factors, Factors]:
    student, teacher = saved
    widths = student[0].shape[-1], teacher[0].shape[-1]
    between = 2 * gradient / (widths[0] * widths[1]) ** 0.5
    within = 2 * gradient.sum(axis=1) / widths[0]

    def of_head(ours: Factors, theirs: Factors) -> Factors:
        def towards(side: int) -> Array:
            """Q_i (K_iᵀ K_i) - Σ Q'_j (K'_jᵀ K_i), or the same for the keys."""
            moved, given = side, 1 - side
            own = wide_einsum("sblx,sbly->sbxy", ours[given], ours[given]) * within[:, None, None, None]
            cross = _cross_gram(ours[given], theirs[given]) * between[None, :, None, :, None]
            dtype = ours[moved].dtype
            result = wide_einsum("sblx,sbxy->sbly", ours[moved], own.astype(dtype))
            return (result - wide_einsum("tble,bsdte->sbld", theirs[moved], cross.astype(dtype))).astype(
                dtype
            )

        return towards(0), towards(1)

    query, key = _by_head(of_head, student, teacher)
    ours = jnp.moveaxis(query, 0, 3), jnp.moveaxis(key, 0, 3)
    return ours, (jnp.zeros_like(teacher[0]), jnp.zeros_like(teacher[1]))


_squared_distances.defvjp(_forward, _backward)


def _by_head(of_head: Callable[[Factors, Factors], Any], student: Factors, teacher: Factors) -> Any:
    """One head after the other, all layers in one product: their Gram matrices are larger than the scores."""

    def one(head: Array) -> Any:
        def taken(factors: Factors) -> Factors:
            query, key = (jax.lax.dynamic_index_in_dim(side, head, 3, keepdims=False) for side in factors)
            return query, key

        return of_head(taken(student), taken(teacher))

    return jax.lax.map(one, jnp.arange(student[0].shape[3]))


def _cross_gram(ours: Float[Array, "S B L d"], theirs: Float[Array, "T B L e"]) -> Float[Array, "B S d T e"]:
    return wide_einsum("sbld,tble->bsdte", ours, theirs)


def _square_sums(factors: tuple[Array, Array]) -> Float[Array, " layers"]:
    """Σ (QKᵀ)² = Σ (QᵀQ) ∘ (KᵀK), of one head."""
    grams = [wide_einsum("sblx,sbly->sbxy", side, side) for side in factors]
    return jnp.sum(grams[0] * grams[1], axis=(1, 2, 3))


def _equal(student: Factors, teacher: Factors, sums: Array, scale: Array) -> Bool[Array, "S T"]:
    """Which layers have the same factors; of wider types than 16 bits none counts as such."""
    nearly = sums <= NEARLY_EQUAL * scale
    for ours, theirs in zip(student, teacher, strict=True):
        if ours.dtype.itemsize > 2 or ours.shape[1:] != theirs.shape[1:]:
            return jnp.zeros(sums.shape, bool)
        nearly &= fingerprints(ours)[:, None] == fingerprints(theirs)
    return nearly
