"""Pretraining examples as files: `epoch_N.json` with a record a line, and `epoch_N_metrics.json`."""

import json
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
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
from bert_emd_jax.errors import UserError

_BYTES_AT_ONCE = 1 << 22
Block = tuple[int, tuple[int, int]]  # its number and its range of documents


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
    opened = Corpus.open(corpus) if isinstance(corpus, Path) else corpus
    blocks = list(enumerate(corpus_blocks(opened)))
    counts = []
    with _pool(corpus, vocabulary, settings, workers) as pool:
        for epoch in epochs:
            if pool is None:
                parts = _parts_here(_Worker(opened, vocabulary, settings), epoch, blocks)
            else:
                assert isinstance(corpus, Path)
                parts = _parts_of_pool(pool, 2 * workers, corpus, epoch, blocks)
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
            counts.append(count)
    return counts


def _pool(corpus: Corpus | Path, vocabulary: Vocabulary, settings: ExampleSettings, workers: int):
    if workers == 1:
        return nullcontext()
    if not isinstance(corpus, Path):
        raise ValueError("several workers need the corpus in a directory")
    # Forking would copy the threads of the tokenizers library in whatever state they are.
    return ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start_worker, (corpus, vocabulary, settings)
    )


class _Worker:
    """What it takes to write a block: the corpus, and the pieces as JSON."""

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, settings: ExampleSettings):
        self._corpus = corpus
        self._vocabulary = vocabulary
        self._settings = settings
        self._json_lines = JsonLines(vocabulary)

    def parts(self, epoch: int, block: Block) -> Iterator[_Part]:
        number, documents = block
        batches = block_examples(self._corpus, self._vocabulary, self._settings, epoch, number, documents)
        for batch in batches:
            yield _Part(self._json_lines.lines(batch), len(batch.lengths), 0)


_worker: _Worker | None = None  # of a worker process


def _start_worker(corpus: Path, vocabulary: Vocabulary, settings: ExampleSettings) -> None:
    global _worker
    _worker = _Worker(Corpus.open(corpus), vocabulary, settings)


def _write_block(epoch: int, block: Block, path: Path) -> int:
    """Writes a block's lines to a file of its own; returns their number."""
    assert _worker is not None
    count = 0
    with path.open("wb") as target:
        for part in _worker.parts(epoch, block):
            target.write(part.content)
            count += part.examples
    return count


def _parts_here(worker: _Worker, epoch: int, blocks: Sequence[Block]) -> Iterator[_Part]:
    for block in blocks:
        yield from worker.parts(epoch, block)
        yield _Part(b"", 0, block[1][1] - block[1][0])


def _parts_of_pool(
    pool: ProcessPoolExecutor, ahead: int, directory: Path, epoch: int, blocks: Sequence[Block]
) -> Iterator[_Part]:
    """The parts in the order of the blocks, with no more than `ahead` blocks under way."""
    waiting: deque[tuple[Block, Path, Future[int]]] = deque()
    remaining = iter(blocks)
    try:
        while True:
            while len(waiting) < ahead and (block := next(remaining, None)) is not None:
                path = directory / f"epoch_{epoch}_block_{block[0]}.part"
                waiting.append((block, path, pool.submit(_write_block, epoch, block, path)))
            if not waiting:
                return
            block, path, future = waiting.popleft()
            count = future.result()
            with path.open("rb") as source:
                while content := source.read(_BYTES_AT_ONCE):
                    yield _Part(content, 0, 0)
            path.unlink()
            yield _Part(b"", count, block[1][1] - block[1][0])
    except BrokenProcessPool:
        raise UserError(
            "--num_workers: a worker process died, perhaps for want of memory; try fewer workers"
        ) from None
    finally:
        for _, _, future in waiting:
            future.cancel()


class JsonLines:
    """Examples as the lines that `json.dumps` writes for them, without its cost for every token."""

    def __init__(self, vocabulary: Vocabulary):
        self._quoted = [json.dumps(piece) for piece in vocabulary.pieces]

    def lines(self, batch: ExampleBatch) -> bytes:
        """One record a line: tokens, segment_ids, is_random_next, masked_lm_positions, masked_lm_labels."""
        quoted = self._quoted
        row_of, position_of = np.nonzero(batch.masked)
        ends = np.cumsum(batch.masked.sum(1)).tolist()
        labels = [quoted[index] for index in batch.original_ids[row_of, position_of].tolist()]
        positions = [str(position) for position in position_of.tolist()]
        records = []
        begin = 0
        for ids, length, first, is_random, end in zip(
            batch.input_ids.tolist(),
            batch.lengths.tolist(),
            batch.first_lengths.tolist(),
            batch.is_random_next.tolist(),
            ends,
            strict=True,
        ):
            tokens = ", ".join([quoted[index] for index in ids[:length]])
            segments = ("0, " * first + "1, " * (length - first))[:-2]
            records.append(
                f'{{"tokens": [{tokens}], "segment_ids": [{segments}], '
                f'"is_random_next": {"true" if is_random else "false"}, '
                f'"masked_lm_positions": [{", ".join(positions[begin:end])}], '
                f'"masked_lm_labels": [{", ".join(labels[begin:end])}]}}\n'
            )
            begin = end
        return "".join(records).encode()
