"""Attention that never forms the scores of all pairs of tokens, and scores by their factors instead."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

AttentionForm = Literal["direct", "cudnn", "xla"]
"""direct: scores, softmax and products as programs of their own; the scores are among the outputs. cudnn: one
kernel of cuDNN's. xla: what stands for it where there is no cuDNN."""

_MULTIPLE = 8
"""Of which cuDNN wants the width of a head to be one."""


class ScoreFactors(NamedTuple):
    """Raw attention scores QKᵀ/√head_dim of some layers, not multiplied out."""

    query: Float[Array, "layers batch seq heads head_dim"]
    key: Float[Array, "layers batch seq heads head_dim"]


def fused_attention(
    query: Float[Array, "batch positions heads head_dim"],
    key: Float[Array, "batch seq heads head_dim"],
    value: Float[Array, "batch seq heads head_dim"],
    lengths: Int[Array, " batch"],
    form: AttentionForm,
) -> Float[Array, "batch positions heads head_dim"]:
    """softmax(QKᵀ/√head_dim) V over the first `lengths` keys of each row.

    cuDNN takes float16 and bfloat16, on NVIDIA GPUs of compute capability 8.0 and newer.

    Args:
      lengths: a row without any token attends to its first one, for the sake of finite numbers.
      form: "cudnn" or "xla".
    """
    width = query.shape[-1]
    filler = (0, 0), (0, 0), (0, 0), (0, -width % _MULTIPLE)
    padded = jax.nn.dot_product_attention(
        *(jnp.pad(side, filler) for side in (query, key, value)),
        scale=width**-0.5,
        key_value_seq_lengths=jnp.maximum(lengths, 1).astype(jnp.int32),
        implementation="cudnn" if form == "cudnn" else "xla",
    )
    return padded[..., :width]
