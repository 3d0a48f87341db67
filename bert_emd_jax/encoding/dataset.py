"""Examples to model inputs: truncation, `[CLS] a [SEP] b [SEP]`, and padded batches."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from bert_emd_jax.data.examples import Examples
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.tokenization.tokenizer import Tokenizer

SHORTEST = 5  # one token of each text of a pair and three special tokens
_ROWS_AT_ONCE = 8192


def truncated_lengths(
    length_a: int, length_b: int, budget: int, *, odd_goes_to_longer: bool = False
) -> tuple[int, int]:
    """Returns the lengths left after popping from the longer side (the second on a tie) down to `budget`.

    Args:
      odd_goes_to_longer: of two sides that end level, the one that was longer (the second on a tie) keeps
        one more if the budget is odd, as in the `tokenizers` library; else the first does.
    """
    if length_a + length_b <= budget:
        return length_a, length_b
    if odd_goes_to_longer and length_a <= length_b:
        kept_a = min(length_a, max(budget - length_b, budget // 2))
        return kept_a, budget - kept_a
    # The longer side shrinks until both are equal; then they take turns, the second first.
    kept_a = min(length_a, max(budget - length_b, (budget + 1) // 2))
    return kept_a, min(length_b, budget - kept_a)


@dataclass(frozen=True)
class EncodedDataset:
    """Rows of token ids, special tokens included, concatenated.

    Row r is `token_ids[offsets[r]:offsets[r + 1]]`, and its first `segment_a_lengths[r]` tokens are
    segment 0. Labels are the truths of the task's kind.
    """

    token_ids: Int[np.ndarray, " tokens"]
    offsets: Int[np.ndarray, " rows+1"]
    segment_a_lengths: Int[np.ndarray, " rows"]
    labels: Shaped[np.ndarray, "rows ..."] | None
    pad_id: int

    def __len__(self) -> int:
        return len(self.segment_a_lengths)

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """Tokens of every row."""
        return np.diff(self.offsets).astype(np.int32)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that the rows consist of, by name, for hashes."""
        return {name: values for name, values in vars(self).items() if isinstance(values, np.ndarray)}

    def collate(
        self, rows: Int[np.ndarray, " rows"], length: int, rows_padded_to: int | None = None
    ) -> Batch:
        """Returns a batch of the given rows, padded to `length` tokens and `rows_padded_to` rows.

        It has the arrays of `padded_batch` and `labels [R, …]`, zeros if there are none.
        """
        rows = np.asarray(rows, np.int64)
        starts, ends = self.offsets[rows], self.offsets[rows + 1]
        batch = padded_batch(ends - starts, self.segment_a_lengths[rows], length, rows_padded_to, self.pad_id)
        row, position = np.nonzero(batch["attention_mask"])
        batch["input_ids"][row, position] = self.token_ids[starts[row] + position]
        return {**batch, "labels": self.padded_labels(rows, length, len(batch["weights"]))}

    def padded_labels(self, rows: Int[np.ndarray, " rows"], length: int, count: int) -> np.ndarray:
        """Returns the labels of rows as a batch has them, [count, …], zeros if there are none."""
        known = np.zeros(0, np.int32) if self.labels is None else self.labels
        labels = np.zeros((count, *known.shape[1:]), known.dtype)
        if self.labels is not None:
            labels[: len(rows)] = self.labels[rows]
        return labels

    @property
    def predicted(self) -> int:
        """How many predictions there are of all rows: one each."""
        return len(self)

    def place(
        self,
        results: Shaped[np.ndarray, "rows ..."],
        rows: Int[np.ndarray, " rows"],
        outputs: Shaped[np.ndarray, "batch ..."],
    ) -> None:
        """Puts a model's outputs for some rows where they stand among the predictions of all."""
        results[rows] = outputs


def check_rows(rows: Any, config: EncoderConfig, source: object) -> None:
    """Raises UserError if rows need an embedding that the model does not have: JAX would read another one.

    Args:
      rows: with `lengths` and `segment_a_lengths` [rows], and perhaps `token_ids` [tokens].
      source: the model, for messages.
    """
    lengths = rows.lengths
    check_length(int(lengths.max(initial=0)), config.longest_input, source)
    if config.family.has_segments and config.type_vocab_size < 2 and np.any(rows.segment_a_lengths < lengths):
        raise UserError(
            f"{source}: has one segment (type_vocab_size 1), but the second text of a pair is segment 1;"
            " give a model with two segments, or single texts"
        )
    token_ids = getattr(rows, "token_ids", np.zeros(0, np.int32))
    if (largest := token_ids.max(initial=0)) >= config.vocab_size:
        raise UserError(
            f"{source}: has {config.vocab_size} word embeddings, but a text has token {largest};"
            " take the tokenizer that belongs to the weights"
        )


def check_length(longest: int, max_positions: int, source: object, flag: str = "--max_seq_length") -> None:
    """Raises UserError if the model has fewer position embeddings than the longest input needs."""
    if longest > max_positions:
        raise UserError(
            f"{flag} {longest}: {source} has position embeddings for {max_positions} tokens only;"
            " give so many or less"
        )


def padded_batch(
    lengths: Int[np.ndarray, " rows"],
    segment_a_lengths: Int[np.ndarray, " rows"],
    length: int,
    rows_padded_to: int | None,
    pad_id: int,
) -> Batch:
    """Returns the arrays of a batch whose `input_ids` are still to be filled in.

    `input_ids` (all `pad_id`), `attention_mask` and `token_type_ids` int32 `[R, length]`; `weights` float32
    `[R]`, 1 for real rows. Rows beyond the given ones are padding with a mask and weight of zero.

    Args:
      lengths: tokens of every row.
      segment_a_lengths: how many of them are segment 0.
      length: tokens that rows are padded to.
      rows_padded_to: R; None: no rows are added.

    Raises:
      ValueError: the rows do not fit.
    """
    rows = len(lengths)
    count = rows if rows_padded_to is None else rows_padded_to
    if count < rows:
        raise ValueError(f"{rows} rows do not fit into a batch of {count}")
    if lengths.max(initial=0) > length:
        raise ValueError(f"a row of {lengths.max()} tokens does not fit into a length of {length}")
    positions = np.arange(length)
    mask = np.zeros((count, length), np.int32)
    mask[:rows] = positions < lengths[:, None]
    token_type_ids = mask.copy()
    token_type_ids[:rows] *= positions >= segment_a_lengths[:, None]
    return {
        "input_ids": np.full((count, length), pad_id, np.int32),
        "attention_mask": mask,
        "token_type_ids": token_type_ids,
        "weights": (np.arange(count) < rows).astype(np.float32),
    }


def encode_examples(tokenizer: Tokenizer, examples: Examples, max_length: int) -> EncodedDataset:
    """Tokenises, truncates and assembles every example, to at most `max_length` tokens."""
    if max_length < SHORTEST:
        raise UserError(f"--max_seq_length {max_length}: too short; it must be at least {SHORTEST}")
    token_ids = array("i")
    lengths: list[int] = []
    segment_a_lengths: list[int] = []
    for start in range(0, len(examples), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        ids_a = tokenizer.encode(examples.texts_a[part])
        ids_b = [None] * len(ids_a) if examples.texts_b is None else tokenizer.encode(examples.texts_b[part])
        for a, b in zip(ids_a, ids_b, strict=True):
            row, segment_a_length = assemble(tokenizer, a, b, max_length)
            token_ids.extend(row)
            lengths.append(len(row))
            segment_a_lengths.append(segment_a_length)
    return EncodedDataset(
        np.array(token_ids, np.int32),
        np.cumsum([0, *lengths]),
        np.array(segment_a_lengths, np.int32),
        examples.labels,
        tokenizer.pad_id,
    )


def assemble(
    tokenizer: Tokenizer, ids_a: Sequence[int], ids_b: Sequence[int] | None, max_length: int
) -> tuple[list[int], int]:
    """Returns `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`, truncated, and the length of segment 0.

    Some tokenizers put two [SEP] between texts, or have no segments, see `Tokenizer.pairs`.
    """
    if ids_b is None:
        row = [tokenizer.cls_id, *ids_a[: max_length - 2], tokenizer.sep_id]
        return row, len(row)
    pairs = tokenizer.pairs
    kept_a, kept_b = truncated_lengths(
        len(ids_a), len(ids_b), max_length - pairs.specials, odd_goes_to_longer=pairs.odd_goes_to_longer
    )
    first = [tokenizer.cls_id, *ids_a[:kept_a], *[tokenizer.sep_id] * pairs.separators]
    row = [*first, *ids_b[:kept_b], tokenizer.sep_id]
    return row, len(first) if pairs.has_segments else len(row)
