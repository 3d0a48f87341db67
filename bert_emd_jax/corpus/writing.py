"""Writes the pretraining data of epochs: with any number of workers, in shards, and on from where it stopped.

While an epoch grows its files are in `epoch_N.partial/`, beside a log that says how long they were after
each block of documents. They get their final names at the end, and `epoch_N_metrics.json` comes last.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

from bert_emd_jax.corpus.corpus import Corpus
from bert_emd_jax.corpus.examples import ExampleSettings, Vocabulary, block_examples, corpus_blocks
from bert_emd_jax.corpus.formats import Form, form_named
from bert_emd_jax.corpus.jsonl import read_metrics
from bert_emd_jax.corpus.workers import results_in_order, worker_pool

_BYTES_AT_ONCE = 1 << 22


class _Block(NamedTuple):
    """A unit of work: a range of documents in an epoch, and where a worker process puts what it writes."""

    epoch: int
    number: int
    documents: tuple[int, int]
    aside: Path


def metrics_path(directory: Path, epoch: int) -> Path:
    """The file that says how many examples a complete epoch has."""
    return directory / f"epoch_{epoch}_metrics.json"


def write_epochs(
    corpus: Corpus | Path,
    vocabulary: Vocabulary,
    settings: ExampleSettings,
    epochs: Sequence[int],
    output_dir: Path,
    *,
    form: str = "jsonl",
    shard: tuple[int, int] = (0, 1),
    workers: int = 1,
    progress: Callable[[int], object] = lambda documents: None,
) -> list[int]:
    """Writes the files of the given epochs, or what is missing of them; returns each one's examples.

    More than one worker needs the corpus in a directory, which also holds what they have not handed
    over. The files are the same for any number of workers; those of shards 0 … n - 1, one after the
    other, are those of the whole. `progress` is called with the documents done since last time.
    """
    if workers > 1 and not isinstance(corpus, Path):
        raise ValueError("several workers need the corpus in a directory")
    opened = Corpus.open(corpus) if isinstance(corpus, Path) else corpus
    aside = corpus if isinstance(corpus, Path) else output_dir
    blocks = list(enumerate(corpus_blocks(opened)))
    index, shards = shard
    blocks = blocks[len(blocks) * index // shards : len(blocks) * (index + 1) // shards]
    counts = []
    with ExitStack() as stack:
        writer = _BlockWriter(opened, vocabulary, settings, form)
        pool = None
        if workers > 1:
            pool = stack.enter_context(
                worker_pool(workers, _start_worker, (corpus, vocabulary, settings, form))
            )
        for epoch in epochs:
            count = example_count(output_dir, epoch)
            if count is None:
                with _GrowingEpoch(output_dir, epoch, writer.form) as growing:
                    work = [_Block(epoch, number, documents, aside) for number, documents in blocks]
                    done, to_do = work[: growing.blocks], work[growing.blocks :]
                    progress(sum(block.documents[1] - block.documents[0] for block in done))
                    if pool is None:
                        finished = _write_here(writer, to_do, growing)
                    else:
                        finished = _write_by_workers(pool, workers, to_do, growing)
                    for block in finished:
                        progress(block.documents[1] - block.documents[0])
                    count = growing.publish(settings.max_seq_len)
            else:
                progress(sum(end - first for _, (first, end) in blocks))
            counts.append(count)
    return counts


def example_count(directory: Path, epoch: int) -> int | None:
    """The number of examples of a complete epoch, else None. Raises UserError for damaged metrics."""
    path = metrics_path(directory, epoch)
    return read_metrics(path).num_training_examples if path.is_file() else None


class _GrowingEpoch:
    """The files of an epoch that is not complete, and how far they are known to be right."""

    def __init__(self, output_dir: Path, epoch: int, form: Form):
        self._output_dir = output_dir
        self._epoch = epoch
        self._form = form
        self._directory = output_dir / f"epoch_{epoch}.partial"
        self._log_path = self._directory / "log.jsonl"
        self.blocks = 0
        self.examples = 0

    def __enter__(self) -> "_GrowingEpoch":
        self._directory.mkdir(exist_ok=True)
        self._paths = [self._directory / name for name in self._form.files]
        sizes = self._read_log()
        self._files: list[BinaryIO] = []
        for path, beginning, size in zip(
            self._paths, self._form.beginnings(), sizes or [0] * len(self._paths), strict=True
        ):
            file = path.open("r+b" if sizes else "wb")
            self._files.append(file)
            file.truncate(size)
            file.seek(size)
            if not sizes:
                file.write(beginning)
        self._log: TextIO = self._log_path.open("a" if sizes else "w")
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def _close(self) -> None:
        for file in (*self._files, self._log):
            file.close()

    def _read_log(self) -> list[int] | None:
        """The sizes of the files after the last block that is wholly in them; None where there is none."""
        if not self._log_path.is_file():
            return None
        # A line that was cut off does not count.
        lines = self._log_path.read_text(errors="replace").split("\n")[:-1]
        actual = [path.stat().st_size if path.is_file() else 0 for path in self._paths]
        while lines:
            block = _logged_block(lines[-1], len(actual))
            if (
                block is not None
                and block[0] == len(lines)
                and all(size <= there for size, there in zip(block[2], actual, strict=True))
            ):
                self._log_path.write_text("".join(f"{line}\n" for line in lines))
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
        """Notes that all of a block is in the files."""
        self.blocks += 1
        self.examples += examples
        for file in self._files:
            file.flush()
        sizes = [file.tell() for file in self._files]
        self._log.write(json.dumps([self.blocks, self.examples, sizes]) + "\n")
        self._log.flush()

    def publish(self, max_seq_len: int) -> int:
        """Gives the files their final names and writes the metrics; returns the number of examples."""
        self._close()
        self._form.publish(self._directory, self._output_dir, self._epoch)
        metrics = {"num_training_examples": self.examples, "max_seq_len": max_seq_len}
        written = self._directory / "metrics.json"
        written.write_text(json.dumps(metrics))
        written.replace(metrics_path(self._output_dir, self._epoch))
        shutil.rmtree(self._directory)
        return self.examples


def _logged_block(line: str, files: int) -> tuple[int, int, list[int]] | None:
    """The number of a block, the examples up to it, and the sizes of the files; None for a damaged line."""
    try:
        block, examples, sizes = json.loads(line)
        numbers = [block, examples, *sizes]
    except (ValueError, TypeError, RecursionError):
        return None
    are_counts = all(type(number) is int and number >= 0 for number in numbers)
    return (block, examples, sizes) if are_counts and len(sizes) == files else None


class _BlockWriter:
    """What it takes to write a block: the corpus, and the pieces in the wanted form."""

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, settings: ExampleSettings, form: str):
        self._corpus = corpus
        self._vocabulary = vocabulary
        self._settings = settings
        self.form = form_named(form, vocabulary)

    def parts(self, block: _Block) -> Iterator[tuple[Sequence[bytes], int]]:
        """What the batches of a block add to the files, and how many examples that is."""
        batches = block_examples(
            self._corpus, self._vocabulary, self._settings, block.epoch, block.number, block.documents
        )
        for batch in batches:
            yield self.form.contents(batch), len(batch.lengths)

    def files_aside(self, block: _Block) -> list[Path]:
        return [block.aside / f"epoch_{block.epoch}_block_{block.number}_{name}" for name in self.form.files]


def _write_here(writer: _BlockWriter, blocks: Sequence[_Block], growing: _GrowingEpoch) -> Iterator[_Block]:
    for block in blocks:
        count = 0
        for contents, examples in writer.parts(block):
            growing.append(contents)
            count += examples
        growing.finish_block(count)
        yield block


def _write_by_workers(
    pool: ProcessPoolExecutor, workers: int, blocks: Sequence[_Block], growing: _GrowingEpoch
) -> Iterator[_Block]:
    for block, (paths, examples) in results_in_order(pool, _write_aside, blocks, 2 * workers):
        growing.append_files(paths)
        growing.finish_block(examples)
        yield block


_writer: _BlockWriter | None = None  # of a worker process


def _start_worker(corpus: Path, vocabulary: Vocabulary, settings: ExampleSettings, form: str) -> None:
    global _writer
    _writer = _BlockWriter(Corpus.open(corpus), vocabulary, settings, form)


def _write_aside(block: _Block) -> tuple[list[Path], int]:
    """Writes what a block adds to each file into a file of its own; returns them and the examples."""
    assert _writer is not None
    paths = _writer.files_aside(block)
    count = 0
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for contents, examples in _writer.parts(block):
            for file, content in zip(files, contents, strict=True):
                file.write(content)
            count += examples
    return paths, count
