"""Reads pretraining data for training: arrays are mapped, JSON lines are first made into arrays."""

import re
import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from bert_emd_jax.corpus.formats import ArraysFormat, ExampleArrays
from bert_emd_jax.corpus.jsonl import read_examples, read_metrics
from bert_emd_jax.corpus.manifest import (
    MANIFEST_FILE,
    differing_entries,
    read_manifest,
    vocabulary_fingerprint,
)
from bert_emd_jax.corpus.writing import metrics_path
from bert_emd_jax.encoding.dataset import padded_batch
from bert_emd_jax.errors import UserError, one_line
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.tables.mapped_arrays import map_integers
from bert_emd_jax.tokenization.tokenizer import Tokenizer

_EXAMPLES_AT_ONCE = 4096
NOT_MASKED = -1
"""The label where no token is masked."""


class PretrainingDataset:
    """The examples of one epoch, in batches."""

    def __init__(self, directory: Path, parts: list[ExampleArrays], pad_id: int, vocab_size: int):
        """`parts` are the shards, in their order; `directory` is named in error messages."""
        self._directory = directory
        self._parts = parts
        self._vocab_size = vocab_size
        self._pad_id = pad_id
        self._first_rows = np.cumsum([0, *(len(part.lengths) for part in parts)])
        self._token_starts = np.concatenate([_starts(part.lengths) for part in parts])
        self._masked_starts = np.concatenate([_starts(part.masked_counts) for part in parts])

    def __len__(self) -> int:
        return int(self._first_rows[-1])

    @cached_property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """Tokens of every example, int32."""
        return np.concatenate([part.lengths for part in self._parts], dtype=np.int32)

    @cached_property
    def segment_a_lengths(self) -> Int[np.ndarray, " rows"]:
        """Tokens of segment 0 of every example, int32."""
        return np.concatenate([part.segment_a_lengths for part in self._parts], dtype=np.int32)

    @cached_property
    def masked_counts(self) -> Int[np.ndarray, " rows"]:
        """Masked tokens of every example, int32."""
        return np.concatenate([part.masked_counts for part in self._parts], dtype=np.int32)

    @property
    def is_random_next(self) -> Bool[np.ndarray, " rows"]:
        """Whether the second text of every example is a random one."""
        return np.concatenate([part.is_random_next for part in self._parts])

    @property
    def masked_tokens(self) -> int:
        """How many tokens are masked in all; 0 if the data were made without --masked_lm_prob."""
        return sum(len(part.masked_labels) for part in self._parts)

    @cached_property
    def most_masked(self) -> int:
        """The largest number of masked tokens in a row."""
        return int(self.masked_counts.max(initial=0))

    def collate(
        self, rows: Int[np.ndarray, " rows"], length: int, rows_padded_to: int | None = None
    ) -> Batch:
        """Returns a batch of the given rows, padded to `length` tokens and `rows_padded_to` rows.

        It has the arrays of `padded_batch` and, unless nothing is masked in the epoch, `masked_positions` and
        `masked_labels`, int32 `[R, M]`: the positions in increasing order and the original tokens. M is the
        largest number of masked tokens in a row of the epoch, rounded up to a multiple of 4, so that epochs
        share compiled programs, but at most `length`. Rows with fewer have positions 0 and labels -1.

        Raises UserError for a damaged example.
        """
        rows = np.asarray(rows, np.int64)
        batch = padded_batch(
            self.lengths[rows], self.segment_a_lengths[rows], length, rows_padded_to, self._pad_id
        )
        part_of = np.searchsorted(self._first_rows, rows, side="right") - 1
        row, position = np.nonzero(batch["attention_mask"])
        token_ids = self._read("token_ids", part_of[row], self._token_starts[rows][row] + position)
        self._check(token_ids, self._vocab_size)
        batch["input_ids"][row, position] = token_ids
        if not self.most_masked:
            return batch
        counts = self.masked_counts[rows]
        row = np.repeat(np.arange(len(rows)), counts)
        stored = np.repeat(self._masked_starts[rows] - np.cumsum(counts) + counts, counts)
        stored += np.arange(len(row))
        position = self._read("masked_positions", part_of[row], stored)
        label = self._read("masked_labels", part_of[row], stored)
        self._check(label, self._vocab_size)
        self._check(position, self.lengths[rows][row])
        # Sorts the masked tokens of each row; of two for one position the last one counts.
        cells, last = np.unique((row * length + position)[::-1], return_index=True)
        row, position = np.divmod(cells, length)
        column = np.arange(len(row)) - np.searchsorted(row, row)
        shape = len(batch["weights"]), min(-(-self.most_masked // 4) * 4, length)
        batch["masked_positions"] = np.zeros(shape, np.int32)
        batch["masked_labels"] = np.full(shape, NOT_MASKED, np.int32)
        batch["masked_positions"][row, column] = position
        batch["masked_labels"][row, column] = label[::-1][last]
        return batch

    def _read(self, name: str, parts: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Reads the values at `indices` of an array of the given parts."""
        values = np.zeros(len(indices), np.int64)
        for number in np.unique(parts):
            chosen = parts == number
            values[chosen] = getattr(self._parts[number], name)[indices[chosen]]
        return values

    def _check(self, values: np.ndarray, end: int | np.ndarray) -> None:
        if not np.all((values >= 0) & (values < end)):
            raise UserError(
                f"{self._directory}: damaged: a token or a place that cannot be; make the data again"
            )


class PregeneratedData:
    """A directory that bert-emd pretrain-data, or the original's program, has written."""

    def __init__(self, directory: Path, shards: list[Path], tokenizer: Tokenizer):
        """Use `open`, which finds the shards and checks them."""
        self.directory = directory
        self._shards = shards
        self._tokenizer = tokenizer
        self.epochs = _count_epochs(directory, shards)
        metrics = [
            read_metrics(metrics_path(shard, epoch)) for shard in shards for epoch in range(self.epochs)
        ]
        self.max_seq_len = max(one.max_seq_len for one in metrics)

    @classmethod
    def open(cls, directory: str | Path, tokenizer: Tokenizer) -> "PregeneratedData":
        """Opens the data of a directory or of the complete set of shards in it.

        Raises UserError if there are none, an epoch or a shard is missing, or the data were made with
        another vocabulary than the tokenizer's.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise UserError(
                f"--pregenerated_data {directory}: no such directory; bert-emd pretrain-data makes it"
            )
        shards = _find_shards(directory)
        fingerprint = vocabulary_fingerprint(tokenizer)
        for shard in shards:
            manifest = read_manifest(shard)
            if manifest is not None and manifest["vocabulary"] != fingerprint:
                raise UserError(
                    f"--pregenerated_data {shard}: made with another vocabulary than this model's; "
                    f"make them with bert-emd pretrain-data --bert_model and this model"
                )
        return cls(directory, shards, tokenizer)

    def example_count(self, epoch: int) -> int:
        """Reads the number of examples of an epoch."""
        file = epoch % self.epochs
        return sum(read_metrics(metrics_path(shard, file)).num_training_examples for shard in self._shards)

    def epoch(self, epoch: int) -> PretrainingDataset:
        """Opens the examples of a training epoch, counted from 0; the first one follows the last one again.

        Arrays are mapped. JSON lines are parsed into arrays in temporary files at each call.
        Raises UserError, with file and line, for damaged data and for tokens that the vocabulary lacks.
        """
        file = epoch % self.epochs
        parts = []
        for shard in self._shards:
            arrays = shard / f"epoch_{file}"
            if arrays.is_dir():
                part = _open_arrays(arrays, self.max_seq_len)
            else:
                part = _arrays_of_json_lines(shard / f"epoch_{file}.json", self._tokenizer, self.max_seq_len)
            expected = read_metrics(metrics_path(shard, file)).num_training_examples
            if len(part.lengths) != expected:
                raise UserError(
                    f"{metrics_path(shard, file)}: says {expected} examples, there are {len(part.lengths)}; "
                    f"make the data again"
                )
            parts.append(part)
        return PretrainingDataset(self.directory, parts, self._tokenizer.pad_id, self._tokenizer.vocab_size)


def _starts(counts: np.ndarray) -> np.ndarray:
    """Returns where each of the consecutive ranges starts, int64."""
    return np.cumsum(counts, dtype=np.int64) - counts.astype(np.int64)


def _find_shards(directory: Path) -> list[Path]:
    """Returns the directories of all shards in their order, or the directory itself."""
    found = {}
    for path in directory.iterdir():
        if path.is_dir() and (match := re.fullmatch(r"shard_(\d+)_of_(\d+)", path.name)):
            found[int(match[1]), int(match[2])] = path
    if not found:
        return [directory]
    counts = {count for _, count in found}
    if len(counts) > 1 or metrics_path(directory, 0).exists():
        raise UserError(f"{directory}: holds data of more than one run; keep the shards of one alone")
    (count,) = counts
    missing = [index for index in range(count) if (index, count) not in found]
    if missing:
        raise UserError(
            f"{directory}: shard_{missing[0]}_of_{count} is missing; copy it here, or make it with "
            f"bert-emd pretrain-data --shard {missing[0]}/{count}"
        )
    shards = [found[index, count] for index in range(count)]
    manifests = [read_manifest(shard) for shard in shards]
    for shard, manifest in zip(shards, manifests, strict=True):
        if manifest is None:
            raise UserError(f"{shard}: no {MANIFEST_FILE} in it; copy all of the shard")
        different = [name for name in differing_entries(manifests[0] or {}, manifest) if name != "shard"]
        if different:
            raise UserError(
                f"{shard}: made with another {', '.join(different)} than {shards[0].name}; make them alike"
            )
    return shards


def _count_epochs(directory: Path, shards: list[Path]) -> int:
    """Counts the epochs. Raises UserError if one is incomplete or the shards differ."""
    counts = []
    for shard in shards:
        count = 0
        while metrics_path(shard, count).is_file():
            count += 1
        counts.append(count)
        if count == 0 or (shard / f"epoch_{count}.partial").exists():
            problem = (
                f"epoch {count} is not complete" if any(shard.glob("epoch_*")) else "no pretraining data"
            )
            raise UserError(
                f"{shard}: {problem}; bert-emd pretrain-data makes it, with --resume the rest of it"
            )
    if len(set(counts)) > 1:
        raise UserError(
            f"{directory}: the shards have {min(counts)} to {max(counts)} epochs; complete them with --resume"
        )
    return counts[0]


def _open_arrays(directory: Path, max_seq_len: int) -> ExampleArrays:
    """Maps the files of a directory. Raises UserError if they do not belong together."""
    mapped = []
    for name in ArraysFormat.files:
        try:
            mapped.append(map_integers(directory / name))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{directory / name}: cannot be read ({one_line(error)}); make the data again"
            ) from None
    arrays = ExampleArrays(*mapped)
    lengths = arrays.lengths
    if (
        {len(arrays.segment_a_lengths), len(arrays.is_random_next), len(arrays.masked_counts)}
        != {len(lengths)}
        or len(arrays.token_ids) != lengths.sum(dtype=np.int64)
        or len(arrays.masked_labels) != len(arrays.masked_positions)
        or len(arrays.masked_labels) != arrays.masked_counts.sum(dtype=np.int64)
    ):
        raise UserError(f"{directory}: the arrays do not have the same examples; make the data again")
    if (
        not 1 <= lengths.min(initial=1) <= lengths.max(initial=1) <= max_seq_len
        or not np.all((arrays.segment_a_lengths >= 0) & (arrays.segment_a_lengths <= lengths))
        or not np.all((arrays.masked_counts >= 0) & (arrays.masked_counts <= lengths))
    ):
        raise UserError(f"{directory}: damaged lengths; make the data again")
    return arrays


def _arrays_of_json_lines(path: Path, tokenizer: Tokenizer, max_seq_len: int) -> ExampleArrays:
    """Makes the examples of a file into mapped arrays, so that memory does not grow with the file."""
    # A mapped file stays readable after it is deleted.
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        try:
            arrays_format = ArraysFormat(tokenizer.vocab_size)
            with ExitStack() as stack:
                files = [stack.enter_context((directory / name).open("wb")) for name in arrays_format.files]
                for file, header in zip(files, arrays_format.headers(), strict=True):
                    file.write(header)
                for examples in read_examples(path, tokenizer, max_seq_len, _EXAMPLES_AT_ONCE):
                    for file, content in zip(files, arrays_format.encode(examples), strict=True):
                        file.write(content)
            arrays_format.write_lengths(directory)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be made into arrays in {tempfile.gettempdir()} ({error.strerror}); "
                f"let TMPDIR name a directory with more room, or make the data with --format arrays"
            ) from error
        return _open_arrays(directory, max_seq_len)
