"""Distillation of a sentence embedder, on texts without labels."""

import dataclasses
from typing import Any, Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.data.task import Task
from bert_emd_jax.devices.device_needs import device_needs
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.distillation.students import check_pair, initial_student
from bert_emd_jax.distillation.trainer import TaskTrainer
from bert_emd_jax.distillation.vector_losses import VECTOR_LOSSES, similarity_loss
from bert_emd_jax.distillation.width_cut import with_width
from bert_emd_jax.encoding.embedding_data import EmbeddingData, load_embedding_data
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.embedding_config import NORMALIZE, DenseModule, dense_module_name
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.heads import ModelOutput, SentenceEmbedder
from bert_emd_jax.models.initialization import VECTOR_PROJECTION, initial_projection
from bert_emd_jax.models.params import Params
from bert_emd_jax.models.pooling import project
from bert_emd_jax.training.embedding_evaluation import EmbeddingEvaluation
from bert_emd_jax.training.run import compute_dtype
from bert_emd_jax.training.state import TrainState
from bert_emd_jax.training.trainer import Measurements, MicroStep


class EmbeddingTrainer(TaskTrainer):
    """Trains a student whose vectors of texts are like its teacher's: layers, vectors, and their cosines."""

    data: EmbeddingData
    _evaluation: EmbeddingEvaluation

    def __init__(
        self, config: DistillConfig, student: LoadedModel, teacher: LoadedModel, data: EmbeddingData
    ) -> None:
        """Takes two embedders. Vectors of another width than the teacher's are compared by a projection."""
        dtype = jnp.dtype(compute_dtype(config, self.program))
        modules = {
            "student": SentenceEmbedder(student.config, dtype, config.speed.remat),
            "teacher": SentenceEmbedder(teacher.config, dtype),
        }
        evaluation = EmbeddingEvaluation(
            data,
            modules,
            teacher,
            batch_size=config.run.eval_batch_size,
            directory=config.program.output_dir,
        )
        widths = student.config.output_size, teacher.config.output_size
        projection = {}
        if widths[0] != widths[1]:
            projection[VECTOR_PROJECTION] = _first_projection(student, widths, config.optimizer.seed)
        self._best_projection: Any = None
        student_and_teacher = modules["student"], modules["teacher"]
        super().__init__(config, student, teacher, student_and_teacher, data, evaluation, projection)

    @classmethod
    def from_models(cls, config: DistillConfig, task: Task, teacher: LoadedModel, source: str) -> Self:
        _check_flags(config)
        seed, lower = config.optimizer.seed, config.task.do_lower_case
        student = initial_student(config.pair, teacher, "embedding", seed, lower)
        check_pair(config.layers, teacher, student, config.task.max_seq_length)
        assert teacher.config.embedding is not None
        data = load_embedding_data(
            config.task,
            task,
            student.tokenizer,
            teacher.config.embedding,
            config.optimizer.steps_on,
            device_needs().steps_for_another_length,
            aug_train=config.aug_train,
        )
        student = with_width(student, config.pair, "embedding", seed, data.train)
        if config.vectors.keep_projection:
            student = with_projection(student, teacher.config, seed)
        data.check({source: teacher.config, "the student": student.config})
        return cls(config, student, teacher, data)

    def own_loss(
        self, params: Any, student: ModelOutput, teacher: ModelOutput, batch: Batch, step: MicroStep
    ) -> tuple[Float[Array, ""], Measurements]:
        """The vectors against the teacher's, and with `similarity_weight` their cosines against its."""
        config, weights = self.config, batch["weights"]
        if not config.prediction.learns_predictions:
            return jnp.zeros(()), {}
        assert self.teacher.config.embedding is not None
        normalized = self.teacher.config.embedding.normalizes
        vectors = project(student.logits, params.get(VECTOR_PROJECTION), normalized=normalized)
        each = VECTOR_LOSSES[config.vectors.embedding_loss](vectors, teacher.logits)
        loss = jnp.sum(each * weights) / step.weight
        terms = {"vector_loss": loss}
        if config.vectors.similarity_weight:
            terms["similarity_loss"] = similarity_loss(student.logits, teacher.logits, weights)
            loss += config.vectors.similarity_weight * terms["similarity_loss"]
        return loss, terms | {"prediction_loss": loss}

    def best_model(self, state: TrainState) -> LoadedModel:
        self._best_projection = state.params.get(VECTOR_PROJECTION)
        return super().best_model(state)

    def results(self, model: LoadedModel) -> dict[str, Any]:
        return self._evaluation.results({"student": model, "teacher": self.teacher}, self._best_projection)


def with_projection(student: LoadedModel, teacher: EncoderConfig, seed: int) -> LoadedModel:
    """Returns a student whose vectors have the width of its teacher's, by a dense module of its own.

    Raises:
      UserError: they have it already.
    """
    assert student.config.embedding is not None
    assert teacher.embedding is not None
    if student.config.output_size == teacher.output_size:
        raise UserError(
            f"--keep_projection: the student's vectors have the teacher's {teacher.output_size} dimensions"
            " already; leave it out"
        )
    modules = student.config.embedding.modules
    added = [DenseModule(teacher.output_size), *([NORMALIZE] if teacher.embedding.normalizes else [])]
    embedding = dataclasses.replace(student.config.embedding, modules=(*modules, *added))
    kernel = _first_projection(student, (student.config.output_size, teacher.output_size), seed)
    return dataclasses.replace(
        student,
        config=dataclasses.replace(student.config, embedding=embedding),
        params={**student.params, dense_module_name(len(modules)): kernel},
    )


def _first_projection(student: LoadedModel, widths: tuple[int, int], seed: int) -> Params:
    """That of the student's states where vectors are as wide as these, so that both begin alike."""
    known = student.projection
    return known if known and known["kernel"].shape == widths else initial_projection(*widths, seed)


def _check_flags(config: DistillConfig) -> None:
    """Raises UserError for flags that need labels."""
    prediction = config.prediction
    for flag, value, usual in (
        ("alpha", prediction.alpha, 1.0),
        ("temperature", prediction.temperature, 1.0),
        ("labels_in_order", config.labels_in_order, False),
    ):
        if value != usual:
            raise UserError(f"--{flag} {value}: kind embedding has no labels; leave it out")
