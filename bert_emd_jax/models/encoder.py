"""The BERT encoder in Flax Linen (Devlin et al. 2019, arXiv 1810.04805), with every layer's internals.

What other families compute otherwise, `models.families` says.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from bert_emd_jax.devices.device_needs import device_needs
from bert_emd_jax.models.activations import activation
from bert_emd_jax.models.dropout import Draw, draw_bits, dropout
from bert_emd_jax.models.embedding_lookup import take_rows
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.fused_attention import AttentionForm, ScoreFactors, fused_attention
from bert_emd_jax.models.params import STACKED_LAYERS


class EncoderOutput(NamedTuple):
    """What the encoder computes for a batch; `positions` are the whole sequence unless some were chosen.

    Attributes:
      embeddings: the embedding output.
      layer_outputs: the output of each layer.
      attention_scores: QKᵀ/√head_dim of each layer, before the padding mask and the softmax. Of an encoder
        with fused attention: their factors, and None where positions were chosen.
      pooled: tanh of a dense layer on the first position; None without a pooler.
    """

    embeddings: Float[Array, "batch positions dim"]
    layer_outputs: Float[Array, "layers batch positions dim"]
    attention_scores: Any  # Float[Array, "layers batch heads positions seq"] | ScoreFactors | None
    pooled: Float[Array, "batch dim"] | None

    @property
    def hidden_states(self) -> Float[Array, "layers+1 batch positions dim"]:
        """The embedding output, then the output of each layer: a copy of them, of the same kind of array."""
        numpy = np if isinstance(self.embeddings, np.ndarray) else jnp
        return numpy.concatenate([self.embeddings[None], self.layer_outputs])  # pyright: ignore[reportReturnType]


def dense(features: int, config: EncoderConfig, dtype: DTypeLike, name: str) -> nn.Dense:
    """Returns a dense layer with BERT's initialisation and float32 parameters."""
    return nn.Dense(
        features,
        dtype=dtype,
        kernel_init=nn.initializers.normal(config.initializer_range),
        name=name,
    )


def layer_norm(config: EncoderConfig, dtype: DTypeLike, name: str) -> nn.LayerNorm:
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


DropoutBits = tuple[Array | None, Array | None, Array | None]
"""Random bits for the three places of a layer that drop something; None where none does."""


class EncoderBits(NamedTuple):
    """Random bits for all places of an encoder; those of `layers` have an axis of layers in front."""

    embeddings: Array | None = None
    layers: DropoutBits = (None, None, None)


def draw_encoder_bits(
    config: EncoderConfig, batch: tuple[int, ...], key: Array | None, *more: Draw
) -> tuple[EncoderBits, tuple[Array | None, ...]]:
    """Returns the bits of an encoder for a batch of (rows, tokens), and those of `more` places behind it.

    Masks are the same whether layers are compiled as a loop or one by one.
    """
    (rows, length), layers = batch, config.num_hidden_layers
    states, embedded = (rows, length, config.hidden_size), (rows, length, config.embedding_width)
    scores = Draw(
        config.attention_probs_dropout_prob, (layers, rows, config.num_attention_heads, length, length)
    )
    of_layers = Draw(config.hidden_dropout_prob, (layers, *states))
    draws = Draw(config.hidden_dropout_prob, embedded), scores, of_layers, of_layers, *more
    embeddings, *bits = draw_bits(key, draws)
    return EncoderBits(embeddings, (bits[0], bits[1], bits[2])), tuple(bits[3:])


class Embeddings(nn.Module):
    """Word + position + segment embeddings, normalised, and projected if they have a width of their own."""

    config: EncoderConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"],
        dropout_bits: Array | None = None,
    ) -> Float[Array, "batch seq dim"]:
        config = self.config

        def table(rows: int, name: str) -> Float[Array, "rows dim"]:
            initial = nn.initializers.normal(config.initializer_range)
            return nn.Embed(rows, config.embedding_width, embedding_init=initial, name=name).embedding

        # The padding's embedding is not trained (PyTorch's padding_idx), also where padding is learned from.
        words = take_rows(table(config.vocab_size, "word_embeddings"), input_ids, config.pad_token_id)
        first, length = config.first_position, input_ids.shape[1]
        positions = table(config.max_position_embeddings, "position_embeddings")[first : first + length]
        if config.family.has_segment_table:
            segments = table(config.type_vocab_size, "token_type_embeddings")
            words += take_rows(segments, token_type_ids) if config.family.has_segments else segments[0]
        # In the tables' type, float32: their gradients are sums over a batch.
        normed = layer_norm(config, self.dtype, "layer_norm")(words + positions[None])
        embedded = dropout(normed, config.hidden_dropout_prob, dropout_bits)
        if config.embedding_width == config.hidden_size:
            return embedded
        return dense(config.hidden_size, config, self.dtype, "projection")(embedded)


class SelfAttention(nn.Module):
    """Multi-head self-attention of `queries`, all or some of `hidden`, to `hidden`; and its raw scores.

    Another `form` than "direct" fuses attention without dropout, takes the real tokens to be the first of a
    row, and returns the scores' factors, or None where `queries` are not all.
    """

    config: EncoderConfig
    dtype: DTypeLike = jnp.float32
    form: AttentionForm = "direct"

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "batch positions dim"],
        hidden: Float[Array, "batch seq dim"],
        mask_bias: Float[Array, "batch 1 1 seq"],
        dropout_bits: Array | None = None,
    ) -> tuple[Float[Array, "batch positions dim"], Any]:
        config = self.config
        heads, head_dim = config.num_attention_heads, config.head_dim

        def project(states: Array, name: str) -> Float[Array, "batch _ heads head_dim"]:
            projected = dense(config.hidden_size, config, self.dtype, name)(states)
            return projected.reshape(*states.shape[:2], heads, head_dim)

        query = project(queries, "query")
        key, value = project(hidden, "key"), project(hidden, "value")
        factors = ScoreFactors(query, key) if query.shape == key.shape else None
        if self.form != "direct" and dropout_bits is None:
            lengths = jnp.sum(mask_bias[:, 0, 0] == 0, axis=1)
            context = fused_attention(query, key, value, lengths, self.form).reshape(queries.shape)
            return dense(config.hidden_size, config, self.dtype, "output")(context), factors
        scores = jnp.einsum("bqhk,bvhk->bhqv", query, key) / head_dim**0.5
        # The softmax runs in float32 at least: bfloat16 sums over keys lose digits.
        wide = jnp.promote_types(self.dtype, jnp.float32)
        probabilities = jax.nn.softmax(scores.astype(wide) + mask_bias, axis=-1).astype(self.dtype)
        probabilities = dropout(probabilities, config.attention_probs_dropout_prob, dropout_bits)
        context = jnp.einsum("bhqv,bvhk->bqhk", probabilities, value).reshape(queries.shape)
        attended = dense(config.hidden_size, config, self.dtype, "output")(context)
        return attended, scores if self.form == "direct" else factors


class Layer(nn.Module):
    """One encoder layer: attention and feed-forward, each with a residual and a normalisation after it.

    With `positions` it runs at these alone, attending to the whole sequence. `dropout_bits` are for its
    attention probabilities, behind its attention, and at its end.
    """

    config: EncoderConfig
    dtype: DTypeLike = jnp.float32
    attention: AttentionForm = "direct"

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch seq dim"],
        mask_bias: Float[Array, "batch 1 1 seq"],
        dropout_bits: DropoutBits = (None, None, None),
        positions: Int[Array, "batch positions"] | None = None,
    ) -> tuple[Float[Array, "batch positions dim"], Any]:
        config = self.config

        def add_and_norm(update: Array, residual: Array, name: str, bits: Array | None) -> Array:
            update = dropout(update, config.hidden_dropout_prob, bits)
            return layer_norm(config, self.dtype, name)(update + residual)

        queries = take_positions(hidden, positions)
        attended, scores = SelfAttention(config, self.dtype, self.attention, name="attention")(
            queries, hidden, mask_bias, dropout_bits[0]
        )
        attended = add_and_norm(attended, queries, "attention_layer_norm", dropout_bits[1])
        inner = dense(config.intermediate_size, config, self.dtype, "intermediate")(attended)
        inner = activation(config.hidden_act)(inner)
        output = dense(config.hidden_size, config, self.dtype, "output")(inner)
        return add_and_norm(output, attended, "output_layer_norm", dropout_bits[2]), scores


class Encoder(nn.Module):
    """Embeddings, layers and, if a head needs it, the pooler.

    Attributes:
      dtype: the compute type (float32, bfloat16 or float16); parameters are float32.
      remat: keeps of a layer only what it returns, and computes the rest again in the backward pass.
      scan: compiles one layer and loops over them, rather than every layer anew; outputs and dropout masks
        are the same. None: as it is best on JAX's default device.
      attention: see `SelfAttention`.
    """

    config: EncoderConfig
    dtype: DTypeLike = jnp.float32
    with_pooler: bool = True
    remat: bool = False
    scan: bool | None = None
    attention: AttentionForm = "direct"

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"] | None = None,
        dropout_bits: EncoderBits | None = None,
        positions: Int[Array, "batch positions"] | None = None,
    ) -> EncoderOutput:
        """Runs the encoder; its parameters may also be those of `stack_layers`.

        Args:
          attention_mask: 1 for tokens, 0 for padding.
          token_type_ids: segment of each token, 0 if None.
          dropout_bits: switch dropout on, see `draw_encoder_bits`.
          positions: those of each row whose output is wanted, all if None. The last layer runs at these
            alone, which spares most of its work.
        """
        config = self.config
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        # The smallest float32 rather than -inf: a row of padding alone stays finite.
        mask_bias = jnp.where(attention_mask[:, None, None, :].astype(bool), 0.0, jnp.finfo(jnp.float32).min)
        depth = config.num_hidden_layers
        bits, layer_bits = dropout_bits or EncoderBits()
        embedded = Embeddings(config, self.dtype, name="embeddings")(input_ids, token_type_ids, bits)
        if self.is_initializing():
            for layer in range(depth):
                Layer(config, self.dtype, name=f"layer_{layer}")(embedded, mask_bias)

        def run_layer(layer: tuple[Any, DropoutBits], hidden: Array, during: Array | None) -> LayerOutput:
            module, (params, bits) = Layer(config, self.dtype, self.attention, parent=None), layer
            return module.apply({"params": params}, hidden, mask_bias, bits, during)  # pyright: ignore[reportReturnType]

        stacked, singles = self.variables["params"].get(STACKED_LAYERS), []
        if stacked is None:
            singles = [self.variables["params"][f"layer_{number}"] for number in range(depth)]
        if stacked is not None or (device_needs().loops_over_layers if self.scan is None else self.scan):
            if stacked is None:
                stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *singles)
            # Other values than products are cheaper to compute again than to copy to and from their stacks.
            policy = None if self.remat else jax.checkpoint_policies.dots_saveable
            run_layer = jax.checkpoint(run_layer, prevent_cse=False, policy=policy)
            hidden, outputs = _scan_layers(run_layer, (stacked, layer_bits), embedded, positions)
        else:
            layers = [
                (params, jax.tree.map(lambda bits, n=n: bits[n], layer_bits))
                for n, params in enumerate(singles)
            ]
            run_layer = jax.checkpoint(run_layer) if self.remat else run_layer
            hidden, outputs = _loop_over_layers(run_layer, layers, embedded, positions)
        pooled = None
        if self.with_pooler and config.family.has_pooler:
            pooled = nn.tanh(dense(config.hidden_size, config, self.dtype, "pooler")(hidden[:, 0]))
        return EncoderOutput(take_positions(embedded, positions), *outputs, pooled)


LayerOutput = tuple[Float[Array, "batch positions dim"], Any]
"""Hidden states and raw scores of a layer; of all of them with an axis of layers in front."""
RunLayer = Callable[[tuple[Any, DropoutBits], Array, Array | None], LayerOutput]
"""((parameters, dropout bits) of a layer, hidden states, positions where it runs or None) to its output."""


def _scores_at(scores: Any, positions: Array | None) -> Any:
    """Scores at some positions; None in place of their factors, which all tokens' keys would belong to."""
    if positions is not None and not isinstance(scores, jax.Array):
        return None
    return scores if positions is None else take_positions(scores, positions)


def _loop_over_layers(
    run_layer: RunLayer, layers: list[Any], hidden: Array, positions: Array | None
) -> tuple[Array, LayerOutput]:
    """Every layer as code of its own."""
    states, scores = [], []
    for number, layer in enumerate(layers):
        during, after = (positions, None) if number == len(layers) - 1 else (None, positions)
        hidden, raw = run_layer(layer, hidden, during)
        states.append(take_positions(hidden, after))
        scores.append(_scores_at(raw, after))
    return hidden, (jnp.stack(states), jax.tree.map(lambda *layers: jnp.stack(layers), *scores))


def _scan_layers(
    run_layer: RunLayer, layers: Any, hidden: Array, positions: Array | None
) -> tuple[Array, LayerOutput]:
    """One code for all layers, and another for the last one if it runs at some positions alone."""

    def body(hidden: Array, layer: Any) -> tuple[Array, LayerOutput]:
        hidden, raw = run_layer(layer, hidden, None)
        return hidden, (take_positions(hidden, positions), _scores_at(raw, positions))

    if positions is None:
        return jax.lax.scan(body, hidden, layers)
    first, last = (jax.tree.map(lambda leaf, part=part: leaf[part], layers) for part in (slice(-1), -1))
    hidden, outputs = jax.lax.scan(body, hidden, first)
    hidden, raw = run_layer(last, hidden, positions)
    return hidden, jax.tree.map(lambda some, one: jnp.concatenate([some, one[None]]), outputs, (hidden, raw))
