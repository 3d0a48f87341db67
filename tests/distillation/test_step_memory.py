"""How much memory a step needs: no copies of activations for pairs of layers, and less with --remat."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import SequenceClassifier, forward
from bert_emd_jax.models.initialization import initial_params
from bert_emd_jax.transport import attention_cost, hidden_cost

S, T, ROWS, LENGTH = 6, 12, 4, 32


def temporary_bytes(function, *args) -> int:
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    ("cost", "shape"), [(hidden_cost, (LENGTH, 64)), (attention_cost, (4, LENGTH, LENGTH))]
)
def test_costs_and_their_gradient_keep_nothing_for_every_pair_of_layers(cost, shape):
    student = jax.ShapeDtypeStruct((S, ROWS, *shape), jnp.float32)
    teacher = jax.ShapeDtypeStruct((T, ROWS, *shape), jnp.float32)
    mask = np.ones((ROWS, LENGTH), np.int32)
    flow = np.full((S, T), 1 / (S * T), np.float32)
    layer = 4 * ROWS * int(np.prod(shape))

    def ours(student, teacher):
        return jnp.sum(flow * cost(student, teacher, mask))

    def of_every_pair(student, teacher):
        differences = student[:, None] - teacher[None]
        return jnp.sum(flow * jnp.mean(jax.lax.optimization_barrier(differences) ** 2, axis=(2, 3, 4)))

    assert temporary_bytes(jax.value_and_grad(ours), student, teacher) < 3 * (S + T) * layer
    if shape == (LENGTH, 64):  # what it would be otherwise
        assert temporary_bytes(jax.value_and_grad(of_every_pair), student, teacher) > 0.9 * S * T * layer


def test_rematerialisation_needs_less_memory_for_the_same_gradient():
    config = EncoderConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=LENGTH,
        num_labels=2,
    )
    params = initial_params(config, "classifier", 0)
    rng = np.random.default_rng(0)
    batch = {
        "input_ids": rng.integers(0, 40, (16, LENGTH)).astype(np.int32),
        "attention_mask": np.ones((16, LENGTH), np.int32),
        "token_type_ids": np.zeros((16, LENGTH), np.int32),
    }

    def loss(remat: bool):
        module = SequenceClassifier(config, remat=remat)
        return lambda params: jnp.sum(forward(module, params, batch, jax.random.key(0)).logits ** 2)

    # On a CPU XLA undoes it, so what counts here is what the backward pass asks for.
    def kept_bytes(remat: bool) -> int:
        backward = jax.eval_shape(lambda params: jax.vjp(loss(remat), params)[1], params)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))

    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert kept_bytes(True) - weights < 0.25 * (kept_bytes(False) - weights)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        jax.jit(jax.grad(loss(False)))(params),
        jax.jit(jax.grad(loss(True)))(params),
    )
