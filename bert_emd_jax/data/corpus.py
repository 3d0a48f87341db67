"""A plain-text corpus as token ids: in memory, or in files that are mapped into it."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bert_emd_jax.data.rows import decoded_lines
from bert_emd_jax.data.tokenization import Tokenizer
from bert_emd_jax.data.workers import results_in_order, worker_pool
from bert_emd_jax.errors import UserError

_LINES_AT_ONCE = 4096
_CHARACTERS_AT_ONCE = 1 << 20
_FILES = {"tokens": "tokens.bin", "sentence_offsets": "sentences.bin", "document_offsets": "documents.bin"}


@dataclass(frozen=True)
class Corpus:
    """Sentences, one after the other, and the documents that they form.

    Sentence s is `tokens[sentence_offsets[s]:sentence_offsets[s + 1]]`; document d has the sentences
    from `document_offsets[d]` up to `document_offsets[d + 1]`. None of them is empty.
    """

    tokens: np.ndarray
    sentence_offsets: np.ndarray
    document_offsets: np.ndarray

    @property
    def sentence_count(self) -> int:
        return len(self.sentence_offsets) - 1

    @property
    def document_count(self) -> int:
        return len(self.document_offsets) - 1

    @classmethod
    def open(cls, directory: Path) -> "Corpus":
        """The corpus that `tokenize_corpus` left in a directory, mapped, not read."""
        types = json.loads((directory / "corpus.json").read_text())
        return cls(**{name: np.memmap(directory / file, types[name], "r") for name, file in _FILES.items()})


def tokenize_corpus(
    path: str | Path,
    tokenizer: Tokenizer,
    directory: Path | None = None,
    workers: int = 1,
    progress: Callable[[int], object] = lambda lines: None,
) -> Corpus:
    """The token ids of a text file with one sentence a line and an empty line after each document.

    With a `directory` they are written there and mapped, so that memory does not grow with the
    corpus. `progress` is called with the number of lines read since its last call. Lines without any
    piece are left out. Raises UserError for a missing file, undecodable text, and no text at all.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"--train_corpus {path}: no such file")
    types = {"tokens": _token_type(tokenizer), "sentence_offsets": np.int64, "document_offsets": np.int64}
    token_count, sentence_count, open_document = 0, 0, False
    with ExitStack() as stack:
        if directory is None:
            sinks = {name: _MemorySink(types[name]) for name in types}
        else:
            files = {name: stack.enter_context((directory / _FILES[name]).open("wb")) for name in types}
            sinks = {name: _FileSink(types[name], files[name]) for name in types}
        if workers > 1:
            pool = stack.enter_context(worker_pool(workers, _start_worker, (tokenizer,)))
            results = results_in_order(pool, _tokenize_in_worker, _line_batches(path), 4 * workers)
        else:
            results = ((lines, _tokenize(tokenizer, lines)) for lines in _line_batches(path))
        sinks["sentence_offsets"].write([0])
        sinks["document_offsets"].write([0])
        for lines, (tokens, lengths) in results:
            sentence_ends: list[int] = []
            document_ends: list[int] = []
            for line, length in zip(lines, lengths, strict=True):
                if length:
                    token_count += length
                    sentence_count += 1
                    sentence_ends.append(token_count)
                    open_document = True
                elif not line and open_document:
                    document_ends.append(sentence_count)
                    open_document = False
            sinks["tokens"].write(tokens)
            sinks["sentence_offsets"].write(sentence_ends)
            sinks["document_offsets"].write(document_ends)
            progress(len(lines))
        if open_document:
            sinks["document_offsets"].write([sentence_count])
    if sentence_count == 0:
        raise UserError(
            f"{path}: no text in the corpus; it holds a sentence a line, empty lines between documents"
        )
    if directory is None:
        return Corpus(
            **{name: sink.values() for name, sink in sinks.items() if isinstance(sink, _MemorySink)}
        )
    (directory / "corpus.json").write_text(
        json.dumps({name: np.dtype(kind).name for name, kind in types.items()})
    )
    return Corpus.open(directory)


def _token_type(tokenizer: Tokenizer) -> type[np.integer]:
    return np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32


def _tokenize(tokenizer: Tokenizer, lines: list[str]) -> tuple[np.ndarray, list[int]]:
    """All the token ids of some lines, and how many each line has."""
    pieces = tokenizer.encode_pieces(lines)
    flat = np.fromiter(chain.from_iterable(pieces), _token_type(tokenizer))
    return flat, list(map(len, pieces))


_tokenizer: Tokenizer | None = None  # of a worker process


def _start_worker(tokenizer: Tokenizer) -> None:
    global _tokenizer
    _tokenizer = tokenizer


def _tokenize_in_worker(lines: list[str]) -> tuple[np.ndarray, list[int]]:
    assert _tokenizer is not None
    return _tokenize(_tokenizer, lines)


class _MemorySink:
    def __init__(self, kind: type[np.integer]):
        self._kind = kind
        self._values: list[np.ndarray] = []

    def write(self, values: np.ndarray | list[int]) -> None:
        self._values.append(np.asarray(values, self._kind))

    def values(self) -> np.ndarray:
        return np.concatenate(self._values)


class _FileSink:
    def __init__(self, kind: type[np.integer], handle: BinaryIO):
        self._kind = kind
        self._handle = handle

    def write(self, values: np.ndarray | list[int]) -> None:
        self._handle.write(np.asarray(values, self._kind).tobytes())


def _line_batches(path: Path) -> Iterator[list[str]]:
    """Stripped lines, as many as are tokenised in one call; "" ends a document."""
    batch: list[str] = []
    characters = 0
    for _, text in decoded_lines(path):
        batch.append(text.strip())
        characters += len(text)
        if len(batch) == _LINES_AT_ONCE or characters > _CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
