"""Reads the rows of TSV, CSV, JSON-lines, parquet, CoNLL and text files; errors name the file and line."""

import csv
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bert_emd_jax.errors import UserError
from bert_emd_jax.tables.conll import read_sentences
from bert_emd_jax.tables.parquet import parquet_columns, parquet_rows

Column = str | int
"""The name of a column in the header, or its index in a file without one; -1 is the last one."""

# Not of endless digits, which are not a number for Python.
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,100}(\.0*)?")
_NAME_IT = (
    "a custom task's columns are named with --text_column, --text_pair_column and --label_column or"
    " --label_columns"
)


TEXT_COLUMN = "text"
"""The column that a file of plain text has."""


class TableRow(NamedTuple):
    """The wanted cells of one row: strings or JSON values, or None for an optional column that is absent."""

    line: int
    cells: list[Any]


def read_rows(
    path: Path,
    wanted: Sequence[Column],
    *,
    optional: Sequence[Column] = (),
    columns: int | None = None,
    skipped: list[int] | None = None,
) -> Iterator[TableRow]:
    """Yields the wanted cells of every row, in the order of `wanted`; the suffix gives the file's format.

    A row of a CoNLL file is a sentence, a cell the list of its tokens' cells in a column.

    Args:
      optional: columns that may be absent.
      columns: how many columns a file without header has; `wanted` are then indices.
      skipped: gets the lines of rows with a wrong number of columns, which otherwise are an error.

    Raises:
      UserError: a missing file or column, or a bad row, with file and line.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".txt":
        yield from _read_texts(path, wanted)
        return
    if path.suffix == ".conll":
        yield from _read_conll(path, wanted)
        return
    if path.suffix == ".jsonl":
        yield from _read_json_lines(path, wanted, optional)
        return
    if path.suffix == ".parquet":
        yield from _read_parquet(path, wanted, optional)
        return
    lines = _read_csv(path) if path.suffix == ".csv" else _read_tsv(path)
    if columns is None:
        header = next(lines, None)
        if header is None:
            raise UserError(f"{path}: the file is empty; its first line must name the columns")
        names = header.cells
        indices = _find_columns(path, names, wanted, optional)
        columns = len(names)
    else:
        indices = [int(column) for column in wanted]
    for line, cells in lines:
        if len(cells) == columns:
            yield TableRow(line, [None if index is None else cells[index] for index in indices])
        elif skipped is not None:
            skipped.append(line)
        else:
            raise UserError(
                f"{path}:{line}: {len(cells)} columns where there should be {columns}; correct the row"
            )


def column_names(path: Path) -> list[str]:
    """Reads the names of the header, the keys of the first JSON line or the columns of a parquet file."""
    if path.suffix == ".txt":
        return [TEXT_COLUMN]
    if path.suffix == ".conll":
        sentence = next(read_sentences(path, decoded_lines(path)), None)
        if sentence is None:
            raise UserError(f"{path}: no tokens here; a line holds a token, its columns and its label")
        return [str(number) for number in range(len(sentence[1][0]))]
    if path.suffix == ".parquet":
        return parquet_columns(path)
    if path.suffix == ".jsonl":
        first = next(json_objects(path), None)
        names = None if first is None else list(first[1])
    else:
        row = next(_read_csv(path) if path.suffix == ".csv" else _read_tsv(path), None)
        names = None if row is None else row.cells
    if names is None:
        raise UserError(f"{path}: the file is empty; its first line must name the columns")
    return names


def all_texts(path: Path) -> Iterator[str]:
    """Yields every string of a file of rows, from all of its columns; of lists their items.

    Raises:
      UserError: a missing file or a bad row, with file and line.
    """
    for row in read_rows(path, column_names(path)):
        for cell in row.cells:
            yield from (
                item for item in (cell if isinstance(cell, list) else [cell]) if isinstance(item, str)
            )


def _find_columns(
    path: Path, names: list[str], wanted: Sequence[Column], optional: Sequence[Column]
) -> list[int | None]:
    indices: list[int | None] = []
    for column in wanted:
        count = names.count(str(column))
        if count > 1:
            raise UserError(f"{path}:1: {count} columns are named {column!r}; rename all but one")
        if count == 0 and column not in optional:
            raise UserError(
                f"{path}:1: no column {column!r} in the header, which has {_some(names)}; {_NAME_IT}"
            )
        indices.append(names.index(str(column)) if count else None)
    return indices


def decoded_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields every line's number and text with its ending. Only LF ends a line: U+2028 and FF are text.

    Raises UserError with file and line for text that is not UTF-8.
    """
    with path.open("rb") as handle:
        for number, raw in enumerate(handle, start=1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}:{number}: byte {error.start + 1} of the line is not valid UTF-8;"
                    " save the file as UTF-8"
                ) from None


def _read_tsv(path: Path) -> Iterator[TableRow]:
    """Yields tab-separated cells, quotes included. Empty lines at the end are no rows."""
    empty_lines: list[int] = []
    for number, text in decoded_lines(path):
        text = text.removesuffix("\n").removesuffix("\r")
        if not text:
            empty_lines.append(number)
            continue
        for line in empty_lines:
            yield TableRow(line, [""])
        empty_lines.clear()
        yield TableRow(number, text.split("\t"))


def _read_texts(path: Path, wanted: Sequence[Column]) -> Iterator[TableRow]:
    """Yields every line that is not empty, as the only column."""
    _find_columns(path, [TEXT_COLUMN], wanted, ())
    for number, line in decoded_lines(path):
        if text := line.strip():
            yield TableRow(number, [text])


def _read_conll(path: Path, wanted: Sequence[Column]) -> Iterator[TableRow]:
    for line, tokens in read_sentences(path, decoded_lines(path)):
        columns = list(zip(*tokens, strict=True))
        for column in wanted:
            if not isinstance(column, int) or not -len(columns) <= column < len(columns):
                raise UserError(
                    f"{path}:{line}: no column {column} here; the {len(columns)} columns have numbers from 0"
                )
        yield TableRow(line, [list(columns[int(column)]) for column in wanted])


def _read_csv(path: Path) -> Iterator[TableRow]:
    """Yields cells by the rules of CSV quoting, and each row's first line. Empty lines are no rows."""
    reader = csv.reader((text for _, text in decoded_lines(path)), strict=True)
    line = 1
    while True:
        # The limit on a field's size is global, so it is lifted for this call only.
        limit = csv.field_size_limit(sys.maxsize)
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{path}:{line}: broken CSV quoting ({error}); correct the row") from None
        finally:
            csv.field_size_limit(limit)
        if cells is None:
            return
        if cells:
            yield TableRow(line, cells)
        line = reader.line_num + 1


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields every object of a JSON-lines file and its line. Raises UserError for anything else."""
    for number, text in decoded_lines(path):
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not valid JSON ({error}); a line holds one object") from None
        if not isinstance(value, dict):
            raise UserError(f"{path}:{number}: a JSON {json_type(value)} where an object should be")
        yield number, value


def _read_json_lines(path: Path, wanted: Sequence[Column], optional: Sequence[Column]) -> Iterator[TableRow]:
    for number, value in json_objects(path):
        for column in wanted:
            if column not in value and column not in optional:
                raise UserError(
                    f"{path}:{number}: no key {column!r}; the row has {_some(list(value))}; {_NAME_IT}"
                )
        yield TableRow(number, [value.get(str(column)) for column in wanted])


def _read_parquet(path: Path, wanted: Sequence[Column], optional: Sequence[Column]) -> Iterator[TableRow]:
    """Yields rows whose line is their number."""
    names = parquet_columns(path)
    indices = _find_columns(path, names, wanted, optional)
    present = [names[index] for index in indices if index is not None]
    for row, values in parquet_rows(path, present):
        remaining = iter(values)
        yield TableRow(row, [None if index is None else next(remaining) for index in indices])


def text_cell(path: Path, line: int, column: Column, value: Any) -> str:
    """Returns a cell as text. Raises UserError if a JSON value is not a string or not valid Unicode."""
    if not isinstance(value, str):
        raise UserError(f"{path}:{line}: {column!r} should be a string, it is {json_type(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{path}:{line}: {column!r} holds half of a surrogate pair; correct the row"
            ) from None
    return value


def label_cell(path: Path, line: int, column: Column, value: Any) -> str:
    """Returns a label's name, the same for every form of file: text without surrounding space.

    Whole numbers are one label however they are written (1, 1.0, "01", "+1"), and so are true and "true".

    Raises:
      UserError: it is not text, a number or a boolean, or NaN or infinite.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        is_float = isinstance(value, float)
        raise UserError(
            f"{path}:{line}: the label {column!r} should be a string or number, it is"
            f" {value if is_float else json_type(value)}; correct the row"
        )
    return plain_number(str(value).strip())


def plain_number(text: str) -> str:
    """Returns a whole number without plus, leading zeros and decimals; other text as it is."""
    return str(int(text.split(".")[0])) if _WHOLE_NUMBER.fullmatch(text) else text


def json_type(value: Any) -> str:
    """What JSON calls a value, with its article."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _some(names: list[str], count: int = 12) -> str:
    shown = ", ".join(repr(str(name)[:40]) for name in names[:count])
    return shown + (", …" if len(names) > count else "")
