"""The texts and labels of one split of a task."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped


@dataclass(frozen=True)
class Examples:
    """Texts and labels of one split of a task, one entry per row.

    `labels` are indices into the task's labels (int32), values (float32) for regression, or None.
    `identifiers` are the file's own if it has a column for them, else the row numbers from 0.
    `lines` are line numbers of the file, or row numbers if it has no lines; `path` is the (first) file.
    """

    texts_a: list[str]
    texts_b: list[str] | None
    labels: Shaped[np.ndarray, " rows"] | None
    lines: Int[np.ndarray, " rows"]
    identifiers: list[str]
    path: Path
    skipped_lines: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.texts_a)
