"""Which trainer distils on a task: one for each kind that is not learned from labels, and that of labels."""

import logging
from collections.abc import Sequence

from bert_emd_jax.checkpoints.model_directory import LoadedModel, load_model
from bert_emd_jax.data.kind import LearnedKind
from bert_emd_jax.data.kinds import EMBEDDING, KINDS, kind_of
from bert_emd_jax.data.label_matching import match_labels
from bert_emd_jax.data.task import Task
from bert_emd_jax.devices import hosts
from bert_emd_jax.distillation.distill_config import DistillConfig, VectorConfig
from bert_emd_jax.distillation.embedding_trainer import EmbeddingTrainer
from bert_emd_jax.distillation.trainer import DistillTrainer, TaskTrainer
from bert_emd_jax.encoding.task_data import task_of
from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.comparison import reads_the_same
from bert_emd_jax.training.classifiers import SeveralModels
from bert_emd_jax.training.training_config import LabelLossConfig

logger = logging.getLogger(__name__)

TRAINERS: dict[str, type[TaskTrainer]] = {EMBEDDING.name: EmbeddingTrainer}
"""Kind → trainer; `DistillTrainer` for kinds that are not here."""


def task_trainer(config: DistillConfig) -> TaskTrainer:
    """Returns the trainer of `bert-emd distill`.

    Raises:
      UserError: a flag, file or row that the user can put right, or models that do not go together.
    """
    hosts.initialize(config.hosts)
    given = config.task.columns.given_kind
    head = KINDS[given].head if given else None
    lower = config.task.do_lower_case
    teachers = [
        (f"--teacher_model {path}", load_model(path, head=head, do_lower_case=lower))
        for path in config.pair.teacher_model
    ]
    source, teacher = teachers[0]
    labels = teacher.config.id2label if config.prediction.needs_no_labels else None
    task = task_of(config.task, model_kind=kind_of(teacher.config, source), teacher_labels=labels)
    if task.kind is not EMBEDDING and config.vectors != VectorConfig():
        raise UserError(
            "--embedding_loss, --similarity_weight and --keep_projection: for --kind embedding alone"
        )
    if task.kind is EMBEDDING and config.label_loss != LabelLossConfig():
        raise UserError("--class_weights and --label_smoothing: kind embedding has no labels; leave them out")
    if task.kind is EMBEDDING and config.unlabelled is not None:
        raise UserError("--unlabelled: texts of kind embedding need no labels; put them into the train file")
    if task.kind is EMBEDDING and config.decision.threshold is not None:
        raise UserError("--threshold: kind embedding gives no labels; leave it out")
    if task.kind is not EMBEDDING:
        teacher = _teacher(config, task, teachers)
    elif len(teachers) > 1:
        raise UserError("--teacher_model: of kind embedding there is one teacher: vectors have no mean")
    return TRAINERS.get(task.kind.name, DistillTrainer).from_models(config, task, teacher, source)


def _teacher(config: DistillConfig, task: Task, teachers: Sequence[tuple[str, LoadedModel]]) -> LoadedModel:
    """The teacher of a task with labels, which are in the task's order: one model, or several as one."""
    matched = [
        match_labels(teacher, task, source, in_order=config.labels_in_order) for source, teacher in teachers
    ]
    if len(matched) == 1:
        return matched[0]
    first, _ = teachers[0]
    for source, teacher in teachers:
        if not reads_the_same(teacher.tokenizer, matched[0].tokenizer):
            raise UserError(f"{source}: has another tokenizer than {first}; all must read the same token ids")
    assert isinstance(task.kind, LearnedKind)
    logger.info("%d teachers: the mean of their probabilities, and the layers of the first", len(matched))
    return SeveralModels.of(matched, task.kind)
