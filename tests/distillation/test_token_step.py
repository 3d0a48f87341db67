"""A step that distils a classifier of tokens: means over tokens, whatever devices and micro-batches."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, softmax
from training_steps import LENGTH, pmap_on, split, uneven_batch

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.data.kinds import TOKEN
from bert_emd_jax.data.sentences import Sentences
from bert_emd_jax.data.task import Task
from bert_emd_jax.devices.parallel import DEVICES
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.distillation.outputs_on_devices import OutputsOnDevices, outputs_from_tables
from bert_emd_jax.distillation.teacher_outputs import TeacherOutputs, kept_outputs
from bert_emd_jax.distillation.trainer import DistillTrainer
from bert_emd_jax.encoding.task_data import TaskData
from bert_emd_jax.encoding.token_rows import NO_LABEL, TokenRows
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import TokenClassifier, forward
from bert_emd_jax.models.initialization import initial_params, initial_projection
from bert_emd_jax.training.finetune import FinetuneTrainer
from bert_emd_jax.training.training_config import FinetuneConfig

LABELS = ("B-X", "I-X", "O")
FLAGS: dict[str, Any] = {"data_dir": "d", "task_name": "custom", "kind": "token", "output_dir": "o"}


def tagger(layers: int, width: int, seed: int) -> LoadedModel:
    config = EncoderConfig(
        vocab_size=40,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=LENGTH,
        initializer_range=0.3,
        num_labels=3,
        id2label=LABELS,
        problem_type="token_classification",
    ).with_dropout(0.0)
    tokenizer: Any = None
    projection = initial_projection(width, 12, 2)
    return LoadedModel(config, initial_params(config, "token", seed), tokenizer, projection)


def data() -> TaskData:
    one = np.ones(1, np.int32)
    rows = TokenRows(one, np.array([0, 1]), one, one, 0, one, one, one, np.array([0, 1]))
    sentences = Sentences([["a"]], one, one, ["0"], Path("rows"))
    task = Task("toy", LABELS, TOKEN.metrics, {}, kind=TOKEN)
    return TaskData(task, rows, rows, (LENGTH,), sentences)


def trainer_of(beta: float) -> DistillTrainer:
    config = DistillConfig(
        teacher_model="t", student_config="s", alpha=0.7, temperature=2.0, beta=beta, check_every=0, **FLAGS
    )
    return DistillTrainer(config, tagger(2, 8, 1), tagger(3, 12, 3), data())


def batch_of(seed: int) -> dict[str, np.ndarray]:
    """Rows with different numbers of labelled tokens, some with none."""
    batch = uneven_batch(seed=seed)
    rng = np.random.default_rng(seed)
    is_labelled = (rng.random(batch["input_ids"].shape) < 0.6) & (batch["attention_mask"] > 0)
    labels = rng.integers(0, 3, is_labelled.shape)
    return batch | {"labels": np.where(is_labelled, labels, NO_LABEL).astype(np.int32)}


def steps(trainer: Any, devices: int, micro_batches: int = 1, batches: Any = None):
    trainer.optimizer = lambda numbers: optax.sgd(0.1)
    step = pmap_on(trainer.update, devices)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), (DEVICES,))
    state, constants = jax.device_put(
        jax.device_get((trainer.initial_state(), trainer.constants(0))),
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
    )
    history = []
    for batch in batches or map(batch_of, range(2)):
        state, measurements = step(state, constants, split(batch, devices, micro_batches))
        history.append(jax.device_get((state.params, measurements)))
    return history


@functools.cache
def one_device(beta: float = 0.0):
    return steps(trainer_of(beta), 1)


@pytest.mark.parametrize(("devices", "micro_batches"), [(8, 1), (2, 3)])
def test_devices_and_micro_batches_make_the_same_step(devices, micro_batches):
    made = steps(trainer_of(0.0), devices, micro_batches)
    for (ours, measured), (expected, known) in zip(made, one_device(), strict=True):
        for name in ("loss", "soft_loss", "hard_loss", "gradient_norm"):
            np.testing.assert_allclose(measured[name], known[name], rtol=2e-5, err_msg=name)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, expected)


def test_layers_are_learned_beside_the_labels_on_any_number_of_devices():
    many = steps(trainer_of(0.5), 4)
    for (ours, measured), (expected, known) in zip(many, one_device(0.5), strict=True):
        for name in ("loss", "attention_loss", "hidden_loss"):
            np.testing.assert_allclose(measured[name], known[name], rtol=2e-5, err_msg=name)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, expected)


def test_losses_are_means_over_labelled_tokens():
    trainer, batch = trainer_of(0.0), batch_of(0)
    student = np.asarray(forward(trainer.student_module, trainer.model.params, batch).logits, np.float64)
    teacher = np.asarray(forward(trainer.teacher_module, trainer.teacher.params, batch).logits, np.float64)
    at = np.nonzero(batch["labels"] >= 0)
    student, teacher, labels = student[at], teacher[at], batch["labels"][at]
    hard = -log_softmax(student, axis=1)[np.arange(len(labels)), labels].mean()
    soft = -(softmax(teacher / 2, axis=1) * log_softmax(student / 2, axis=1)).mean() * 2**2
    _, measured = one_device()[0]
    assert measured["hard_loss"] == pytest.approx(hard, rel=1e-5)
    assert measured["soft_loss"] == pytest.approx(soft, rel=1e-5)
    assert measured["loss"] == pytest.approx(0.7 * soft + 0.3 * hard, rel=1e-5)


def test_tokens_of_rows_without_labels_learn_from_the_teacher_alone():
    trainer, batch = trainer_of(0.0), batch_of(0)
    labelled = (np.arange(len(batch["labels"])) % 3 > 0).astype(np.float32)
    student = np.asarray(forward(trainer.student_module, trainer.model.params, batch).logits, np.float64)
    teacher = np.asarray(forward(trainer.teacher_module, trainer.teacher.params, batch).logits, np.float64)
    at = np.nonzero(batch["labels"] >= 0)
    student, teacher, labels, known = student[at], teacher[at], batch["labels"][at], labelled[at[0]]
    hard = -log_softmax(student, axis=1)[np.arange(len(labels)), labels]
    soft = -(softmax(teacher / 2, axis=1) * log_softmax(student / 2, axis=1)).mean(axis=1) * 2**2
    expected = np.where(known > 0, 0.7 * soft + 0.3 * hard, soft).mean()
    batches = [batch | {"labelled": labelled}]
    for devices, micro_batches in ((1, 1), (4, 1), (2, 3)):
        _, measured = steps(trainer_of(0.0), devices, micro_batches, batches)[0]
        assert measured["loss"] == pytest.approx(expected, rel=1e-5)
        assert measured["hard_loss"] == pytest.approx((hard * known).mean(), rel=1e-5)
        assert measured["soft_loss"] == pytest.approx(soft.mean(), rel=1e-5)


def test_fine_tuning_is_the_mean_over_labelled_tokens_too():
    config = FinetuneConfig(bert_model="b", **FLAGS)
    trainer = FinetuneTrainer(config, tagger(2, 8, 1), data())
    _, measured = steps(trainer, devices=2, micro_batches=3)[0]
    _, known = one_device()[0]
    assert measured["loss"] == pytest.approx(known["hard_loss"], rel=1e-5)


def test_a_teachers_logits_are_kept_token_by_token():
    teacher = tagger(2, 8, 0)
    lengths = np.array([5, 2, 9])
    rows = np.repeat(np.arange(3), lengths)
    tokens = np.arange(1, 17, dtype=np.int32)
    none = np.zeros(0, np.int32)
    dataset = TokenRows(
        tokens,
        np.cumsum([0, *lengths]),
        lengths.astype(np.int32),
        rows,
        0,
        none,
        none,
        none,
        np.zeros(1, int),
    )
    module = TokenClassifier(teacher.config)
    kept = TeacherOutputs(teacher.config, dataset, ("logits",))
    kept.fill_memory(module, teacher.params)
    batch = dataset.collate(np.array([2, 0]), 10, 3)
    expected = kept_outputs(forward(module, teacher.params, batch), ("logits",))["logits"]
    on_devices = OutputsOnDevices(teacher.config, dataset, ("logits",))
    on_devices.fill(module, teacher.params)
    numbers = on_devices.collate(np.array([2, 0]), 10, 3)["kept_rows"]
    mask = batch["attention_mask"].astype(bool)
    for found in (
        kept.collate(np.array([2, 0]), 10, 3)["teacher"]["logits"],
        np.asarray(outputs_from_tables(on_devices.tables, numbers, 10).logits),
    ):
        np.testing.assert_allclose(found[mask], np.asarray(expected)[mask], atol=1e-5)
        assert not found[~mask].any()


def test_a_student_cut_from_a_tagger_has_a_new_classifier_and_no_pooler():
    from bert_emd_jax.models.initialization import student_from_layers

    teacher = tagger(3, 8, 0)
    config, params = student_from_layers(teacher.config, teacher.params, [2], "token", seed=1)
    assert (config.head, config.num_hidden_layers) == ("token", 1)
    assert set(params["bert"]) == {"embeddings", "layer_0"}
    kernels = params["classifier"]["kernel"], teacher.params["classifier"]["kernel"]
    assert kernels[0].shape == kernels[1].shape
    assert not np.array_equal(*kernels)
    assert dataclasses.replace(config, num_hidden_layers=3) == teacher.config
