"""The cells of a row that say its label, read as one name, as several, or as yes and no."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from bert_emd_jax.errors import UserError
from bert_emd_jax.tables.rows import Column, json_type, label_cell


class LabelCells(NamedTuple):
    """The cells of a row that say its label, and where they stand: one, or `one_each` for every label.

    A value is None if its column is absent. All methods raise UserError, with file and line, for a cell that
    they do not read.
    """

    path: Path
    line: int
    columns: tuple[Column, ...]
    values: tuple[Any, ...]
    one_each: bool = False

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    def name(self) -> str:
        """The only cell as a label's name, see `label_cell`."""
        return label_cell(self.path, self.line, self.columns[0], self.values[0])

    def names(self, separator: str) -> list[str]:
        """The only cell as a list of names: split at the separator or as JSON; an empty one has none."""
        column, value = self.columns[0], self.values[0]
        if isinstance(value, str):
            value = self._split(value.strip(), separator)
        if value is None or isinstance(value, dict):
            raise UserError(
                f"{self.where}: {column!r} should be a list of labels, it is {json_type(value)};"
                " correct the row"
            )
        items = value if isinstance(value, list) else [value]
        return [name for item in items if (name := label_cell(self.path, self.line, column, item))]

    def flags(self) -> list[int]:
        """Every cell as 0 or 1."""
        return [self._flag(column, value) for column, value in zip(self.columns, self.values, strict=True)]

    def _split(self, text: str, separator: str) -> list[Any]:
        if text.startswith("[") and text.endswith("]"):
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                if "'" in text:  # what Python prints, where a split would make labels such as "['a'"
                    raise UserError(
                        f"{self.where}: {self.columns[0]!r} is {text[:80]}, which is not JSON;"
                        f' write the labels as a{separator}b or as ["a", "b"]'
                    ) from None
        return text.split(separator)

    def _flag(self, column: Column, value: Any) -> int:
        text = label_cell(self.path, self.line, column, value)
        try:
            return {"0": 0, "false": 0, "1": 1, "true": 1}[text.casefold()]
        except KeyError:
            raise UserError(
                f"{self.where}: {column!r} is {text[:80]!r}; the column of a label holds 0 or 1;"
                " correct the row"
            ) from None
