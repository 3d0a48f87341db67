"""A loop over layers computes what every layer's own code does, dropout included."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import enable_x64

from bert_emd_jax.models.dropout import Draw, draw_bits
from bert_emd_jax.models.encoder import draw_encoder_bits
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.ensemble import inference_params
from bert_emd_jax.models.heads import (
    MaskedLanguageModel,
    SequenceClassifier,
    forward,
)
from bert_emd_jax.models.initialization import initial_params

CONFIG = EncoderConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=12,
)


def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = np.ones((4, 8), np.int32)
    mask[1, 5:] = mask[3, 2:] = 0
    return {
        "input_ids": np.where(mask, rng.integers(1, 50, mask.shape), 0).astype(np.int32),
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, 2, mask.shape).astype(np.int32),
        "masked_positions": np.array([[1, 2]] * 4, np.int32),
    }


def value_and_gradient(module, params, key):
    """All outputs, and the gradient of a sum that depends on each."""

    def loss(params):
        output = forward(module, params, batch(), key)
        parts = [output.embeddings, output.layer_outputs, output.attention_scores, output.logits]
        waves = [jnp.sin(jnp.arange(part.size)).reshape(part.shape) for part in parts]
        return sum(jnp.sum(part * wave) for part, wave in zip(parts, waves, strict=True)), parts

    (_, outputs), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return jax.device_get((outputs, gradient))


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_outputs_and_gradients_are_those_of_single_layers(precision, dropout, remat):
    with enable_x64(precision == "float64"):
        params = initial_params(CONFIG, "classifier", 0)
        params = jax.tree.map(lambda leaf: np.asarray(leaf, precision), params)
        key = jax.random.key(1, impl="rbg") if dropout else None
        single, looped = (
            value_and_gradient(SequenceClassifier(CONFIG, jnp.dtype(precision), remat, scan), params, key)
            for scan in (False, True)
        )
    limit = 1e-12 if precision == "float64" else 1e-5
    for ours, theirs in zip(jax.tree.leaves(looped), jax.tree.leaves(single), strict=True):
        assert np.abs(ours - theirs).max() <= limit * max(np.abs(theirs).max(), 1e-3)


def test_every_layer_and_place_has_bits_of_its_own():
    config = dataclasses.replace(CONFIG, attention_probs_dropout_prob=0.0)
    encoder, (head, none) = draw_encoder_bits(
        config, (2, 8), jax.random.key(0), Draw(0.2, (2, 16)), Draw(0.0, (5,))
    )
    assert encoder.layers[0] is None
    assert none is None
    layers = [np.asarray(bits) for bits in encoder.layers if bits is not None]
    assert [part.shape for part in layers] == [(3, 2, 8, 16)] * 2
    single = [np.asarray(encoder.embeddings), np.asarray(head)]
    assert [part.shape for part in single] == [(2, 8, 16), (2, 16)]
    beginnings = {bytes(part.ravel()[:8]) for part in [*single, *layers[0], *layers[1]]}
    assert len(beginnings) == 8
    assert draw_bits(jax.random.key(0), [Draw(0.0, (5,))]) == draw_bits(None, [Draw(0.1, (5,))]) == (None,)


@pytest.mark.parametrize("head", ["classifier", "masked_lm"])
@pytest.mark.parametrize("logits_only", [False, True])
def test_stacked_parameters_give_the_same_logits(head, logits_only):
    kind = {"classifier": SequenceClassifier, "masked_lm": MaskedLanguageModel}[head]
    params = initial_params(CONFIG, head, 0)
    module = kind(CONFIG, scan=True)
    stacked = inference_params(module, params)
    assert "layer_0" not in stacked["bert"]
    assert "layer_0" in params["bert"]
    assert inference_params(kind(CONFIG, scan=False), params) is params
    expected = forward(kind(CONFIG, scan=False), params, batch(), logits_only=logits_only)
    ours = forward(module, stacked, batch(), logits_only=logits_only)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.parametrize("head", ["classifier", "masked_lm"])
def test_kernels_in_the_compute_type_change_nothing(head):
    kind = {"classifier": SequenceClassifier, "masked_lm": MaskedLanguageModel}[head]
    params = initial_params(CONFIG, head, 0)
    module = kind(CONFIG, jnp.bfloat16, scan=True)
    stacked = inference_params(module, params)
    assert stacked["bert"]["layers"]["intermediate"]["kernel"].dtype == jnp.bfloat16
    for one, other in zip(forward(module, stacked, batch()), forward(module, params, batch()), strict=True):
        if one is not None:
            np.testing.assert_array_equal(np.asarray(one, np.float32), np.asarray(other, np.float32))
