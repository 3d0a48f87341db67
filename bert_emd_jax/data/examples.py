"""The texts and labels of one split of a task."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from bert_emd_jax.errors import UserError


@dataclass(frozen=True)
class Examples:
    """Texts and labels of one split of a task, one entry per row.

    `labels` are the truths of the task's kind, one entry per row, or None.
    `identifiers` are the file's own if it has a column for them, else the row numbers from 0.
    `lines` are line numbers of the file, or row numbers if it has no lines; `path` is the (first) file.
    """

    texts_a: list[str]
    texts_b: list[str] | None
    labels: Shaped[np.ndarray, "rows ..."] | None
    lines: Int[np.ndarray, " rows"]
    identifiers: list[str]
    path: Path
    skipped_lines: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.texts_a)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        pairs: Iterable[str] | None = None,
        labels: Shaped[np.ndarray, "rows ..."] | None = None,
    ) -> "Examples":
        """Makes rows of lists, or of what else gives one text after the other: `texts[k]` and `pairs[k]`.

        Raises:
          UserError: a text in place of a list, a row that is not text, or lists of different lengths.
        """
        first = _texts("texts", texts)
        second = None if pairs is None else _texts("pairs", pairs)
        if second is not None and len(second) != len(first):
            raise UserError(f"{len(first)} texts and {len(second)} pairs: give as many of each")
        rows = np.arange(len(first))
        return cls(first, second, labels, rows, [str(row) for row in rows], Path("texts"))


def _texts(name: str, given: Iterable[str]) -> list[str]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise UserError(f"{name}: give a list of texts, as [{str(given)[:20]!r}]")
    # Of a table only the columns' names would be read, and a set has no order.
    if isinstance(given, Set) or hasattr(given, "columns"):
        raise UserError(f"{name}: give a list of texts or one column of a table, not {type(given).__name__}")
    texts = list(given)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            hint = "; pairs go into two lists, texts and pairs" if isinstance(text, tuple | list) else ""
            raise UserError(f"{name}, row {row}: {str(text)[:40]!r} is {type(text).__name__}, no text{hint}")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError(f"{name}, row {row}: holds half of a surrogate pair, which is not text")
    return texts
