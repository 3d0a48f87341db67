"""A plain-text corpus as token ids, in memory or in memory-mapped files."""

import codecs
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Integer

from bert_emd_jax.corpus.workers import results_in_order, worker_pool
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import read_json, write_json
from bert_emd_jax.tables.rows import decoded_lines
from bert_emd_jax.tokenization.tokenizer import Tokenizer

_BYTES_AT_ONCE = 1 << 20
_FILES = {"tokens": "tokens.bin", "sentence_offsets": "sentences.bin", "document_offsets": "documents.bin"}
_TYPES_FILE = "corpus.json"  # written last


@dataclass(frozen=True)
class Corpus:
    """Sentences as token ids, concatenated, and the documents that they form.

    Sentence s is `tokens[sentence_offsets[s]:sentence_offsets[s + 1]]`; document d has the sentences
    from `document_offsets[d]` up to `document_offsets[d + 1]`. None of them is empty.
    """

    tokens: Integer[np.ndarray, " tokens"]
    sentence_offsets: Int[np.ndarray, " sentences+1"]
    document_offsets: Int[np.ndarray, " documents+1"]

    @property
    def sentence_count(self) -> int:
        return len(self.sentence_offsets) - 1

    @property
    def document_count(self) -> int:
        return len(self.document_offsets) - 1

    @staticmethod
    def is_complete(directory: Path) -> bool:
        """Whether `tokenize_corpus` has finished there."""
        return (directory / _TYPES_FILE).is_file()

    @classmethod
    def open(cls, directory: Path) -> "Corpus":
        """Maps the corpus that `tokenize_corpus` wrote into a directory."""
        types = read_json(directory / _TYPES_FILE)
        return cls(**{name: np.memmap(directory / file, types[name], "r") for name, file in _FILES.items()})


def tokenize_corpus(
    path: str | Path,
    tokenizer: Tokenizer,
    directory: Path | None = None,
    workers: int = 1,
    progress: Callable[[int], object] = lambda lines: None,
) -> Corpus:
    """Tokenises a text file with one sentence per line and an empty line after each document.

    Lines without any token are left out.

    Args:
      directory: token ids are written there and mapped, so that memory does not grow with the corpus.
      workers: processes that tokenise.
      progress: called with the number of lines read since its last call.

    Raises:
      UserError: a missing file, text that is not UTF-8, or no text at all.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"--train_corpus {path}: no such file")
    try:
        return _tokenize_file(path, tokenizer, directory, workers, progress)
    except UnicodeDecodeError:
        for _ in decoded_lines(path):  # raises UserError with the line
            pass
        raise


def _tokenize_file(
    path: Path, tokenizer: Tokenizer, directory: Path | None, workers: int, progress: Callable[[int], object]
) -> Corpus:
    types = {name: np.dtype(np.int64) for name in _FILES} | {
        "tokens": np.dtype(token_type(tokenizer.vocab_size))
    }
    buffers = {name: io.BytesIO() for name in _FILES}
    with ExitStack() as stack:
        files = buffers
        if directory is not None:
            files = {
                name: stack.enter_context((directory / file).open("wb")) for name, file in _FILES.items()
            }

        def append(name: str, values: np.ndarray) -> None:
            files[name].write(values.astype(types[name]).tobytes())

        if workers > 1:
            pool = stack.enter_context(worker_pool(workers, _start_worker, (tokenizer,)))
            results = results_in_order(pool, _tokenize_in_worker, _chunks(path), 4 * workers)
        else:
            results = ((chunk, _tokenize(tokenizer, chunk)) for chunk in _chunks(path))
        append("sentence_offsets", np.zeros(1))
        append("document_offsets", np.zeros(1))
        token_count, sentence_count, last_document_end = 0, 0, 0
        for _, lines in results:
            has_tokens = lines.lengths > 0
            sentence_ends = token_count + np.cumsum(lines.lengths[has_tokens])
            document_ends = np.unique(sentence_count + np.cumsum(has_tokens)[lines.empty])
            document_ends = document_ends[document_ends > last_document_end]
            append("tokens", lines.tokens)
            append("sentence_offsets", sentence_ends)
            append("document_offsets", document_ends)
            token_count += len(lines.tokens)
            sentence_count += len(sentence_ends)
            last_document_end = int(document_ends[-1]) if len(document_ends) else last_document_end
            progress(len(lines.lengths))
        if sentence_count > last_document_end:
            append("document_offsets", np.array([sentence_count]))
    if sentence_count == 0:
        raise UserError(
            f"{path}: no text in the corpus; it holds a sentence a line, empty lines between documents"
        )
    if directory is None:
        return Corpus(**{name: np.frombuffer(buffers[name].getbuffer(), types[name]) for name in _FILES})
    write_json(directory / _TYPES_FILE, {name: dtype.name for name, dtype in types.items()})
    return Corpus.open(directory)


def token_type(vocabulary_size: int) -> type[np.integer]:
    """Returns the type that token ids are stored as."""
    return np.uint16 if vocabulary_size <= 1 << 16 else np.int32


class _Lines(NamedTuple):
    """The token ids of some lines, their number in each line, and which lines have no text."""

    tokens: np.ndarray
    lengths: np.ndarray
    empty: np.ndarray


def _tokenize(tokenizer: Tokenizer, chunk: bytes) -> _Lines:
    lines = chunk.decode().removesuffix("\n").split("\n")
    lines = list(map(str.strip, lines))
    tokens, lengths = tokenizer.encode_flat(tokenizer.in_sentence(lines))
    empty = np.fromiter(map(len, lines), np.int64, len(lines)) == 0
    return _Lines(tokens, lengths, empty)


_tokenizer: Tokenizer | None = None  # of a worker process


def _start_worker(tokenizer: Tokenizer) -> None:
    global _tokenizer
    _tokenizer = tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism


def _tokenize_in_worker(chunk: bytes) -> _Lines:
    assert _tokenizer is not None
    return _tokenize(_tokenizer, chunk)


def _chunks(path: Path) -> Iterator[bytes]:
    """Yields a file in chunks of whole lines, without its byte order mark."""
    with path.open("rb") as handle:
        if handle.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            handle.seek(0)
        while chunk := handle.read(_BYTES_AT_ONCE):
            yield chunk if chunk.endswith(b"\n") else chunk + handle.readline()
