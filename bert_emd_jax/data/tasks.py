"""Tasks by name: those of GLUE, and `custom`."""

from pathlib import Path
from typing import Any

from bert_emd_jax.data.custom_task import custom_task
from bert_emd_jax.data.glue import GLUE_TASKS
from bert_emd_jax.data.kind import Kind, Labels
from bert_emd_jax.data.task import TFDS, Task, plain_name
from bert_emd_jax.data.task_config import CustomTaskConfig
from bert_emd_jax.errors import UserError

TASK_NAMES = (*(task.name for task in GLUE_TASKS), "custom")


def get_task(
    name: str,
    *,
    data_dir: str | Path | None = None,
    metric: str | None = None,
    model_kind: Kind | None = None,
    teacher_labels: Labels = None,
    **columns: Any,
) -> Task:
    """Returns the task of a name, in any case and with or without hyphens.

    Args:
      data_dir: the directory of a custom task's files.
      metric: the score that chooses the best step.
      model_kind: that of a trained model, which a custom task has if no flag names one.
      teacher_labels: those of a custom task whose training file has no labels.
      **columns: `CustomTaskConfig`, of a custom task.

    Raises:
      UserError: an unknown name, a directory that does not fit, or another kind than the task's.
    """
    config = CustomTaskConfig(**columns)
    task = _task(name, data_dir, config, model_kind, teacher_labels)
    if config.given_kind not in (None, task.kind.name):
        raise UserError(f"--kind {config.given_kind}: {task.name} is of kind {task.kind.name}; leave it out")
    return task if metric is None else task.with_metric(metric)


def _task(
    name: str,
    data_dir: str | Path | None,
    config: CustomTaskConfig,
    model_kind: Kind | None,
    teacher_labels: Labels,
) -> Task:
    wanted = plain_name(name)
    for task in GLUE_TASKS:
        if plain_name(task.name) == wanted:
            return task
    if wanted != "custom":
        raise UserError(f"--task_name {name}: no such task; it is one of {', '.join(TASK_NAMES)}")
    if data_dir is None or str(data_dir) == TFDS:
        raise UserError("--task_name custom: name the directory of its files with --data_dir")
    return custom_task(Path(data_dir), config, model_kind, teacher_labels)
