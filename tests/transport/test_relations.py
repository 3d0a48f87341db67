"""MiniLMv2's relations against NumPy, and its queries, keys and values against transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.models.attention_projections import PROJECTIONS, attention_projection
from bert_emd_jax.models.heads import SequenceClassifier, forward
from bert_emd_jax.models.params import stack_layers
from bert_emd_jax.transport.relations import relation_cost_sums

RNG = np.random.default_rng(0)
STUDENT = RNG.normal(size=(3, 2, 3, 5, 8))  # kind, layers, rows, tokens, width
TEACHER = RNG.normal(size=(3, 4, 3, 5, 12))
MASK = (np.arange(5) < np.array([5, 3, 2])[:, None]).astype(np.int32)
HEADS = 4


def sums_of(student=STUDENT, teacher=TEACHER, weights=None):
    sides = [[lambda x=x: jnp.asarray(x) for x in side] for side in (student, teacher)]
    return relation_cost_sums(*sides, HEADS, MASK, weights)


def direct(student, teacher, rows=(0, 1, 2)):
    """float64, one row, layer and head after the other."""
    total, count = np.zeros((len(student[0]), len(teacher[0]))), 0
    for row in rows:
        length = MASK[row].sum()
        for ours, theirs in zip(student, teacher, strict=True):
            count += HEADS * length

            def relations(x, row=row, length=length):
                heads = x[:, row, :length].reshape(len(x), length, HEADS, -1).swapaxes(1, 2)
                return softmax(heads @ heads.swapaxes(2, 3) / heads.shape[-1] ** 0.5, axis=-1)

            p, q = relations(ours), relations(theirs)
            for i, j in np.ndindex(total.shape):
                total[i, j] += rel_entr(q[j], p[i]).sum()
    return total, count


def test_the_divergences_are_those_of_numpy():
    expected, count = direct(STUDENT, TEACHER)
    with jax.enable_x64():
        sums, counted = sums_of()
        np.testing.assert_allclose(sums, expected, rtol=1e-10)
        assert counted == count
        only, _ = sums_of(weights=np.array([1, 0, 1]))
        np.testing.assert_allclose(only, direct(STUDENT, TEACHER, (0, 2))[0], rtol=1e-10)
    sums, _ = sums_of(STUDENT.astype(np.float32), TEACHER.astype(np.float32))
    np.testing.assert_allclose(sums, expected, rtol=1e-4)
    # Vectors of padding change nothing, whatever they are.
    changed = STUDENT.copy()
    changed[:, :, 1, 3:] = 1e4
    np.testing.assert_allclose(sums_of(changed.astype(np.float32))[0], sums, rtol=1e-5)


def test_gradients_are_those_of_finite_differences():
    with jax.enable_x64():
        weights = RNG.random((2, 4))

        def total(student):
            return (weights * sums_of(student)[0]).sum()

        gradient = jax.grad(total)(jnp.asarray(STUDENT))
        for place in ((0, 0, 0, 0, 0), (1, 1, 1, 2, 3), (2, 0, 2, 1, 7)):
            step = 1e-5
            moved = [float(total(jnp.asarray(STUDENT).at[place].add(sign * step))) for sign in (1, -1)]
            assert float(gradient[place]) == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-6)
        assert (np.asarray(gradient)[:, :, 1, 3:] == 0).all()


def test_equal_sides_cost_next_to_nothing_and_never_less():
    sums, count = sums_of(TEACHER.astype(np.float32), TEACHER.astype(np.float32))
    assert (np.asarray(sums) > 0).all()
    np.testing.assert_allclose(np.diag(sums) / count, 0, atol=1e-6)


def test_queries_keys_and_values_are_those_of_transformers(tiny_model_dir):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    path = tiny_model_dir("model")
    model = load_model(path)
    theirs = transformers.AutoModel.from_pretrained(path / "pytorch").eval()
    ids = np.array([[2, 5, 6, 7, 3], [2, 8, 9, 3, 0]])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int32), "token_type_ids": 0 * ids}
    seen = {name: [] for name in PROJECTIONS}
    for layer in theirs.encoder.layer:
        for name in PROJECTIONS:
            hook = lambda module, inputs, output, name=name: seen[name].append(output.numpy())
            getattr(layer.attention.self, name).register_forward_hook(hook)
    with torch.no_grad():
        theirs(**{name: torch.tensor(values) for name, values in batch.items()})
    output = forward(SequenceClassifier(model.config), model.params, batch)
    inputs = jnp.concatenate([output.embeddings[None], output.layer_outputs[:-1]])
    for params in (model.params, stack_layers(model.params, np.float32)):
        for name in PROJECTIONS:
            ours = attention_projection(params["bert"], name, inputs)
            np.testing.assert_allclose(ours, np.stack(seen[name]), atol=2e-5)
