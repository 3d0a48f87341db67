"""Reads `epoch_N.json` and its metrics, which the original's program writes too."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_emd_jax.corpus.formats import ExampleArrays
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import read_json
from bert_emd_jax.tables.rows import decoded_lines
from bert_emd_jax.tokenization.tokenizer import Tokenizer

_LONGEST = 1 << 16  # tokens of an example


class Metrics(NamedTuple):
    """The entries of `epoch_N_metrics.json`."""

    num_training_examples: int
    max_seq_len: int


def read_metrics(path: Path) -> Metrics:
    """Reads the metrics of an epoch. Raises UserError for a damaged file."""
    try:
        values = read_json(path)
        metrics = Metrics(int(values["num_training_examples"]), int(values["max_seq_len"]))
        if metrics.num_training_examples < 0 or not 1 <= metrics.max_seq_len <= _LONGEST:
            raise ValueError
        return metrics
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UserError(
            f"{path}: no num_training_examples and max_seq_len in it; make the data again"
        ) from None


def read_examples(
    path: Path, tokenizer: Tokenizer, max_seq_len: int, chunk_size: int
) -> Iterator[ExampleArrays]:
    """Yields the examples of a file, `chunk_size` at a time.

    Raises UserError with file and line for a damaged record, a token that is not in the vocabulary,
    and an example longer than `max_seq_len`.
    """
    ids = {token: index for index, token in enumerate(tokenizer.tokens())}
    ids[tokenizer.special_tokens["unk_token"]] = tokenizer.unk_id  # ids without a token are named so, too
    if not path.is_file():
        raise UserError(f"{path}: no such file, but there are metrics of it; make the data again")
    examples: list[tuple[Sequence[int], ...]] = []
    for number, text in decoded_lines(path):
        try:
            example = token_ids, *_ = _parse(json.loads(text), ids)
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
        if len(token_ids) > max_seq_len:
            raise UserError(
                f"{path}:{number}: {len(token_ids)} tokens, but the metrics say max_seq_len "
                f"{max_seq_len}; make the data again"
            )
        examples.append(example)
        if len(examples) == chunk_size:
            yield _concatenated(examples)
            examples = []
    if examples:
        yield _concatenated(examples)


def _concatenated(examples: list[tuple[Sequence[int], ...]]) -> ExampleArrays:
    lists_by_name = zip(*examples, strict=True)
    return ExampleArrays(*(np.fromiter(chain.from_iterable(lists), np.int64) for lists in lists_by_name))


class _UnknownTokenError(Exception):
    pass


def _parse(value: Any, ids: dict[str, int]) -> tuple[Sequence[int], ...]:
    """Returns the values of one example for each of the `ExampleArrays`.

    Raises ValueError, TypeError or KeyError if a JSON value is not an example.
    """
    tokens, segments = value["tokens"], value["segment_ids"]
    positions, labels = value["masked_lm_positions"], value["masked_lm_labels"]
    is_random_next = value["is_random_next"]
    segment_a_length = segments.count(0)
    if (
        not tokens
        or segments != [0] * segment_a_length + [1] * (len(tokens) - segment_a_length)
        or len(positions) != len(labels)
        or not all(type(position) is int and 0 <= position < len(tokens) for position in positions)
        or not isinstance(is_random_next, bool)
    ):
        raise ValueError
    try:
        token_ids, label_ids = [ids[token] for token in tokens], [ids[label] for label in labels]
    except KeyError as error:
        raise _UnknownTokenError(*error.args) from None
    one_each = [len(tokens)], [segment_a_length], [is_random_next], [len(positions)]
    return token_ids, *one_each, positions, label_ids
