"""Piece ids of words that were seen before: most words of a text were.

A WordPiece tokenizer treats what stands between two spaces by itself, so that its pieces can be
remembered. Looking them up takes a third of the time of tokenising them again.
"""

import re
from collections.abc import Sequence
from itertools import chain

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

_MOST_WORDS = 1 << 20
_LONGEST_WORD = 200  # longer ones hardly come twice
_ASCII_WORDS = re.compile("[A-Za-z0-9]+|[^A-Za-z0-9]")


class WordCache(dict[str, tuple[int, ...]]):
    """Maps a text without spaces to its piece ids, asking the tokenizer for those it has not seen."""

    def __init__(self, backend: tokenizers.Tokenizer):
        super().__init__()
        self._backend = backend
        added = [token.content.lower() for token in backend.get_added_tokens_decoder().values()]
        self._added = re.compile("|".join(map(re.escape, added)) or "(?!)")

    @staticmethod
    def suits(backend: tokenizers.Tokenizer) -> bool:
        """Whether a tokenizer works word by word, as BERT's does."""
        return (
            isinstance(backend.model, models.WordPiece)
            and isinstance(backend.normalizer, normalizers.BertNormalizer)
            and isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
            and not any(" " in token.content for token in backend.get_added_tokens_decoder().values())
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The piece ids of every text."""
        if len(self) > _MOST_WORDS:
            self.clear()
        lookup = self.__getitem__
        return [list(chain.from_iterable(map(lookup, text.split(" ")))) for text in texts]

    def __missing__(self, word: str) -> tuple[int, ...]:
        parts = self._split(word)
        if len(parts) > 1:
            ids = tuple(chain.from_iterable(map(self.__getitem__, parts)))
        else:
            ids = tuple(self._backend.encode(word, add_special_tokens=False).ids)
        if len(word) <= _LONGEST_WORD:
            self[word] = ids
        return ids

    def _split(self, word: str) -> list[str]:
        """The parts that the tokenizer makes of a word of plain ASCII; it splits all others itself."""
        if not (word.isascii() and word.isprintable()) or self._added.search(word.lower()):
            return [word]
        return _ASCII_WORDS.findall(word)
