"""The tasks of the study, written as the files that the programs read. Imports no jax."""

import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from bert_emd_jax.commands import demo
from bert_emd_jax.data.readers import read_split
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import write_text
from comparison import snli

_SEED = 2020  # of the choice of rows
_SNLI_DEV_ROWS = 2000
_TOMATOES_DEV_ROWS = 1000
_TOMATOES_DEV_ROWS_IN_HALVES = 3000  # the runs of a study need few of its 8,530 rows


@dataclasses.dataclass(frozen=True)
class StudyTask:
    """A task, with the flags of the programs besides --data_dir.

    glue: its directory in --glue_dir; None: from PyPI. header_lines: of its train.tsv. row_limits: how many
    times the plan's limit of training rows it may have, for a task of short rows.
    """

    title: str
    flags: tuple[str, ...]
    max_seq_length: int = 64
    glue: str | None = None
    header_lines: int = 1
    row_limits: int = 1
    rows: str = "official dev set"


TASKS = {
    "rotten_tomatoes": StudyTask(
        "Rotten Tomatoes", ("--task_name", "custom"), rows="the first rows of a fixed shuffle as dev set"
    ),
    "sst-2": StudyTask("SST-2", ("--task_name", "sst-2"), glue="SST-2"),
    "mrpc": StudyTask("MRPC", ("--task_name", "mrpc"), 128, "MRPC"),
    "cola": StudyTask("CoLA", ("--task_name", "cola"), glue="CoLA", header_lines=0, row_limits=3),
    "snli": StudyTask(
        "SNLI",
        (
            *("--task_name", "custom", "--label_column", "gold_label"),
            *("--text_column", "sentence1", "--text_pair_column", "sentence2"),
        ),
        rows="100,000 training pairs, 2,000 of the official test set as dev set",
    ),
}


def available_tasks(glue_dir: Path | None) -> tuple[str, ...]:
    """Returns the tasks whose files are available: those of GLUE need their directory."""
    return tuple(name for name, task in TASKS.items() if task.glue is None or glue_dir is not None)


def write_task(
    name: str, directory: Path, glue_dir: Path | None, train_rows: int, *, tiny: bool, halves: bool = False
) -> None:
    """Writes the train and dev files of a task into `directory`, if it does not exist.

    Args:
      train_rows: the most training rows, 0: all; chosen with a fixed seed, times the task's `row_limits`.
      tiny: keeps 40 dev rows.
      halves: dev rows are for choosing and for reporting: more of them where a task has them.

    Raises:
      UserError: files of GLUE are missing.
    """
    if directory.is_dir():
        return
    temporary = directory.with_name(f".{directory.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    task = TASKS[name]
    train_rows *= task.row_limits
    dev_rows = 40 if tiny else _TOMATOES_DEV_ROWS_IN_HALVES if halves and name == "rotten_tomatoes" else None
    if task.glue is not None:
        _write_glue(task, temporary, glue_dir, train_rows, dev_rows)
    else:
        _FROM_PYPI[name](temporary, train_rows, dev_rows)
    temporary.replace(directory)


def training_rows(name: str, directory: Path, augmented: bool = False) -> int:
    """Returns how many rows the programs read from the train file of a task, or from the augmented one."""
    flags = TASKS[name].flags
    values = {flag.removeprefix("--"): value for flag, value in zip(flags[::2], flags[1::2], strict=True)}
    task = get_task(values.pop("task_name"), data_dir=directory, **values)
    return len(read_split(task, directory, "train", aug_train=augmented))


def _write_glue(
    task: StudyTask, directory: Path, glue_dir: Path | None, train_rows: int, dev_rows: int | None
) -> None:
    assert task.glue is not None
    if glue_dir is None:
        raise UserError(f"{task.title} needs --glue_dir, the directory that holds {task.glue}/train.tsv")
    for split, most in (("train", train_rows), ("dev", dev_rows or 0)):
        source = glue_dir / task.glue / f"{split}.tsv"
        if not source.is_file():
            raise UserError(f"{source}: no such file; --glue_dir holds GLUE's tasks in directories")
        # Bytes and "\n" alone: a row may hold whatever else ends lines elsewhere.
        lines = source.read_bytes().removesuffix(b"\n").split(b"\n")
        header, rows = lines[: task.header_lines], lines[task.header_lines :]
        (directory / source.name).write_bytes(b"\n".join([*header, *_chosen(rows, most)]) + b"\n")


def _write_rotten_tomatoes(directory: Path, train_rows: int, dev_rows: int | None) -> None:
    sizes = {"dev": dev_rows or _TOMATOES_DEV_ROWS, "test": 0}
    demo.write_splits(directory, sizes | ({"train": train_rows} if train_rows else {}))


def _write_snli(directory: Path, train_rows: int, dev_rows: int | None) -> None:
    dev_rows = dev_rows or _SNLI_DEV_ROWS
    for name, member, most in (("train", snli.TRAIN, train_rows), ("dev", snli.TEST, dev_rows)):
        rows = _chosen(list(snli.pairs(member)), most)
        write_text(directory / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


_FROM_PYPI: dict[str, Callable[[Path, int, int | None], None]] = {
    "rotten_tomatoes": _write_rotten_tomatoes,
    "snli": _write_snli,
}


def _chosen(rows: list, most: int) -> list:
    """Returns `most` of the rows (0: all), in their order."""
    if not most or len(rows) <= most:
        return rows
    return [rows[index] for index in sorted(random.Random(_SEED).sample(range(len(rows)), most))]
