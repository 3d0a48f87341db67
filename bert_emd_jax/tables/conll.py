"""Reads CoNLL files: a token a line with its columns, an empty line after every sentence."""

from collections.abc import Iterator
from pathlib import Path

from bert_emd_jax.errors import UserError

_DOCUMENT_START = "-DOCSTART-"


def read_sentences(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[list[str]]]]:
    """Yields the line of every sentence's first token, and the cells of all of its tokens.

    Columns stand between tabs, or between blanks in a line without a tab. Lines that begin a document are no
    tokens.

    Args:
      lines: their numbers and texts.

    Raises:
      UserError: a token with another number of columns than the first one, with file and line.
    """
    columns, first, tokens = 0, 0, []
    for number, line in lines:
        text = line.strip()
        if not text or text.startswith(_DOCUMENT_START):
            if tokens:
                yield first, tokens
            tokens = []
            continue
        cells = [cell.strip() for cell in text.split("\t")] if "\t" in text else text.split(" ")
        cells = [cell for cell in cells if cell]
        columns = columns or len(cells)
        if len(cells) != columns:
            raise UserError(
                f"{path}:{number}: {len(cells)} columns where there should be {columns}: a token, its"
                " columns and its label; correct the row"
            )
        first = first if tokens else number
        tokens.append(cells)
    if tokens:
        yield first, tokens
