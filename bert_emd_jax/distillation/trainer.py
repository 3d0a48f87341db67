"""Distillation: a trainer whose loss is what a student learns from a teacher's layers, and that on a task."""

import abc
import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.data.kind import LearnedKind
from bert_emd_jax.data.task import Task
from bert_emd_jax.devices import hosts
from bert_emd_jax.devices.compile_ahead import Task as CompileTask
from bert_emd_jax.devices.device_needs import device_needs
from bert_emd_jax.devices.parallel import replicate
from bert_emd_jax.distillation.attention_form import attention_form, with_attention
from bert_emd_jax.distillation.distill_config import DistillConfig, MappingConfig
from bert_emd_jax.distillation.layer_losses import (
    Encoders,
    LayerPlans,
    TransportState,
    initial_transport_state,
    layer_losses,
    reads,
    relation_heads,
    updated_scales,
    updated_weights,
    weights_that_move,
)
from bert_emd_jax.distillation.outputs_on_devices import Tables
from bert_emd_jax.distillation.plan_log import check_plans, log_plans
from bert_emd_jax.distillation.recipes import recipe_for
from bert_emd_jax.distillation.students import check_pair, initial_student
from bert_emd_jax.distillation.teacher_cache import RowsWithTeacher, kept_output, rows_with_teacher
from bert_emd_jax.distillation.width_cut import with_width
from bert_emd_jax.encoding.embedding_data import EmbeddingData
from bert_emd_jax.encoding.task_data import TaskData, load_task_data
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.ensemble import encoder_params, inference_params
from bert_emd_jax.models.fused_attention import AttentionForm
from bert_emd_jax.models.heads import ModelOutput, forward
from bert_emd_jax.models.initialization import PROJECTION
from bert_emd_jax.runs.layer_mapping import LayerMappingWriter
from bert_emd_jax.training.classifiers import classifier, members_of, module_of
from bert_emd_jax.training.label_loss import LabelLoss
from bert_emd_jax.training.optimizer import Numbers
from bert_emd_jax.training.row_source import RowSource
from bert_emd_jax.training.run import compute_dtype, directory_of
from bert_emd_jax.training.state import TrainState
from bert_emd_jax.training.task_evaluation import (
    Evaluation,
    TaskEvaluation,
    check_threshold,
    labelled,
    rows_hashes,
    task_rows,
)
from bert_emd_jax.training.trainer import Measurements, MicroStep, Trainer
from bert_emd_jax.training.training_config import TrainingConfig
from bert_emd_jax.transport.layer_weights import (
    LayerWeights,
    initial_layer_weight_logits,
    learned_layer_weights,
)
from bert_emd_jax.transport.mappings import fixed_plan

LAYER_WEIGHT_LOGITS = "layer_weight_logits"
"""Key beside a student's parameters of the trained layer weights' logits."""


class Constants(NamedTuple):
    """What a step needs and nobody differentiates, see `training.trainer.Constants`.

    teacher: its parameters; None if its outputs are kept and need no more. flow: the plan of a fixed mapping.
    outputs: of the teacher for all rows, if the devices keep them.
    """

    numbers: Numbers
    teacher: Any
    flow: Float[Array, "S T"] | None
    outputs: Tables | None = None


class LayerTrainer(Trainer):
    """Distillation from a teacher's layers, with a loss of the student's own beside it.

    attention: how both encoders compute attention in a step, but for outputs that are kept.

    Measurements of a step beside the losses: "plans" (`LayerPlans`, with an axis of micro-batches), and the
    "layer_weights" that they were solved with.
    """

    program = "run_distill"

    def __init__(
        self,
        config: TrainingConfig,
        layers: MappingConfig,
        student: LoadedModel,
        teacher: LoadedModel,
        modules: tuple[nn.Module, nn.Module],
        rows: RowSource,
        *,
        layer_factor: float = 1.0,
        extra_params: Mapping[str, Any] | None = None,
    ) -> None:
        """Trains `student` to be like `teacher`.

        Args:
          layers: what is learned from layers.
          modules: the student's and the teacher's.
          layer_factor: weighs all that is learned from layers.
          extra_params: trained beside those of student and layers, and no part of what is saved.
        """
        self.layers = layers
        self.teacher = teacher
        self.student_module, self.teacher_module = modules
        self.teacher_runs = True  # in every step; else its outputs are kept
        self.waits_for_step = layers.how.calls_host  # host callbacks of several steps in flight can deadlock
        self.check_every = layers.check_every if layers.transports else 0
        self._layer_counts = student.config.num_hidden_layers, teacher.config.num_hidden_layers
        dtype = compute_dtype(config, self.program)
        self.attention: AttentionForm = attention_form(layers, dtype, student.config, teacher.config)
        self._relates = reads(layers.costs, "projections")
        self._relation_heads = relation_heads(layers, student.config, teacher.config)
        self._history = LayerMappingWriter(config.program.output_dir)
        extra_params, learning_rates = dict(extra_params or {}), {}
        if layers.trains_layer_weights:
            extra_params[LAYER_WEIGHT_LOGITS] = {
                cost.name: initial_layer_weight_logits(*self._layer_counts) for cost in layers.mapped_costs
            }
            learning_rates[LAYER_WEIGHT_LOGITS] = layers.layer_weight_learning_rate
        super().__init__(
            config,
            student,
            rows,
            extra_params=extra_params,
            learning_rates=learning_rates,
            method=initial_transport_state(layers, *self._layer_counts) if layers.mapped_costs else None,
        )
        self.numbers["beta"] = layer_factor

    @abc.abstractmethod
    def own_loss(
        self, params: Any, student: ModelOutput, teacher: ModelOutput, batch: Batch, step: MicroStep
    ) -> tuple[Float[Array, ""], Measurements]:
        """This device's share of what is learned beside layers, and its terms."""

    def loss(
        self, params: Any, batch: Batch, step: MicroStep
    ) -> tuple[Float[Array, ""], tuple[Measurements, LayerPlans | None]]:
        """β (θ (A + H) + E) + the student's own loss: a share, weighed by the rows of the micro-batch."""
        layers, logits_only = self.layers, not self.layers.costs
        teacher = kept_output(batch, step.constants.outputs)
        # Of outputs that are kept, scores are, and not their factors.
        form: AttentionForm = self.attention if teacher is None else "direct"
        if teacher is None:
            module = with_attention(self.teacher_module, form)
            teacher = forward(module, step.constants.teacher, batch, logits_only=logits_only)
        module, key = with_attention(self.student_module, form), step.dropout_key()
        student = forward(module, params, batch, key, logits_only=logits_only)
        loss, terms, plans = jnp.zeros(()), {}, None
        if layers.costs:
            start = self._transport_state(params, step.state.method)
            outputs = params.get(PROJECTION), student, teacher
            encoders = None
            if self._relates:
                theirs = encoder_params(self.teacher_module, step.constants.teacher)
                encoders = Encoders(params["bert"], theirs, self._relation_heads)
            loss, terms, plans = layer_losses(*outputs, batch, start, step.constants.flow, layers, encoders)
        own, own_terms = self.own_loss(params, student, teacher, batch, step)
        loss = step.numbers["beta"] * loss + own
        shares = {"loss": loss, **terms, **own_terms}
        share = step.rows[step.index] / jnp.maximum(step.rows.sum(), 1)
        loss, shares = jax.tree.map(lambda value: value * share, (loss, shares))
        return loss, (shares, plans)

    def after_update(
        self,
        before: TrainState,
        after: TrainState,
        kept: LayerPlans | None,
        losses: Measurements,
        rows: Float[Array, " micro"],
    ) -> tuple[TrainState, Measurements]:
        """Cost attention, and after the first step the scales of balanced costs."""
        if kept is None:
            return after, {}
        weights: tuple[LayerWeights, ...] = before.method.weights
        measurements = {"plans": kept, "layer_weights": weights}
        if self.layers.transports:
            shares = rows / jnp.maximum(rows.sum(), 1)
            weights = updated_weights(weights, kept, shares, self.layers)
        scales = updated_scales(before.method.scales, losses, self.layers)
        method = self._transport_state(after.params, TransportState(weights, scales))
        return after.replace(method=method), measurements  # pyright: ignore[reportAttributeAccessIssue]

    def constants(self, epoch: int) -> Constants:
        flow = None
        if self.layers.how.layers is not None:
            seed = self.config.optimizer.seed
            pairs = *self._layer_counts, seed, epoch, self.layers.mapping_layer
            flow = replicate(fixed_plan(self.layers.mapping, *pairs))
        numbers = super().constants(epoch).numbers
        # Relations are made of hidden states that are kept by the teacher's own parameters.
        has_teacher = self.teacher_runs or self._relates
        return Constants(numbers, self._replicated_teacher if has_teacher else None, flow)

    @property
    def models(self) -> dict[str, LoadedModel]:
        return {"student": self.model, "teacher": self.teacher}

    def mapping_facts(self) -> dict[str, Any]:
        students, teachers = self._layer_counts
        return {
            "name": self.layers.mapping,
            "student_layers": students,
            "teacher_layers": teachers,
            "layer_weight_rule": self.layers.layer_weight_rule if self.layers.transports else None,
        }

    def resume(self, step: int) -> None:
        self._history.resume(step)

    def log(self, step: int, measurements: Measurements) -> dict[str, Any]:
        if "plans" not in measurements or measurements["bad_steps"]:
            return {}
        return log_plans(self._history, step, self.layers.mapped_costs, measurements["plans"])

    def check(self, step: int, measurements: Measurements) -> dict[str, Any]:
        solved = measurements["plans"], measurements["layer_weights"]
        return check_plans(step, self.layers.mapped_costs, *solved, self.layers)

    def before_checkpoint(self) -> None:
        if hosts.is_main():
            self._history.write()

    def _transport_state(self, params: Any, state: TransportState | None) -> TransportState | None:
        """The state, with the layer weights that are trained, if they are."""
        if state is None or not self.layers.trains_layer_weights:
            return state
        logits = [params[LAYER_WEIGHT_LOGITS][cost.name] for cost in self.layers.mapped_costs]
        weights = learned_layer_weights(logits, self.layers.separate_layer_weights)
        return TransportState(weights_that_move(weights, self.layers), state.scales)

    @functools.cached_property
    def _replicated_teacher(self) -> Any:
        return replicate(inference_params(self.teacher_module, self.teacher.params))


class TaskTrainer(LayerTrainer):
    """Distillation on the rows of a task, whose teacher's outputs may be computed once and kept."""

    config: DistillConfig

    def __init__(
        self,
        config: DistillConfig,
        student: LoadedModel,
        teacher: LoadedModel,
        modules: tuple[nn.Module, nn.Module],
        data: TaskData | EmbeddingData,
        evaluation: Evaluation,
        extra_params: Mapping[str, Any] | None = None,
    ) -> None:
        """Trains on the task's training rows, and measures as `evaluation` does."""
        super().__init__(
            config,
            config.learned_layers,
            student,
            teacher,
            modules,
            task_rows(data, config.optimizer),
            layer_factor=config.prediction.beta,
            extra_params=extra_params,
        )
        self.data = data
        self.primary_metric = data.task.primary_metric
        self._evaluation = evaluation

    @classmethod
    @abc.abstractmethod
    def from_models(cls, config: DistillConfig, task: Task, teacher: LoadedModel, source: str) -> Self:
        """Reads the data and the student.

        Args:
          source: the flag and path of the teacher, for messages.
        """

    def prepare(self) -> dict[str, Any]:
        """Decides where the teacher's outputs for the training rows are kept, if they are."""
        rows, data, teacher = self.rows, self.data.train, self.teacher
        before = directory_of(self.config, self.program).facts_before()
        place_before = None if before is None else before.get("teacher_cache", "off")
        rows, place = rows_with_teacher(self.config, rows, data, teacher, self.teacher_module, place_before)
        if not self.config.run.dry_run:  # its few steps run the teacher themselves
            self.rows, self.teacher_runs = rows, place == "off"
        return {"teacher_cache": place}

    def constants(self, epoch: int) -> Constants:
        outputs = self.rows.tables if isinstance(self.rows, RowsWithTeacher) else None
        return super().constants(epoch)._replace(outputs=outputs)

    def inputs(self) -> dict[str, str]:
        return super().inputs() | rows_hashes(self.data)

    def recipe(self) -> Mapping[str, Any] | None:
        recipe = recipe_for(self.config, self.data.task.kind.name, self.total_steps)
        return None if recipe is None else recipe._asdict()

    def needed_later(self) -> Iterator[CompileTask]:
        return self._evaluation.needed_later(self.state.params, self.models)

    def evaluate(self) -> dict[str, float]:
        return self._evaluation.metrics(self.state.params)

    def results(self, model: LoadedModel) -> dict[str, Any]:
        return self._evaluation.results({"student": model, "teacher": self.teacher})


class DistillTrainer(TaskTrainer):
    """Distillation on a task with labels: layers, the teacher's predictions and the true labels."""

    data: TaskData
    _evaluation: TaskEvaluation

    def __init__(
        self, config: DistillConfig, student: LoadedModel, teacher: LoadedModel, data: TaskData
    ) -> None:
        """Takes models whose labels are those of the task, in its order."""
        dtype = compute_dtype(config, self.program)
        student_module = classifier(student.config, dtype, config.speed.remat)
        modules = student_module, module_of(teacher, dtype, config.prediction.temperature)
        batch_size, directory = config.run.eval_batch_size, config.program.output_dir
        evaluation = TaskEvaluation(data, student_module, dtype, batch_size, directory, config.task.kept_in)
        check_threshold(config.decision.threshold, data.task)
        self._label_loss = LabelLoss(config.label_loss, data)
        super().__init__(config, student, teacher, modules, data, evaluation)
        prediction = config.prediction
        self.numbers |= {"alpha": prediction.alpha, "temperature": prediction.temperature}

    @classmethod
    def from_models(cls, config: DistillConfig, task: Task, teacher: LoadedModel, source: str) -> Self:
        lower = config.task.do_lower_case
        first, longest = members_of(teacher)[0], config.task.max_seq_length
        student = initial_student(config.pair, first, task.kind.head, config.optimizer.seed, lower)
        check_pair(config.layers, teacher, student, longest)
        steps_on = config.optimizer.steps_on
        lengths, aug = device_needs().steps_for_another_length, config.aug_train
        data = load_task_data(
            config.task,
            task,
            student.tokenizer,
            steps_on,
            lengths,
            aug_train=aug,
            labels_optional=config.prediction.needs_no_labels,
            unlabelled=config.unlabelled,
        )
        student = with_width(student, config.pair, task.kind.head, config.optimizer.seed, data.train)
        teachers = {f"teacher {number}": one.config for number, one in enumerate(members_of(teacher), 1)}
        data.check({source: teacher.config, **teachers, "the student": student.config})
        return cls(config, student, teacher, data)

    def best_model(self, state: TrainState) -> LoadedModel:
        return self._evaluation.decided(super().best_model(state), self.config.decision.threshold)

    def weighs(self, batch: Batch) -> Float[Array, " micro"]:
        return labelled(self.data.task, batch)

    def own_loss(
        self, params: Any, student: ModelOutput, teacher: ModelOutput, batch: Batch, step: MicroStep
    ) -> tuple[Float[Array, ""], Measurements]:
        """α soft + (1 - α) hard: the teacher's predictions and the true labels; soft alone without labels."""
        prediction, kind = self.config.prediction, self.data.task.kind
        if not prediction.learns_predictions:
            return jnp.zeros(()), {}
        assert isinstance(kind, LearnedKind)  # `task_trainers` chooses the trainer by the kind

        weights = kind.loss_weights(batch["labels"], batch["weights"])

        def share(losses: Array) -> Array:
            return jnp.sum(losses * weights) / step.weight

        soft = kind.soft_loss(student.logits, teacher.logits, step.numbers["temperature"])
        if self.data.labelled_train is None:
            loss = share(soft)  # α is 1
            return loss, {"soft_loss": loss, "prediction_loss": loss}
        hard, alpha = self._label_loss(student.logits, batch["labels"]), step.numbers["alpha"]
        if "labelled" in batch:
            # A row without a label counts as with α = 1.
            known = batch["labelled"].reshape(-1, *(1,) * (hard.ndim - 1))
            hard, alpha = hard * known, 1 - (1 - alpha) * known
        losses = alpha * soft + (1 - step.numbers["alpha"]) * hard
        terms = {"soft_loss": share(soft), "hard_loss": share(hard), "prediction_loss": share(losses)}
        return terms["prediction_loss"], terms
