"""If the logits alone are wanted, the last layer runs at few tokens, and they are the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import enable_x64

from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import MaskedLanguageModel, SequenceClassifier, forward
from bert_emd_jax.models.initialization import initial_params

CONFIG = EncoderConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=24,
    initializer_range=0.3,
    num_labels=3,
)
ROWS, LENGTH = 5, 24
POSITIONS = np.array([[3, 0], [1, 1], [5, 2], [23, 11], [0, 22]], np.int32)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    mask = np.arange(LENGTH) < np.array([24, 3, 12, 24, 23])[:, None]
    return {
        "input_ids": rng.integers(0, 50, (ROWS, LENGTH)).astype(np.int32),
        "attention_mask": mask.astype(np.int32),
        "token_type_ids": rng.integers(0, 2, (ROWS, LENGTH)).astype(np.int32),
        "masked_positions": POSITIONS,
    }


@pytest.fixture(autouse=True)
def float64():
    with enable_x64(True):
        yield


def initialised(config, head):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), initial_params(config, head, 0))


def both(module, params, batch):
    def outputs(params, batch):
        whole = forward(module, params, batch)
        return whole, forward(module, params, batch, logits_only=True)

    return jax.device_get(jax.jit(outputs)(params, batch))


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("head", ["classifier", "masked_lm"])
def test_the_output_is_that_of_the_tokens_that_the_head_reads(batch, head, layers):
    config = dataclasses.replace(CONFIG, num_hidden_layers=layers)
    kind = {"classifier": SequenceClassifier, "masked_lm": MaskedLanguageModel}[head]
    whole, alone = both(kind(config, jnp.float64), initialised(config, head), batch)
    positions = np.zeros((ROWS, 1), int) if head == "classifier" else POSITIONS
    rows = np.arange(ROWS)[:, None]
    assert whole.hidden_states.shape == (layers + 1, ROWS, LENGTH, 32)
    np.testing.assert_allclose(alone.logits, whole.logits, atol=1e-11)
    np.testing.assert_allclose(alone.hidden_states, whole.hidden_states[:, rows, positions], atol=1e-11)
    scores = np.take_along_axis(whole.attention_scores, positions[None, :, None, :, None], axis=3)
    np.testing.assert_allclose(alone.attention_scores, scores, atol=1e-11)


def test_a_masked_lm_without_positions_keeps_its_logits_everywhere(batch):
    module = MaskedLanguageModel(CONFIG, jnp.float64)
    everywhere = {name: values for name, values in batch.items() if name != "masked_positions"}
    whole, alone = both(module, initialised(CONFIG, "masked_lm"), everywhere)
    assert alone.logits.shape == (ROWS, LENGTH, 50)
    np.testing.assert_array_equal(alone.logits, whole.logits)


@pytest.mark.parametrize("remat", [False, True])
def test_the_gradient_is_the_same(batch, remat):
    module = SequenceClassifier(CONFIG, jnp.float64, remat)
    params = initialised(CONFIG, "classifier")

    def gradient(logits_only):
        def loss(params):
            return jnp.sum(forward(module, params, batch, logits_only=logits_only).logits ** 2)

        return jax.jit(jax.grad(loss))(params)

    def near(ours, theirs):
        np.testing.assert_allclose(ours, theirs, atol=1e-11)

    jax.tree.map(near, gradient(True), gradient(False))


def test_most_of_the_last_layer_is_spared(batch):
    config = dataclasses.replace(CONFIG, num_hidden_layers=1, hidden_size=128, intermediate_size=512)
    module, params = SequenceClassifier(config), initialised(config, "classifier")

    def flops(logits_only):
        def logits(params, batch):
            return forward(module, params, batch, logits_only=logits_only).logits

        analysis = jax.jit(logits).lower(params, batch).compile().cost_analysis()
        assert analysis is not None
        return analysis["flops"]

    # Keys and values of all tokens are left: 2 of the layer's 4 + 8 products.
    assert flops(True) < 0.3 * flops(False)
