"""The BERT encoder in Flax Linen (Devlin et al. 2019, arXiv 1810.04805); it returns every layer's internals.

Shape letters: B batch, L sequence, D hidden size, H heads, K head dim, N encoder layers.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bert_emd_jax.bert.activations import activation
from bert_emd_jax.bert.config import BertConfig
from bert_emd_jax.bert.dropout import Dropout

Dtype = jnp.dtype | type


class EncoderOutput(NamedTuple):
    """What the encoder computes for a batch.

    hidden_states: the embedding output, then the output of each layer.
    attention_scores: QKᵀ/√K of each layer, before the padding mask and the softmax.
    pooled: tanh of a dense layer on the first token, [batch, dim]; None without a pooler.
    """

    hidden_states: Float[Array, "layers+1 batch seq dim"]
    attention_scores: Float[Array, "layers batch heads seq seq"]
    pooled: Float[Array, "batch dim"] | None


def dense(features: int, config: BertConfig, dtype: Dtype, name: str) -> nn.Dense:
    """A dense layer with BERT's initialisation and float32 parameters."""
    return nn.Dense(
        features,
        dtype=dtype,
        kernel_init=nn.initializers.normal(config.initializer_range),
        name=name,
    )


def layer_norm(config: BertConfig, dtype: Dtype, name: str) -> nn.LayerNorm:
    """Layer normalisation; the two-pass variance keeps float32 parity with PyTorch."""
    return nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=dtype, use_fast_variance=False, name=name)


class Embeddings(nn.Module):
    """Word + position + segment embeddings, normalised."""

    config: BertConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"],
        deterministic: bool,
    ) -> Float[Array, "batch seq dim"]:
        config = self.config

        def table(rows: int, name: str) -> nn.Embed:
            return nn.Embed(
                rows,
                config.hidden_size,
                dtype=self.dtype,
                embedding_init=nn.initializers.normal(config.initializer_range),
                name=name,
            )

        positions = jnp.arange(input_ids.shape[1])
        words_BxLxD = table(config.vocab_size, "word_embeddings")(input_ids)
        positions_LxD = table(config.max_position_embeddings, "position_embeddings")(positions)
        segments_BxLxD = table(config.type_vocab_size, "token_type_embeddings")(token_type_ids)
        summed_BxLxD = words_BxLxD + segments_BxLxD + positions_LxD[None]
        normed_BxLxD = layer_norm(config, self.dtype, "layer_norm")(summed_BxLxD)
        return Dropout(config.hidden_dropout_prob)(normed_BxLxD, deterministic)


class SelfAttention(nn.Module):
    """Multi-head self-attention; returns its output and the raw scores."""

    config: BertConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch seq dim"],
        mask_bias: Float[Array, "batch 1 1 seq"],
        deterministic: bool,
    ) -> tuple[Float[Array, "batch seq dim"], Float[Array, "batch heads seq seq"]]:
        config = self.config
        heads, head_dim = config.num_attention_heads, config.head_dim

        def project(name: str) -> Float[Array, "batch seq heads head_dim"]:
            projected = dense(config.hidden_size, config, self.dtype, name)(hidden)
            return projected.reshape(*hidden.shape[:2], heads, head_dim)

        query_BxLxHxK, key_BxLxHxK, value_BxLxHxK = project("query"), project("key"), project("value")
        scores_BxHxLxL = jnp.einsum("bqhk,bvhk->bhqv", query_BxLxHxK, key_BxLxHxK) / head_dim**0.5
        # The softmax runs in float32 at least: bfloat16 sums over keys lose digits.
        wide = jnp.promote_types(self.dtype, jnp.float32)
        probabilities_BxHxLxL = jax.nn.softmax(scores_BxHxLxL.astype(wide) + mask_bias, axis=-1)
        probabilities_BxHxLxL = Dropout(config.attention_probs_dropout_prob)(
            probabilities_BxHxLxL.astype(self.dtype), deterministic
        )
        context_BxLxHxK = jnp.einsum("bhqv,bvhk->bqhk", probabilities_BxHxLxL, value_BxLxHxK)
        context_BxLxD = context_BxLxHxK.reshape(hidden.shape)
        return dense(config.hidden_size, config, self.dtype, "output")(context_BxLxD), scores_BxHxLxL


class Layer(nn.Module):
    """One encoder layer: attention and feed-forward, each with a residual and a normalisation after it."""

    config: BertConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch seq dim"],
        mask_bias: Float[Array, "batch 1 1 seq"],
        deterministic: bool,
    ) -> tuple[Float[Array, "batch seq dim"], Float[Array, "batch heads seq seq"]]:
        config = self.config

        def add_and_norm(update: Array, residual: Array, name: str) -> Array:
            update = Dropout(config.hidden_dropout_prob)(update, deterministic)
            return layer_norm(config, self.dtype, name)(update + residual)

        attended, scores = SelfAttention(config, self.dtype, name="attention")(
            hidden, mask_bias, deterministic
        )
        attended = add_and_norm(attended, hidden, "attention_layer_norm")
        inner = dense(config.intermediate_size, config, self.dtype, "intermediate")(attended)
        inner = activation(config.hidden_act)(inner)
        output = dense(config.hidden_size, config, self.dtype, "output")(inner)
        return add_and_norm(output, attended, "output_layer_norm"), scores


class BertEncoder(nn.Module):
    """Embeddings, N layers and, where a head needs it, the pooler.

    `dtype` is the compute type (float32 or bfloat16); parameters are float32. `remat` keeps of a layer only
    what it returns, and computes the rest again in the backward pass.
    """

    config: BertConfig
    dtype: Dtype = jnp.float32
    with_pooler: bool = True
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"] | None = None,
        deterministic: bool = True,
    ) -> EncoderOutput:
        """Runs the encoder.

        Args:
          attention_mask: 1 for tokens, 0 for padding.
          token_type_ids: segment of each token, 0 where absent.
          deterministic: no dropout; otherwise `rngs={"dropout": key}` is needed.
        """
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        # The smallest float32 rather than -inf: a row of padding alone stays finite.
        mask_bias_Bx1x1xL = jnp.where(
            attention_mask[:, None, None, :].astype(bool), 0.0, jnp.finfo(jnp.float32).min
        )
        hidden = Embeddings(self.config, self.dtype, name="embeddings")(
            input_ids, token_type_ids, deterministic
        )
        hidden_states, attention_scores = [hidden], []
        layer_type = nn.remat(Layer, static_argnums=(3,)) if self.remat else Layer  # 3: deterministic
        for layer in range(self.config.num_hidden_layers):
            hidden, scores = layer_type(self.config, self.dtype, name=f"layer_{layer}")(
                hidden, mask_bias_Bx1x1xL, deterministic
            )
            hidden_states.append(hidden)
            attention_scores.append(scores)
        pooled = None
        if self.with_pooler:
            pooled = nn.tanh(dense(self.config.hidden_size, self.config, self.dtype, "pooler")(hidden[:, 0]))
        return EncoderOutput(jnp.stack(hidden_states), jnp.stack(attention_scores), pooled)
