"""Reads `epoch_N.json` and its metrics, as the original's program writes them too."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_emd_jax.data.rows import decoded_lines
from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.tokenizer import Tokenizer

LONGEST = 1 << 16
"""Tokens that an example may have."""


class Metrics(NamedTuple):
    """What `epoch_N_metrics.json` says."""

    num_training_examples: int
    max_seq_len: int


def read_metrics(path: Path) -> Metrics:
    """The metrics of an epoch. Raises UserError where the file is not what it should be."""
    try:
        values = json.loads(path.read_bytes())
        metrics = Metrics(int(values["num_training_examples"]), int(values["max_seq_len"]))
        if metrics.num_training_examples < 0 or not 1 <= metrics.max_seq_len <= LONGEST:
            raise ValueError
        return metrics
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UserError(
            f"{path}: no num_training_examples and max_seq_len in it; make the data again"
        ) from None


class _Record(NamedTuple):
    token_ids: list[int]
    first_length: int
    is_random_next: bool
    masked_positions: list[int]
    masked_labels: list[int]


def records(
    path: Path, tokenizer: Tokenizer, max_seq_len: int, at_once: int
) -> Iterator[Sequence[np.ndarray]]:
    """The examples of a file as arrays in the order of `ARRAYS`, some examples at a time.

    Raises UserError with file and line for a damaged record, a token that is not in the vocabulary,
    and an example longer than `max_seq_len`.
    """
    ids = {piece: index for index, piece in enumerate(tokenizer.tokens())}
    ids[tokenizer.special_tokens["unk_token"]] = tokenizer.unk_id  # ids of no piece are called so, too
    if not path.is_file():
        raise UserError(f"{path}: no such file, but there are metrics of it; make the data again")
    waiting: list[_Record] = []
    for number, text in decoded_lines(path):
        try:
            record = _parse(json.loads(text), ids)
        except _UnknownTokenError as error:
            raise UserError(
                f"{path}:{number}: the model's vocabulary has no token {str(error)[:40]!r}; make the data "
                f"with the tokenizer of this model"
            ) from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise UserError(
                f"{path}:{number}: no record with tokens, segment_ids, is_random_next, masked_lm_positions "
                f"and masked_lm_labels that fit together; make the data again"
            ) from None
        if len(record.token_ids) > max_seq_len:
            raise UserError(
                f"{path}:{number}: {len(record.token_ids)} tokens, but the metrics say max_seq_len "
                f"{max_seq_len}; make the data again"
            )
        waiting.append(record)
        if len(waiting) == at_once:
            yield _as_arrays(waiting)
            waiting = []
    if waiting:
        yield _as_arrays(waiting)


class _UnknownTokenError(Exception):
    pass


def _parse(value: Any, ids: dict[str, int]) -> _Record:
    """A record's values. Raises ValueError, TypeError or KeyError where it is none."""
    tokens, segments = value["tokens"], value["segment_ids"]
    positions, labels = value["masked_lm_positions"], value["masked_lm_labels"]
    is_random_next = value["is_random_next"]
    first_length = segments.count(0)
    if (
        not tokens
        or segments != [0] * first_length + [1] * (len(tokens) - first_length)
        or len(positions) != len(labels)
        or not all(type(position) is int and 0 <= position < len(tokens) for position in positions)
        or not isinstance(is_random_next, bool)
    ):
        raise ValueError
    try:
        token_ids, label_ids = [ids[token] for token in tokens], [ids[label] for label in labels]
    except KeyError as error:
        raise _UnknownTokenError(*error.args) from None
    return _Record(token_ids, first_length, is_random_next, positions, label_ids)


def _as_arrays(records: Sequence[_Record]) -> Sequence[np.ndarray]:
    def flat(lists: Iterator[list[int]]) -> np.ndarray:
        return np.fromiter(chain.from_iterable(lists), np.int64)

    return (
        flat(record.token_ids for record in records),
        np.array([len(record.token_ids) for record in records]),
        np.array([record.first_length for record in records]),
        np.array([record.is_random_next for record in records]),
        np.array([len(record.masked_positions) for record in records]),
        flat(record.masked_positions for record in records),
        flat(record.masked_labels for record in records),
    )
