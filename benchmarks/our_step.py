"""The product's own train step on its own batches, whole and in parts, and its teacher; `throughput.py` times
them."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_emd_jax.checkpoints.model_directory import Model
from bert_emd_jax.data.batching import BatchRows, BatchSchedule
from bert_emd_jax.data.encoding import EncodedDataset
from bert_emd_jax.data.task_data import TaskData
from bert_emd_jax.devices.parallel import DEVICES, pmap_step, replicate, split_for_training
from bert_emd_jax.distillation.distill_step import PredictionLoss, make_distill_step
from bert_emd_jax.distillation.layer_losses import PlanStart, layer_losses
from bert_emd_jax.distillation.teacher_outputs import TeacherOutputs
from bert_emd_jax.models.heads import BertForSequenceClassification, forward
from bert_emd_jax.models.initialization import PROJECTION
from bert_emd_jax.training.config import DistillConfig
from bert_emd_jax.training.optimizer import learning_rate_schedule, make_optimizer
from bert_emd_jax.training.state import DROPOUT_GENERATOR, apply_gradients, create_state, unless_bad
from bert_emd_jax.transport import sinkhorn
from bert_emd_jax.transport.layer_weights import uniform_layer_weights
from bert_emd_jax.transport.mappings import fixed_plan
from bert_emd_jax.transport.names import FIXED_MAPPINGS


class Ours:
    """The product's own train step on its own batches."""

    def __init__(
        self,
        config: DistillConfig,
        data: TaskData,
        student: Model,
        teacher: Model,
        kept: "KeptOutputs | None" = None,
    ):
        """With `kept`, batches bring the teacher's outputs along; only those of its rows can be used."""
        self.kept = kept
        self.config, self.data, self.student, self.teacher = config, data, student, teacher
        layers = student.config.num_hidden_layers, teacher.config.num_hidden_layers
        self.schedule = BatchSchedule(
            data.train.lengths, data.bucket_lengths, config.train_batch_size, config.seed
        )
        self.optimizer = make_optimizer(config, learning_rate_schedule(config, 10_000))
        self.student_module = BertForSequenceClassification(student.config, jnp.dtype(config.dtype))
        self.teacher_module = BertForSequenceClassification(teacher.config, jnp.dtype(config.dtype))
        self.step = pmap_step(
            make_distill_step(
                self.student_module,
                self.teacher_module,
                self.optimizer,
                config,
                PredictionLoss(config, data.task.is_regression),
                config.beta,
            )
        )
        assert student.projection is not None
        params = dict(student.params) | {PROJECTION: student.projection}
        self.state = replicate(
            create_state(params, self.optimizer, config.seed, uniform_layer_weights(*layers))
        )
        flow = fixed_plan(config.mapping, *layers) if config.mapping in FIXED_MAPPINGS else None
        self.frozen = replicate({"teacher": None if kept else teacher.params, "flow": flow})
        self.measurements: dict[str, Any] = {}

    def arrays(self, batch: BatchRows) -> dict[str, np.ndarray]:
        """A batch as the loop hands it to the step."""
        rows = self.data.train.collate(batch.rows, batch.length, self.config.train_batch_size)
        if self.kept is not None:
            rows |= self.kept.collate(batch, self.config.train_batch_size)
        return split_for_training(rows)

    def train(self, batches: list[BatchRows]) -> None:
        """Steps on these batches, the host one ahead of the device as in the loop."""
        for batch in batches:
            self.state, self.measurements = self.step(self.state, self.frozen, self.arrays(batch))
        jax.block_until_ready(self.state)


class KeptOutputs:
    """A teacher's outputs for some of the rows of a dataset, in files."""

    def __init__(self, dataset: EncodedDataset, rows: np.ndarray, teacher: Model, directory: Path):
        self._places = np.full(len(dataset), -1)
        self._places[rows] = np.arange(len(rows))
        self._outputs = TeacherOutputs(teacher.config, rows_of(dataset, rows))
        self._outputs.fill_files(directory, BertForSequenceClassification(teacher.config), teacher.params)

    def collate(self, batch: BatchRows, padded_rows: int) -> dict[str, np.ndarray]:
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
    arrays = ours.arrays(batch)
    config = ours.config
    state = jax.tree.map(jnp.copy, ours.state)  # steps give theirs away
    pmap = functools.partial(jax.pmap, axis_name=DEVICES)
    key = jax.random.key(0, impl=DROPOUT_GENERATOR)
    uniform = dataclasses.replace(config, mapping="uniform")
    layers = ours.student.config.num_hidden_layers, ours.teacher.config.num_hidden_layers
    flow = jnp.full(layers, 1 / (layers[0] * layers[1]))

    def first(values: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], values)

    def student_loss(params: Any, batch: Any) -> jax.Array:
        return forward(ours.student_module, params, first(batch), key).logits.sum()

    def costs(outputs: tuple[Any, Any, Any], batch: Any) -> Any:
        projection, student, teacher = outputs
        start = PlanStart(state.layer_weights, state.potentials, flow)
        return layer_losses(projection, student, teacher, first(batch), start, uniform)[0]

    def costs_gradient(projection: Any, student: Any, teacher: Any, batch: Any) -> Any:
        return jax.grad(lambda p, s: costs((p, s, teacher), batch), argnums=(0, 1))(projection, student)

    @functools.partial(jax.jit, donate_argnums=0)
    def optimize(state: Any, gradients: Any) -> Any:
        after = apply_gradients(state, gradients, ours.optimizer)
        return unless_bad(state, after, jnp.zeros(()), optax.tree.norm(gradients))

    teacher_forward = pmap(lambda p, b: forward(ours.teacher_module, p, first(b)), in_axes=(None, 0))
    student_forward = pmap(lambda p, b: forward(ours.student_module, p, first(b)), in_axes=(None, 0))
    student_gradient = pmap(jax.grad(student_loss), in_axes=(None, 0))
    cost_gradient = pmap(costs_gradient, in_axes=(None, 0, 0, 0))
    teacher_params = replicate(ours.teacher.params)
    teacher_output = teacher_forward(teacher_params, arrays)
    student_output = student_forward(state.params, arrays)
    held = {"state": jax.tree.map(jnp.copy, ours.state)}
    gradients = jax.tree.map(jnp.zeros_like, state.params)
    solve = jax.jit(
        jax.vmap(
            lambda cost, source, target, start: (
                sinkhorn(cost, source, target, max_iterations=4, initial_potentials=start).flow
            )
        )
    )
    weights = state.layer_weights
    problems = (
        jnp.stack([ours.measurements[f"{kind}_cost"][0] for kind in ("attention", "hidden")]),
        jnp.stack([weights.attention_student, weights.hidden_student]),
        jnp.stack([weights.attention_teacher, weights.hidden_teacher]),
        jnp.stack([state.potentials["attention"], state.potentials["hidden"]]),
    )

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
