"""Reads pretraining data for training: arrays are mapped, JSON lines are made into such arrays first."""

import re
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert_emd_jax.corpus.formats import ARRAYS, Arrays
from bert_emd_jax.corpus.jsonl import read_metrics, records
from bert_emd_jax.corpus.manifest import (
    DESCRIPTION_FILE,
    differing_names,
    read_description,
    vocabulary_fingerprint,
)
from bert_emd_jax.corpus.writing import metrics_path
from bert_emd_jax.data.mapped_arrays import map_integers
from bert_emd_jax.errors import UserError, one_line
from bert_emd_jax.tokenization.tokenizer import Tokenizer

_RECORDS_AT_ONCE = 4096
NOT_MASKED = -1  # in lm_labels, as in the original


@dataclass(frozen=True)
class ExampleArrays:
    """The examples of an epoch, or of a shard of it, one after the other.

    `token_ids` has the tokens of all examples, masks applied; `lengths`, `first_lengths` (tokens of segment
    0), `is_random_next` and `masked_counts` a value for each example; `masked_positions` (within the
    example) and `masked_labels` (the token that was there) a value for each masked token.
    """

    token_ids: np.ndarray
    lengths: np.ndarray
    first_lengths: np.ndarray
    is_random_next: np.ndarray
    masked_counts: np.ndarray
    masked_positions: np.ndarray
    masked_labels: np.ndarray

    @classmethod
    def open(cls, directory: Path, max_seq_len: int) -> "ExampleArrays":
        """Maps the files of a directory. Raises UserError where they do not belong together."""
        arrays = {}
        for name in ARRAYS:
            path = directory / f"{name}.npy"
            try:
                arrays[name] = map_integers(path)
            except (OSError, ValueError) as error:
                raise UserError(f"{path}: cannot be read ({one_line(error)}); make the data again") from None
        opened = cls(**arrays)
        examples = {
            len(getattr(opened, name)) for name in ("first_lengths", "is_random_next", "masked_counts")
        }
        if (
            examples != {len(opened.lengths)}
            or len(opened.token_ids) != opened.lengths.sum(dtype=np.int64)
            or len(opened.masked_labels) != len(opened.masked_positions)
            or len(opened.masked_labels) != opened.masked_counts.sum(dtype=np.int64)
        ):
            raise UserError(f"{directory}: the arrays do not have the same examples; make the data again")
        lengths = opened.lengths
        if (
            not 1 <= lengths.min(initial=1) <= lengths.max(initial=1) <= max_seq_len
            or not np.all((opened.first_lengths >= 0) & (opened.first_lengths <= lengths))
            or not np.all((opened.masked_counts >= 0) & (opened.masked_counts <= lengths))
        ):
            raise UserError(f"{directory}: damaged lengths; make the data again")
        return opened


class PretrainingDataset:
    """The examples of one epoch, in batches."""

    def __init__(self, directory: Path, parts: list[ExampleArrays], pad_id: int, vocab_size: int):
        """`parts` are the shards, in their order; `directory` is named in error messages."""
        self._directory = directory
        self._parts = parts
        self._vocab_size = vocab_size
        self._pad_id = pad_id
        self._token_starts = [_starts(part.lengths) for part in parts]
        self._masked_starts = [_starts(part.masked_counts) for part in parts]
        self._first_rows = _starts(np.array([len(part.lengths) for part in parts]))

    def __len__(self) -> int:
        return int(self._first_rows[-1])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every example, int32 `[rows]`."""
        return np.concatenate([part.lengths for part in self._parts])

    @property
    def masked_tokens(self) -> int:
        """How many tokens are masked in all; 0 where the data were made without --masked_lm_prob."""
        return sum(len(part.masked_labels) for part in self._parts)

    @property
    def most_masked(self) -> int:
        """The largest number of masked tokens in a row."""
        return max(int(part.masked_counts.max(initial=0)) for part in self._parts)

    def collate(
        self, rows: np.ndarray, length: int, rows_padded_to: int | None = None
    ) -> dict[str, np.ndarray]:
        """A batch of the given rows, padded to `length` tokens and `rows_padded_to` rows.

        `input_ids`, `attention_mask`, `token_type_ids` int32 `[R, length]` and `weights` float32 `[R]` are
        as those of `EncodedDataset`; `lm_labels` int32 `[R, length]` has the token that stood at a masked
        position, -1 at all others; `is_random_next` int32 `[R]` is 1 where the second text does not
        follow the first. Raises UserError for an example that is damaged.
        """
        rows = np.asarray(rows, np.int64)
        count = len(rows) if rows_padded_to is None else rows_padded_to
        if count < len(rows):
            raise ValueError(f"{len(rows)} rows do not fit into a batch of {count}")
        batch = {
            "input_ids": np.full((count, length), self._pad_id, np.int32),
            "attention_mask": np.zeros((count, length), np.int32),
            "token_type_ids": np.zeros((count, length), np.int32),
            "lm_labels": np.full((count, length), NOT_MASKED, np.int32),
            "is_random_next": np.zeros(count, np.int32),
            "weights": (np.arange(count) < len(rows)).astype(np.float32),
        }
        part_of = np.searchsorted(self._first_rows, rows, side="right") - 1
        for number in np.unique(part_of).tolist():
            places = np.flatnonzero(part_of == number)
            self._fill(batch, number, places, rows[places] - self._first_rows[number])
        return batch

    def _fill(self, batch: dict[str, np.ndarray], number: int, places: np.ndarray, rows: np.ndarray) -> None:
        """Puts rows of one part into their places in the batch."""
        part = self._parts[number]
        length = batch["input_ids"].shape[1]
        lengths = part.lengths[rows]
        if lengths.max(initial=0) > length:
            raise ValueError(f"a row of {lengths.max()} tokens does not fit into a length of {length}")
        positions = np.arange(length)
        inside = positions < lengths[:, None]
        sources = (self._token_starts[number][rows][:, None] + positions)[inside]
        row, column = np.nonzero(inside)
        token_ids = part.token_ids[sources]
        batch["input_ids"][places[row], column] = token_ids
        batch["attention_mask"][places] = inside
        batch["token_type_ids"][places] = inside & (positions >= part.first_lengths[rows][:, None])
        batch["is_random_next"][places] = part.is_random_next[rows]
        masked = part.masked_counts[rows]
        before = np.cumsum(masked) - masked
        sources = np.repeat(self._masked_starts[number][rows] - before, masked) + np.arange(masked.sum())
        masked_positions, masked_labels = part.masked_positions[sources], part.masked_labels[sources]
        in_vocabulary = (_within(ids, self._vocab_size) for ids in (token_ids, masked_labels))
        if not (all(in_vocabulary) and _within(masked_positions, np.repeat(lengths, masked))):
            raise UserError(
                f"{self._directory}: damaged: a token or a place that cannot be; make the data again"
            )
        batch["lm_labels"][np.repeat(places, masked), masked_positions] = masked_labels


class PregeneratedData:
    """A directory that run_pretrain_data.py, or the original's program, has written."""

    def __init__(self, directory: Path, shards: list[Path], tokenizer: Tokenizer):
        """Use `open`, which looks for the shards and checks them."""
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
        """The data of a directory or of the complete set of shards in it.

        Raises UserError where there are none, an epoch or a shard is missing, or the data were made
        with another vocabulary than the tokenizer's.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise UserError(
                f"--pregenerated_data {directory}: no such directory; run_pretrain_data.py makes it"
            )
        shards = _find_shards(directory)
        fingerprint = vocabulary_fingerprint(tokenizer)
        for shard in shards:
            description = read_description(shard)
            if description is not None and description["vocabulary"] != fingerprint:
                raise UserError(
                    f"--pregenerated_data {shard}: made with another vocabulary than this model's; "
                    f"make them with run_pretrain_data.py --bert_model and this model"
                )
        return cls(directory, shards, tokenizer)

    def example_count(self, epoch: int) -> int:
        """The number of examples of an epoch."""
        file = epoch % self.epochs
        return sum(read_metrics(metrics_path(shard, file)).num_training_examples for shard in self._shards)

    def epoch(self, epoch: int) -> PretrainingDataset:
        """The examples of a training epoch, counted from 0: after the last one that was made the first again.

        Arrays are mapped. JSON lines are parsed into arrays in temporary files, again at each call.
        Raises UserError, with file and line, for damaged data and for tokens that the vocabulary lacks.
        """
        file = epoch % self.epochs
        parts = []
        for shard in self._shards:
            arrays = shard / f"epoch_{file}"
            if arrays.is_dir():
                part = ExampleArrays.open(arrays, self.max_seq_len)
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


def _within(values: np.ndarray, end: int | np.ndarray) -> bool:
    return bool(np.all((values >= 0) & (values < end)))


def _starts(counts: np.ndarray) -> np.ndarray:
    """Where each of the ranges begins, and at the end where the last one ends; int64."""
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def _find_shards(directory: Path) -> list[Path]:
    """The directories of all shards in their order, or the directory itself."""
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
            f"run_pretrain_data.py --shard {missing[0]}/{count}"
        )
    shards = [found[index, count] for index in range(count)]
    descriptions = [read_description(shard) for shard in shards]
    for shard, description in zip(shards, descriptions, strict=True):
        if description is None:
            raise UserError(f"{shard}: no {DESCRIPTION_FILE} in it; copy all of the shard")
        different = [name for name in differing_names(descriptions[0] or {}, description) if name != "shard"]
        if different:
            raise UserError(
                f"{shard}: made with another {', '.join(different)} than {shards[0].name}; make them alike"
            )
    return shards


def _count_epochs(directory: Path, shards: list[Path]) -> int:
    """The number of epochs that all the shards have."""
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
                f"{shard}: {problem}; run_pretrain_data.py makes it, with --resume the rest of it"
            )
    if len(set(counts)) > 1:
        raise UserError(
            f"{directory}: the shards have {min(counts)} to {max(counts)} epochs; complete them with --resume"
        )
    return counts[0]


def _arrays_of_json_lines(path: Path, tokenizer: Tokenizer, max_seq_len: int) -> ExampleArrays:
    """The examples of a file, mapped: memory does not grow with the file."""
    # A mapped file stays readable when its name is gone, so that nothing is left behind.
    with tempfile.TemporaryDirectory() as name:
        try:
            _write_arrays(Path(name), path, tokenizer, max_seq_len)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be made into arrays in {tempfile.gettempdir()} ({error.strerror}); "
                f"let TMPDIR name a directory with more room, or make the data with --format arrays"
            ) from error
        return ExampleArrays.open(Path(name), max_seq_len)


def _write_arrays(directory: Path, path: Path, tokenizer: Tokenizer, max_seq_len: int) -> None:
    form = Arrays(tokenizer.vocab_size)
    with ExitStack() as stack:
        files = [stack.enter_context((directory / name).open("wb")) for name in form.files]
        for file, beginning in zip(files, form.beginnings(), strict=True):
            file.write(beginning)
        for values in records(path, tokenizer, max_seq_len, _RECORDS_AT_ONCE):
            for file, content in zip(files, form.encode(values), strict=True):
                file.write(content)
    for name in form.files:
        form.complete(directory / name)
