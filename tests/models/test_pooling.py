"""Pooling beside sentence-transformers' own, its edges, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_emd_jax.models.embedding_config import POOLINGS, DenseModule, EmbeddingConfig
from bert_emd_jax.models.pooling import normalize, pool, project

RNG = np.random.default_rng(0)
STATES = RNG.standard_normal((4, 7, 5)).astype(np.float32)
LENGTHS = np.array([7, 1, 4, 2])
MASK = (np.arange(7) < LENGTHS[:, None]).astype(np.int32)


@pytest.mark.parametrize("pooling", [*((way,) for way in POOLINGS), ("cls", "max", "mean_sqrt_len")])
def test_pooling_is_that_of_sentence_transformers(pooling):
    torch = pytest.importorskip("torch")
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import Pooling

    names = ["mean_sqrt_len_tokens" if way == "mean_sqrt_len" else way for way in pooling]
    features = {"token_embeddings": torch.tensor(STATES), "attention_mask": torch.tensor(MASK)}
    expected = Pooling(5, names)(features)["sentence_embedding"].numpy()
    np.testing.assert_allclose(pool(STATES, MASK, pooling), expected, rtol=1e-6, atol=1e-6)


def test_sixteen_bit_states_are_pooled_in_float32():
    states = np.full((1, 3000, 1), 1.003, jnp.bfloat16)
    pooled = pool(states, np.ones((1, 3000), np.int32), ("mean",))
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled, states[:, 0].astype(np.float32), rtol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_rows_of_padding_have_finite_vectors_and_gradients(pooling):
    def total(states):
        return jnp.sum(normalize(pool(states, np.zeros((2, 3), np.int32), (pooling,))))

    for states in (np.zeros((2, 3, 4), np.float32), np.full((2, 3, 4), 1e4, np.float32)):
        value, gradient = jax.value_and_grad(total)(states)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        if pooling != "cls":
            assert value == 0


def test_normalised_vectors_are_those_of_torch():
    functional = pytest.importorskip("torch.nn.functional")
    torch = pytest.importorskip("torch")
    tiny, none = 1e-13 * np.ones((1, 5), np.float32), np.zeros((1, 5), np.float32)
    vectors = np.concatenate([STATES[:, 0], none, tiny])
    expected = functional.normalize(torch.tensor(vectors), dim=-1).numpy()
    np.testing.assert_allclose(normalize(vectors), expected, rtol=1e-6, atol=1e-7)


def test_projected_vectors():
    vectors, kernel, bias = STATES[:, 0], STATES[0, :5, :3], STATES[1, 0, :3]
    expected = vectors @ kernel[:5] + bias
    projection = {"kernel": kernel, "bias": bias}
    np.testing.assert_allclose(project(vectors, projection, normalized=False), expected, rtol=1e-5)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(project(vectors, projection, normalized=True), expected, rtol=1e-5)
    assert project(vectors, None, normalized=True) is vectors


def test_the_width_of_vectors():
    assert EmbeddingConfig(("cls", "mean")).vector_size(8) == 16
    modules = (DenseModule(5), "normalize", DenseModule(3, "tanh"))
    assert EmbeddingConfig(("mean",), modules).vector_size(8) == 3
    assert EmbeddingConfig(modules=("normalize",)).normalizes
    assert not EmbeddingConfig(modules=modules).normalizes
