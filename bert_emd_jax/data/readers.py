"""Reads the splits of a task from its files and checks every row."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from bert_emd_jax.data.examples import Examples
from bert_emd_jax.data.label_cells import LabelCells
from bert_emd_jax.data.task import TFDS, SplitFile, Task, augmented, plain_name
from bert_emd_jax.data.tfds_source import read_tfds_split, tfds_splits
from bert_emd_jax.errors import UserError
from bert_emd_jax.tables.rows import read_rows, text_cell

logger = logging.getLogger(__name__)


def scored_splits(
    task: Task, data_dir: str | Path, split: str, tfds_data_dir: str | Path | None = None
) -> tuple[str, ...]:
    """Returns the splits that a score on `split` covers: for MNLI also the mismatched set.

    One that is missing is logged.
    """
    present = [split]
    for other in task.splits:
        if not other.startswith(f"{split}_"):
            continue
        if str(data_dir) == TFDS:
            is_there = other in tfds_splits(task, tfds_data_dir)
        else:
            is_there = (Path(data_dir) / task.splits[other].name).is_file()
        if is_there:
            present.append(other)
        else:
            logger.info("%s: no %s; %s is scored on the matched set only", data_dir, other, task.name)
    return tuple(present)


def read_split(
    task: Task,
    data_dir: str | Path,
    split: str,
    aug_train: bool = False,
    tfds_data_dir: str | Path | None = None,
    *,
    labels_optional: bool = False,
) -> Examples:
    """Reads the examples of a split.

    Args:
      data_dir: the directory of the files; "tfds" for TensorFlow Datasets, kept in `tfds_data_dir`.
      aug_train: reads the augmented train file instead of the train file.
      labels_optional: rows may have no labels, as those of a test split.

    Raises:
      UserError: a missing directory or file, a bad row (with file and line), or no rows.
    """
    if str(data_dir) == TFDS:
        if aug_train:
            raise UserError("--aug_train reads a file: name the directory of the task's files in --data_dir")
        return read_tfds_split(task, split, tfds_data_dir)
    paths, file = locate(task, Path(data_dir), split, aug_train)
    of_label, is_test = file.label_columns, split.startswith("test")
    labels_optional = labels_optional or is_test
    texts = [column for column in (file.text_a, file.text_b) if column is not None]
    optional = [column for column in (file.identifier,) if column is not None]
    wanted = [*texts, *of_label, *optional]
    if labels_optional:
        optional += of_label
    skipped: list[int] = []
    texts_a: list[str] = []
    texts_b: list[str] = []
    labels: list[Any] = []
    lines: list[int] = []
    identifiers: list[str] = []
    for path in paths:
        rows = read_rows(
            path,
            wanted,
            optional=optional,
            columns=file.columns,
            skipped=skipped if task.skips_malformed_rows else None,
        )
        for line, cells in rows:
            remaining = iter(cells)
            texts_a.append(text_cell(path, line, file.text_a, next(remaining)))
            if file.text_b is not None:
                texts_b.append(text_cell(path, line, file.text_b, next(remaining)))
            if of_label:
                values = tuple(next(remaining) for _ in of_label)
                label = LabelCells(path, line, of_label, values, one_each=isinstance(file.label, tuple))
                is_missing = labels_optional and task.kind.is_missing(label, task.labels)
                labels.append(None if is_missing else task.kind.truth(label, task))
            identifier = next(remaining, None)
            identifiers.append(str(len(lines)) if identifier is None else str(identifier))
            lines.append(line)
    path = paths[0]
    if not lines:
        raise UserError(f"{path}: no rows; the {split} split of {task.name} is empty")
    if skipped:
        logger.warning("%s: skipped %d malformed rows (first: line %d)", path, len(skipped), skipped[0])
    return Examples(
        texts_a=texts_a,
        texts_b=texts_b if file.text_b is not None else None,
        labels=_label_array(task, split, path, lines, labels),
        lines=np.asarray(lines, np.int64),
        identifiers=identifiers,
        path=path,
        skipped_lines=tuple(skipped),
    )


def locate(task: Task, directory: Path, split: str, aug_train: bool) -> tuple[list[Path], SplitFile]:
    if not directory.is_dir():
        raise UserError(f"--data_dir {directory}: no such directory")
    file = task.splits.get(split)
    if file is None:
        raise UserError(f"{directory}: {task.name} has no {split} split here, only {', '.join(task.splits)}")
    if aug_train and split == "train":
        file = augmented(file)
        if not (directory / file.name).is_file():
            raise UserError(
                f"{directory / file.name}: no such file; make it with bert-emd augment --bert_model …"
                f" --data_dir {directory} --task_name {task.name.lower()}"
            )
    paths = [directory / name for name in file.names]
    for path in paths:
        if not path.is_file():
            hint = _below(directory, task, file.name)
            raise UserError(f"{path}: no such file; it holds the {split} split of {task.name}{hint}")
    return paths, file


def _below(directory: Path, task: Task, name: str) -> str:
    """Says which directory in this one is meant, if `--data_dir` names the one above it."""
    for path in sorted(directory.iterdir()):
        if plain_name(path.name) == plain_name(task.name) and (path / name).is_file():
            return f"; it is in {path}: give that as --data_dir"
    return ""


def _label_array(
    task: Task, split: str, path: Path, lines: list[int], labels: list[Any]
) -> np.ndarray | None:
    """Returns the labels as an array; None if no row has one, as in a test split."""
    missing = [line for line, label in zip(lines, labels, strict=False) if label is None]
    if len(missing) == len(labels):
        return None
    if missing:
        raise UserError(
            f"{path}:{missing[0]}: no label here, but {len(labels) - len(missing)} other rows have one;"
            " give all of them a label, or none"
        )
    if split.startswith("test") and task.kind.are_fillers(labels):
        return None
    return task.kind.truths(labels)
