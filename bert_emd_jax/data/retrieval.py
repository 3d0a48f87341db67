"""Queries, documents and which of these answer which: what search by vectors is measured on."""

from pathlib import Path
from typing import NamedTuple

from bert_emd_jax.errors import UserError
from bert_emd_jax.tables.rows import read_rows, text_cell

_QUERIES, _DOCUMENTS, _RELEVANCE = "queries.tsv", "documents.tsv", "relevance.tsv"


class RetrievalRows(NamedTuple):
    """The texts of queries and documents, and for every query {row of a document: grade above 0}."""

    queries: list[str]
    documents: list[str]
    grades: list[dict[int, float]]


def has_retrieval(directory: Path, split: str) -> bool:
    """Whether a directory of data has such files for a split."""
    return (directory / split / _QUERIES).is_file()


def read_retrieval(directory: Path, split: str) -> RetrievalRows:
    """Reads `queries.tsv` and `documents.tsv` (id, text) and `relevance.tsv` (query, document, grade).

    Queries without a relevant document are left out: there is nothing that they could find.

    Raises:
      UserError: a file is missing, a row is bad, an id is there twice or not at all, or no query is left.
    """
    folder = directory / split
    queries, documents = (_texts(folder / name) for name in (_QUERIES, _DOCUMENTS))
    path = folder / _RELEVANCE
    rows = {identifier: row for row, identifier in enumerate(documents)}
    grades: dict[str, dict[int, float]] = {identifier: {} for identifier in queries}
    for line, (query, document, grade) in read_rows(path, ["query", "document", "grade"]):
        for identifier, known, name in ((query, grades, _QUERIES), (document, rows, _DOCUMENTS)):
            if identifier not in known:
                raise UserError(f"{path}:{line}: no {identifier!r} in {name}; correct the row")
        try:
            value = float(grade)
        except ValueError:
            raise UserError(
                f"{path}:{line}: the grade {grade[:80]!r} is not a number; correct the row"
            ) from None
        if value > 0:
            grades[query][rows[document]] = value
    asked = [identifier for identifier in queries if grades[identifier]]
    if not asked:
        raise UserError(f"{path}: no query has a document with a grade above 0; correct the file")
    texts = [queries[identifier] for identifier in asked]
    return RetrievalRows(texts, list(documents.values()), [grades[identifier] for identifier in asked])


def _texts(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for line, (identifier, text) in read_rows(path, ["id", "text"]):
        if identifier in found:
            raise UserError(f"{path}:{line}: the id {identifier!r} is there twice; correct the row")
        found[identifier] = text_cell(path, line, "text", text)
    return found
