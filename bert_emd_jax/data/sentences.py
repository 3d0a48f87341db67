"""Sentences of words with a label each, read from files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from bert_emd_jax.data.kind import LabellingKind
from bert_emd_jax.data.label_cells import LabelCells
from bert_emd_jax.data.readers import locate
from bert_emd_jax.data.task import Task
from bert_emd_jax.errors import UserError
from bert_emd_jax.tables.rows import Column, json_type, read_rows, text_cell


@dataclass(frozen=True)
class Sentences:
    """Words of sentences, and the index of each word's label; None if labels are not known.

    `lines`, `identifiers` and `path` as those of `Examples`.
    """

    words: list[list[str]]
    labels: Int[np.ndarray, " words"] | None
    lines: Int[np.ndarray, " sentences"]
    identifiers: list[str]
    path: Path

    def __len__(self) -> int:
        return len(self.words)

    @property
    def starts(self) -> Int[np.ndarray, " sentences+1"]:
        """The number of every sentence's first word among all words, and that of words."""
        return np.cumsum([0, *map(len, self.words)])

    @classmethod
    def from_words(cls, words: Sequence[Sequence[str]]) -> "Sentences":
        """Makes sentences without labels. Raises UserError for what is not a list of words."""
        rows = [
            _words(Path("texts"), row, "words", sentence) if len(sentence) else []
            for row, sentence in enumerate(words)
        ]
        return cls(rows, None, np.arange(len(rows)), [str(row) for row in range(len(rows))], Path("texts"))


def read_sentences(
    task: Task, directory: Path, split: str, *, aug_train: bool = False, labels_optional: bool = False
) -> Sentences:
    """Reads a split of a task on tokens.

    Args:
      labels_optional: sentences may have no labels, as those of a test split.

    Raises:
      UserError: a missing directory or file, a bad row (with file and line), or no rows.
    """
    paths, file = locate(task, directory, split, aug_train)
    may_lack = labels_optional or split.startswith("test")
    columns = file.label_columns
    words: list[list[str]] = []
    labels: list[list[int] | None] = []
    lines: list[int] = []
    for path in paths:
        wanted = [file.text_a, *columns]
        for line, (cell, *label) in read_rows(path, wanted, optional=columns if may_lack else ()):
            words.append(_words(path, line, file.text_a, cell))
            cells = LabelCells(path, line, columns, tuple(label))
            is_missing = not columns or (may_lack and task.kind.is_missing(cells, task.labels))
            labels.append(None if is_missing else _labels(cells, words[-1], task))
            lines.append(line)
    path = paths[0]
    if not words:
        raise UserError(f"{path}: no rows; the {split} split of {task.name} is empty")
    known = [row for row in labels if row is not None]
    if known and len(known) < len(labels):
        line = next(line for line, row in zip(lines, labels, strict=True) if row is None)
        raise UserError(f"{path}:{line}: no labels here, but other rows have some; give them to all, or none")
    if not known and not may_lack:
        raise UserError(f"{path}: no labels; the {split} split of {task.name} needs them")
    flat = np.array([label for row in known for label in row], np.int32) if known else None
    identifiers = [str(row) for row in range(len(words))]
    return Sentences(words, flat, np.asarray(lines, np.int64), identifiers, path)


def _words(path: Path, line: int, column: Column, cell: Any) -> list[str]:
    if not isinstance(cell, list | tuple) or not cell:
        raise UserError(
            f"{path}:{line}: {column!r} should be a list of words, it is"
            f" {'an empty one' if cell == [] else json_type(cell)}; correct the row"
        )
    return [text_cell(path, line, column, word) for word in cell]


def _labels(cells: LabelCells, words: list[str], task: Task) -> list[int]:
    names = cells.names(task.label_separator)
    if len(names) != len(words):
        raise UserError(f"{cells.where}: {len(words)} words and {len(names)} labels; correct the row")
    kind, is_line_each = task.kind, cells.path.suffix == ".conll"
    assert isinstance(kind, LabellingKind)
    return [
        kind.index(cells._replace(line=cells.line + number * is_line_each), name, task)
        for number, name in enumerate(names)
    ]
