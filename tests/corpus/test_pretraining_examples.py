"""Corpora and pretraining examples, on text whose every word says where it stands."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from corpora import FIRST_WORD, SPECIALS, numbered_corpus, write_corpus
from hypothesis import given
from hypothesis import strategies as st

from bert_emd_jax.corpus import pretraining_examples
from bert_emd_jax.corpus.corpus import tokenize_corpus
from bert_emd_jax.corpus.pretraining_examples import ExampleSettings, block_examples, corpus_blocks
from bert_emd_jax.encoding.dataset import truncated_lengths
from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.tokenizer import Tokenizer


def all_examples(corpus, vocabulary, settings, epoch=0):
    """(ids, segment_a_length, is_random, original ids, masked) of every example."""
    for block, documents in enumerate(corpus_blocks(corpus)):
        for batch in block_examples(corpus, vocabulary, settings, epoch, block, documents):
            for row, length in enumerate(batch.lengths):
                yield (
                    batch.input_ids[row, :length],
                    int(batch.segment_a_lengths[row]),
                    bool(batch.is_random_next[row]),
                    batch.original_ids[row, :length],
                    batch.masked[row, :length],
                )
                assert not batch.masked[row, length:].any()


def segments(ids, segment_a_length):
    """Token positions of both segments; checks the special tokens around them."""
    assert ids[0] == 2
    assert ids[segment_a_length - 1] == 3
    assert ids[-1] == 3
    a, b = ids[1 : segment_a_length - 1] - FIRST_WORD, ids[segment_a_length:-1] - FIRST_WORD
    for segment in (a, b):
        assert (np.diff(segment) == 1).all()
        assert (segment >= 0).all()
    return a, b


# --- corpora


TEXT = "\ufeffthe cat\n sat \r\n\n\n \t\n\r\na dog\u2028on\n\x00\n\nthe mat"


@pytest.mark.parametrize("on_disk", [False, True])
def test_corpus_structure(tmp_path, tokenizer, on_disk):
    path = write_corpus(tmp_path, TEXT)
    directory = tmp_path / "store" if on_disk else None
    if directory:
        directory.mkdir()
    lines = []
    corpus = tokenize_corpus(path, tokenizer, directory, progress=lines.append)
    documents = [["the cat", "sat"], ["a dog on"], ["the mat"]]
    sentences = tokenizer.encode(list(itertools.chain.from_iterable(documents)))
    assert corpus.document_offsets.tolist() == [0, 2, 3, 4]
    assert corpus.sentence_offsets.tolist() == [0, *np.cumsum([len(sentence) for sentence in sentences])]
    assert corpus.tokens.tolist() == list(itertools.chain.from_iterable(sentences))
    assert corpus.tokens.dtype == np.uint16
    assert sum(lines) == 10
    assert isinstance(corpus.tokens, np.memmap) == on_disk


def test_a_corpus_longer_than_one_call(tmp_path, tokenizer):
    """Documents that go on from one batch of lines to the next are not cut."""
    sizes = [3000, 1, 5000, 4096, 17]
    text = "\n\n".join("\n".join(["the cat sat"] * size) for size in sizes)
    corpus = tokenize_corpus(write_corpus(tmp_path, text), tokenizer)
    assert np.diff(corpus.document_offsets).tolist() == sizes
    assert len(corpus.tokens) == 3 * sum(sizes)


def test_large_vocabularies_need_wider_numbers(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIALS, *(f"w{index}" for index in range(70_000))]))
    corpus = tokenize_corpus(write_corpus(tmp_path, "w69999 w1\n"), Tokenizer.from_directory(tmp_path))
    assert corpus.tokens.tolist() == [FIRST_WORD + 69_999, FIRST_WORD + 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no text in the corpus"),
        (b"\n \n\x00\n", "no text in the corpus"),
        (b"the cat\n\nb\xffd\n", r"corpus\.txt:3: byte 2 of the line is not valid UTF-8"),
    ],
)
def test_bad_corpora(tmp_path, tokenizer, content, message):
    with pytest.raises(UserError, match=message):
        tokenize_corpus(write_corpus(tmp_path, content), tokenizer)


# --- examples


@pytest.mark.parametrize("max_seq_len", [8, 32, 128])
@pytest.mark.parametrize("short_seq_prob", [0.0, 0.5])
def test_pairs_are_pairs(max_seq_len, short_seq_prob):
    corpus, vocabulary = numbered_corpus([7, 1, 2, 40, 90] * 20, [3, 11, 1, 6, 25])
    document_of = np.repeat(
        np.arange(corpus.document_count), np.diff(corpus.sentence_offsets[corpus.document_offsets])
    )
    sentence_starts = set(corpus.sentence_offsets.tolist())
    settings = ExampleSettings(max_seq_len=max_seq_len, short_seq_prob=short_seq_prob)
    kinds = Counter()
    for ids, segment_a_length, is_random, original, masked in all_examples(corpus, vocabulary, settings):
        assert len(ids) <= max_seq_len
        assert not masked.any()
        assert (ids == original).all()
        a, b = segments(ids, segment_a_length)
        assert len(a) > 0
        assert len(b) > 0
        assert len(set(document_of[a])) == len(set(document_of[b])) == 1
        assert is_random == (document_of[a[0]] != document_of[b[0]])
        if not is_random:
            assert a[-1] < b[0]
        if len(ids) < max_seq_len:  # nothing was popped
            assert a[0] in sentence_starts
            assert b[0] in sentence_starts
            assert a[-1] + 1 in sentence_starts
            if not is_random:
                assert b[0] == a[-1] + 1
        kinds[is_random] += 1
    assert min(kinds.values()) > 100


def test_no_sentence_is_lost():
    """Where whole documents fit, the first segments and the true nexts tile every document."""
    corpus, vocabulary = numbered_corpus([7, 1, 2, 4, 9] * 40, [3, 11, 1, 6, 25])
    settings = ExampleSettings(max_seq_len=600, short_seq_prob=0.0)
    covered = []
    for ids, segment_a_length, is_random, *_ in all_examples(corpus, vocabulary, settings):
        a, b = segments(ids, segment_a_length)
        covered += a.tolist() if is_random else [*a.tolist(), *b.tolist()]
    assert covered == list(range(len(corpus.tokens)))


def test_sentences_are_gathered_up_to_the_target():
    """One sentence less would not have reached it, as the accumulating loop would find.

    With `one_seq` what is gathered is split in two, and a period stands for a second text that is not there.
    """
    corpus, vocabulary = numbered_corpus([200] * 10, [3, 11, 1, 6, 25])
    offsets = corpus.sentence_offsets
    settings = ExampleSettings(max_seq_len=200, short_seq_prob=0.0, one_seq=True)
    expected = []
    for first, last in itertools.pairwise(corpus.document_offsets.tolist()):
        start = first
        while start < last:
            end, total = start, 0
            while end < last and total < settings.budget:
                total += int(offsets[end + 1] - offsets[end])
                end += 1
            expected.append((int(offsets[start]), int(offsets[end])))
            start = end
    found = []
    for (ids, segment_a_length, is_random, *_), (begin, end) in zip(
        all_examples(corpus, vocabulary, settings), expected, strict=True
    ):
        assert not is_random
        assert ids[segment_a_length - 1] == ids[-1] == vocabulary.sep_id
        a, b = ids[1 : segment_a_length - 1] - FIRST_WORD, ids[segment_a_length:-1] - FIRST_WORD
        assert begin <= a[0] <= a[-1] < end
        sentences = np.searchsorted(offsets, [begin, end])
        if sentences[1] - sentences[0] == 1:
            assert b.tolist() == [vocabulary.period_id - FIRST_WORD]
            assert len(a) == min(end - begin, settings.budget - 1)
        else:
            assert a[-1] < b[0] <= b[-1] < end
            assert len(a) + len(b) == min(end - begin, settings.budget)
        found.append(a[0] > begin)
    assert 0.2 < np.mean(found) < 1  # the popping takes from the front, too
    one_sentence, _ = numbered_corpus([1, 1], [3])
    ids, segment_a_length, *_ = next(iter(all_examples(one_sentence, vocabulary, settings)))
    assert (len(ids), segment_a_length) == (3 + 3 + 1, 5)


def test_random_documents_are_drawn_by_their_length():
    sizes = [1, 3, 6, 10, 980]
    corpus, vocabulary = numbered_corpus([*sizes, *[1] * 4000], [2])
    settings = ExampleSettings(max_seq_len=16, short_seq_prob=0.0)
    starts = []
    for ids, segment_a_length, is_random, *_ in all_examples(corpus, vocabulary, settings):
        a, b = segments(ids, segment_a_length)
        if is_random and a[0] >= 2 * sum(sizes):
            starts.append(b[0] // 2)
    starts = np.array(starts)
    assert len(starts) == 4000
    # Any sentence of the 4999 others is equally likely to be the first one.
    expected = 4000 * 980 / 4999
    assert abs((starts < sum(sizes)).sum() - 4000 * 1000 / 4999) < 4 * expected**0.5
    inside = starts[(starts >= 20) & (starts < 1000)] - 20
    assert abs(inside.mean() - 490) < 4 * 980 / (12 * len(inside)) ** 0.5


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=20), st.integers(2, 60)
)
def test_lengths_after_popping(lengths, budget):
    a, b = np.array(lengths).T
    zeros = np.zeros(len(a), np.int64)
    a_start, kept_a, b_start, kept_b = pretraining_examples._truncate(
        zeros, a, zeros, b, budget, np.random.default_rng(0)
    )
    assert list(zip(kept_a, kept_b, strict=True)) == [truncated_lengths(*pair, budget) for pair in lengths]
    assert (a_start + kept_a <= a).all()
    assert (b_start + kept_b <= b).all()


# --- masks


def quota_of(length, settings):
    return min(settings.max_predictions_per_seq, max(1, round(length * settings.masked_lm_prob)))


@pytest.mark.parametrize(("share", "most"), [(0.15, 20), (0.15, 5), (0.001, 20), (1.0, 1000), (0.5, 0)])
def test_masks(share, most):
    corpus, vocabulary = numbered_corpus([30] * 60, [3, 11, 1, 6, 25])
    settings = ExampleSettings(max_seq_len=64, masked_lm_prob=share, max_predictions_per_seq=most)
    fates = Counter()
    positions = []
    for ids, _, _, original, masked in all_examples(corpus, vocabulary, settings):
        candidates = int((original >= FIRST_WORD).sum())
        assert masked.sum() == min(quota_of(len(ids), settings) if most else 0, candidates)
        assert (original[masked] >= FIRST_WORD).all()
        assert (ids[~masked] == original[~masked]).all()
        for new, old in zip(ids[masked], original[masked], strict=True):
            fates["mask" if new == 4 else "same" if new == old else "other"] += 1
        positions += (np.flatnonzero(masked) / len(ids)).tolist()
    total = sum(fates.values())
    if most and total > 1000:
        for fate, expected in (("mask", 0.8), ("same", 0.1), ("other", 0.1)):
            assert abs(fates[fate] - expected * total) < 4 * (expected * (1 - expected) * total) ** 0.5
        assert abs(np.mean(positions) - 0.5) < 0.02
    if not most:
        assert total == 0


def test_whole_words_are_masked_or_left():
    corpus, vocabulary = numbered_corpus([30] * 60, [3, 11, 1, 6, 25])
    is_tail = np.random.default_rng(0).random(len(vocabulary.tokens)) < 0.6
    is_tail[:FIRST_WORD] = False
    tokens = [("##" if tail else "") + token for token, tail in zip(vocabulary.tokens, is_tail, strict=True)]
    vocabulary = dataclasses.replace(vocabulary, tokens=tokens)
    settings = ExampleSettings(max_seq_len=64, masked_lm_prob=0.15, do_whole_word_mask=True)
    partly = 0
    for ids, _, _, original, masked in all_examples(corpus, vocabulary, settings):
        words: list[list[int]] = []
        for position, token in enumerate(original):
            if token < FIRST_WORD:
                continue
            if is_tail[token] and original[position - 1] >= FIRST_WORD:
                words[-1].append(position)
            else:
                words.append([position])
        assert all(len(set(masked[word])) == 1 for word in words)
        quota = quota_of(len(ids), settings)
        room = quota - masked.sum()
        assert room >= 0
        # What is left would not have fitted.
        assert all(len(word) > room for word in words if not masked[word].any())
        partly += room > 0
    assert partly  # the rule for words that do not fit was at work
