"""The BERT encoder in Flax Linen (Devlin et al. 2019, arXiv 1810.04805), with every layer's internals."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from bert_emd_jax.models.activations import activation
from bert_emd_jax.models.bert_config import BertConfig
from bert_emd_jax.models.dropout import dropout, key_at
from bert_emd_jax.models.embedding_lookup import take_rows
from bert_emd_jax.models.params import STACKED_LAYERS


class EncoderOutput(NamedTuple):
    """What the encoder computes for a batch; `positions` are the whole sequence unless some were chosen.

    Attributes:
      embeddings: the embedding output.
      layer_outputs: the output of each layer.
      attention_scores: QKᵀ/√head_dim of each layer, before the padding mask and the softmax.
      pooled: tanh of a dense layer on the first position; None without a pooler.
    """

    embeddings: Float[Array, "batch positions dim"]
    layer_outputs: Float[Array, "layers batch positions dim"]
    attention_scores: Float[Array, "layers batch heads positions seq"]
    pooled: Float[Array, "batch dim"] | None

    @property
    def hidden_states(self) -> Float[Array, "layers+1 batch positions dim"]:
        """The embedding output, then the output of each layer: a copy of them."""
        return jnp.concatenate([self.embeddings[None], self.layer_outputs])


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
        dropout_key: Array | None = None,
    ) -> Float[Array, "batch seq dim"]:
        config = self.config

        def table(rows: int, name: str) -> Float[Array, "rows dim"]:
            initial = nn.initializers.normal(config.initializer_range)
            return nn.Embed(rows, config.hidden_size, embedding_init=initial, name=name).embedding

        # The padding's embedding is not trained (PyTorch's padding_idx), also where padding is learned from.
        words = take_rows(table(config.vocab_size, "word_embeddings"), input_ids, config.pad_token_id)
        positions = table(config.max_position_embeddings, "position_embeddings")[: input_ids.shape[1]]
        segments = take_rows(table(config.type_vocab_size, "token_type_embeddings"), token_type_ids)
        # In the tables' type, float32: their gradients are sums over a batch.
        normed = layer_norm(config, self.dtype, "layer_norm")(words + segments + positions[None])
        return dropout(normed, config.hidden_dropout_prob, dropout_key)


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
        dropout_key: Array | None = None,
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
        probabilities = jax.nn.softmax(scores.astype(wide) + mask_bias, axis=-1).astype(self.dtype)
        probabilities = dropout(probabilities, config.attention_probs_dropout_prob, dropout_key)
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
        dropout_key: Array | None = None,
        positions: Int[Array, "batch positions"] | None = None,
    ) -> tuple[Float[Array, "batch positions dim"], Float[Array, "batch heads positions seq"]]:
        config = self.config

        def add_and_norm(update: Array, residual: Array, name: str, place: int) -> Array:
            update = dropout(update, config.hidden_dropout_prob, key_at(dropout_key, place))
            return layer_norm(config, self.dtype, name)(update + residual)

        queries = take_positions(hidden, positions)
        attended, scores = SelfAttention(config, self.dtype, name="attention")(
            queries, hidden, mask_bias, key_at(dropout_key, 0)
        )
        attended = add_and_norm(attended, queries, "attention_layer_norm", 1)
        inner = dense(config.intermediate_size, config, self.dtype, "intermediate")(attended)
        inner = activation(config.hidden_act)(inner)
        output = dense(config.hidden_size, config, self.dtype, "output")(inner)
        return add_and_norm(output, attended, "output_layer_norm", 2), scores


class BertEncoder(nn.Module):
    """Embeddings, layers and, if a head needs it, the pooler.

    Attributes:
      dtype: the compute type (float32, bfloat16 or float16); parameters are float32.
      remat: keeps of a layer only what it returns, and computes the rest again in the backward pass.
      scan: compiles one layer and loops over them, rather than every layer anew: outputs and dropout masks are
        the same. None: as it is best on JAX's default device.
    """

    config: BertConfig
    dtype: DTypeLike = jnp.float32
    with_pooler: bool = True
    remat: bool = False
    scan: bool | None = None

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"] | None = None,
        dropout_key: Array | None = None,
        positions: Int[Array, "batch positions"] | None = None,
    ) -> EncoderOutput:
        """Runs the encoder; its parameters may also be those of `stack_layers`.

        Args:
          attention_mask: 1 for tokens, 0 for padding.
          token_type_ids: segment of each token, 0 if None.
          dropout_key: switches dropout on. A mask is drawn from it, the number of its layer (the embeddings are
            0) and its place there.
          positions: those of each row whose output is wanted, all if None. The last layer runs at these
            alone, which spares most of its work.
        """
        config = self.config
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        # The smallest float32 rather than -inf: a row of padding alone stays finite.
        mask_bias = jnp.where(attention_mask[:, None, None, :].astype(bool), 0.0, jnp.finfo(jnp.float32).min)
        embedded = Embeddings(config, self.dtype, name="embeddings")(
            input_ids, token_type_ids, key_at(dropout_key, 0)
        )
        if self.is_initializing():
            for layer in range(config.num_hidden_layers):
                Layer(config, self.dtype, name=f"layer_{layer}")(embedded, mask_bias)

        def run_layer(params: Any, hidden: Array, layer: Array | int, during: Array | None) -> LayerOutput:
            module = Layer(config, self.dtype, parent=None)
            return module.apply({"params": params}, hidden, mask_bias, key_at(dropout_key, layer + 1), during)  # pyright: ignore[reportReturnType]

        stacked, singles = self.variables["params"].get(STACKED_LAYERS), []
        if stacked is None:
            singles = [self.variables["params"][f"layer_{n}"] for n in range(config.num_hidden_layers)]
        scan = scans_layers() if self.scan is None else self.scan
        if scan or stacked is not None:
            if stacked is None:
                stacked = stack_trees(singles)
            hidden, outputs = _scan_layers(self._kept(run_layer, False), stacked, embedded, positions)
        else:
            hidden, outputs = _loop_over_layers(self._kept(run_layer, True), singles, embedded, positions)
        pooled = None
        if self.with_pooler:
            pooled = nn.tanh(dense(config.hidden_size, config, self.dtype, "pooler")(hidden[:, 0]))
        return EncoderOutput(take_positions(embedded, positions), *outputs, pooled)

    def _kept(self, run_layer: "RunLayer", prevent_cse: bool) -> "RunLayer":
        """The function of a layer, of which little is kept for the backward pass if that is wanted."""
        return jax.checkpoint(run_layer, prevent_cse=prevent_cse) if self.remat else run_layer


LayerOutput = tuple[Float[Array, "batch positions dim"], Float[Array, "batch heads positions seq"]]
"""Hidden states and raw scores of a layer; of all of them with an axis of layers in front."""
RunLayer = Callable[[Any, Array, Any, Array | None], LayerOutput]
"""(parameters, hidden states, number of the layer, positions where it runs or None) to its output."""


def _loop_over_layers(
    run_layer: RunLayer, layers: list[Any], hidden: Array, positions: Array | None
) -> tuple[Array, LayerOutput]:
    """Every layer as code of its own."""
    states, scores = [], []
    for number, params in enumerate(layers):
        during, after = (positions, None) if number == len(layers) - 1 else (None, positions)
        hidden, raw = run_layer(params, hidden, number, during)
        states.append(take_positions(hidden, after))
        scores.append(take_positions(raw, after))
    return hidden, (jnp.stack(states), jnp.stack(scores))


def _scan_layers(
    run_layer: RunLayer, stacked: Any, hidden: Array, positions: Array | None
) -> tuple[Array, LayerOutput]:
    """One code for all layers, and for the last one another if it runs at some positions alone."""

    def body(hidden: Array, layer: tuple[Any, Array]) -> tuple[Array, LayerOutput]:
        hidden, raw = run_layer(*layer[:1], hidden, layer[1], None)
        return hidden, (take_positions(hidden, positions), take_positions(raw, positions))

    depth = jax.tree.leaves(stacked)[0].shape[0]
    numbers = jnp.arange(depth)
    if positions is None:
        return jax.lax.scan(body, hidden, (stacked, numbers))
    first, last = (jax.tree.map(lambda leaf, part=part: leaf[part], stacked) for part in (slice(-1), -1))
    hidden, outputs = jax.lax.scan(body, hidden, (first, numbers[:-1]))
    hidden, raw = run_layer(last, hidden, depth - 1, positions)
    return hidden, jax.tree.map(lambda some, one: jnp.concatenate([some, one[None]]), outputs, (hidden, raw))


def stack_trees(trees: list[Any]) -> Any:
    """Trees of arrays as one, with an axis in front."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@functools.cache
def scans_layers() -> bool:
    """Whether a loop over layers is best on the default device: CPUs run it more slowly than every layer's code."""
    return jax.default_backend() != "cpu"
