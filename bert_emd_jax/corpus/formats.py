"""The two forms of pretraining data: JSON lines, as the original writes them, and arrays that are mapped.

A form says which files an epoch has while it grows, and what a batch of examples adds to each of them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from bert_emd_jax.corpus.corpus import token_type
from bert_emd_jax.corpus.examples import ExampleBatch, Vocabulary


class Form(Protocol):
    """What all forms can do."""

    @property
    def files(self) -> Sequence[str]:
        """The names of an epoch's files while it grows."""
        ...

    def beginnings(self) -> Sequence[bytes]:
        """What each file begins with."""
        ...

    def contents(self, batch: ExampleBatch) -> Sequence[bytes]:
        """What a batch adds to each file."""
        ...

    def publish(self, growing: Path, directory: Path, epoch: int) -> None:
        """Moves the finished files of an epoch to their place."""
        ...


class JsonLines:
    """`epoch_N.json`: the lines that `json.dumps` writes, without its cost for every token."""

    files = ("examples.json",)

    def __init__(self, vocabulary: Vocabulary):
        self._quoted = np.array([json.dumps(piece) for piece in vocabulary.pieces], object)

    def beginnings(self) -> Sequence[bytes]:
        return (b"",)

    def contents(self, batch: ExampleBatch) -> Sequence[bytes]:
        return (self.lines(batch),)

    def publish(self, growing: Path, directory: Path, epoch: int) -> None:
        (growing / self.files[0]).replace(directory / f"epoch_{epoch}.json")

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


# The arrays of an epoch: of every token, every example, every masked token.
ARRAYS = (
    "token_ids",
    "lengths",
    "first_lengths",
    "is_random_next",
    "masked_counts",
    "masked_positions",
    "masked_labels",
)


class Arrays:
    """`epoch_N/*.npy`: one-dimensional arrays, one after the other what the examples have of each kind."""

    files = tuple(f"{name}.npy" for name in ARRAYS)

    def __init__(self, vocabulary_size: int):
        token = token_type(vocabulary_size)
        self._types = (token, np.int32, np.int32, np.bool_, np.int32, np.int32, token)

    def beginnings(self) -> Sequence[bytes]:
        return tuple(npy_header(kind, 0) for kind in self._types)

    def contents(self, batch: ExampleBatch) -> Sequence[bytes]:
        inside = np.arange(batch.input_ids.shape[1]) < batch.lengths[:, None]
        rows, positions = np.nonzero(batch.masked)
        values = (
            batch.input_ids[inside],
            batch.lengths,
            batch.first_lengths,
            batch.is_random_next,
            np.bincount(rows, minlength=len(batch.lengths)),
            positions,
            batch.original_ids[rows, positions],
        )
        return self.encode(values)

    def encode(self, values: Sequence[np.ndarray]) -> Sequence[bytes]:
        """What the given values, in the order of `ARRAYS`, add to each file."""
        return tuple(value.astype(kind).tobytes() for value, kind in zip(values, self._types, strict=True))

    def publish(self, growing: Path, directory: Path, epoch: int) -> None:
        target = directory / f"epoch_{epoch}"
        target.mkdir(exist_ok=True)
        for name in self.files:
            self.complete(growing / name)
            (growing / name).replace(target / name)

    def complete(self, path: Path) -> None:
        """Writes the number of values into the header of an array that has grown."""
        kind = np.dtype(self._types[self.files.index(path.name)])
        with path.open("r+b") as file:
            size = path.stat().st_size - len(npy_header(kind, 0))
            file.write(npy_header(kind, size // kind.itemsize))


def npy_header(kind: np.typing.DTypeLike, count: int) -> bytes:
    """The header of a `.npy` file of a one-dimensional array: 128 bytes, whatever the count."""
    fields = f"{{'descr': '{np.dtype(kind).str}', 'fortran_order': False, 'shape': ({count},), }}"
    return b"\x93NUMPY\x01\x00v\x00" + fields.ljust(117).encode() + b"\n"


def form_named(name: str, vocabulary: Vocabulary) -> Form:
    return JsonLines(vocabulary) if name == "jsonl" else Arrays(len(vocabulary.pieces))
