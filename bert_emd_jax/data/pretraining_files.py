"""Pretraining examples as files: `epoch_N.json` with a record a line, and `epoch_N_metrics.json`."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert_emd_jax.data.corpus import Corpus
from bert_emd_jax.data.pretraining import (
    ExampleBatch,
    ExampleSettings,
    Vocabulary,
    block_examples,
    corpus_blocks,
)
from bert_emd_jax.data.workers import results_in_order, worker_pool

_BYTES_AT_ONCE = 1 << 22


class _Block(NamedTuple):
    """A unit of work: a range of documents in an epoch, and where a worker process writes their lines."""

    epoch: int
    number: int
    documents: tuple[int, int]
    part: Path


class _Part(NamedTuple):
    """A piece of an epoch's file, with the numbers of examples and documents that it completes."""

    content: bytes
    examples: int
    documents: int


def epoch_paths(directory: Path, epoch: int) -> tuple[Path, Path]:
    """The examples' file and its metrics file; the latter is written last."""
    return directory / f"epoch_{epoch}.json", directory / f"epoch_{epoch}_metrics.json"


def write_epochs(
    corpus: Corpus | Path,
    vocabulary: Vocabulary,
    settings: ExampleSettings,
    epochs: Sequence[int],
    output_dir: Path,
    workers: int = 1,
    progress: Callable[[int], object] = lambda documents: None,
) -> list[int]:
    """Writes the files of the given epochs; returns the number of examples of each.

    More than one worker needs the corpus in a directory, which also holds their unfinished parts.
    The files are the same for any number of workers. A file under its final name is complete: an
    interrupted run leaves `*.partial`. `progress` is called with the documents done since last time.
    """
    if workers > 1 and not isinstance(corpus, Path):
        raise ValueError("several workers need the corpus in a directory")
    opened = Corpus.open(corpus) if isinstance(corpus, Path) else corpus
    parts_directory = corpus if isinstance(corpus, Path) else output_dir
    ranges = corpus_blocks(opened)
    counts = []
    with ExitStack() as stack:
        pool, writer = None, None
        if workers > 1:
            pool = stack.enter_context(worker_pool(workers, _start_worker, (corpus, vocabulary, settings)))
        else:
            writer = _BlockWriter(opened, vocabulary, settings)
        for epoch in epochs:
            blocks = [
                _Block(epoch, number, documents, parts_directory / f"epoch_{epoch}_block_{number}.part")
                for number, documents in enumerate(ranges)
            ]
            if writer is not None:
                parts = _parts_here(writer, blocks)
            else:
                assert pool is not None
                parts = _joined_parts(results_in_order(pool, _write_block, blocks, 2 * workers))
            counts.append(_write_epoch(parts, epoch, settings, output_dir, progress))
    return counts


def _write_epoch(
    parts: Iterator[_Part],
    epoch: int,
    settings: ExampleSettings,
    output_dir: Path,
    progress: Callable[[int], object],
) -> int:
    examples_path, metrics_path = epoch_paths(output_dir, epoch)
    partial = examples_path.with_name(examples_path.name + ".partial")
    count = 0
    with partial.open("wb") as target:
        for part in parts:
            target.write(part.content)
            count += part.examples
            progress(part.documents)
    partial.replace(examples_path)
    metrics = {"num_training_examples": count, "max_seq_len": settings.max_seq_len}
    metrics_path.write_text(json.dumps(metrics))
    return count


class _BlockWriter:
    """What it takes to write a block: the corpus, and the pieces as JSON."""

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, settings: ExampleSettings):
        self._corpus = corpus
        self._vocabulary = vocabulary
        self._settings = settings
        self._json_lines = JsonLines(vocabulary)

    def parts(self, block: _Block) -> Iterator[_Part]:
        batches = block_examples(
            self._corpus, self._vocabulary, self._settings, block.epoch, block.number, block.documents
        )
        for batch in batches:
            yield _Part(self._json_lines.lines(batch), len(batch.lengths), 0)


_writer: _BlockWriter | None = None  # of a worker process


def _start_worker(corpus: Path, vocabulary: Vocabulary, settings: ExampleSettings) -> None:
    global _writer
    _writer = _BlockWriter(Corpus.open(corpus), vocabulary, settings)


def _write_block(block: _Block) -> int:
    """Writes a block's lines to its part file; returns their number."""
    assert _writer is not None
    count = 0
    with block.part.open("wb") as target:
        for part in _writer.parts(block):
            target.write(part.content)
            count += part.examples
    return count


def _parts_here(writer: _BlockWriter, blocks: Sequence[_Block]) -> Iterator[_Part]:
    for block in blocks:
        yield from writer.parts(block)
        yield _Part(b"", 0, block.documents[1] - block.documents[0])


def _joined_parts(results: Iterator[tuple[_Block, int]]) -> Iterator[_Part]:
    for block, count in results:
        with block.part.open("rb") as source:
            while content := source.read(_BYTES_AT_ONCE):
                yield _Part(content, 0, 0)
        block.part.unlink()
        yield _Part(b"", count, block.documents[1] - block.documents[0])


class JsonLines:
    """Examples as the lines that `json.dumps` writes for them, without its cost for every token."""

    def __init__(self, vocabulary: Vocabulary):
        self._quoted = np.array([json.dumps(piece) for piece in vocabulary.pieces], object)

    def lines(self, batch: ExampleBatch) -> bytes:
        """One record a line: tokens, segment_ids, is_random_next, masked_lm_positions, masked_lm_labels."""
        row_of, position_of = np.nonzero(batch.masked)
        ends = np.cumsum(batch.masked.sum(1)).tolist()
        labels = self._quoted[batch.original_ids[row_of, position_of]].tolist()
        positions = list(map(str, position_of.tolist()))
        longest = batch.input_ids.shape[1]
        zeros, ones = "0, " * longest, "1, " * longest
        records = []
        begin = 0
        for tokens, length, first, is_random, end in zip(
            self._quoted[batch.input_ids].tolist(),
            batch.lengths.tolist(),
            batch.first_lengths.tolist(),
            batch.is_random_next.tolist(),
            ends,
            strict=True,
        ):
            segments = zeros[: 3 * first] + ones[: 3 * (length - first)]
            records.append(
                f'{{"tokens": [{", ".join(tokens[:length])}], "segment_ids": [{segments[:-2]}], '
                f'"is_random_next": {"true" if is_random else "false"}, '
                f'"masked_lm_positions": [{", ".join(positions[begin:end])}], '
                f'"masked_lm_labels": [{", ".join(labels[begin:end])}]}}\n'
            )
            begin = end
        return "".join(records).encode()
