"""Tasks by name: those of GLUE, and `custom`."""

from collections.abc import Sequence
from pathlib import Path

from bert_emd_jax.data.custom_task import custom_task
from bert_emd_jax.data.glue import GLUE_TASKS
from bert_emd_jax.data.task import TFDS, Task, plain_name
from bert_emd_jax.errors import UserError

TASK_NAMES = (*(task.name for task in GLUE_TASKS), "custom")


def get_task(
    name: str,
    *,
    data_dir: str | Path | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str = "label",
    labels: Sequence[str] | None = None,
    regression: bool = False,
) -> Task:
    """Returns the task of a name, in any case and with or without hyphens.

    The other arguments describe a custom task: its files are in `data_dir`, and its labels are those of
    the train file if none are given. Raises UserError for an unknown name or a directory that does not fit.
    """
    wanted = plain_name(name)
    for task in GLUE_TASKS:
        if plain_name(task.name) == wanted:
            return task
    if wanted != "custom":
        raise UserError(f"--task_name {name}: no such task; it is one of {', '.join(TASK_NAMES)}")
    if data_dir is None or str(data_dir) == TFDS:
        raise UserError("--task_name custom: name the directory of its files with --data_dir")
    return custom_task(Path(data_dir), text_column, text_pair_column, label_column, labels, regression)
