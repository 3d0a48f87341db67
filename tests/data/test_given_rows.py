"""Rows in memory as files: every form, what is refused, and the same directory for the same rows."""

import json

import numpy as np
import pytest

from bert_emd_jax.data.given_rows import rows_of, written_splits
from bert_emd_jax.errors import UserError

ROWS = [{"text": "a film", "label": "good"}, {"text": "a plot", "label": "bad"}]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BERT_EMD_JAX_CACHE", str(tmp_path / "cache"))


class Table:
    """As much of a pandas DataFrame as is read."""

    columns = ("text", "label")

    def to_dict(self, orient):
        assert orient == "records"
        return [dict(row) for row in ROWS]


class ClassLabel:
    names = ("bad", "good")


class Sequence:
    feature = ClassLabel()


class Dataset(list):
    """As much of a `datasets.Dataset` as is read."""

    column_names = ("text", "label")
    features = {"text": None, "label": ClassLabel()}  # noqa: RUF012


@pytest.mark.parametrize(
    "given",
    [
        (["a film", "a plot"], ["good", "bad"]),
        (np.array(["a film", "a plot"]), iter(["good", "bad"])),
        ROWS,
        Table(),
        Dataset([{"text": "a film", "label": 1}, {"text": "a plot", "label": 0}]),
    ],
    ids=["tuple", "iterables", "dictionaries", "table", "dataset"],
)
def test_every_form_is_the_same_rows(given):
    assert rows_of("train", given) == ROWS


def test_pairs_words_and_texts_alone():
    assert rows_of("dev", ([("a", "b")], [1.5])) == [{"text": "a", "text_pair": "b", "label": 1.5}]
    words = [["a", "film"], ("fine",)]
    tagged = rows_of("train", (words, [["O", "B-X"], ["O"]]), is_of_words=True)
    assert tagged == [{"tokens": ["a", "film"], "tags": ["O", "B-X"]}, {"tokens": ["fine"], "tags": ["O"]}]
    assert rows_of("train", ["a", "b"]) == [{"text": "a"}, {"text": "b"}]
    dataset = Dataset([{"tokens": ["a"], "tags": [1]}])
    dataset.features = {"tokens": None, "tags": Sequence()}
    assert rows_of("train", dataset) == [{"tokens": ["a"], "tags": ["good"]}]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a text", "train: is str; give"),
        ({"text": ["a"]}, "train: is dict; give"),
        (3, "train: is int; give"),
        ((["a"], ["b", "c"]), "1 texts and 2 labels"),
        ((["a", 3], ["b", "c"]), "train, row 1: '3' is int, not a text or a pair"),
        (([["a", "b", "c"]], [[0, 0, 0]]), 'lists of words need kind="token"'),
    ],
)
def test_what_is_no_rows_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        rows_of("train", given)


def test_the_same_rows_are_the_same_files():
    splits = {"train": ROWS, "dev": (["x"], [np.float32(0.5)]), "test": None}
    flags = written_splits(splits, {"output_dir": "o"})
    assert (flags["task_name"], flags["output_dir"]) == ("custom", "o")
    assert sorted(path.name for path in flags["data_dir"].iterdir()) == ["dev.jsonl", "train.jsonl"]
    lines = (flags["data_dir"] / "train.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == ROWS
    assert written_splits(splits, {})["data_dir"] == flags["data_dir"]
    assert written_splits({**splits, "train": ROWS[:1]}, {})["data_dir"] != flags["data_dir"]
    assert "text_pair_column" not in flags
    pairs = written_splits({"train": ([("a", "b")], ["c"])}, {})
    assert pairs["text_pair_column"] == "text_pair"
    assert written_splits(dict.fromkeys(splits), {"data_dir": "d"}) == {"data_dir": "d"}


def test_files_and_objects_are_not_mixed():
    with pytest.raises(UserError, match="data_dir and train: give files or objects, not both"):
        written_splits({"train": ROWS}, {"data_dir": "d"})
    with pytest.raises(UserError, match="task_name sst-2: rows that are given as objects"):
        written_splits({"train": ROWS}, {"task_name": "sst-2"})
