"""Reads parquet files, as the Hugging Face datasets library writes them."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bert_emd_jax.errors import UserError, one_line

_ROWS_AT_ONCE = 8192


def parquet_columns(path: Path) -> list[str]:
    """Reads the names of the columns."""
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def class_names(path: Path, column: str) -> tuple[str, ...] | None:
    """Reads the names of a column of class numbers, or of lists of them; None if the file gives none."""
    with _opened(path) as file:
        metadata = file.schema_arrow.metadata or {}
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        names = feature["names"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) else None


def parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    """Yields the number of every row, from 1, and its values, with class names instead of numbers.

    Raises UserError for a damaged file, or a row with invalid text or an unknown class.
    """
    names = {column: class_names(path, column) for column in columns}
    with _opened(path) as file:
        first = 1
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(dict.fromkeys(columns))):
            values = {
                column: _values(path, first, column, batch.column(column), names[column])
                for column in dict.fromkeys(columns)
            }
            for offset in range(batch.num_rows):
                yield first + offset, [values[column][offset] for column in columns]
            first += batch.num_rows


def _values(path: Path, first: int, column: str, array: Any, names: tuple[str, ...] | None) -> list[Any]:
    try:
        values = array.to_pylist()
    except UnicodeDecodeError:
        for row, value in enumerate(array, start=first):
            try:
                value.as_py()
            except UnicodeDecodeError:
                raise UserError(
                    f"{path}: row {row}: {column!r} is not valid UTF-8; correct the row"
                ) from None
        raise
    if names is None:
        return values
    return [_named(path, row, column, value, names) for row, value in enumerate(values, start=first)]


def _named(path: Path, row: int, column: str, value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_named(path, row, column, item, names) for item in value]
    # -1 means an unknown label, as in test sets.
    if not (value is None or (isinstance(value, int) and -1 <= value < len(names))):
        raise UserError(
            f"{path}: row {row}: {column!r} is {value!r}, but there are {len(names)} classes; correct the row"
        )
    return value if value is None else "" if value < 0 else names[value]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable parquet file ({one_line(error)}); write it anew") from None
