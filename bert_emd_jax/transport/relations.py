"""MiniLMv2's relations (arXiv 2012.15828) as a cost between every student and every teacher layer."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Num

from bert_emd_jax.devices.precision import wide_einsum
from bert_emd_jax.transport.short_costs import above_zero_unless_equal

Projected = Callable[[], Float[Array, "layers batch seq dim"]]
"""Gives the queries, the keys or the values of one side, when they are needed."""


def relation_cost_sums(
    student: Sequence[Projected],
    teacher: Sequence[Projected],
    heads: int,
    attention_mask: Num[ArrayLike, "B L"] | Bool[ArrayLike, "B L"],
    example_weights: Num[ArrayLike, " B"] | Bool[ArrayLike, " B"] | None = None,
) -> tuple[Float[Array, "S T"], Float[Array, ""]]:
    """Sums of the divergences of the student's relations from the teacher's, and how many they are.

    The relation of a token's vectors x, queries, keys or values of one head, is softmax(x xᵀ / √width) over
    the real tokens of its row. The divergence is Kullback and Leibler's, Σ p_teacher log(p_teacher /
    p_student), one for every kind, head and real token. Computed in float32.

    Args:
      student, teacher: queries, keys, values.
      heads: into which the vectors of both sides are split, whatever heads their models have.
    """
    mask = jnp.asarray(attention_mask) != 0
    if example_weights is not None:
        mask &= (jnp.asarray(example_weights) != 0)[:, None]

    # Computed again in the backward pass: those of one kind are as large as all attention scores.
    @jax.checkpoint
    def divergences(ours: Array, theirs: Array) -> Float[Array, "S T"]:
        student_logs = _log_relations(ours, heads, mask)
        teacher_logs = _log_relations(jax.lax.stop_gradient(theirs), heads, mask)
        weights = jnp.where(mask[:, None, :, None] & mask[:, None, None, :], jnp.exp(teacher_logs), 0)
        flat = weights.reshape(len(weights), -1)
        entropies = jnp.sum(flat * teacher_logs.reshape(flat.shape), axis=1)
        highest = jax.lax.Precision.HIGHEST
        return entropies - jnp.matmul(student_logs.reshape(len(student_logs), -1), flat.T, precision=highest)

    pairs = zip(student, teacher, strict=True)
    sums = sum((divergences(ours(), theirs()) for ours, theirs in pairs), jnp.zeros(()))
    count = len(student) * heads * jnp.sum(mask, dtype=jnp.float32)
    # A sum of positive terms, of which rounding may leave a little below 0.
    return above_zero_unless_equal(sums, jnp.zeros(sums.shape, bool)), count


def _log_relations(
    vectors: Float[Array, "layers B L D"], heads: int, mask: Bool[Array, "B L"]
) -> Float[Array, "layers B H L L"]:
    """Logarithms of relations, 0 at keys that are no tokens."""
    width = vectors.shape[-1] // heads
    split = vectors.reshape(*vectors.shape[:-1], heads, width)
    scores = wide_einsum("nbqhk,nbvhk->nbhqv", split, split) / width**0.5
    keys = mask[:, None, None, :]
    logs = jax.nn.log_softmax(jnp.where(keys, scores, jnp.finfo(scores.dtype).min / 2), axis=-1)
    return jnp.where(keys, logs, 0)
