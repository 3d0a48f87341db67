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


@pytest.mark.parametrize(
    "given",
    [
        (["a film", "a plot"], ["good", "bad"]),
        (np.array(["a film", "a plot"]), iter(["good", "bad"])),
        ROWS,
    ],
    ids=["tuple", "iterables", "dictionaries"],
)
def test_every_form_is_the_same_rows(given):
    assert rows_of("train", given) == ROWS


def read_back(rows) -> list:
    """What a program reads of rows that it is given."""
    path = written_splits({"train": rows}, {})["data_dir"] / "train.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_tables_of_pandas():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(ROWS, index=[7, 3])
    assert rows_of("train", table) == ROWS
    assert read_back(table.assign(label=pandas.Categorical(table["label"]))) == ROWS
    numbers = table.assign(label=np.array([1, 2], np.int64), score=[0.5, np.nan])
    assert read_back(numbers) == [
        {"text": "a film", "label": 1, "score": 0.5},
        {"text": "a plot", "label": 2, "score": None},
    ]
    nullable = table.assign(label=pandas.array([1, None], "Int64"))
    assert [row["label"] for row in read_back(nullable)] == [1, None]
    words = pandas.DataFrame({"tokens": [["a", "film"], np.array(["b"])], "tags": [["O", "B-X"], ["O"]]})
    assert read_back(words)[1] == {"tokens": ["b"], "tags": ["O"]}


def test_datasets_of_hugging_face():
    datasets = pytest.importorskip("datasets")
    of_label = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features({"text": datasets.Value("string"), "label": of_label})
    rows = {"text": ["a film", "a plot", "a tale"], "label": [1, 0, -1]}
    dataset = datasets.Dataset.from_dict(rows, features)
    assert read_back(dataset.select(range(2))) == ROWS
    assert read_back(dataset)[2] == {"text": "a tale", "label": ""}  # -1 stands for none
    features = datasets.Features({"tokens": [datasets.Value("string")], "ner_tags": [of_label]})
    tagged = datasets.Dataset.from_dict({"tokens": [["a", "b"]], "ner_tags": [[0, 1]]}, features)
    assert read_back(tagged) == [{"tokens": ["a", "b"], "ner_tags": ["bad", "good"]}]
    asked = {"id": "1", "question": "q ?", "context": "c d", "answers": {"text": ["d"], "answer_start": [2]}}
    assert read_back(datasets.Dataset.from_list([asked])) == [asked]


def test_rows_without_labels_become_a_file():
    flags = written_splits({}, {"data_dir": "d", "unlabelled": ["a film"], "text_column": "sentence"})
    assert json.loads(flags["unlabelled"].read_text()) == {"sentence": "a film"}
    flags = written_splits({"train": ROWS}, {"unlabelled": [("a", "b")], "text_pair_column": "other"})
    assert json.loads(flags["unlabelled"].read_text()) == {"text": "a", "other": "b"}
    assert written_splits({}, {"unlabelled": "more.txt"}) == {"unlabelled": "more.txt"}
    with pytest.raises(UserError, match="unlabelled, row 0: '3' is int, not a text"):
        written_splits({}, {"unlabelled": [3]})


def test_pairs_words_and_texts_alone():
    assert rows_of("dev", ([("a", "b")], [1.5])) == [{"text": "a", "text_pair": "b", "label": 1.5}]
    words = [["a", "film"], ("fine",)]
    tagged = rows_of("train", (words, [["O", "B-X"], ["O"]]), is_of_words=True)
    assert tagged == [{"tokens": ["a", "film"], "tags": ["O", "B-X"]}, {"tokens": ["fine"], "tags": ["O"]}]
    assert rows_of("train", ["a", "b"]) == [{"text": "a"}, {"text": "b"}]


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
