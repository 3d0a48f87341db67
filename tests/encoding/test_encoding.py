"""Truncation against the popping loop, assembly and padding against transformers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_emd_jax.data.examples import Examples
from bert_emd_jax.encoding.dataset import EncodedDataset, encode_examples, truncated_lengths
from bert_emd_jax.errors import UserError


def examples(texts_a, texts_b=None, labels=None):
    lines = np.arange(len(texts_a))
    return Examples(texts_a, texts_b, labels, lines, [str(i) for i in lines], None)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 60))
def test_truncation_pops_from_the_longer_side(length_a, length_b, budget):
    kept_a, kept_b = length_a, length_b
    while kept_a + kept_b > budget:
        if kept_a > kept_b:
            kept_a -= 1
        else:
            kept_b -= 1
    assert truncated_lengths(length_a, length_b, budget) == (kept_a, kept_b)


TEXTS_A = ["the cat sat", "", "unaffable running " * 20, "a", "the dog", "中文 cafe!"]
TEXTS_B = ["on the mat", "a dog", "the mat", "cat " * 50, "", "x"]


@pytest.mark.parametrize("pair", [False, True])
def test_rows_equal_transformers_where_nothing_is_cut(vocabulary_directory, tokenizer, pair):
    transformers = pytest.importorskip("transformers")
    reference = transformers.BertTokenizer.from_pretrained(vocabulary_directory)
    second = TEXTS_B if pair else None
    dataset = encode_examples(tokenizer, examples(TEXTS_A, second), max_length=200)
    expected = reference(TEXTS_A, second, padding="max_length", max_length=200, return_tensors="np")
    batch = dataset.collate(np.arange(len(TEXTS_A)), 200)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        np.testing.assert_array_equal(batch[name], expected[name])
        assert batch[name].dtype == np.int32
    np.testing.assert_array_equal(dataset.lengths, expected["attention_mask"].sum(1))


@pytest.mark.parametrize("max_length", [5, 6, 7, 8, 13, 40])
@pytest.mark.parametrize("pair", [False, True])
def test_truncated_rows(tokenizer, max_length, pair):
    dataset = encode_examples(tokenizer, examples(TEXTS_A, TEXTS_B if pair else None), max_length)
    assert dataset.lengths.max() == max_length
    for row, (a, b) in enumerate(zip(*map(tokenizer.encode, (TEXTS_A, TEXTS_B)), strict=True)):
        if pair:
            while len(a) + len(b) > max_length - 3:
                (a if len(a) > len(b) else b).pop()
            expected = [tokenizer.cls_id, *a, tokenizer.sep_id, *b, tokenizer.sep_id]
            segments = [0] * (len(a) + 2) + [1] * (len(b) + 1)
        else:
            expected = [tokenizer.cls_id, *a[: max_length - 2], tokenizer.sep_id]
            segments = [0] * len(expected)
        batch = dataset.collate(np.array([row]), len(expected))
        assert batch["input_ids"].tolist() == [expected]
        assert batch["token_type_ids"].tolist() == [segments]


@pytest.mark.parametrize(
    ("labels", "dtype"), [([2, 0, 1], np.int32), ([0.5, -1.0, 5.0], np.float32), (None, np.int32)]
)
def test_filler_rows_are_empty(tokenizer, labels, dtype):
    values = None if labels is None else np.asarray(labels, dtype)
    dataset = encode_examples(tokenizer, examples(["cat", "the dog sat", ""], labels=values), 16)
    batch = dataset.collate(np.array([1, 2]), length=8, rows_padded_to=4)
    assert batch["input_ids"].shape == (4, 8)
    assert batch["weights"].tolist() == [1, 1, 0, 0]
    assert batch["weights"].dtype == np.float32
    assert batch["labels"].dtype == dtype
    assert batch["labels"].tolist() == ([0, 0, 0, 0] if labels is None else [labels[1], labels[2], 0, 0])
    assert not batch["attention_mask"][2:].any()
    assert (batch["input_ids"][2:] == tokenizer.pad_id).all()
    assert batch["attention_mask"].sum(1).tolist() == [5, 2, 0, 0]


def test_a_batch_of_fillers_only(tokenizer):
    dataset = encode_examples(tokenizer, examples(["cat"]), 16)
    batch = dataset.collate(np.zeros(0, np.int64), length=8, rows_padded_to=2)
    assert not batch["attention_mask"].any()
    assert batch["weights"].tolist() == [0, 0]


def test_what_does_not_fit_is_refused(tokenizer):
    dataset = encode_examples(tokenizer, examples(["the cat sat", "cat"]), 16)
    with pytest.raises(ValueError, match="length of 4"):
        dataset.collate(np.array([0]), 4)
    with pytest.raises(ValueError, match="batch of 1"):
        dataset.collate(np.array([0, 1]), 8, rows_padded_to=1)
    with pytest.raises(UserError, match="--max_seq_length 4"):
        encode_examples(tokenizer, examples(["cat"]), 4)


def test_many_rows_keep_their_order(tokenizer):
    """More rows than one call of the tokenizer takes."""
    texts = [("cat " * (index % 7)).strip() for index in range(20_000)]
    dataset = encode_examples(tokenizer, examples(texts), 8)
    assert isinstance(dataset, EncodedDataset)
    np.testing.assert_array_equal(dataset.lengths, np.minimum(np.arange(20_000) % 7 + 2, 8))
