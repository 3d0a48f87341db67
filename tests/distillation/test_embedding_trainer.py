"""A step of an embedder's distillation beside torch, over devices, and what comes of its projection."""

import copy
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_steps import pmap_on, split, uneven_batch

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.data.kinds import EMBEDDING
from bert_emd_jax.data.task import Task
from bert_emd_jax.devices.parallel import DEVICES
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.distillation.embedding_trainer import EmbeddingTrainer, with_projection
from bert_emd_jax.distillation.teacher_outputs import KINDS, kept_outputs
from bert_emd_jax.distillation.vector_losses import VECTOR_LOSSES, similarity_loss
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.encoding.embedding_data import EmbeddingData, EmbeddingSplit
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.embedding_config import NORMALIZE, DenseModule, EmbeddingConfig
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import forward
from bert_emd_jax.models.initialization import VECTOR_PROJECTION, initial_params, initial_projection

RNG = np.random.default_rng(0)


def config_of(**flags: Any) -> DistillConfig:
    fixed = {"teacher_model": "t", "student_config": "s", "data_dir": "d", "task_name": "custom"}
    return DistillConfig(**fixed, kind="embedding", output_dir="o", check_every=0, **flags)


def embedder(layers: int, width: int, *modules: Any) -> EncoderConfig:
    return EncoderConfig(
        vocab_size=40,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.3,
        embedding=EmbeddingConfig(("mean",), modules),
    )


def loaded(config: EncoderConfig, seed: int) -> LoadedModel:
    tokenizer: Any = None
    return LoadedModel(config, initial_params(config, "embedding", seed), tokenizer)


def trainer_of(flags: DistillConfig, student_modules=(NORMALIZE,), width: int = 8) -> EmbeddingTrainer:
    """Of a small student and a teacher whose vectors have 12 dimensions; nobody reads its data."""
    student = dataclasses.replace(
        loaded(embedder(2, width, *student_modules), 1), projection=initial_projection(width, 12, 2)
    )
    one = np.ones(1, np.int32)
    rows = EncodedDataset(one, np.array([0, 1]), one, None, 0)
    task = Task("custom", None, ("teacher_cosine",), {}, kind=EMBEDDING)
    data = EmbeddingData(task, rows, EmbeddingSplit(("a",), rows), (16,))
    return EmbeddingTrainer(flags, student, loaded(embedder(3, 12, NORMALIZE), 3), data)


def unlabelled(**options: int) -> Any:
    batch = uneven_batch(**options)
    del batch["labels"]
    return batch


@functools.cache
def steps(flags: DistillConfig, devices: int, micro_batches: int = 1, brings_outputs: bool = False):
    """The states and measurements of three steps."""
    trainer = trainer_of(flags)
    # an error of scale would show
    trainer.optimizer = lambda numbers: optax.sgd(0.1)
    trainer.teacher_runs = not brings_outputs
    step = pmap_on(trainer.update, devices)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), (DEVICES,))
    state, constants = jax.device_put(
        jax.device_get((trainer.initial_state(), trainer.constants(0))),
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
    )
    history = []
    for seed in range(3):
        batch = unlabelled(seed=seed)
        if brings_outputs:
            output = forward(trainer.teacher_module, trainer.teacher.params, batch)
            batch["teacher"] = jax.device_get(kept_outputs(output, KINDS))
        state, measurements = step(state, constants, split(batch, devices, micro_batches))
        history.append(jax.device_get((state.params, measurements)))
    return history


ALL = config_of(similarity_weight=0.7, beta=0.3)
VECTORS = config_of(similarity_weight=0.7, beta=0.0)  # layers over devices: test_distill_step.py


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_any_number_of_devices_makes_the_same_step(devices):
    for (ours, measured), (expected, known) in zip(steps(VECTORS, devices), steps(VECTORS, 1), strict=True):
        for name in ("loss", "vector_loss", "similarity_loss", "gradient_norm"):
            np.testing.assert_allclose(measured[name], known[name], rtol=2e-5, err_msg=name)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, expected)


def test_micro_batches_have_their_own_pairs_and_the_same_vectors():
    flags = config_of(similarity_weight=0.0, beta=0.0, mapping="none")
    for (ours, measured), (expected, known) in zip(steps(flags, 2, 2), steps(flags, 1), strict=True):
        np.testing.assert_allclose(measured["vector_loss"], known["vector_loss"], rtol=2e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, expected)


def test_a_kept_teacher_teaches_the_same():
    """Its hidden states are in bfloat16, its vectors in float32."""
    for (ours, _), (expected, _) in zip(steps(VECTORS, 1, 1, True), steps(VECTORS, 1), strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, expected)


@pytest.mark.parametrize("name", ["mse", "cosine"])
def test_vector_losses_are_those_of_torch(name):
    torch = pytest.importorskip("torch")
    a, b = (RNG.standard_normal((5, 7)).astype(np.float32) for _ in range(2))
    theirs = {
        "mse": torch.nn.functional.mse_loss,
        "cosine": lambda x, y: (1 - torch.nn.functional.cosine_similarity(x, y)).mean(),
    }[name]
    student = torch.tensor(a, requires_grad=True)
    expected = theirs(student, torch.tensor(b))
    expected.backward()
    value, gradient = jax.value_and_grad(lambda a: VECTOR_LOSSES[name](a, jnp.asarray(b)).mean())(a)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-6)
    assert student.grad is not None
    np.testing.assert_allclose(gradient, student.grad.numpy(), atol=1e-7)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_the_similarity_loss_is_that_of_the_whole_matrix(devices):
    """Value and gradient are those of torch's full matrix over all real rows, wherever these lie."""
    torch = pytest.importorskip("torch")
    student, teacher = (RNG.standard_normal((16, dim)).astype(np.float32) for dim in (5, 9))
    weights = np.ones(16, np.float32)
    weights[[3, 10, 11, 15]] = 0
    real = weights > 0
    theirs = torch.tensor(student[real], dtype=torch.float64, requires_grad=True)

    def cosines(vectors):
        unit = torch.nn.functional.normalize(vectors)
        return unit @ unit.T

    apart = cosines(theirs) - cosines(torch.tensor(teacher[real], dtype=torch.float64))
    expected = apart.square().sum() / (12 * 11)
    expected.backward()
    assert theirs.grad is not None

    def on_one(student, teacher, weights):
        share, gradient = jax.value_and_grad(similarity_loss)(student, teacher, weights)
        return jax.lax.psum(share, DEVICES), gradient

    by_device = [values.reshape(devices, -1, *values.shape[1:]) for values in (student, teacher, weights)]
    values, gradients = jax.pmap(on_one, axis_name=DEVICES, devices=jax.devices()[:devices])(*by_device)
    np.testing.assert_allclose(values, expected.item(), rtol=1e-5)
    gradients = np.asarray(gradients).reshape(16, 5)
    np.testing.assert_allclose(gradients[real], theirs.grad.numpy(), atol=1e-6)
    np.testing.assert_array_equal(gradients[~real], 0)


def test_a_single_row_has_no_pair():
    one = np.ones((1, 1, 4), np.float32)
    value = jax.pmap(similarity_loss, axis_name=DEVICES, devices=jax.devices()[:1])(one, one, np.ones((1, 1)))
    assert np.abs(value).max() < 1e-12


def test_the_step_is_that_of_its_parts():
    """β E of layers, the projected vectors' squared error, and the similarities."""
    trainer = trainer_of(ALL)
    params, known = trainer.initial_state().params, steps(ALL, 1)[0][1]
    batch = unlabelled(seed=0)
    real = batch["weights"] > 0
    student = np.asarray(forward(trainer.student_module, params, batch).logits)[real]
    teacher = np.asarray(forward(trainer.teacher_module, trainer.teacher.params, batch).logits)[real]
    projection = params[VECTOR_PROJECTION]
    projected = student @ projection["kernel"] + projection["bias"]
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    np.testing.assert_allclose(known["vector_loss"], np.mean((projected - teacher) ** 2), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(student, axis=1), 1, rtol=1e-5)
    rows = len(student)
    apart = ((student @ student.T - teacher @ teacher.T) ** 2).sum() / (rows * (rows - 1))
    np.testing.assert_allclose(known["similarity_loss"], apart, rtol=1e-5)
    layers = known["attention_loss"] + known["hidden_loss"] + known["embedding_loss"]
    expected = 0.3 * layers + known["vector_loss"] + 0.7 * known["similarity_loss"]
    np.testing.assert_allclose(known["loss"], expected, rtol=1e-5)


def test_the_projection_is_left_out_or_kept():
    trainer = trainer_of(ALL)
    assert VECTOR_PROJECTION in trainer.initial_state().params
    assert set(trainer.best_model(trainer.initial_state()).params) == {"bert"}
    student, teacher = loaded(embedder(2, 8, NORMALIZE), 1), embedder(3, 12, NORMALIZE)
    kept = with_projection(student, teacher, 0)
    assert kept.config.embedding is not None
    assert kept.config.embedding.modules == (NORMALIZE, DenseModule(12), NORMALIZE)
    assert kept.config.output_size == 12
    batch = unlabelled(seed=0)
    own = forward(trainer.student_module, student.params, batch).logits
    kernel = kept.params["dense_1"]["kernel"]
    real = batch["weights"] > 0
    projected = np.asarray(own)[real] @ kernel
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    from bert_emd_jax.models.heads import SentenceEmbedder

    vectors = np.asarray(forward(SentenceEmbedder(kept.config), kept.params, batch).logits)
    np.testing.assert_allclose(vectors[real], projected, atol=1e-6)
    with pytest.raises(UserError, match="have the teacher's 12 dimensions already"):
        with_projection(kept, teacher, 0)


def test_of_equal_widths_nothing_is_projected():
    trainer = trainer_of(ALL, (NORMALIZE, DenseModule(12), NORMALIZE))
    assert VECTOR_PROJECTION not in trainer.initial_state().params


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"alpha": 0.5}, "--alpha 0.5: kind embedding has no labels"),
        ({"temperature": 2.0}, "--temperature 2.0: kind embedding"),
        ({"labels_in_order": True}, "--labels_in_order True: kind"),
    ],
)
def test_flags_that_need_labels_are_refused(flags, message):
    tokenizer: Any = None
    teacher = LoadedModel(embedder(3, 12), {}, tokenizer)
    task = Task("custom", None, (), {}, kind=EMBEDDING)
    with pytest.raises(UserError, match=message):
        EmbeddingTrainer.from_models(config_of(**flags), task, teacher, "t")


@pytest.mark.parametrize(("devices", "micro_batches"), [(1, 1), (2, 2)])
def test_frozen_word_embeddings_stay_and_the_rest_learns_the_same(devices, micro_batches):
    flags = config_of(beta=0.0, max_grad_norm=1e9)
    frozen = flags.replace(freeze_word_embeddings=True)
    start = trainer_of(frozen).initial_state()
    (ours, _), (expected, _) = (
        steps(frozen, devices, micro_batches)[0],
        steps(flags, devices, micro_batches)[0],
    )
    ours, expected = copy.deepcopy((ours, expected))
    words = [tree["bert"]["embeddings"].pop("word_embeddings")["embedding"] for tree in (ours, expected)]
    np.testing.assert_array_equal(
        words[0], start.params["bert"]["embeddings"]["word_embeddings"]["embedding"]
    )
    assert np.abs(words[1] - words[0]).max() > 1e-4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, expected)
    held = [leaf.size for leaf in jax.tree.leaves(start.optimizer_state)]
    whole = [leaf.size for leaf in jax.tree.leaves(trainer_of(flags).initial_state().optimizer_state)]
    assert sum(whole) - sum(held) == 2 * words[0].size
