"""Remembered words: tables that are full, tables that are emptied, and who may have one."""

import numpy as np
import pytest
from tokenizers import AddedToken

from bert_emd_jax.tokenization import word_cache
from bert_emd_jax.tokenization.tokenizer import Tokenizer
from bert_emd_jax.tokenization.word_cache import WordCache


@pytest.fixture
def backend(vocabulary_directory):
    return Tokenizer.from_directory(vocabulary_directory)._backend


def random_texts(seed: int) -> list[str]:
    """Few long words with the same beginning, many short ones, some that are not plain."""
    generator = np.random.default_rng(seed)
    words = [
        "the",
        "cat,",
        "x" * 8,
        "x" * 16,
        "x" * 17,
        "x" * 101,
        "CAFÉ",
        "caf\x00e",
        "[sep]",
        "a-b.c",
        "",
        "\t",
    ]
    words += ["".join(generator.choice(list("ab1"), size)) for size in range(1, 40)]
    return [" ".join(generator.choice(words, size)) for size in generator.integers(0, 30, 100)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("_SLOT_BITS", 2), ("_MOST_WORDS", 5), ("_MOST_CHARACTERS", 100), ("_CHARACTERS_AT_ONCE", 50)],
)
def test_small_tables(backend, monkeypatch, name, value):
    monkeypatch.setattr(word_cache, name, value)
    cache = WordCache(backend)
    for seed in range(3):
        texts = random_texts(seed)
        expected = [encoding.ids for encoding in backend.encode_batch(texts, add_special_tokens=False)]
        assert cache.encode(texts) == expected
        flat, counts = cache.encode_flat(texts)
        assert flat.tolist() == [index for ids in expected for index in ids]
        assert counts.tolist() == [len(ids) for ids in expected]


def test_no_texts(backend):
    cache = WordCache(backend)
    assert cache.encode([]) == []
    assert cache.encode(["", " "]) == [[], []]


def test_added_tokens_that_a_plain_word_may_contain(backend):
    """The library takes the accent off the token as well, and finds it in words without one."""
    backend.add_tokens([AddedToken("café", normalized=True)])
    assert not WordCache.suits(backend)
