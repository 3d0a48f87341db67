"""Fused attention computes what direct attention does, and scores are the products of their factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import enable_x64

from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.fused_attention import ScoreFactors, fused_attention
from bert_emd_jax.models.heads import SequenceClassifier, forward
from bert_emd_jax.models.initialization import initial_params

# Heads of a width of 6, which cuDNN wants filled up to 8.
CONFIG = EncoderConfig(
    vocab_size=50,
    hidden_size=12,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=12,
    initializer_range=0.3,
)
LENGTHS = np.array([8, 5, 1, 2])


def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = (np.arange(8) < LENGTHS[:, None]).astype(np.int32)
    ids = (rng.integers(1, 50, mask.shape) * mask).astype(np.int32)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": mask * 0}


def multiplied(factors: ScoreFactors) -> np.ndarray:
    return np.einsum("nbqhk,nbvhk->nbhqv", *map(np.asarray, factors)) / factors.key.shape[-1] ** 0.5


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
def test_outputs_scores_and_gradients_are_those_of_direct_attention(scan, dropout):
    def outputs_and_gradient(form: str):
        module = SequenceClassifier(CONFIG, jnp.float64, scan=scan, attention=form)
        key = jax.random.key(1, impl="rbg") if dropout else None

        def loss(params):
            output = forward(module, params, batch(), key)
            waves = jnp.sin(jnp.arange(output.layer_outputs.size)).reshape(output.layer_outputs.shape)
            return jnp.sum(output.layer_outputs * waves) + output.logits.sum(), output

        (_, output), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return output, gradient

    with enable_x64(True):
        params = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), initial_params(CONFIG, "classifier", 0)
        )
        (direct, theirs), (fused, ours) = map(outputs_and_gradient, ("direct", "xla"))
        assert isinstance(fused.attention_scores, ScoreFactors)
        # With dropout the code is the direct one; else JAX's softmax is one of float32.
        near = {"rtol": 0, "atol": 1e-12 if dropout else 1e-6}
        np.testing.assert_allclose(multiplied(fused.attention_scores), direct.attention_scores, **near)
        np.testing.assert_allclose(fused.layer_outputs, direct.layer_outputs, **near)
        np.testing.assert_allclose(fused.logits, direct.logits, **near)
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(theirs))
        for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(one / largest, other / largest, **near)


@pytest.mark.parametrize("scan", [False, True])
def test_logits_alone_have_no_scores(scan):
    params = initial_params(CONFIG, "classifier", 0)
    direct, fused = (
        forward(SequenceClassifier(CONFIG, scan=scan, attention=form), params, batch(), logits_only=True)
        for form in ("direct", "xla")
    )
    assert fused.attention_scores is None
    np.testing.assert_allclose(fused.logits, direct.logits, atol=1e-6)


def test_a_row_without_tokens_is_finite():
    sides = np.random.default_rng(0).normal(size=(3, 2, 4, 2, 6)).astype(np.float32)
    context = fused_attention(*sides, np.array([0, 3]), "xla")
    assert np.isfinite(context).all()
    np.testing.assert_allclose(context[0], np.broadcast_to(sides[2][0, :1], context[0].shape), atol=1e-6)


def test_other_attributes_and_parameters_are_the_same():
    direct = SequenceClassifier(CONFIG)
    assert direct.attention == "direct"
    fused = direct.clone(attention="xla")
    shapes = [jax.eval_shape(module.init, jax.random.key(0), *batch().values()) for module in (direct, fused)]
    assert shapes[0] == shapes[1]
