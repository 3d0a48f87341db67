"""Writes the pretraining data of epochs, with any number of workers, in shards, and resumable.

The files of an unfinished epoch are in `epoch_N.partial/`, beside a log of their sizes after each block of
documents. At the end they get their final names, and `epoch_N_metrics.json` is written last.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bert_emd_jax.corpus.corpus import Corpus
from bert_emd_jax.corpus.formats import Format, format_named
from bert_emd_jax.corpus.jsonl import read_metrics
from bert_emd_jax.corpus.pretraining_examples import (
    ExampleSettings,
    Vocabulary,
    block_examples,
    corpus_blocks,
)
from bert_emd_jax.corpus.workers import results_in_order, worker_pool
from bert_emd_jax.files import write_text

_BYTES_AT_ONCE = 1 << 22


class _Block(NamedTuple):
    """A range of documents in an epoch, and the directory for the temporary files of a worker process."""

    epoch: int
    number: int
    documents: tuple[int, int]
    temporary_dir: Path

    @property
    def size(self) -> int:
        return self.documents[1] - self.documents[0]


def metrics_path(directory: Path, epoch: int) -> Path:
    """Returns the path of the file that says how many examples a complete epoch has."""
    return directory / f"epoch_{epoch}_metrics.json"


def write_epochs(
    corpus: Corpus | Path,
    vocabulary: Vocabulary,
    settings: ExampleSettings,
    epochs: Sequence[int],
    output_dir: Path,
    *,
    format_name: str = "jsonl",
    shard: tuple[int, int] = (0, 1),
    workers: int = 1,
    progress: Callable[[int], object] = lambda documents: None,
) -> list[int]:
    """Writes the files of the given epochs, or what is missing of them; returns each one's example count.

    The files do not depend on the number of workers; those of shards 0 … n - 1, concatenated, are those of
    the whole.

    Args:
      corpus: several workers need its directory, where they also put temporary files.
      format_name: "jsonl" or "arrays".
      shard: index and number of shards.
      workers: processes that make examples.
      progress: called with the number of documents done since its last call.
    """
    if workers > 1 and not isinstance(corpus, Path):
        raise ValueError("several workers need the corpus in a directory")
    opened = Corpus.open(corpus) if isinstance(corpus, Path) else corpus
    temporary_dir = corpus if isinstance(corpus, Path) else output_dir
    ranges = list(enumerate(corpus_blocks(opened)))
    index, shards = shard
    ranges = ranges[len(ranges) * index // shards : len(ranges) * (index + 1) // shards]
    counts = []
    with ExitStack() as stack:
        encoder = _BlockEncoder(opened, vocabulary, settings, format_name)
        pool = None
        if workers > 1:
            pool = stack.enter_context(
                worker_pool(workers, _start_worker, (corpus, vocabulary, settings, format_name))
            )
        for epoch in epochs:
            blocks = [_Block(epoch, number, documents, temporary_dir) for number, documents in ranges]
            count = example_count(output_dir, epoch)
            if count is not None:
                progress(sum(block.size for block in blocks))
            else:
                with contextlib.closing(_UnfinishedEpoch(output_dir, epoch, encoder.format)) as unfinished:
                    progress(sum(block.size for block in blocks[: unfinished.blocks]))
                    remaining = blocks[unfinished.blocks :]
                    if pool is None:
                        written = _write_blocks(encoder, remaining, unfinished)
                    else:
                        written = _write_by_workers(pool, workers, remaining, unfinished)
                    for block in written:
                        progress(block.size)
                    count = unfinished.publish(settings.max_seq_len)
            counts.append(count)
    return counts


def example_count(directory: Path, epoch: int) -> int | None:
    """Reads the number of examples of a complete epoch, else None. Raises UserError for damaged metrics."""
    path = metrics_path(directory, epoch)
    return read_metrics(path).num_training_examples if path.is_file() else None


class _UnfinishedEpoch:
    """The files of an epoch that is not complete, and the log of the blocks that are."""

    def __init__(self, output_dir: Path, epoch: int, data_format: Format):
        """Opens the files for appending, after the last complete block of an earlier run if there is one."""
        self._output_dir = output_dir
        self._epoch = epoch
        self._format = data_format
        self._directory = output_dir / f"epoch_{epoch}.partial"
        self._log_path = self._directory / "log.jsonl"
        self._paths = [self._directory / name for name in data_format.files]
        self.blocks = 0
        self.examples = 0
        self._directory.mkdir(exist_ok=True)
        sizes = self._read_log()
        self._files = [path.open("r+b" if sizes else "wb") for path in self._paths]
        self._log = self._log_path.open("a" if sizes else "w", encoding="utf-8")
        if sizes:
            for file, size in zip(self._files, sizes, strict=True):
                file.truncate(size)
                file.seek(size)
        else:
            self.append(data_format.headers())

    def close(self) -> None:
        for file in (*self._files, self._log):
            file.close()

    def _read_log(self) -> list[int] | None:
        """Reads the sizes of the files after the last block that is wholly in them; None if there is none."""
        if not self._log_path.is_file():
            return None
        # A truncated line does not count.
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        actual = [path.stat().st_size if path.is_file() else 0 for path in self._paths]
        while lines:
            block = _logged_block(lines[-1], len(actual))
            if (
                block is not None
                and block[0] == len(lines)
                and all(logged <= size for logged, size in zip(block[2], actual, strict=True))
            ):
                write_text(self._log_path, "".join(f"{line}\n" for line in lines))
                self.blocks, self.examples, sizes = block
                return sizes
            lines.pop()  # the machine went down before the files were on the disk
        return None

    def append(self, contents: Sequence[bytes]) -> None:
        for file, content in zip(self._files, contents, strict=True):
            file.write(content)

    def append_files(self, paths: Sequence[Path]) -> None:
        for file, path in zip(self._files, paths, strict=True):
            with path.open("rb") as source:
                shutil.copyfileobj(source, file, _BYTES_AT_ONCE)
            path.unlink()

    def finish_block(self, examples: int) -> None:
        """Logs that all of a block is in the files."""
        self.blocks += 1
        self.examples += examples
        for file in self._files:
            file.flush()
        sizes = [file.tell() for file in self._files]
        self._log.write(json.dumps([self.blocks, self.examples, sizes]) + "\n")
        self._log.flush()

    def publish(self, max_seq_len: int) -> int:
        """Gives the files their final names and writes the metrics; returns the number of examples."""
        self.close()
        self._format.publish(self._directory, self._output_dir, self._epoch)
        metrics = {"num_training_examples": self.examples, "max_seq_len": max_seq_len}
        write_text(metrics_path(self._output_dir, self._epoch), json.dumps(metrics))
        shutil.rmtree(self._directory)
        return self.examples


def _logged_block(line: str, files: int) -> tuple[int, int, list[int]] | None:
    """Returns a block's number, the examples up to it and the sizes of the files; None for a damaged line."""
    try:
        block, examples, sizes = json.loads(line)
        numbers = [block, examples, *sizes]
    except (ValueError, TypeError, RecursionError):
        return None
    are_counts = all(type(number) is int and number >= 0 for number in numbers)
    return (block, examples, sizes) if are_counts and len(sizes) == files else None


class _BlockEncoder:
    """Makes the examples of blocks, in a format."""

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, settings: ExampleSettings, format_name: str):
        self._corpus = corpus
        self._vocabulary = vocabulary
        self._settings = settings
        self.format = format_named(format_name, vocabulary)

    def batches(self, block: _Block) -> Iterator[tuple[Sequence[bytes], int]]:
        """Yields what each batch of a block appends to the files, and its number of examples."""
        batches = block_examples(
            self._corpus, self._vocabulary, self._settings, block.epoch, block.number, block.documents
        )
        for batch in batches:
            yield self.format.encode_batch(batch), len(batch.lengths)


def _write_blocks(
    encoder: _BlockEncoder, blocks: Sequence[_Block], unfinished: _UnfinishedEpoch
) -> Iterator[_Block]:
    for block in blocks:
        count = 0
        for contents, examples in encoder.batches(block):
            unfinished.append(contents)
            count += examples
        unfinished.finish_block(count)
        yield block


def _write_by_workers(
    pool: ProcessPoolExecutor, workers: int, blocks: Sequence[_Block], unfinished: _UnfinishedEpoch
) -> Iterator[_Block]:
    for block, (paths, examples) in results_in_order(pool, _write_temporary_files, blocks, 2 * workers):
        unfinished.append_files(paths)
        unfinished.finish_block(examples)
        yield block


_encoder: _BlockEncoder | None = None  # of a worker process


def _start_worker(corpus: Path, vocabulary: Vocabulary, settings: ExampleSettings, format_name: str) -> None:
    global _encoder
    _encoder = _BlockEncoder(Corpus.open(corpus), vocabulary, settings, format_name)


def _write_temporary_files(block: _Block) -> tuple[list[Path], int]:
    """Writes what a block appends to each file into a temporary file; returns these and the example count."""
    assert _encoder is not None
    prefix = f"epoch_{block.epoch}_block_{block.number}"
    paths = [block.temporary_dir / f"{prefix}_{name}" for name in _encoder.format.files]
    count = 0
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for contents, examples in _encoder.batches(block):
            for file, content in zip(files, contents, strict=True):
                file.write(content)
            count += examples
    return paths, count
