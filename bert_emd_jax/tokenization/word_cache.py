"""A cache of the token ids of words, since most words of a text have occurred before.

A WordPiece tokenizer like BERT's treats each stretch of text between two spaces independently, and in plain
ASCII each run of letters and digits and each other character. So their token ids are cached, and looked
up for a whole batch of texts with a few array operations. What is not plain ASCII is cached as the whole
stretch between two spaces that contains it.
"""

import itertools
from array import array
from collections.abc import Iterator, Sequence

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import models, normalizers, pre_tokenizers

_MOST_WORDS = 1 << 20
_MOST_CHARACTERS = 1 << 24
_CHARACTERS_AT_ONCE = 1 << 18  # fits into the processor's caches

_SEPARATOR = b"\xff"  # between texts: no byte of UTF-8
_SPACE, _LETTER, _PUNCTUATION, _ODD = range(4)
_KINDS = np.full(256, _ODD, np.uint8)
_KINDS[0x21:0x7F] = _PUNCTUATION
_KINDS[[*b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"]] = _LETTER
_KINDS[[*b" \t\n\r", *_SEPARATOR]] = _SPACE

_KEY_BYTES = 16  # of words that are looked up by array operations
_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
_SLOT_BITS = 18
_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)


class WordCache:
    """The token ids of words; the tokenizer is called only for new ones."""

    def __init__(self, backend: tokenizers.Tokenizer):
        self._backend = backend
        self._model = backend.model
        self._lowercase = backend.normalizer.lowercase
        self._added = [
            token.content.lower().encode() for token in backend.get_added_tokens_decoder().values()
        ]
        self._forget()

    @staticmethod
    def suits(backend: tokenizers.Tokenizer) -> bool:
        """Whether a tokenizer treats each word independently, as BERT's does."""
        added = [token.content for token in backend.get_added_tokens_decoder().values()]
        return (
            isinstance(backend.model, models.WordPiece)
            and isinstance(backend.normalizer, normalizers.BertNormalizer)
            and isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
            and all(content.isascii() and " " not in content for content in added)
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the token ids of every text."""
        flat, counts = self.encode_flat(texts)
        ids = flat.tolist()
        ends = [0, *np.cumsum(counts).tolist()]
        return [ids[start:end] for start, end in itertools.pairwise(ends)]

    def encode_flat(
        self, texts: Sequence[str]
    ) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " texts"]]:
        """Returns the token ids of all texts, concatenated, int32, and their number in each text, int64."""
        parts = [self._encode_chunk(chunk) for chunk in _chunks(texts)]
        if not parts:
            return np.zeros(0, np.int32), np.zeros(0, np.int64)
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([counts for _, counts in parts])

    def _encode_chunk(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if len(self._numbers) > _MOST_WORDS or self._characters > _MOST_CHARACTERS:
            self._forget()
        encoded = [text.encode() for text in texts]
        joined = _SEPARATOR.join([b"", *encoded, bytes(_KEY_BYTES)])  # a key is read beyond the last word
        text = np.frombuffer(joined, np.uint8, len(joined) - _KEY_BYTES)
        kinds = _KINDS[text]
        starts, numbers = self._odd_words(joined, text, kinds)
        plain_starts, plain_numbers = self._plain_words(joined, kinds)
        if len(starts):
            starts = np.concatenate([starts, plain_starts])
            order = np.argsort(starts, kind="stable")
            starts, numbers = starts[order], np.concatenate([numbers, plain_numbers])[order]
        else:
            starts, numbers = plain_starts, plain_numbers
        offsets = np.frombuffer(self._offsets, np.int64)
        first_ids = offsets[numbers]
        counts = offsets[numbers + 1] - first_ids
        ends = np.concatenate([[0], np.cumsum(counts)])
        indices = np.repeat(first_ids - ends[:-1], counts) + np.arange(ends[-1])
        text_starts = np.cumsum([0, *(len(one) + 1 for one in encoded)])
        text_ends = ends[np.searchsorted(starts, text_starts)]
        return np.frombuffer(self._token_ids, np.int32)[indices], np.diff(text_ends)

    def _odd_words(self, joined: bytes, text: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns starts and numbers of the words with odd characters; marks these as space in `kinds`.

        Such a word is the whole stretch between two spaces.
        """
        lowered = joined.lower()
        added = [start for token in self._added for start in _occurrences(lowered, token)]
        odd = np.concatenate([np.flatnonzero(kinds == _ODD), np.array(added, np.int64)])
        if not len(odd):
            return odd, odd
        spaces = np.flatnonzero((text == ord(" ")) | (text == _SEPARATOR[0]))
        after = np.unique(np.searchsorted(spaces, odd))
        starts, ends = spaces[after - 1] + 1, spaces[after]
        depth = np.zeros(len(text), np.int8)
        depth[starts] = 1
        depth[ends] = -1
        kinds[np.cumsum(depth, dtype=np.int8) > 0] = _SPACE
        words = (
            joined[start:end].decode() for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        )
        numbers = [self._number(word, False) for word in words]
        return starts, np.array(numbers, np.int64)

    def _plain_words(self, joined: bytes, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns starts and numbers of the runs of letters and digits and of the punctuation."""
        if self._lowercase:
            joined = joined.lower()
        letters, punctuation = kinds == _LETTER, kinds == _PUNCTUATION
        starts = np.flatnonzero(punctuation[1:] | (letters[1:] & ~letters[:-1])) + 1
        ends = np.flatnonzero(punctuation[:-1] | (letters[:-1] & ~letters[1:])) + 1
        lengths = ends - starts
        eight_bytes = np.ndarray(len(joined) - 7, "<u8", joined, strides=(1,))  # starting at every byte
        low = eight_bytes[starts] & _FIRST_BYTES[np.minimum(lengths, 8)]
        high = eight_bytes[starts + 8] & _FIRST_BYTES[np.clip(lengths - 8, 0, 8)]
        slots = ((low + high * _MULTIPLIERS[1]) * _MULTIPLIERS[0]) >> np.uint64(64 - _SLOT_BITS)
        numbers = self._slot_numbers[slots]
        short = lengths <= _KEY_BYTES
        missing = np.flatnonzero((self._slot_low[slots] != low) | (self._slot_high[slots] != high) | ~short)
        numbers[missing] = [
            self._number(joined[start:end].decode(), True)
            for start, end in zip(starts[missing].tolist(), ends[missing].tolist(), strict=True)
        ]
        # The first word keeps a slot: it is more often than not a frequent one.
        new = missing[(self._slot_numbers[slots[missing]] < 0) & short[missing]]
        self._slot_low[slots[new]] = low[new]
        self._slot_high[slots[new]] = high[new]
        self._slot_numbers[slots[new]] = numbers[new]
        return starts, numbers

    def _number(self, word: str, is_plain: bool) -> int:
        """Returns the number of a word, after encoding it if it is new."""
        number = self._numbers.get(word)
        if number is None:
            if is_plain:  # only the model changes such a word, and calling it alone is faster
                self._token_ids.extend(token.id for token in self._model.tokenize(word))
            else:
                self._token_ids.extend(self._backend.encode(word, add_special_tokens=False).ids)
            self._offsets.append(len(self._token_ids))
            self._characters += len(word)
            self._numbers[word] = number = len(self._offsets) - 2
        return number

    def _forget(self) -> None:
        # Word n has token_ids[offsets[n]:offsets[n + 1]].
        self._numbers: dict[str, int] = {}
        self._token_ids = array("i")
        self._offsets = array("q", [0])
        self._characters = 0
        # A hash table of words by their bytes; a word whose slot is taken is not in it.
        self._slot_low = np.zeros(1 << _SLOT_BITS, np.uint64)
        self._slot_high = np.zeros(1 << _SLOT_BITS, np.uint64)
        self._slot_numbers = np.full(1 << _SLOT_BITS, -1, np.int64)


def _chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yields the texts in chunks of about `_CHARACTERS_AT_ONCE`."""
    begin = 0
    characters = 0
    for end, text in enumerate(texts, start=1):
        characters += len(text)
        if characters > _CHARACTERS_AT_ONCE:
            yield texts[begin:end]
            begin, characters = end, 0
    if begin < len(texts):
        yield texts[begin:]


def _occurrences(text: bytes, wanted: bytes) -> Iterator[int]:
    start = text.find(wanted)
    while start >= 0:
        yield start
        start = text.find(wanted, start + 1)
