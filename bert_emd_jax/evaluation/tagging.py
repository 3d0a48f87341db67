"""The entities that a classifier of tokens finds in texts."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bert_emd_jax.data.entities import entities
from bert_emd_jax.encoding.token_rows import TokenRows, rows_of_words
from bert_emd_jax.tokenization.tokenizer import Tokenizer


class Entity(NamedTuple):
    """An entity in a text: its characters from `start` up to but without `end`; of a list of words its words.

    `probability` is the mean over its words of that of their labels.
    """

    text: str
    label: str
    start: int
    end: int
    probability: float


class Words(NamedTuple):
    """Texts cut into words: their rows, and the place of each word in its text."""

    rows: TokenRows
    spans: list[tuple[int, int]]


def words_of_texts(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> Words:
    """Returns the words of texts as the tokenizer finds them."""
    tokens: list[list[int]] = []
    spans: list[tuple[int, int]] = []
    counts: list[int] = []
    spelled = tokenizer.in_sentence(texts)
    for text, given, encoding in zip(texts, spelled, tokenizer.encode_with_offsets(spelled), strict=True):
        before = len(tokens)
        shift = len(given) - len(text)  # of the space before the first word
        known: int | None = None
        for index, word, (start, end) in zip(encoding.ids, encoding.word_ids, encoding.offsets, strict=True):
            if word is None or word != known:
                tokens.append([])
                spans.append((max(start - shift, 0), 0))
                known = word
            tokens[-1].append(index)
            spans[-1] = spans[-1][0], max(end - shift, 0)
        counts.append(len(tokens) - before)
    return Words(rows_of_words(tokenizer, tokens, np.cumsum([0, *counts]), max_length), spans)


def words_of_lists(tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], max_length: int) -> Words:
    """Returns words that are given as lists."""
    tokens = tokenizer.encode(tokenizer.in_sentence([word for words in sentences for word in words]))
    starts = np.cumsum([0, *map(len, sentences)])
    spans = [(number, number + 1) for words in sentences for number in range(len(words))]
    return Words(rows_of_words(tokenizer, tokens, starts, max_length), spans)


def found_entities(
    words: Words,
    probabilities: Float[np.ndarray, "words labels"],
    labels: Sequence[str],
    texts: Sequence[str] | Sequence[Sequence[str]],
) -> list[list[Entity]]:
    """Returns the entities of every text."""
    answers: Int[np.ndarray, " words"] = probabilities.argmax(axis=1)
    sure = probabilities.max(axis=1)
    found = []
    starts = words.rows.sentence_starts.tolist()
    for text, (first, last) in zip(texts, itertools.pairwise(starts), strict=True):
        of_text = []
        for kind, start, end in entities([str(labels[index]) for index in answers[first:last]]):
            low, high = words.spans[first + start][0], words.spans[first + end - 1][1]
            said = text[low:high] if isinstance(text, str) else " ".join(text[low:high])
            of_text.append(Entity(said, kind, low, high, float(sure[first + start : first + end].mean())))
        found.append(of_text)
    return found
