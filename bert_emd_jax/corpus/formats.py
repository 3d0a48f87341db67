"""The file formats of pretraining data: JSON lines, as the original writes them, and memory-mapped arrays.

A format says which files an unfinished epoch has and what every batch of examples appends to them.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer

from bert_emd_jax.corpus.corpus import token_type
from bert_emd_jax.corpus.pretraining_examples import ExampleBatch, Vocabulary


class JsonLinesFormat:
    """`epoch_N.json`: the lines that `json.dumps` would write, without its cost per token."""

    files = ("examples.json",)

    def __init__(self, vocabulary: Vocabulary):
        self._quoted = np.array([json.dumps(token) for token in vocabulary.tokens], object)

    def headers(self) -> Sequence[bytes]:
        """Returns the first bytes of each file."""
        return (b"",)

    def encode_batch(self, batch: ExampleBatch) -> Sequence[bytes]:
        """Returns what a batch appends to each file.

        An example is an object with tokens, segment_ids, is_random_next, masked_lm_positions and
        masked_lm_labels.
        """
        row_of, position_of = np.nonzero(batch.masked)
        ends = np.cumsum(batch.masked.sum(1)).tolist()
        labels = self._quoted[batch.original_ids[row_of, position_of]].tolist()
        positions = list(map(str, position_of.tolist()))
        longest = batch.input_ids.shape[1]
        zeros, ones = "0, " * longest, "1, " * longest
        lines = []
        begin = 0
        for tokens, length, segment_a_length, is_random, end in zip(
            self._quoted[batch.input_ids].tolist(),
            batch.lengths.tolist(),
            batch.segment_a_lengths.tolist(),
            batch.is_random_next.tolist(),
            ends,
            strict=True,
        ):
            segments = zeros[: 3 * segment_a_length] + ones[: 3 * (length - segment_a_length)]
            lines.append(
                f'{{"tokens": [{", ".join(tokens[:length])}], "segment_ids": [{segments[:-2]}], '
                f'"is_random_next": {"true" if is_random else "false"}, '
                f'"masked_lm_positions": [{", ".join(positions[begin:end])}], '
                f'"masked_lm_labels": [{", ".join(labels[begin:end])}]}}\n'
            )
            begin = end
        return ("".join(lines).encode(),)

    def publish(self, unfinished: Path, directory: Path, epoch: int) -> None:
        """Moves the finished files of an epoch to their final names."""
        (unfinished / self.files[0]).replace(directory / f"epoch_{epoch}.json")


class ExampleArrays(NamedTuple):
    """Examples as concatenated arrays.

    `token_ids` have the masks applied; `segment_a_lengths` count the tokens of segment 0;
    `masked_positions` are those within the example, and `masked_labels` the original tokens.
    """

    token_ids: Integer[np.ndarray, " tokens"]
    lengths: Integer[np.ndarray, " examples"]
    segment_a_lengths: Integer[np.ndarray, " examples"]
    is_random_next: Bool[np.ndarray, " examples"]
    masked_counts: Integer[np.ndarray, " examples"]
    masked_positions: Integer[np.ndarray, " masked"]
    masked_labels: Integer[np.ndarray, " masked"]


class ArraysFormat:
    """`epoch_N/*.npy`: one file for each of the `ExampleArrays`."""

    files = (
        "token_ids.npy",
        "lengths.npy",
        "first_lengths.npy",
        "is_random_next.npy",
        "masked_counts.npy",
        "masked_positions.npy",
        "masked_labels.npy",
    )

    def __init__(self, vocabulary_size: int):
        token = token_type(vocabulary_size)
        self._types = tuple(map(np.dtype, (token, np.int32, np.int32, np.bool_, np.int32, np.int32, token)))

    def headers(self) -> Sequence[bytes]:
        """Returns the first bytes of each file, those of an empty array."""
        return [_npy_header(dtype, 0) for dtype in self._types]

    def encode_batch(self, batch: ExampleBatch) -> Sequence[bytes]:
        """Returns what a batch appends to each file."""
        mask = np.arange(batch.input_ids.shape[1]) < batch.lengths[:, None]
        rows, positions = np.nonzero(batch.masked)
        return self.encode(
            ExampleArrays(
                batch.input_ids[mask],
                batch.lengths,
                batch.segment_a_lengths,
                batch.is_random_next,
                np.bincount(rows, minlength=len(batch.lengths)),
                positions,
                batch.original_ids[rows, positions],
            )
        )

    def encode(self, arrays: ExampleArrays) -> Sequence[bytes]:
        """Returns what arrays append to each file."""
        return [values.astype(dtype).tobytes() for values, dtype in zip(arrays, self._types, strict=True)]

    def publish(self, unfinished: Path, directory: Path, epoch: int) -> None:
        """Moves the finished files of an epoch to their final names."""
        self.write_lengths(unfinished)
        target = directory / f"epoch_{epoch}"
        target.mkdir(exist_ok=True)
        for name in self.files:
            (unfinished / name).replace(target / name)

    def write_lengths(self, directory: Path) -> None:
        """Writes the number of values into the headers of all files, which are complete."""
        for name, dtype in zip(self.files, self._types, strict=True):
            with (directory / name).open("r+b") as file:
                size = file.seek(0, io.SEEK_END) - len(_npy_header(dtype, 0))
                file.seek(0)
                file.write(_npy_header(dtype, size // dtype.itemsize))


Format = JsonLinesFormat | ArraysFormat


def _npy_header(dtype: np.dtype, count: int) -> bytes:
    """Returns the header of a one-dimensional `.npy` file; NumPy gives all counts the same length."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
    )
    return header.getvalue()


def format_named(name: str, vocabulary: Vocabulary) -> Format:
    """Returns the format "jsonl" or "arrays"."""
    return JsonLinesFormat(vocabulary) if name == "jsonl" else ArraysFormat(len(vocabulary.tokens))
