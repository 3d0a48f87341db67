"""An encoder with a head: classes of texts (or values), classes of tokens, answers, masked words, vectors."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from bert_emd_jax.devices.precision import wide_einsum
from bert_emd_jax.models.activations import activation
from bert_emd_jax.models.dropout import Draw, dropout
from bert_emd_jax.models.embedding_config import DenseModule, EmbeddingConfig, dense_module_name
from bert_emd_jax.models.encoder import (
    Encoder,
    EncoderOutput,
    dense,
    draw_encoder_bits,
    layer_norm,
    take_positions,
)
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.families import Head
from bert_emd_jax.models.fused_attention import AttentionForm
from bert_emd_jax.models.pooling import normalize, pool


class ModelOutput(NamedTuple):
    """The encoder's output (`EncoderOutput`) and the head's in float32: logits, or an embedder's vectors."""

    embeddings: Float[Array, "batch positions dim"]
    layer_outputs: Float[Array, "layers batch positions dim"]
    attention_scores: Any  # see `EncoderOutput`
    pooled: Float[Array, "batch dim"] | None
    logits: Any  # Float[Array, "..."]; None without a head

    hidden_states = EncoderOutput.hidden_states


def forward(
    module: nn.Module,
    params: Any,
    batch: Mapping[str, Any],
    dropout_key: jax.Array | None = None,
    *,
    logits_only: bool = False,
) -> ModelOutput:
    """Runs a module with a head on a batch.

    Args:
      batch: `input_ids`, `attention_mask` and `token_type_ids`, each [batch, seq], and for a masked-LM head
        perhaps `masked_positions` [batch, masked]; other keys are ignored.
      dropout_key: switches dropout on.
      logits_only: only the logits are wanted: the last layer runs at the positions alone that they depend
        on, and the output's `positions` are these.
    """
    options = {}
    if isinstance(module, MaskedLanguageModel) and "masked_positions" in batch:
        options["masked_positions"] = batch["masked_positions"]
    if not isinstance(module, EncoderWithoutHead):
        options["logits_only"] = logits_only
    output = module.apply(
        {"params": params},
        batch["input_ids"],
        batch["attention_mask"],
        batch["token_type_ids"],
        dropout_key=dropout_key,
        **options,
    )
    return cast(ModelOutput, output)


class Model(nn.Module):
    """An encoder and perhaps a head, computing in `dtype`; see `Encoder` for the other attributes."""

    config: EncoderConfig
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    scan: bool | None = None
    attention: AttentionForm = "direct"

    def encoder(self, *, with_pooler: bool = False) -> Encoder:
        """The encoder of this model, in whose `__call__` it is made."""
        return Encoder(
            self.config, self.dtype, with_pooler, self.remat, self.scan, self.attention, name="bert"
        )


class SequenceClassifier(Model):
    """A classifier, or a regressor with `num_labels` 1, on the pooled first token; logits [batch, labels].

    Families without a pooler in front of it have `Family.classifier_dense`. For `logits_only` see `forward`.
    """

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"] | None = None,
        dropout_key: Array | None = None,
        logits_only: bool = False,
    ) -> ModelOutput:
        config = self.config
        first_token = jnp.zeros((input_ids.shape[0], 1), jnp.int32) if logits_only else None
        rate = _classifier_dropout(config)
        head_draw = Draw(rate, (input_ids.shape[0], config.hidden_size))
        head_dense = config.family.classifier_dense
        draws = [head_draw] * (2 if head_dense and head_dense.drops_before else 1)
        encoder_bits, (bits, *before) = draw_encoder_bits(config, input_ids.shape, dropout_key, *draws)
        encoder = self.encoder(with_pooler=head_dense is None)
        encoded = encoder(input_ids, attention_mask, token_type_ids, encoder_bits, first_token)
        if head_dense is None:
            features = encoded.pooled
        else:
            features = encoded.layer_outputs[-1][:, 0]
            if before:
                features = dropout(features, rate, before[0])
            features = dense(config.hidden_size, config, self.dtype, "classifier_dense")(features)
            features = activation(head_dense.activation)(features)
        assert features is not None  # a family with neither has no classifier
        if config.classifier_activation == "relu":
            features = jax.nn.relu(features)
        features = dropout(features, rate, bits)
        return ModelOutput(*encoded, _logits(config, self.dtype, features))


class TokenClassifier(Model):
    """A classifier of every token, on its state in the last layer; logits [batch, seq, labels]."""

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"] | None = None,
        dropout_key: Array | None = None,
        logits_only: bool = False,
    ) -> ModelOutput:
        config = self.config
        rate = config.hidden_dropout_prob if config.family.drops_texts_alone else _classifier_dropout(config)
        head_draw = Draw(rate, (*input_ids.shape, config.hidden_size))
        encoder_bits, (bits,) = draw_encoder_bits(config, input_ids.shape, dropout_key, head_draw)
        encoder = self.encoder()
        encoded = encoder(input_ids, attention_mask, token_type_ids, encoder_bits)
        states = dropout(encoded.layer_outputs[-1], rate, bits)
        return ModelOutput(*encoded, _logits(config, self.dtype, states))


OUTSIDE = -1e9
"""The logit of a token that is none, where an answer neither begins nor ends."""


class AnswerFinder(Model):
    """Where the answer to the first text begins and ends in the second; logits [batch, seq, 2].

    They are `OUTSIDE` at padding, so that a softmax over tokens does not depend on the padded length.
    """

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"] | None = None,
        dropout_key: Array | None = None,
        logits_only: bool = False,
    ) -> ModelOutput:
        config = self.config
        rate = config.answer_dropout or 0.0
        head_draw = Draw(rate, (*input_ids.shape, config.hidden_size))
        encoder_bits, (bits,) = draw_encoder_bits(config, input_ids.shape, dropout_key, head_draw)
        encoder = self.encoder()
        encoded = encoder(input_ids, attention_mask, token_type_ids, encoder_bits)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        states = dropout(encoded.layer_outputs[-1], rate, bits)
        logits = dense(2, config, wide, "qa_outputs")(states)
        return ModelOutput(*encoded, jnp.where(attention_mask[:, :, None] > 0, logits, OUTSIDE))


class MaskedLanguageModel(Model):
    """The masked-language-model head, decoder tied to the word embeddings; logits [batch, seq, vocab].

    With `masked_positions` there are logits at these alone, [batch, masked, vocab]. For `logits_only` see
    `forward`.
    """

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"] | None = None,
        dropout_key: Array | None = None,
        masked_positions: Int[Array, "batch masked"] | None = None,
        logits_only: bool = False,
    ) -> ModelOutput:
        config = self.config
        encoder = self.encoder()
        in_encoder, after = (masked_positions, None) if logits_only else (None, masked_positions)
        bits, _ = draw_encoder_bits(config, input_ids.shape, dropout_key)
        encoded = encoder(input_ids, attention_mask, token_type_ids, bits, in_encoder)
        hidden = take_positions(encoded.hidden_states[-1], after)
        transformed = dense(config.embedding_width, config, self.dtype, "lm_transform")(hidden)
        transformed = activation(config.family.lm_activation or config.hidden_act)(transformed)
        transformed = layer_norm(config, self.dtype, "lm_layer_norm")(transformed)
        bias = self.param("lm_bias", nn.initializers.zeros, (config.vocab_size,))
        embedding = encoder.variables["params"]["embeddings"]["word_embeddings"]["embedding"]
        logits = wide_einsum("bld,vd->blv", transformed, embedding.astype(self.dtype))
        return ModelOutput(*encoded, logits + bias[None, None])


class SentenceEmbedder(Model):
    """One vector [batch, dim] of every text, in place of logits, as `EncoderConfig.embedding` says.

    For `logits_only` see `forward`. The pooler has no part in it: its parameters may be there or not.
    """

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"] | None = None,
        dropout_key: Array | None = None,
        logits_only: bool = False,
    ) -> ModelOutput:
        config, embedding = self.config, self.config.embedding or EmbeddingConfig()
        is_first_alone = logits_only and embedding.pooling == ("cls",)
        positions = jnp.zeros((input_ids.shape[0], 1), jnp.int32) if is_first_alone else None
        bits, _ = draw_encoder_bits(config, input_ids.shape, dropout_key)
        encoder = self.encoder(with_pooler=self.is_initializing())
        encoded = encoder(input_ids, attention_mask, token_type_ids, bits, positions)
        mask = attention_mask[:, :1] if is_first_alone else attention_mask
        vectors = pool(encoded.layer_outputs[-1], mask, embedding.pooling)
        for number, module in enumerate(embedding.modules):
            if isinstance(module, DenseModule):
                layer = nn.Dense(
                    module.out_features,
                    use_bias=module.bias,
                    dtype=vectors.dtype,
                    kernel_init=nn.initializers.normal(config.initializer_range),
                    name=dense_module_name(number),
                )
                vectors = activation(module.activation)(layer(vectors))
            else:
                vectors = normalize(vectors)
        return ModelOutput(*encoded, vectors)


class EncoderWithoutHead(Model):
    """The encoder and its pooler, under the parameter paths that they have below a head; logits are None."""

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"] | None = None,
        dropout_key: Array | None = None,
    ) -> ModelOutput:
        encoder = self.encoder(with_pooler=True)
        bits, _ = draw_encoder_bits(self.config, input_ids.shape, dropout_key)
        return ModelOutput(*encoder(input_ids, attention_mask, token_type_ids, bits), None)


def _classifier_dropout(config: EncoderConfig) -> float:
    rate = config.classifier_dropout
    return config.hidden_dropout_prob if rate is None else rate


def _logits(config: EncoderConfig, dtype: DTypeLike, features: Array) -> Array:
    """The classifier, in float32 at least: it costs nothing and the losses need the digits."""
    return dense(config.num_labels, config, jnp.promote_types(dtype, jnp.float32), "classifier")(features)


MODULES: dict[Head, type[Model]] = {
    "classifier": SequenceClassifier,
    "token": TokenClassifier,
    "answer": AnswerFinder,
    "masked_lm": MaskedLanguageModel,
    "embedding": SentenceEmbedder,
    "none": EncoderWithoutHead,
}
