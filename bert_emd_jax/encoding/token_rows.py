"""Sentences of words to model inputs: long ones by windows, so that no word is cut off."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Num

from bert_emd_jax.data.sentences import Sentences
from bert_emd_jax.encoding.dataset import SHORTEST, EncodedDataset
from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.tokenizer import Tokenizer

NO_LABEL = -100
"""The label of a token that is not learned from, as in transformers."""


@dataclasses.dataclass(frozen=True)
class TokenRows(EncodedDataset):
    """Rows whose tokens have labels. A sentence is one row, or several windows if it is long.

    Every word is learned and predicted in one row alone, at its first token.

    Attributes:
      labels: of all tokens, `NO_LABEL` for those that are not learned from; 0 for others if words have none.
      word_rows, word_positions: the row of every word, and the place of its first token there.
      word_labels: the index of every word's label, or None.
      sentence_starts: the number of each sentence's first word, and that of words.
    """

    labels: Int[np.ndarray, " tokens"] | None
    word_rows: Int[np.ndarray, " words"]
    word_positions: Int[np.ndarray, " words"]
    word_labels: Int[np.ndarray, " words"] | None
    sentence_starts: Int[np.ndarray, " sentences+1"]

    @property
    def predicted(self) -> int:
        return len(self.word_rows)

    def place(
        self,
        results: Num[np.ndarray, "words outputs"],
        rows: Int[np.ndarray, " rows"],
        outputs: Num[np.ndarray, "rows seq outputs"],
    ) -> None:
        order = np.full(len(self), -1)
        order[rows] = np.arange(len(rows))
        words = np.flatnonzero(order[self.word_rows] >= 0)
        results[words] = outputs[order[self.word_rows[words]], self.word_positions[words]]

    def padded_labels(self, rows: Int[np.ndarray, " rows"], length: int, count: int) -> np.ndarray:
        labels = np.full((count, length), NO_LABEL, np.int32)
        if self.labels is not None:
            for position, row in enumerate(rows.tolist()):
                of_row = self.labels[self.offsets[row] : self.offsets[row + 1]]
                labels[position, : len(of_row)] = of_row
        return labels


def encode_sentences(
    tokenizer: Tokenizer,
    sentences: Sentences,
    max_length: int,
    continued_labels: Int[np.ndarray, " labels"] | None = None,
) -> TokenRows:
    """Tokenises every word by itself, and puts sentences into rows of at most `max_length` tokens.

    Args:
      continued_labels: of every label the one that the further tokens of a word get; None: these are not
        learned from.
    """
    words = [word for words in sentences.words for word in words]
    tokens = tokenizer.encode(tokenizer.in_sentence(words))
    return rows_of_words(tokenizer, tokens, sentences.starts, max_length, sentences.labels, continued_labels)


def rows_of_words(
    tokenizer: Tokenizer,
    tokens: Sequence[list[int]],
    starts: Int[np.ndarray, " sentences+1"],
    max_length: int,
    word_labels: Int[np.ndarray, " words"] | None = None,
    continued_labels: Int[np.ndarray, " labels"] | None = None,
) -> TokenRows:
    """The same of words that are tokens already.

    Args:
      tokens: of every word.
      starts: the number of each sentence's first word, and that of words.
    """
    if max_length < SHORTEST:
        raise UserError(f"--max_seq_length {max_length}: too short; it must be at least {SHORTEST}")
    budget = max_length - 2
    # A word of which nothing is left, such as a control character, is unknown; no word fills several rows.
    tokens = [ids[:budget] or [tokenizer.unk_id] for ids in tokens]
    token_ids: list[int] = []
    labels: list[int] = []
    lengths: list[int] = []
    word_rows, word_positions = np.zeros(len(tokens), np.int32), np.zeros(len(tokens), np.int32)
    for first, last in itertools.pairwise(starts.tolist()):
        for window in windows([len(ids) for ids in tokens[first:last]], budget):
            row = [tokenizer.cls_id]
            row_labels = [NO_LABEL]
            for word in range(first + window.start, first + window.end):
                label = further = NO_LABEL
                if first + window.owned_start <= word < first + window.owned_end:
                    word_rows[word], word_positions[word] = len(lengths), len(row)
                    label = 0  # of words without labels: where a teacher is listened to
                    if word_labels is not None:
                        label = int(word_labels[word])
                        further = NO_LABEL if continued_labels is None else int(continued_labels[label])
                row_labels += [label, *[further] * (len(tokens[word]) - 1)]
                row += tokens[word]
            token_ids += [*row, tokenizer.sep_id]
            labels += [*row_labels, NO_LABEL]
            lengths.append(len(row) + 1)
    return TokenRows(
        token_ids=np.array(token_ids, np.int32),
        offsets=np.cumsum([0, *lengths]),
        segment_a_lengths=np.array(lengths, np.int32),
        labels=np.array(labels, np.int32),
        pad_id=tokenizer.pad_id,
        word_rows=word_rows,
        word_positions=word_positions,
        word_labels=word_labels,
        sentence_starts=starts,
    )


@dataclasses.dataclass(frozen=True)
class Window:
    """The words from `start` up to but without `end` of a sentence, some of which are its own to predict."""

    start: int
    end: int
    owned_start: int
    owned_end: int


def windows(counts: Sequence[int], budget: int) -> list[Window]:
    """Returns the windows of a sentence: the whole one if it fits, else such as overlap by half.

    Of the words in two windows each one owns the half where it has more of the sentence around it.

    Args:
      counts: tokens of every word, each at most `budget`.
      budget: tokens of a window.
    """
    before = np.cumsum([0, *counts])
    spans: list[tuple[int, int]] = []
    start = end = 0
    while end < len(counts) or not spans:
        end = int(np.searchsorted(before, before[start] + budget, side="right")) - 1
        spans.append((start, end))
        # The next window begins where half of this one is left, and takes at least one more word.
        half = int(np.searchsorted(before, before[end] - budget // 2))
        start = max(half, start + 1)
        while end < len(counts) and before[end + 1] - before[start] > budget:
            start += 1
    cuts = [0]
    for (_, end), (start, _) in itertools.pairwise(spans):
        middle = (before[start] + before[end]) / 2
        cuts.append(min(max(int(np.searchsorted(before, middle)), start), end))
    cuts.append(len(counts))
    return [
        Window(start, end, owned_start, owned_end)
        for (start, end), (owned_start, owned_end) in zip(spans, itertools.pairwise(cuts), strict=True)
    ]


def continued(labels: Sequence[str]) -> Int[np.ndarray, " labels"]:
    """Returns the label of the further tokens of a word, for every label: I-X for B-X if there is one."""
    index = {label: number for number, label in enumerate(labels)}
    inside = (f"I-{label[2:]}" if label.startswith("B-") else label for label in labels)
    return np.array([index.get(label, own) for own, label in enumerate(inside)])
