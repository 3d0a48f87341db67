"""Cached tokens: equal to fresh ones, never those of other texts, and never in the way."""

import os
import re

import numpy as np
import pytest

from bert_emd_jax.data.examples import Examples
from bert_emd_jax.encoding import token_cache
from bert_emd_jax.encoding.dataset import encode_examples
from bert_emd_jax.encoding.token_cache import cached_encoding
from bert_emd_jax.tokenization.tokenizer import Tokenizer


@pytest.fixture(autouse=True)
def few_rows_are_enough(monkeypatch):
    monkeypatch.setattr(token_cache, "_FEWEST_ROWS", 2)


def examples(texts_a, texts_b=None, labels=None):
    count = np.arange(len(texts_a))
    return Examples(texts_a, texts_b, labels, count, [str(row) for row in count], None)


def same(a, b) -> None:
    for name in ("token_ids", "offsets", "segment_a_lengths"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.pad_id == b.pad_id


ROWS = examples(["the cat", "", "a dog sat"], ["on", "the mat", "中 café"], np.array([1, 0, 1], np.int32))


def test_the_second_time_nothing_is_tokenised(tokenizer, tmp_path, monkeypatch):
    fresh = encode_examples(tokenizer, ROWS, 16)
    same(cached_encoding(tokenizer, ROWS, 16, tmp_path / "new" / "cache"), fresh)
    monkeypatch.setattr(token_cache, "encode_examples", None)
    other_labels = examples(ROWS.texts_a, ROWS.texts_b, np.array([0, 0, 0], np.int32))
    stored = cached_encoding(tokenizer, other_labels, 16, tmp_path / "new" / "cache")
    same(stored, fresh)
    assert stored.labels is other_labels.labels
    assert isinstance(stored.token_ids.base, np.memmap)
    np.testing.assert_array_equal(
        stored.collate(np.array([2, 0]), 16)["input_ids"], fresh.collate(np.array([2, 0]), 16)["input_ids"]
    )


def test_what_differs_is_kept_apart(tokenizer, vocabulary_directory, tmp_path):
    cased = Tokenizer.from_directory(vocabulary_directory, False)
    cases = [
        (tokenizer, ROWS, 16),
        (tokenizer, ROWS, 12),
        (cased, ROWS, 16),
        (tokenizer, examples(ROWS.texts_a), 16),
        (tokenizer, examples(["the ca", "t", "a dog sat"], ROWS.texts_b), 16),
        (tokenizer, examples([*ROWS.texts_a, "on"], ["the mat", "", "", ""]), 16),
        (tokenizer, examples(["the cat", "", "a dog sat", "on", "the mat", "中 café"]), 16),
    ]
    for _ in range(2):
        for which, rows, length in cases:
            same(cached_encoding(which, rows, length, tmp_path), encode_examples(which, rows, length))
    assert len(list(tmp_path.iterdir())) == len(cases)


def test_damaged_entries_are_made_anew(tokenizer, tmp_path):
    fresh = cached_encoding(tokenizer, ROWS, 16, tmp_path)
    (entry,) = tmp_path.iterdir()
    for name, content in (("offsets.npy", b""), ("token_ids.npy", b"\x93NUMPY"), ("first_lengths.npy", None)):
        path = entry / name
        path.unlink() if content is None else path.write_bytes(content)
        same(cached_encoding(tokenizer, ROWS, 16, tmp_path), fresh)
        assert path.stat().st_size > 100
    np.save(entry / "token_ids.npy", np.zeros(3, np.int32))
    same(cached_encoding(tokenizer, ROWS, 16, tmp_path), fresh)


def test_no_place_to_keep_them(tokenizer, tmp_path, said, monkeypatch):
    fresh = encode_examples(tokenizer, ROWS, 16)
    (tmp_path / "file").write_text("")
    same(cached_encoding(tokenizer, ROWS, 16, tmp_path / "file"), fresh)
    assert re.search(r"file: tokens are not kept there \(.+\)", said.text)
    said.clear()

    def full(*_):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        same(cached_encoding(tokenizer, ROWS, 16, tmp_path / "full"), fresh)
    assert "No space left" in said.text
    assert not list((tmp_path / "full").iterdir())
    same(cached_encoding(tokenizer, ROWS, 16, None), fresh)


def test_small_splits_are_not_kept(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "_FEWEST_ROWS", 4)
    cached_encoding(tokenizer, ROWS, 16, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
