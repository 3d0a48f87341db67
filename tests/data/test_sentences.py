"""Sentences from files to rows: what is read, what is refused, and windows of long ones."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_emd_jax.data.sentences import Sentences, read_sentences
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.encoding.token_rows import NO_LABEL, continued, encode_sentences, windows
from bert_emd_jax.errors import UserError
from bert_emd_jax.tokenization.tokenizer import Tokenizer

CONLL = """-DOCSTART- -X- -X- O

the DT B-NP B-PER
film\tNN\tI-NP\tI-PER
was VBD O O
\t
never RB O B-LOC
"""
WORDS, LABELS = [["the", "film", "was"], ["never"]], [["B-PER", "I-PER", "O"], ["B-LOC"]]


def read(directory, split="train", **flags):
    task = get_task("custom", data_dir=directory, kind="token", **flags)
    return task, read_sentences(task, directory, split)


def as_names(task, sentences):
    names = [task.labels[label] for label in sentences.labels]
    return [names[a:b] for a, b in zip(sentences.starts[:-1], sentences.starts[1:], strict=True)]


def test_conll_takes_the_first_and_the_last_column(tmp_path):
    (tmp_path / "train.conll").write_text(CONLL)
    task, sentences = read(tmp_path)
    assert task.labels == ("B-LOC", "B-PER", "I-PER", "O")
    assert sentences.words == WORDS
    assert as_names(task, sentences) == LABELS
    assert sentences.lines.tolist() == [3, 7]
    task, sentences = read(tmp_path, text_column="0", label_column="1")
    assert as_names(task, sentences) == [["DT", "NN", "VBD"], ["RB"]]


def test_json_lines_and_parquet_hold_the_same(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"tokens": w, "tags": t} for w, t in zip(WORDS, LABELS, strict=True)]
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # As the datasets library writes them: numbers, whose names stand in the file's metadata.
    (tmp_path / "table").mkdir()
    names = ["O", "B-PER", "I-PER", "B-LOC"]
    feature = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "Sequence"}
    info = {"info": {"features": {"tags": feature, "tokens": {}}}}
    table = pyarrow.table(
        {"tokens": WORDS, "tags": [[names.index(name) for name in row] for row in LABELS]}
    ).replace_schema_metadata({"huggingface": json.dumps(info)})
    pyarrow.parquet.write_table(table, tmp_path / "table" / "train.parquet")
    for directory in ("lines", "table"):
        task, sentences = read(tmp_path / directory, text_column="tokens", label_column="tags")
        assert sentences.words == WORDS
        assert as_names(task, sentences) == LABELS
    assert task.labels == tuple(names)


def test_a_test_split_may_have_no_labels(tmp_path):
    (tmp_path / "train.conll").write_text(CONLL)
    (tmp_path / "test.conll").write_text("the\nfilm\n\nwas\n")
    _, sentences = read(tmp_path, "test")
    assert sentences.words == [["the", "film"], ["was"]]
    assert sentences.labels is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the O\nfilm\n", r"train.conll:2: 1 columns where there should be 2"),
        ("the\nfilm\n", r"train.conll: no column of labels"),
        ("-DOCSTART- O\n", r"train.conll: no tokens here"),
        ("the O\nfilm O\n", r"1 different labels in -1; a token task needs two"),
    ],
)
def test_files_that_hold_no_labelled_sentences_are_refused(tmp_path, text, message):
    (tmp_path / "train.conll").write_text(text)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": "the film", "tags": ["O", "O"]}, "'tokens' should be a list of words, it is a string"),
        ({"tokens": [], "tags": []}, "it is an empty one"),
        ({"tokens": ["the", 3], "tags": ["O", "O"]}, "should be a string, it is a number"),
        ({"tokens": ["the", "film"], "tags": ["O"]}, "2 words and 1 labels"),
        ({"tokens": ["the"], "tags": ["B-X"]}, "unknown label 'B-X'"),
        ({"tokens": ["the"], "tags": None}, "should be a list of labels"),
        ({"tokens": ["the"]}, "no key 'tags'"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, message):
    good = {"tokens": ["the"], "tags": ["O"]}
    (tmp_path / "train.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(row)}\n")
    with pytest.raises(UserError, match=f"train.jsonl:2: .*{message}"):
        read(tmp_path, text_column="tokens", label_column="tags", labels=("O", "B-PER"))


def test_an_unknown_label_of_a_word_is_named_by_its_line(tmp_path):
    (tmp_path / "train.conll").write_text("the O\nfilm B-X\n")
    with pytest.raises(UserError, match=r"train.conll:2: unknown label 'B-X'"):
        read(tmp_path, labels=("O", "B-PER"))


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=60),
    st.integers(6, 20),
)
def test_windows_own_every_word_once_and_take_no_more_than_fits(counts, budget):
    found = windows(counts, budget)
    owned = [word for window in found for word in range(window.owned_start, window.owned_end)]
    assert owned == list(range(len(counts)))
    for window in found:
        assert window.start <= window.owned_start <= window.owned_end <= window.end
        assert sum(counts[window.start : window.end]) <= budget
    if sum(counts) <= budget:
        assert len(found) == 1


def test_words_inside_a_long_sentence_have_a_quarter_of_a_window_around_them():
    found = windows([1] * 300, 40)
    assert len(found) == 14
    for window in found:
        for word in range(window.owned_start, window.owned_end):
            assert word - window.start >= 10 or window.start == 0
            assert window.end - word > 9 or window.end == 300


@pytest.fixture
def tokenizer(vocabulary_dir):
    return Tokenizer.from_directory(vocabulary_dir)


def sentences_of(words, labels):
    flat = np.array([label for row in labels for label in row], np.int32)
    return Sentences(words, flat, np.arange(len(words)), [str(row) for row in range(len(words))], None)


def test_labels_stand_at_first_tokens_or_at_all_of_a_word(tokenizer):
    sentences = sentences_of([["films", "is", "\u200b", "unloved"], ["good"]], [[1, 0, 2, 1], [3]])
    names = ("O", "B-X", "I-X", "B-Y")
    rows = encode_sentences(tokenizer, sentences, 32)
    tokens = [tokenizer.tokens()[index] for index in rows.token_ids]
    assert tokens[:4] == ["[CLS]", "film", "##s", "is"]
    assert tokens[4] == "[UNK]"  # nothing is left of a zero-width space, but the word has a label
    no = NO_LABEL
    pieces = len(tokens) - 3 - 6  # of the last word of the first sentence
    assert rows.labels.tolist() == [no, 1, no, 0, 2, 1, *[no] * (pieces - 1), no, no, 3, no]
    everywhere = encode_sentences(tokenizer, sentences, 32, continued(names))
    assert everywhere.labels.tolist() == [no, 1, 2, 0, 2, 1, *[2] * (pieces - 1), no, no, 3, no]
    batch = rows.collate(np.array([1, 0]), 12, 3)
    assert batch["labels"].shape == (3, 12)
    assert batch["labels"][0].tolist() == [no, 3, *[no] * 10]
    assert (batch["labels"][2] == no).all()


def test_predictions_of_windows_stand_at_their_words(tokenizer):
    rng = np.random.default_rng(0)
    words = [rng.choice(["film", "films", "is", "good"], size=size).tolist() for size in (30, 3, 17)]
    rows = encode_sentences(tokenizer, sentences_of(words, [[0] * len(row) for row in words]), 12)
    assert len(rows) > 6
    assert rows.lengths.max() <= 12
    # A model whose output is the token itself gives every word its first token back.
    batch = rows.collate(np.arange(len(rows)), 12)
    results = np.zeros((rows.predicted, 1))
    for part in np.array_split(np.arange(len(rows))[::-1], 3):
        rows.place(results, part, batch["input_ids"][part][:, :, None])
    first = [tokenizer.encode([word])[0][0] for row in words for word in row]
    assert results[:, 0].tolist() == first
