"""Word vectors from a text file (GloVe, word2vec, fastText), and the nearest neighbours of a word."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from bert_emd_jax.errors import UserError
from bert_emd_jax.tables.rows import decoded_lines

logger = logging.getLogger(__name__)

_QUERIES_AT_ONCE = 64
# Bad lines that a file may have: so many, and this share of those read.
_MOST_SKIPPED = 10
_SHARE_SKIPPED = 0.001


class WordVectors:
    """Words of letters and their vectors, scaled to length 1; numbers and punctuation are left out."""

    def __init__(self, words: Sequence[str], vectors: Float[np.ndarray, "words dim"]):
        """Of a repeated word the last vector counts, as in TinyBERT's program; zeros have no neighbours."""
        self._words = list(words)
        self._index = {word: index for index, word in enumerate(words)}
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        self._units = vectors / np.where(lengths > 0, lengths, 1)
        is_last = np.array([self._index[word] == index for index, word in enumerate(words)], bool)
        self._has_direction = (lengths[:, 0] > 0) & is_last

    @classmethod
    def from_file(cls, path: Path, most_words: int = 0) -> "WordVectors":
        """Reads lines of `word v1 … vd`; a first line of two integers, as word2vec writes it, is skipped.

        Others that are no such line (cut off, NaN) are skipped and counted in the log.

        Args:
          most_words: reads only so many lines, those of the most frequent words; 0 reads all.

        Raises:
          UserError: no such file, no words in it, or more than a few lines of another kind.
        """
        if not path.is_file():
            raise UserError(f"{path}: no such file; word vectors are lines of a word and its numbers")
        words: list[str] = []
        vectors: list[np.ndarray] = []
        skipped: list[str] = []
        dimension = 0
        lines_read = 0
        for number, text in decoded_lines(path):
            text = text.rstrip(" \r\n")
            if not text or (number == 1 and _is_header(text)):
                continue
            # A word may hold spaces, as ". . ." in the largest file of GloVe: numbers are split off the end.
            dimension = dimension or len(text.split(" ")) - 1
            word, *numbers = text.rsplit(" ", dimension)
            vector = _numbers(numbers)
            too_many = " " in word and _numbers(word.split(" ")[-1:]) is not None
            if not word or vector is None or len(vector) != dimension or not dimension or too_many:
                wanted = f"a word and {dimension} numbers" if dimension else "a word and its numbers"
                skipped.append(f"{path}:{number}: {text[:40]!r}: not {wanted}")
                if len(skipped) > _MOST_SKIPPED + lines_read * _SHARE_SKIPPED:
                    raise UserError(f"{skipped[0]}, nor are others; correct or delete the lines")
                continue
            if word.isalpha():
                words.append(word)
                vectors.append(vector)
            lines_read += 1
            if lines_read == most_words:
                break
        if skipped:
            logger.warning("%s; lines skipped: %d", skipped[0], len(skipped))
        if not words:
            raise UserError(f"{path}: holds no word vectors; each line is a word and its numbers")
        return cls(words, np.stack(vectors))

    def __len__(self) -> int:
        return len(self._words)

    def neighbours(self, words: Sequence[str], count: int) -> list[list[str]]:
        """Returns for each word the `count` others of the largest cosine, nearest first; [] if it is unknown.

        A word that is not there as written is looked up in lower case.
        """
        indices = [self._index.get(word, self._index.get(word.lower(), -1)) for word in words]
        found: list[list[str]] = [[] for _ in words]
        known = [number for number, index in enumerate(indices) if index >= 0 and self._has_direction[index]]
        for start in range(0, len(known), _QUERIES_AT_ONCE):
            part = known[start : start + _QUERIES_AT_ONCE]
            own = np.array([indices[number] for number in part])
            cosines = self._units[own] @ self._units.T
            cosines[:, ~self._has_direction] = -np.inf
            cosines[np.arange(len(part)), own] = -np.inf
            for number, row in zip(part, cosines, strict=True):
                found[number] = [self._words[index] for index in _largest(row, count)]
        return found


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Returns the indices of the `count` largest finite values, largest first, equal ones in order."""
    if count < len(values):
        threshold = np.partition(values, -count)[-count]
        indices = np.flatnonzero(values >= threshold)
    else:
        indices = np.arange(len(values))
    indices = indices[np.isfinite(values[indices])]
    return indices[np.argsort(-values[indices], kind="stable")][:count]


def _is_header(text: str) -> bool:
    fields = text.split(" ")
    return len(fields) == 2 and all(field.isdecimal() for field in fields)


def _numbers(fields: Sequence[str]) -> np.ndarray | None:
    """Returns the numbers as float32; None if one is not a number or not finite."""
    try:
        vector = np.array(fields, np.float32)
    except ValueError:
        return None
    return vector if np.isfinite(vector).all() else None
