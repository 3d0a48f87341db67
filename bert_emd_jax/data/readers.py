"""One split of a task, read from its file and checked row by row."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert_emd_jax.data.rows import label_cell, read_rows, text_cell
from bert_emd_jax.data.tasks import SplitFile, Task, augmented
from bert_emd_jax.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examples:
    """Texts and labels of one split, row for row.

    `labels` are indices into the task's labels (int32), values (float32) for regression, or None.
    `identifiers` are the file's own where it has a column for them, else the row numbers from 0.
    """

    texts_a: list[str]
    texts_b: list[str] | None
    labels: np.ndarray | None
    lines: np.ndarray
    identifiers: list[str]
    path: Path
    skipped_lines: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.texts_a)


def split_exists(task: Task, data_dir: str | Path, split: str) -> bool:
    """Whether the split's file is there: the mismatched sets of MNLI and test sets may be missing."""
    return split in task.splits and (Path(data_dir) / task.splits[split].name).is_file()


def read_split(task: Task, data_dir: str | Path, split: str, aug_train: bool = False) -> Examples:
    """The examples of a split; `aug_train` takes the augmented train file in place of the train file.

    Raises UserError for a missing directory or file, a bad row (with file and line), or no rows.
    """
    directory = Path(data_dir)
    path, file = _locate(task, directory, split, aug_train)
    wanted = [
        column for column in (file.text_a, file.text_b, file.label, file.identifier) if column is not None
    ]
    optional = [column for column in (file.identifier,) if column is not None]
    if split.startswith("test") and file.label is not None:
        optional.append(file.label)
    skipped: list[int] = []
    rows = read_rows(
        path,
        wanted,
        optional=optional,
        columns=file.columns,
        skipped=skipped if task.skips_malformed_rows else None,
    )
    texts_a: list[str] = []
    texts_b: list[str] = []
    labels: list[str | None] = []
    lines: list[int] = []
    identifiers: list[str] = []
    for line, cells in rows:
        remaining = iter(cells)
        texts_a.append(text_cell(path, line, file.text_a, next(remaining)))
        if file.text_b is not None:
            texts_b.append(text_cell(path, line, file.text_b, next(remaining)))
        if file.label is not None:
            labels.append(_label_name(path, line, file, next(remaining), split))
        identifier = next(remaining, None)
        identifiers.append(str(len(lines)) if identifier is None else str(identifier))
        lines.append(line)
    if not lines:
        raise UserError(f"{path}: no rows; the {split} split of {task.name} is empty")
    if skipped:
        logger.warning("%s: skipped %d malformed rows (first: line %d)", path, len(skipped), skipped[0])
    return Examples(
        texts_a=texts_a,
        texts_b=texts_b if file.text_b is not None else None,
        labels=_label_array(task, path, lines, labels, split),
        lines=np.asarray(lines, np.int64),
        identifiers=identifiers,
        path=path,
        skipped_lines=tuple(skipped),
    )


def _locate(task: Task, directory: Path, split: str, aug_train: bool) -> tuple[Path, SplitFile]:
    if not directory.is_dir():
        raise UserError(f"--data_dir {directory}: no such directory")
    file = task.splits.get(split)
    if file is None:
        raise UserError(f"{directory}: {task.name} has no {split} split here, only {', '.join(task.splits)}")
    if aug_train and split == "train":
        file = augmented(file)
        if not (directory / file.name).is_file():
            raise UserError(
                f"{directory / file.name}: no such file; it holds the augmented rows for --aug_train"
            )
    path = directory / file.name
    if not path.is_file():
        raise UserError(f"{path}: no such file; it holds the {split} split of {task.name}")
    return path, file


def _label_name(path: Path, line: int, file: SplitFile, value: Any, split: str) -> str | None:
    """None for a test row without label: no such column, an empty cell, or the -1 of the GLUE datasets."""
    assert file.label is not None
    if value is None and split.startswith("test"):
        return None
    name = label_cell(path, line, file.label, value)
    return None if split.startswith("test") and name in ("", "-1") else name


def _label_array(
    task: Task, path: Path, lines: list[int], names: list[str | None], split: str
) -> np.ndarray | None:
    if all(name is None for name in names):
        return None
    index_of = {name: index for index, name in enumerate(task.labels or ())}
    values: list[float] = []
    for line, name in zip(lines, names, strict=True):
        if task.labels is None:
            values.append(_number(path, line, name))
        elif name in index_of:
            values.append(index_of[name])
        else:
            known = ", ".join(task.labels[:12]) + (", …" if len(task.labels) > 12 else "")
            raise UserError(f"{path}:{line}: unknown label {str(name)[:80]!r}; {task.name} has {known}")
    return np.asarray(values, np.float32 if task.is_regression else np.int32)


def _number(path: Path, line: int, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not abs(value) <= float(np.finfo(np.float32).max):  # true for nan as well
        raise UserError(
            f"{path}:{line}: the value {str(text)[:80]!r} is no finite number; regression needs one"
        )
    return value
