"""The losses on predictions: one number per example, for sums over devices and without filler rows."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def soft_cross_entropy(
    student_logits: Float[Array, "batch classes"],
    teacher_logits: Float[Array, "batch classes"],
    temperature: float,
) -> Float[Array, " batch"]:
    """Mean over classes of -softmax(t/τ) log_softmax(s/τ), times τ².

    The mean over classes (not the sum) is the authors' form, and what their β values are tuned to; τ² keeps
    the gradient's size independent of τ (Hinton et al. 2015).
    """
    targets = jax.nn.softmax(teacher_logits / temperature, axis=-1)
    log_probabilities = jax.nn.log_softmax(student_logits / temperature, axis=-1)
    return -jnp.mean(targets * log_probabilities, axis=-1) * temperature**2


def soft_position_loss(
    student_logits: Float[Array, "batch seq ends"],
    teacher_logits: Float[Array, "batch seq ends"],
    temperature: float,
) -> Float[Array, " batch"]:
    """Mean over the ends of an answer of the cross-entropy between distributions over tokens, times τ².

    A sum over tokens and not their mean, which would depend on the padding. Tokens that are none have
    `heads.OUTSIDE` in the student's logits, and are left out of the teacher's as well.
    """
    outside = student_logits < _OUTSIDE
    teacher_logits = jnp.where(outside, 2 * _OUTSIDE, teacher_logits)
    targets = jax.nn.softmax(teacher_logits / temperature, axis=1)
    log_probabilities = jax.nn.log_softmax(student_logits / temperature, axis=1)
    return -jnp.sum(jnp.where(outside, 0, targets * log_probabilities), axis=1).mean(axis=-1) * temperature**2


def logits_of_mean_softmax(
    logits: Float[Array, "models batch ... outputs"], temperature: float, axis: int
) -> Float[Array, "batch ... outputs"]:
    """Returns z with softmax(z/τ) the mean over models of softmax(logits/τ), along `axis` of `logits`."""
    log_probabilities = jax.nn.log_softmax(logits / temperature, axis=axis)
    return temperature * (jax.nn.logsumexp(log_probabilities, axis=0) - jnp.log(len(logits)))


def logits_of_mean_sigmoid(
    logits: Float[Array, "models batch labels"], temperature: float
) -> Float[Array, "batch labels"]:
    """Returns z with sigmoid(z/τ) the mean over models of sigmoid(logits/τ)."""
    has, has_not = (
        jax.nn.logsumexp(jax.nn.log_sigmoid(sign * logits / temperature), axis=0) for sign in (1, -1)
    )
    return temperature * (has - has_not)


_OUTSIDE = -1e8  # no token's logit is as low


def masked_lm_sums(
    logits: Float[Array, "batch masked vocab"],
    labels: Int[Array, "batch masked"],
    weights: Float[Array, " batch"],
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """The cross-entropy summed over masked tokens (labels from 0 on) of rows that count, and their number."""
    masked = ((labels >= 0) & (weights[:, None] > 0)).ravel()
    each = optax.softmax_cross_entropy_with_integer_labels(
        logits.reshape(-1, logits.shape[-1]), jnp.maximum(labels, 0).ravel()
    )
    return jnp.sum(jnp.where(masked, each, 0)), masked.sum()


def hard_cross_entropy(
    logits: Float[Array, "batch classes"], classes: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """The cross-entropy of the true classes."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, classes)


def binary_cross_entropy(
    logits: Float[Array, "batch labels"], targets: Float[Array, "batch labels"]
) -> Float[Array, " batch"]:
    """The mean over labels of the cross-entropy between probabilities `targets` and sigmoid(logits)."""
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets), axis=-1)


def soft_binary_cross_entropy(
    student_logits: Float[Array, "batch labels"],
    teacher_logits: Float[Array, "batch labels"],
    temperature: float,
) -> Float[Array, " batch"]:
    """`binary_cross_entropy` of sigmoid(t/τ) and sigmoid(s/τ), times τ² as in `soft_cross_entropy`."""
    targets = jax.nn.sigmoid(teacher_logits / temperature)
    return binary_cross_entropy(student_logits / temperature, targets) * temperature**2
