"""The BERT encoder in Flax Linen (Devlin et al. 2019, arXiv 1810.04805); it returns every layer's internals.

Shape letters: B batch, L sequence, P places in it, D hidden size, H heads, K head dim, N encoder layers.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bert_emd_jax.models.activations import activation
from bert_emd_jax.models.bert_config import BertConfig
from bert_emd_jax.models.dropout import Dropout

Dtype = jnp.dtype | type


class EncoderOutput(NamedTuple):
    """What the encoder computes for a batch; `places` are all of the sequence, unless some are asked for.

    hidden_states: the embedding output, then the output of each layer.
    attention_scores: QKᵀ/√K of each layer, before the padding mask and the softmax.
    pooled: tanh of a dense layer on the first place, [batch, dim]; None without a pooler.
    """

    hidden_states: Float[Array, "layers+1 batch places dim"]
    attention_scores: Float[Array, "layers batch heads places seq"]
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


def at_places(
    values: Float[Array, "batch *heads seq _"], places: Int[Array, "batch places"] | None
) -> Float[Array, "batch *heads places _"]:
    """What stands at some places of each row; everything if None."""
    if places is None:
        return values
    index = jnp.expand_dims(places, (*range(1, values.ndim - 2), -1))
    return jnp.take_along_axis(values, index, axis=-2)


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
    """Multi-head self-attention; returns its output and the raw scores.

    `asking` are the states that attend to all of `hidden`: the same, or some of them.
    """

    config: BertConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        asking: Float[Array, "batch places dim"],
        hidden: Float[Array, "batch seq dim"],
        mask_bias: Float[Array, "batch 1 1 seq"],
        deterministic: bool,
    ) -> tuple[Float[Array, "batch places dim"], Float[Array, "batch heads places seq"]]:
        config = self.config
        heads, head_dim = config.num_attention_heads, config.head_dim

        def project(states: Array, name: str) -> Float[Array, "batch _ heads head_dim"]:
            projected = dense(config.hidden_size, config, self.dtype, name)(states)
            return projected.reshape(*states.shape[:2], heads, head_dim)

        query_BxPxHxK = project(asking, "query")
        key_BxLxHxK, value_BxLxHxK = project(hidden, "key"), project(hidden, "value")
        scores_BxHxPxL = jnp.einsum("bqhk,bvhk->bhqv", query_BxPxHxK, key_BxLxHxK) / head_dim**0.5
        # The softmax runs in float32 at least: bfloat16 sums over keys lose digits.
        wide = jnp.promote_types(self.dtype, jnp.float32)
        probabilities_BxHxPxL = jax.nn.softmax(scores_BxHxPxL.astype(wide) + mask_bias, axis=-1)
        probabilities_BxHxPxL = Dropout(config.attention_probs_dropout_prob)(
            probabilities_BxHxPxL.astype(self.dtype), deterministic
        )
        context_BxPxHxK = jnp.einsum("bhqv,bvhk->bqhk", probabilities_BxHxPxL, value_BxLxHxK)
        context_BxPxD = context_BxPxHxK.reshape(asking.shape)
        return dense(config.hidden_size, config, self.dtype, "output")(context_BxPxD), scores_BxHxPxL


class Layer(nn.Module):
    """One encoder layer: attention and feed-forward, each with a residual and a normalisation after it.

    With `places` [batch, places] it runs at these alone, attending to the whole sequence.
    """

    config: BertConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch seq dim"],
        mask_bias: Float[Array, "batch 1 1 seq"],
        deterministic: bool,
        places: Int[Array, "batch places"] | None = None,
    ) -> tuple[Float[Array, "batch places dim"], Float[Array, "batch heads places seq"]]:
        config = self.config

        def add_and_norm(update: Array, residual: Array, name: str) -> Array:
            update = Dropout(config.hidden_dropout_prob)(update, deterministic)
            return layer_norm(config, self.dtype, name)(update + residual)

        asking = at_places(hidden, places)
        attended, scores = SelfAttention(config, self.dtype, name="attention")(
            asking, hidden, mask_bias, deterministic
        )
        attended = add_and_norm(attended, asking, "attention_layer_norm")
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
        places: Int[Array, "batch places"] | None = None,
    ) -> EncoderOutput:
        """Runs the encoder.

        Args:
          attention_mask: 1 for tokens, 0 for padding.
          token_type_ids: segment of each token, 0 where absent.
          deterministic: no dropout; otherwise `rngs={"dropout": key}` is needed.
          places: where in each row the output is wanted, everywhere if None. The last layer runs at these
            alone, which spares most of its work.
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
        hidden_states, attention_scores = [at_places(hidden, places)], []
        last_layer = self.config.num_hidden_layers - 1
        layer_type = nn.remat(Layer, static_argnums=(3,)) if self.remat else Layer  # 3: deterministic
        for layer in range(self.config.num_hidden_layers):
            during, after = (places, None) if layer == last_layer else (None, places)
            hidden, scores = layer_type(self.config, self.dtype, name=f"layer_{layer}")(
                hidden, mask_bias_Bx1x1xL, deterministic, during
            )
            hidden_states.append(at_places(hidden, after))
            attention_scores.append(at_places(scores, after))
        pooled = None
        if self.with_pooler:
            pooled = nn.tanh(dense(self.config.hidden_size, self.config, self.dtype, "pooler")(hidden[:, 0]))
        return EncoderOutput(jnp.stack(hidden_states), jnp.stack(attention_scores), pooled)
