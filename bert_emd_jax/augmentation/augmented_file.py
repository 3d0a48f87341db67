"""The augmented train file: the rows of the train file with all their cells, and others with new texts."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from bert_emd_jax.data.rows import Column, column_names, json_objects, read_rows
from bert_emd_jax.data.task import SplitFile

Cells = dict[Column, Any]
"""A row, column by column in the file's order."""


def whole_rows(path: Path, file: SplitFile, skip_malformed: bool) -> Iterator[Cells]:
    """Every row of a .tsv, .csv or .jsonl file with all its cells; `file` tells whether it has a header.

    Raises UserError with file and line on a bad row, unless malformed ones are to be skipped.
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
    """Writes rows in the form that the file's suffix says; returns their number.

    They are written aside and renamed at the end: under its final name the file is complete.
    """
    aside = target.with_name(f".{target.name}.writing")
    count = 0
    try:
        with aside.open("w", encoding="utf-8", newline="") as handle:
            write = _row_writer(handle, target.suffix)
            if header is not None:
                write({name: name for name in header})
            for row in rows:
                write(row)
                count += 1
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return count


def header_of(path: Path, file: SplitFile) -> list[str] | None:
    """The names in a file's first line; None where it has no such line."""
    return column_names(path) if file.columns is None and path.suffix != ".jsonl" else None


def _row_writer(handle: TextIO, suffix: str) -> Callable[[Cells], object]:
    if suffix == ".jsonl":
        # Plain ASCII holds every string, even half a surrogate pair in a column that nobody reads.
        return lambda row: handle.write(json.dumps(row) + "\n")
    if suffix == ".csv":
        writer = csv.writer(handle)  # ends rows with CR LF, and so quotes cells that hold either
        return lambda row: writer.writerow(row.values())
    return lambda row: handle.write("\t".join(row.values()) + "\n")
