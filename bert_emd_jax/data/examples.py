"""The texts and labels of one split of a task."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from bert_emd_jax.errors import UserError


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

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        labels: Shaped[np.ndarray, " rows"] | None = None,
    ) -> "Examples":
        """Makes rows of lists: `texts[k]`, or the pair of it and `pairs[k]`.

        Raises:
          UserError: a text in place of a list, an empty list, or lists of different lengths.
        """
        for name, given in (("texts", texts), ("pairs", pairs)):
            if isinstance(given, str):
                raise UserError(f"{name}: give a list of texts, as [{given[:20]!r}]")
        if len(texts) == 0:
            raise UserError("texts: the list is empty")
        if pairs is not None and len(pairs) != len(texts):
            raise UserError(f"{len(texts)} texts and {len(pairs)} pairs: give as many of each")
        rows = np.arange(len(texts))
        second = None if pairs is None else list(pairs)
        return cls(list(texts), second, labels, rows, [str(row) for row in rows], Path("texts"))
