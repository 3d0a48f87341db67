"""The BERT encoder in Flax Linen (Devlin et al. 2019, arXiv 1810.04805), with every layer's internals."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from bert_emd_jax.models.activations import activation
from bert_emd_jax.models.bert_config import BertConfig
from bert_emd_jax.models.dropout import Dropout


class EncoderOutput(NamedTuple):
    """What the encoder computes for a batch; `positions` are the whole sequence unless some were chosen.

    Attributes:
      hidden_states: the embedding output, then the output of each layer.
      attention_scores: QKᵀ/√head_dim of each layer, before the padding mask and the softmax.
      pooled: tanh of a dense layer on the first position; None without a pooler.
    """

    hidden_states: Float[Array, "layers+1 batch positions dim"]
    attention_scores: Float[Array, "layers batch heads positions seq"]
    pooled: Float[Array, "batch dim"] | None


def dense(features: int, config: BertConfig, dtype: DTypeLike, name: str) -> nn.Dense:
    """Returns a dense layer with BERT's initialisation and float32 parameters."""
    return nn.Dense(
        features,
        dtype=dtype,
        kernel_init=nn.initializers.normal(config.initializer_range),
        name=name,
    )


def layer_norm(config: BertConfig, dtype: DTypeLike, name: str) -> nn.LayerNorm:
    """Returns a layer normalisation; its two-pass variance keeps float32 parity with PyTorch."""
    return nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=dtype, use_fast_variance=False, name=name)


def take_positions(
    values: Float[Array, "batch *heads seq _"], positions: Int[Array, "batch positions"] | None
) -> Float[Array, "batch *heads positions _"]:
    """Returns the values at some positions of each row; all of them for None."""
    if positions is None:
        return values
    index = jnp.expand_dims(positions, (*range(1, values.ndim - 2), -1))
    return jnp.take_along_axis(values, index, axis=-2)


class Embeddings(nn.Module):
    """Word + position + segment embeddings, normalised."""

    config: BertConfig
    dtype: DTypeLike = jnp.float32

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

        words = table(config.vocab_size, "word_embeddings")(input_ids)
        # The padding's embedding is not trained (PyTorch's padding_idx), also where padding is learned from.
        is_padding = (input_ids == config.pad_token_id)[:, :, None]
        words = jnp.where(is_padding, jax.lax.stop_gradient(words), words)
        positions = table(config.max_position_embeddings, "position_embeddings")(
            jnp.arange(input_ids.shape[1])
        )
        segments = table(config.type_vocab_size, "token_type_embeddings")(token_type_ids)
        normed = layer_norm(config, self.dtype, "layer_norm")(words + segments + positions[None])
        return Dropout(config.hidden_dropout_prob)(normed, deterministic)


class SelfAttention(nn.Module):
    """Multi-head self-attention of `queries`, all or some of `hidden`, to `hidden`; and its raw scores."""

    config: BertConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "batch positions dim"],
        hidden: Float[Array, "batch seq dim"],
        mask_bias: Float[Array, "batch 1 1 seq"],
        deterministic: bool,
    ) -> tuple[Float[Array, "batch positions dim"], Float[Array, "batch heads positions seq"]]:
        config = self.config
        heads, head_dim = config.num_attention_heads, config.head_dim

        def project(states: Array, name: str) -> Float[Array, "batch _ heads head_dim"]:
            projected = dense(config.hidden_size, config, self.dtype, name)(states)
            return projected.reshape(*states.shape[:2], heads, head_dim)

        query = project(queries, "query")
        key, value = project(hidden, "key"), project(hidden, "value")
        scores = jnp.einsum("bqhk,bvhk->bhqv", query, key) / head_dim**0.5
        # The softmax runs in float32 at least: bfloat16 sums over keys lose digits.
        wide = jnp.promote_types(self.dtype, jnp.float32)
        probabilities = jax.nn.softmax(scores.astype(wide) + mask_bias, axis=-1)
        probabilities = Dropout(config.attention_probs_dropout_prob)(
            probabilities.astype(self.dtype), deterministic
        )
        context = jnp.einsum("bhqv,bvhk->bqhk", probabilities, value).reshape(queries.shape)
        return dense(config.hidden_size, config, self.dtype, "output")(context), scores


class Layer(nn.Module):
    """One encoder layer: attention and feed-forward, each with a residual and a normalisation after it.

    With `positions` it runs at these alone, attending to the whole sequence.
    """

    config: BertConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch seq dim"],
        mask_bias: Float[Array, "batch 1 1 seq"],
        deterministic: bool,
        positions: Int[Array, "batch positions"] | None = None,
    ) -> tuple[Float[Array, "batch positions dim"], Float[Array, "batch heads positions seq"]]:
        config = self.config

        def add_and_norm(update: Array, residual: Array, name: str) -> Array:
            update = Dropout(config.hidden_dropout_prob)(update, deterministic)
            return layer_norm(config, self.dtype, name)(update + residual)

        queries = take_positions(hidden, positions)
        attended, scores = SelfAttention(config, self.dtype, name="attention")(
            queries, hidden, mask_bias, deterministic
        )
        attended = add_and_norm(attended, queries, "attention_layer_norm")
        inner = dense(config.intermediate_size, config, self.dtype, "intermediate")(attended)
        inner = activation(config.hidden_act)(inner)
        output = dense(config.hidden_size, config, self.dtype, "output")(inner)
        return add_and_norm(output, attended, "output_layer_norm"), scores


class BertEncoder(nn.Module):
    """Embeddings, layers and, if a head needs it, the pooler.

    Attributes:
      dtype: the compute type (float32, bfloat16 or float16); parameters are float32.
      remat: keeps of a layer only what it returns, and computes the rest again in the backward pass.
    """

    config: BertConfig
    dtype: DTypeLike = jnp.float32
    with_pooler: bool = True
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"] | None = None,
        deterministic: bool = True,
        positions: Int[Array, "batch positions"] | None = None,
    ) -> EncoderOutput:
        """Runs the encoder.

        Args:
          attention_mask: 1 for tokens, 0 for padding.
          token_type_ids: segment of each token, 0 if None.
          deterministic: no dropout; otherwise `rngs={"dropout": key}` is needed.
          positions: those of each row whose output is wanted, all if None. The last layer runs at these
            alone, which spares most of its work.
        """
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        # The smallest float32 rather than -inf: a row of padding alone stays finite.
        mask_bias = jnp.where(attention_mask[:, None, None, :].astype(bool), 0.0, jnp.finfo(jnp.float32).min)
        hidden = Embeddings(self.config, self.dtype, name="embeddings")(
            input_ids, token_type_ids, deterministic
        )
        hidden_states, attention_scores = [take_positions(hidden, positions)], []
        last_layer = self.config.num_hidden_layers - 1
        layer_type = nn.remat(Layer, static_argnums=(3,)) if self.remat else Layer  # 3: deterministic
        for layer in range(self.config.num_hidden_layers):
            during, after = (positions, None) if layer == last_layer else (None, positions)
            hidden, scores = layer_type(self.config, self.dtype, name=f"layer_{layer}")(
                hidden, mask_bias, deterministic, during
            )
            hidden_states.append(take_positions(hidden, after))
            attention_scores.append(take_positions(scores, after))
        pooled = None
        if self.with_pooler:
            pooled = nn.tanh(dense(self.config.hidden_size, self.config, self.dtype, "pooler")(hidden[:, 0]))
        return EncoderOutput(jnp.stack(hidden_states), jnp.stack(attention_scores), pooled)
