"""The product's own train step on its own batches, whole and in parts; `throughput.py` times them."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.devices.parallel import DEVICES, replicate, split_for_training
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.distillation.layer_losses import layer_losses
from bert_emd_jax.distillation.outputs_on_devices import OutputsOnDevices
from bert_emd_jax.distillation.teacher_cache import RowsWithTeacher
from bert_emd_jax.distillation.teacher_outputs import TeacherOutputs
from bert_emd_jax.distillation.trainer import DistillTrainer
from bert_emd_jax.encoding.batching import BatchRows
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.encoding.task_data import TaskData
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.heads import SequenceClassifier, forward
from bert_emd_jax.models.initialization import PROJECTION
from bert_emd_jax.training.state import DROPOUT_GENERATOR, apply_gradients, unless_nonfinite
from bert_emd_jax.training.trainer import Measurements
from bert_emd_jax.transport import sinkhorn
from bert_emd_jax.transport.mappings import fixed_plan


class Ours:
    """The product's trainer on batches that are chosen here."""

    def __init__(
        self,
        config: DistillConfig,
        data: TaskData,
        student: LoadedModel,
        teacher: LoadedModel,
        kept: "KeptOutputs | None" = None,
    ):
        """With `kept`, batches bring the teacher's outputs along; only those of its rows can be used."""
        self.trainer = DistillTrainer(config, student, teacher, data)
        self.trainer.teacher_runs = kept is None
        self.kept = kept
        self.measurements: Measurements = {}

    def keep_on_devices(self) -> None:
        """Lets the devices keep the teacher's outputs for all training rows (`--teacher_cache device`)."""
        trainer = self.trainer
        kinds = ("hidden_states", "attention_scores", "logits")
        outputs = OutputsOnDevices(trainer.teacher.config, trainer.data.train, kinds)
        outputs.fill(trainer.teacher_module, trainer.teacher.params)
        trainer.rows, trainer.teacher_runs = RowsWithTeacher(trainer.rows, outputs, lambda: None), False

    def arrays(self, batch: BatchRows) -> Batch:
        """A batch as a run hands it to the step."""
        padded_rows = self.trainer.config.optimizer.train_batch_size
        rows = self.trainer.rows.arrays(0, batch, padded_rows)
        if self.kept is not None:
            rows = {**rows, **self.kept.collate(batch, padded_rows)}
        return split_for_training(rows)

    def train(self, batches: list[BatchRows]) -> None:
        """Steps on these batches, the host one ahead of the device as in a run."""
        for batch in batches:
            self.measurements = self.trainer.step(self.arrays(batch))
        jax.block_until_ready(self.trainer.state)


class KeptOutputs:
    """A teacher's outputs for some of the rows of a dataset, in files."""

    def __init__(self, dataset: EncodedDataset, rows: np.ndarray, teacher: LoadedModel, directory: Path):
        self._places = np.full(len(dataset), -1)
        self._places[rows] = np.arange(len(rows))
        self._outputs = TeacherOutputs(teacher.config, rows_of(dataset, rows))
        self._outputs.fill_files(directory, SequenceClassifier(teacher.config), teacher.params)

    def collate(self, batch: BatchRows, padded_rows: int) -> dict[str, Any]:
        return self._outputs.collate(self._places[batch.rows], batch.length, padded_rows)


def rows_of(dataset: EncodedDataset, rows: np.ndarray) -> EncodedDataset:
    """A dataset of these rows alone."""
    lengths = dataset.lengths[rows]
    token_ids = [dataset.token_ids[dataset.offsets[row] : dataset.offsets[row + 1]] for row in rows]
    return dataclasses.replace(
        dataset,
        token_ids=np.concatenate(token_ids),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        segment_a_lengths=dataset.segment_a_lengths[rows],
        labels=None,
    )


def parts_of_a_step(ours: Ours, batch: BatchRows) -> dict[str, Callable[[], object]]:
    """The parts of a step as programs of their own, compiled, on one batch."""
    trainer, arrays = ours.trainer, ours.arrays(batch)
    state = jax.tree.map(jnp.copy, trainer.state)  # steps give theirs away
    pmap = functools.partial(jax.pmap, axis_name=DEVICES)
    key = jax.random.key(0, impl=DROPOUT_GENERATOR)
    uniform = trainer.layers.replace(mapping="uniform")
    models = trainer.models
    flow = fixed_plan("uniform", *(models[side].config.num_hidden_layers for side in ("student", "teacher")))

    def first(values: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], values)

    def student_loss(params: Any, batch: Any) -> jax.Array:
        return forward(trainer.student_module, params, first(batch), key).logits.sum()

    def costs(projection: Any, student: Any, teacher: Any, batch: Any) -> Any:
        return layer_losses(projection, student, teacher, first(batch), state.method, flow, uniform)[0]

    @functools.partial(jax.jit, donate_argnums=0)
    def optimize(state: Any, gradients: Any) -> Any:
        after = apply_gradients(state, gradients, trainer.optimizer(trainer.numbers))
        return unless_nonfinite(state, after, jnp.zeros(()), optax.tree.norm(gradients))

    @jax.jit
    @jax.vmap
    def solve(cost: Any, weights: Any) -> Any:
        return sinkhorn(cost, *weights).flow

    teacher_forward = pmap(lambda p, b: forward(trainer.teacher_module, p, first(b)), in_axes=(None, 0))
    student_forward = pmap(lambda p, b: forward(trainer.student_module, p, first(b)), in_axes=(None, 0))
    student_gradient = pmap(jax.grad(student_loss), in_axes=(None, 0))
    cost_gradient = pmap(jax.grad(costs, argnums=(0, 1)), in_axes=(None, 0, 0, 0))
    teacher_params = replicate(trainer.teacher.params)
    teacher_output = teacher_forward(teacher_params, arrays)
    student_output = student_forward(state.params, arrays)
    held = {"state": jax.tree.map(jnp.copy, trainer.state)}
    gradients = jax.tree.map(jnp.zeros_like, state.params)
    weights = jax.tree.map(lambda *sides: jnp.stack(sides), *state.method.weights)
    problems = ours.measurements["plans"].cost[0], weights

    def optimizer_step() -> None:
        held["state"] = jax.block_until_ready(optimize(held["state"], gradients))

    wait = jax.block_until_ready
    teacher_part = {"teacher forward": lambda: wait(teacher_forward(teacher_params, arrays))}
    return ({} if ours.kept else teacher_part) | {
        "student forward + backward": lambda: wait(student_gradient(state.params, arrays)),
        "costs and their gradient": lambda: wait(
            cost_gradient(state.params[PROJECTION], student_output, teacher_output, arrays)
        ),
        "transport (both plans)": lambda: wait(solve(*problems)),
        "optimizer": optimizer_step,
        "host (collate, read, split)": lambda: ours.arrays(batch),
    }
