"""Reads and writes whole rows of a train file, for its augmented copy."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from bert_emd_jax.data.task import SplitFile
from bert_emd_jax.files import replacing
from bert_emd_jax.tables.rows import Column, column_names, json_objects, read_rows

Cells = dict[Column, Any]
"""All cells of a row by their columns, in the file's order."""


def whole_rows(path: Path, file: SplitFile, skip_malformed: bool) -> Iterator[Cells]:
    """Yields every row of a .tsv, .csv, .jsonl or .txt file with all its cells.

    Raises UserError with file and line for a bad row, unless `skip_malformed`.
    """
    if path.suffix == ".jsonl":
        for _, row in json_objects(path):
            yield {**row}
        return
    names = column_names(path) if file.columns is None else range(file.columns)
    skipped = [] if skip_malformed else None
    for row in read_rows(path, list(names), columns=file.columns, skipped=skipped):
        yield dict(zip(names, row.cells, strict=True))


def write_rows(target: Path, header: list[str] | None, rows: Iterable[Cells]) -> int:
    """Writes a file of rows, in the format of its suffix, all or nothing; returns their number."""
    count = 0
    with replacing(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        write = _row_writer(handle, target.suffix)
        if header is not None:
            write({name: name for name in header})
        for row in rows:
            write(row)
            count += 1
    return count


def header_of(path: Path, file: SplitFile) -> list[str] | None:
    """Reads the names in a file's header; None if it has none."""
    has_header = file.columns is None and path.suffix not in (".jsonl", ".txt")
    return column_names(path) if has_header else None


def _row_writer(handle: TextIO, suffix: str) -> Callable[[Cells], object]:
    if suffix == ".jsonl":
        # Plain ASCII holds every string, even half a surrogate pair in an unused column.
        return lambda row: handle.write(json.dumps(row) + "\n")
    if suffix == ".csv":
        writer = csv.writer(handle)  # ends rows with CR LF, and so quotes cells that hold either
        return lambda row: writer.writerow(row.values())
    return lambda row: handle.write("\t".join(row.values()) + "\n")
