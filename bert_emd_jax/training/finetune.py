"""Fine-tuning one BERT on a task."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_emd_jax.checkpoints.model_directory import LoadedModel, load_model
from bert_emd_jax.data.kind import LearnedKind
from bert_emd_jax.devices import hosts
from bert_emd_jax.devices.compile_ahead import Task
from bert_emd_jax.devices.device_needs import device_needs
from bert_emd_jax.encoding.dataset import check_length
from bert_emd_jax.encoding.task_data import TaskData, load_task_data, task_of
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.heads import forward
from bert_emd_jax.models.initialization import NewHead
from bert_emd_jax.training.classifiers import classifier
from bert_emd_jax.training.label_loss import LabelLoss
from bert_emd_jax.training.state import TrainState
from bert_emd_jax.training.task_evaluation import (
    TaskEvaluation,
    check_threshold,
    labelled,
    rows_hashes,
    task_rows,
)
from bert_emd_jax.training.trainer import Measurements, MicroStep, Trainer
from bert_emd_jax.training.training_config import FinetuneConfig


class FinetuneTrainer(Trainer):
    """Trains a model on the labels of a task."""

    config: FinetuneConfig
    program = "run_finetune"

    def __init__(self, config: FinetuneConfig, model: LoadedModel, data: TaskData) -> None:
        """Takes a model with a head for the task's labels."""
        super().__init__(config, model, task_rows(data, config.optimizer))
        self.data = data
        self.primary_metric = data.task.primary_metric
        check_threshold(config.decision.threshold, data.task)
        dtype = self.dtype
        self._module = classifier(model.config, dtype, config.speed.remat)
        self._label_loss = LabelLoss(config.label_loss, data)
        self._evaluation = TaskEvaluation(
            data, self._module, dtype, config.run.eval_batch_size, config.program.output_dir
        )

    @classmethod
    def from_config(cls, config: FinetuneConfig) -> Self:
        """The trainer of `bert-emd finetune`.

        Raises:
          UserError: a flag, file or row that the user can put right.
        """
        hosts.initialize(config.hosts)
        task = task_of(config.task)
        if not isinstance(task.kind, LearnedKind):
            raise UserError(f"--kind {task.kind.name}: has no labels to fine-tune on; distill needs none")
        new_head = NewHead(task.num_labels, config.optimizer.seed, task.labels, task.kind.problem_type)
        path, lower = Path(config.bert_model), config.task.do_lower_case
        model = load_model(path, head=task.kind.head, new_head=new_head, do_lower_case=lower)
        positions = model.config.longest_input
        check_length(config.task.max_seq_length, positions, config.bert_model)
        for_another_length = device_needs().steps_for_another_length
        data = load_task_data(
            config.task, task, model.tokenizer, config.optimizer.steps_on, for_another_length
        )
        data.check({f"--bert_model {config.bert_model}": model.config})
        return cls(config, model, data)

    def loss(
        self, params: Any, batch: Batch, step: MicroStep
    ) -> tuple[Float[Array, ""], tuple[Measurements, None]]:
        """The mean over all labels of the global batch, whatever devices and micro-batches they lie on."""
        key = step.dropout_key()
        logits = forward(self._module, params, batch, key, logits_only=True).logits
        kind = self.data.task.kind
        assert isinstance(kind, LearnedKind)  # others are refused in `from_config`
        losses = self._label_loss(logits, batch["labels"])
        weights = kind.loss_weights(batch["labels"], batch["weights"])
        share = jnp.sum(losses * weights) / jnp.maximum(step.rows.sum(), 1)
        return share, ({"loss": share}, None)

    def weighs(self, batch: Batch) -> Float[Array, " micro"]:
        return labelled(self.data.task, batch)

    def inputs(self) -> dict[str, str]:
        return super().inputs() | rows_hashes(self.data)

    def needed_later(self) -> Iterator[Task]:
        return self._evaluation.needed_later(self.state.params, self.models)

    def evaluate(self) -> dict[str, float]:
        return self._evaluation.metrics(self.state.params)

    def best_model(self, state: TrainState) -> LoadedModel:
        return self._evaluation.decided(super().best_model(state), self.config.decision.threshold)

    def results(self, model: LoadedModel) -> dict[str, Any]:
        return self._evaluation.results({"student": model})
