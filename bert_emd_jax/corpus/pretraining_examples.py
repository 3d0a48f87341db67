"""Makes pretraining examples from a corpus: sentence pairs with masked tokens.

The corpus is processed in blocks of documents. A block's examples are a function of (seed, epoch, block),
so the result does not depend on the number of workers.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from bert_emd_jax.corpus.corpus import Corpus
from bert_emd_jax.tokenization.pair_form import BERT_PAIRS, PairForm
from bert_emd_jax.tokenization.tokenizer import Tokenizer

_SENTENCES_IN_BLOCK = 8192
_DOCUMENTS_AT_ONCE = 1 << 16
_CELLS_AT_ONCE = 1 << 16  # examples times their longest length
_WORD_BITS = np.uint64(0xFFFF)  # there are at most 65536 words in an example
_MASK_SHARE, _KEEP_SHARE = 0.8, 0.1  # the other chosen tokens become a random one


@dataclass(frozen=True)
class ExampleSettings:
    """The settings of the examples, by the names of the flags."""

    max_seq_len: int = 128
    short_seq_prob: float = 0.1
    masked_lm_prob: float = 0.0
    max_predictions_per_seq: int = 20
    do_whole_word_mask: bool = False
    one_seq: bool = False
    seed: int = 0

    @property
    def budget(self) -> int:
        """Tokens of an example without the special tokens of BERT's pairs."""
        return self.max_seq_len - 3


@dataclass(frozen=True)
class Vocabulary:
    """The part of a tokenizer that making examples needs; it is sent to worker processes.

    `tokens` has the token of every id. Those that begin a word start with `word_start`; None: ## marks those
    that do not. `pairs` is how two texts are put together.
    """

    tokens: list[str]
    cls_id: int
    sep_id: int
    mask_id: int
    word_start: str | None = None
    unk_id: int = 1
    pairs: PairForm = BERT_PAIRS

    @cached_property
    def period_id(self) -> int:
        """The token that stands for a second text where there is none."""
        period = f"{self.word_start or ''}."
        return next(
            (self.tokens.index(token) for token in (period, ".") if token in self.tokens), self.unk_id
        )

    @cached_property
    def continues_word(self) -> Bool[np.ndarray, " vocab"]:
        """Whether each token is a word's second or later one."""
        if self.word_start is None:
            return np.array([token.startswith("##") for token in self.tokens])
        return np.array([not token.startswith(self.word_start) for token in self.tokens])

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Vocabulary":
        """Returns the vocabulary of a tokenizer."""
        specials = tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id
        return cls(tokenizer.tokens(), *specials, tokenizer.word_start, tokenizer.unk_id, tokenizer.pairs)


@dataclass(frozen=True)
class ExampleBatch:
    """Examples as arrays, zero beyond each row's length.

    `input_ids` have the masks applied, `original_ids` do not; `masked` marks the positions to predict.
    """

    input_ids: Int[np.ndarray, "rows length"]
    original_ids: Int[np.ndarray, "rows length"]
    masked: Bool[np.ndarray, "rows length"]
    lengths: Int[np.ndarray, " rows"]
    segment_a_lengths: Int[np.ndarray, " rows"]
    is_random_next: Bool[np.ndarray, " rows"]


def corpus_blocks(corpus: Corpus) -> list[tuple[int, int]]:
    """Returns ranges of documents with about equally many sentences, a function of the corpus alone."""
    ends: list[int] = []
    for first in range(0, corpus.document_count, _DOCUMENTS_AT_ONCE):
        # One document more, to see whether it begins a block.
        sentences = np.asarray(corpus.document_offsets[first + 1 : first + _DOCUMENTS_AT_ONCE + 2])
        ends += (np.flatnonzero(np.diff(sentences // _SENTENCES_IN_BLOCK)) + first + 1).tolist()
    ends.append(corpus.document_count)
    return list(zip([0, *ends[:-1]], ends, strict=True))


def block_examples(
    corpus: Corpus,
    vocabulary: Vocabulary,
    settings: ExampleSettings,
    epoch: int,
    block: int,
    documents: tuple[int, int],
) -> Iterator[ExampleBatch]:
    """Yields the examples of one block of documents, in their order, in batches."""
    generator = np.random.default_rng((settings.seed, epoch, block, 1))
    draw = _uniforms(np.random.default_rng((settings.seed, epoch, block, 0)))
    batch_size = max(1, _CELLS_AT_ONCE // settings.max_seq_len)
    spans: list[tuple[int, int, int, int, int]] = []
    for document in range(*documents):
        for span in _document_spans(corpus, document, settings, draw):
            spans.append(span)
            if len(spans) == batch_size:
                yield _make_batch(corpus, vocabulary, settings, generator, spans)
                spans = []
    if spans:
        yield _make_batch(corpus, vocabulary, settings, generator, spans)


def _uniforms(generator: np.random.Generator) -> Iterator[float]:
    """Yields uniform numbers without end, many times faster than one call of the generator for each."""
    while True:
        yield from generator.random(4096).tolist()


def _document_spans(
    corpus: Corpus, document: int, settings: ExampleSettings, draw: Iterator[float]
) -> Iterator[tuple[int, int, int, int, int]]:
    """Yields the examples of a document as positions in the corpus.

    (first token of a, its end, first token of b, its end, -1), or with a random next:
    (first token of a, its end, -1, tokens wanted of b, first sentence of b).

    With `one_seq` the next is never random, and empty if there is but one sentence.
    """
    first, last = (int(offset) for offset in corpus.document_offsets[document : document + 2])
    offsets = corpus.sentence_offsets[first : last + 1]
    if len(offsets) < 1_000_000:
        offsets = offsets.tolist()  # faster, but a giant document would fill the memory
    count = last - first
    others = corpus.sentence_count - count
    target = settings.budget
    if next(draw) < settings.short_seq_prob:
        target = 2 + int(next(draw) * (target - 1))
    start = 0
    while start < count:
        # As many sentences as it takes to reach the target, or all that are left.
        end = min(max(bisect_left(offsets, offsets[start] + target, start, count), start + 1), count)
        begin = int(offsets[start])
        middle = start + 1 + int(next(draw) * (end - start - 1))
        stop = int(offsets[middle])
        if not settings.one_seq and (end - start == 1 or next(draw) < 0.5):
            # Any sentence of another document, uniformly.
            sentence = int(next(draw) * others)
            yield (
                begin,
                stop,
                -1,
                target - (stop - begin),
                sentence + count if sentence >= first else sentence,
            )
            start = middle  # the next example starts with the unused sentences
        else:
            yield begin, stop, stop, int(offsets[end]), -1
            start = end


def _make_batch(
    corpus: Corpus,
    vocabulary: Vocabulary,
    settings: ExampleSettings,
    generator: np.random.Generator,
    spans: list[tuple[int, int, int, int, int]],
) -> ExampleBatch:
    a_start, a_stop, b_start, b_stop, random_sentence = np.array(spans, np.int64).T
    is_random = random_sentence >= 0
    if is_random.any():
        starts, stops = _random_next(corpus, random_sentence[is_random], b_stop[is_random])
        b_start[is_random], b_stop[is_random] = starts, stops
    is_alone = b_stop == b_start  # a period stands for the second text, as in TinyBERT's program
    a_start, a_length, b_start, b_length = _truncate(
        *(a_start, a_stop - a_start, b_start, b_stop - b_start + is_alone),
        settings.max_seq_len - vocabulary.pairs.specials,
        generator,
    )
    lengths = a_length + b_length + vocabulary.pairs.specials
    positions = np.arange(lengths.max())
    a_end = a_length[:, None]
    b_begin = a_end + 1 + vocabulary.pairs.separators
    source = np.where(
        positions <= a_end, a_start[:, None] + positions - 1, b_start[:, None] + positions - b_begin
    )
    valid = positions < lengths[:, None]
    separates = (positions > a_end) & (positions < b_begin)
    special = (positions == 0) | separates | (positions == lengths[:, None] - 1)
    is_text = valid & ~special
    original = np.zeros(valid.shape, np.int32)
    original[is_text] = corpus.tokens[np.minimum(source[is_text], len(corpus.tokens) - 1)]
    original[is_alone, b_begin[is_alone, 0]] = vocabulary.period_id
    original[special & valid] = vocabulary.sep_id
    original[:, 0] = vocabulary.cls_id
    candidates = is_text & (original != vocabulary.cls_id) & (original != vocabulary.sep_id)
    masked = _choose_masked(original, candidates, lengths, vocabulary, settings, generator)
    return ExampleBatch(
        input_ids=_apply_masks(original, masked, vocabulary, generator),
        original_ids=original,
        masked=masked,
        lengths=lengths,
        segment_a_lengths=b_begin[:, 0] if vocabulary.pairs.has_segments else lengths,
        is_random_next=is_random,
    )


def _random_next(corpus: Corpus, sentence: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns token ranges from the given sentences until `wanted` tokens or the end of the document."""
    document = np.searchsorted(corpus.document_offsets, sentence, side="right")
    starts = corpus.sentence_offsets[sentence]
    enough = np.searchsorted(corpus.sentence_offsets, starts + wanted)
    ends = np.minimum(np.maximum(enough, sentence + 1), corpus.document_offsets[document])
    return starts, corpus.sentence_offsets[ends]


def _truncate(
    a_start: np.ndarray,
    a_length: np.ndarray,
    b_start: np.ndarray,
    b_length: np.ndarray,
    budget: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Truncates both sides as popping from the longer one would, each time from a random end."""
    fits = a_length + b_length <= budget
    kept_a = np.where(fits, a_length, np.minimum(a_length, np.maximum(budget - b_length, (budget + 1) // 2)))
    kept_b = np.minimum(b_length, budget - kept_a)
    a_start = a_start + generator.binomial(a_length - kept_a, 0.5)
    b_start = b_start + generator.binomial(b_length - kept_b, 0.5)
    return a_start, kept_a, b_start, kept_b


def _choose_masked(
    ids: np.ndarray,
    candidates: np.ndarray,
    lengths: np.ndarray,
    vocabulary: Vocabulary,
    settings: ExampleSettings,
    generator: np.random.Generator,
) -> np.ndarray:
    """Chooses the positions to predict, bool `[n, length]`: words in random order that fit into the quota."""
    if settings.masked_lm_prob <= 0 or settings.max_predictions_per_seq <= 0:
        return np.zeros(ids.shape, bool)
    quota = np.maximum(1, np.rint(lengths * settings.masked_lm_prob))
    quota = np.minimum(quota, settings.max_predictions_per_seq).astype(np.int64)
    starts_word = candidates.copy()
    if settings.do_whole_word_mask:
        starts_word[:, 1:] &= ~(vocabulary.continues_word[ids[:, 1:]] & candidates[:, :-1])
    rows, length = ids.shape
    word = np.where(candidates, np.cumsum(starts_word, axis=1) - 1, length)
    cells = word + (length + 1) * np.arange(rows)[:, None]
    sizes = np.bincount(cells.ravel(), minlength=rows * (length + 1)).reshape(rows, length + 1)
    words = starts_word.sum(1)
    # Random numbers with the word in their lowest bits: sorting these is faster than an argsort.
    keys = generator.integers(0, 1 << 64, (rows, length), np.uint64) & ~_WORD_BITS | np.arange(
        length, dtype=np.uint64
    )
    keys[np.arange(length) >= words[:, None]] = ~np.uint64(0)
    order = np.minimum(np.sort(keys, axis=1) & _WORD_BITS, np.uint64(length)).astype(np.int64)
    chosen = np.zeros((rows, length + 1), bool)
    room = np.minimum(quota, candidates.sum(1))
    every_row = np.arange(rows)
    for rank in range(int(words.max(initial=0))):
        candidate = order[:, rank]
        size = sizes[every_row, candidate]
        takes = (rank < words) & (size <= room)
        chosen[every_row[takes], candidate[takes]] = True
        room = room - np.where(takes, size, 0)
        if not room.any():
            break
    return chosen[every_row[:, None], word] & candidates


def _apply_masks(
    original: np.ndarray, masked: np.ndarray, vocabulary: Vocabulary, generator: np.random.Generator
) -> np.ndarray:
    ids = original.copy()
    count = int(masked.sum())
    fate = generator.random(count)
    replacement = np.where(
        fate < _MASK_SHARE, vocabulary.mask_id, generator.integers(0, len(vocabulary.tokens), count, np.int32)
    )
    kept = (fate >= _MASK_SHARE) & (fate < _MASK_SHARE + _KEEP_SHARE)
    ids[masked] = np.where(kept, original[masked], replacement)
    return ids
