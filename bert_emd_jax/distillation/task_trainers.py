"""Which trainer distils on a task: one for each kind that is not learned from labels, and that of labels."""

from pathlib import Path

from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.data.kinds import EMBEDDING, KINDS, kind_of
from bert_emd_jax.devices import hosts
from bert_emd_jax.distillation.distill_config import DistillConfig, VectorConfig
from bert_emd_jax.distillation.embedding_trainer import EmbeddingTrainer
from bert_emd_jax.distillation.trainer import DistillTrainer, TaskTrainer
from bert_emd_jax.encoding.task_data import task_of
from bert_emd_jax.errors import UserError
from bert_emd_jax.training.training_config import LabelLossConfig

TRAINERS: dict[str, type[TaskTrainer]] = {EMBEDDING.name: EmbeddingTrainer}
"""Kind → trainer; `DistillTrainer` for kinds that are not here."""


def task_trainer(config: DistillConfig) -> TaskTrainer:
    """Returns the trainer of `run_distill.py`.

    Raises:
      UserError: a flag, file or row that the user can put right, or models that do not go together.
    """
    hosts.initialize(config.hosts)
    source = f"--teacher_model {config.pair.teacher_model}"
    given = config.task.columns.given_kind
    teacher = load_model(
        Path(config.pair.teacher_model),
        head=KINDS[given].head if given else None,
        do_lower_case=config.task.do_lower_case,
    )
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
    return TRAINERS.get(task.kind.name, DistillTrainer).from_models(config, task, teacher, source)
