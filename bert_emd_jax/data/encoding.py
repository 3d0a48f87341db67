"""Examples to model inputs: truncation, `[CLS] a [SEP] b [SEP]`, and padded batches."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert_emd_jax.data.readers import Examples
from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.tokenizer import Tokenizer

_SHORTEST = 5  # one piece of each text of a pair and the three special tokens
_ROWS_AT_ONCE = 8192


def truncated_lengths(length_a: int, length_b: int, budget: int) -> tuple[int, int]:
    """Lengths that popping from the longer side (the second on a tie) reaches within `budget` pieces."""
    if length_a + length_b <= budget:
        return length_a, length_b
    # The longer side shrinks alone until both are equal; from there on they take turns, the second first.
    kept_a = min(length_a, max(budget - length_b, (budget + 1) // 2))
    return kept_a, min(length_b, budget - kept_a)


@dataclass(frozen=True)
class EncodedDataset:
    """Rows of token ids, special tokens included, one after the other.

    `token_ids` int32 `[tokens]`; row r is `token_ids[offsets[r]:offsets[r + 1]]`, its first
    `first_lengths[r]` tokens are segment 0. `labels` int32 or float32 `[rows]`, or None.
    """

    token_ids: np.ndarray
    offsets: np.ndarray
    first_lengths: np.ndarray
    labels: np.ndarray | None
    pad_id: int

    def __len__(self) -> int:
        return len(self.first_lengths)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every row, int32 `[rows]`."""
        return np.diff(self.offsets).astype(np.int32)

    def collate(
        self, rows: np.ndarray, length: int, rows_padded_to: int | None = None
    ) -> dict[str, np.ndarray]:
        """A batch of the given rows, padded to `length` tokens and `rows_padded_to` rows.

        `input_ids`, `attention_mask`, `token_type_ids` int32 `[R, length]`; `labels [R]` (zeros where
        there are none); `weights` float32 `[R]`, 1 for real rows. Filler rows are all padding, with an
        attention mask, label and weight of zero.
        """
        rows = np.asarray(rows, np.int64)
        count = len(rows) if rows_padded_to is None else rows_padded_to
        if count < len(rows):
            raise ValueError(f"{len(rows)} rows do not fit into a batch of {count}")
        row_lengths = np.zeros(count, np.int64)
        first_lengths = np.zeros(count, np.int64)
        starts = np.zeros(count, np.int64)
        row_lengths[: len(rows)] = self.offsets[rows + 1] - self.offsets[rows]
        first_lengths[: len(rows)] = self.first_lengths[rows]
        starts[: len(rows)] = self.offsets[rows]
        if row_lengths.max(initial=0) > length:
            raise ValueError(f"a row of {row_lengths.max()} tokens does not fit into a length of {length}")
        positions = np.arange(length)
        mask = positions < row_lengths[:, None]
        input_ids = np.full((count, length), self.pad_id, np.int32)
        input_ids[mask] = self.token_ids[(starts[:, None] + positions)[mask]]
        labels = np.zeros(count, np.int32 if self.labels is None else self.labels.dtype)
        if self.labels is not None:
            labels[: len(rows)] = self.labels[rows]
        return {
            "input_ids": input_ids,
            "attention_mask": mask.astype(np.int32),
            "token_type_ids": (mask & (positions >= first_lengths[:, None])).astype(np.int32),
            "labels": labels,
            "weights": (np.arange(count) < len(rows)).astype(np.float32),
        }


def encode_examples(tokenizer: Tokenizer, examples: Examples, max_length: int) -> EncodedDataset:
    """Tokenises, truncates and assembles every example; no row is longer than `max_length`."""
    if max_length < _SHORTEST:
        raise UserError(f"--max_seq_length {max_length}: too short; it must be at least {_SHORTEST}")
    token_ids = array("i")
    lengths = np.zeros(len(examples), np.int64)
    first_lengths = np.zeros(len(examples), np.int32)
    for start in range(0, len(examples), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        pieces_a = tokenizer.encode_pieces(examples.texts_a[part])
        pieces_b = None if examples.texts_b is None else tokenizer.encode_pieces(examples.texts_b[part])
        for offset, a in enumerate(pieces_a):
            b = None if pieces_b is None else pieces_b[offset]
            row, first_length = assemble(tokenizer, a, b, max_length)
            token_ids.extend(row)
            lengths[start + offset] = len(row)
            first_lengths[start + offset] = first_length
    offsets = np.zeros(len(examples) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    ids = np.frombuffer(token_ids, np.int32) if token_ids else np.zeros(0, np.int32)
    return EncodedDataset(ids, offsets, first_lengths, examples.labels, tokenizer.pad_id)


def assemble(
    tokenizer: Tokenizer, pieces_a: Sequence[int], pieces_b: Sequence[int] | None, max_length: int
) -> tuple[list[int], int]:
    """`[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]` within `max_length` tokens, and the length of segment 0."""
    if pieces_b is None:
        return [tokenizer.cls_id, *pieces_a[: max_length - 2], tokenizer.sep_id], min(
            len(pieces_a) + 2, max_length
        )
    kept_a, kept_b = truncated_lengths(len(pieces_a), len(pieces_b), max_length - 3)
    row = [tokenizer.cls_id, *pieces_a[:kept_a], tokenizer.sep_id, *pieces_b[:kept_b], tokenizer.sep_id]
    return row, kept_a + 2
