"""Files of one's own task in every form: the same rows, the same labels, every bad row named."""

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_emd_jax.data.readers import read_split
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.errors import UserError

from .test_readers import refuse, write

ROWS = [("the cat", "sat", "10"), ('say "no",\nor', "ü🙂", "9"), ("", "x", "10")]


def as_csv(rows, header=("text", "other", "label")):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def as_json(rows):
    return "".join(
        json.dumps({"text": text, "other": other, "label": int(label)}) + "\n" for text, other, label in rows
    )


@pytest.mark.parametrize("form", ["csv", "jsonl", "tsv"])
def test_forms_agree(tmp_path, form):
    rows = [(a.replace("\n", " "), b, label) for a, b, label in ROWS] if form == "tsv" else ROWS
    tsv = "text\tother\tlabel\n" + "".join("\t".join(row) + "\n" for row in rows)
    text = {"csv": as_csv(rows), "jsonl": as_json(rows), "tsv": tsv}[form]
    write(tmp_path, f"train.{form}", text)
    write(tmp_path, f"validation.{form}", text)
    task = get_task("custom", data_dir=tmp_path, text_pair_column="other")
    assert task.labels == ("9", "10")
    assert task.pair
    assert task.primary_metric == "accuracy"
    for split in ("train", "dev"):
        examples = read_split(task, tmp_path, split)
        assert examples.texts_a == [row[0] for row in rows]
        assert examples.texts_b == [row[1] for row in rows]
        assert examples.labels is not None
        assert examples.labels.tolist() == [1, 0, 1]
    assert "test" not in task.splits


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=8))
def test_any_text_comes_back_from_csv(tmp_path, texts):
    rows = [(text, "x", str(index % 2)) for index, text in enumerate([*texts, "last"])]
    write(tmp_path, "train.csv", as_csv(rows))
    task = get_task("custom", data_dir=tmp_path, labels=("0", "1"))
    assert read_split(task, tmp_path, "train").texts_a == [*texts, "last"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.sampled_from(["tsv", "csv", "jsonl"]))
def test_no_bytes_end_in_a_traceback(tmp_path, content, form):
    for suffix in ("tsv", "csv", "jsonl"):
        (tmp_path / f"train.{suffix}").unlink(missing_ok=True)
    write(tmp_path, f"train.{form}", content)
    with pytest.raises(UserError, match=r"train\."):
        read_split(get_task("custom", data_dir=tmp_path), tmp_path, "train")


def test_labels_given_inferred_and_typed(tmp_path):
    write(tmp_path, "train.jsonl", '{"sentence": "a", "label": true}\n\n{"sentence": "b", "label": false}\n')
    task = get_task("custom", data_dir=tmp_path)
    assert task.labels == ("false", "true")
    assert read_split(task, tmp_path, "train").lines.tolist() == [1, 3]
    given_labels = get_task("custom", data_dir=tmp_path, labels=("true", "false"))
    labels = read_split(given_labels, tmp_path, "train").labels
    assert labels is not None
    assert labels.tolist() == [0, 1]


LABEL_FORMS = ("csv", "tsv", "jsonl", "parquet")


def write_labels(directory, form, labels, split="train"):
    """A file of texts with these labels: JSON and parquet keep their types, the others write them."""
    import pyarrow
    import pyarrow.parquet

    texts, path = [f"text {row}" for row in range(len(labels))], directory / f"{split}.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": labels}), path)
    elif form == "jsonl":
        rows = zip(texts, labels, strict=True)
        path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    else:
        mark = {"csv": ",", "tsv": "\t"}[form]
        rows = [mark.join(("text", "label")), *(f"{t}{mark}{x}" for t, x in zip(texts, labels, strict=True))]
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return get_task("custom", data_dir=directory)


@pytest.mark.parametrize("form", LABEL_FORMS)
@pytest.mark.parametrize(
    ("written", "labels", "indices"),
    [
        (["Positive", "positive ", "negative", "POSITIVE"], ("Positive", "negative"), [0, 0, 1, 0]),
        (["not good", "Not  Good", "good"], ("good", "not good"), [1, 1, 0]),
        (["01", "2", "1", "+1", "2.0"], ("1", "2"), [0, 1, 0, 0, 1]),
        ([1.0, 0.0, 1.0], ("0", "1"), [1, 0, 1]),
        ([10, 9, -1], ("-1", "9", "10"), [2, 1, 0]),
        ([True, False, True], ("false", "true"), [1, 0, 1]),
        (["a_1", "a1", "a-1"], ("a-1", "a1", "a_1"), [2, 1, 0]),
    ],
    ids=str,
)
def test_a_label_is_the_same_in_every_form(tmp_path, form, written, labels, indices):
    task = write_labels(tmp_path, form, written)
    if all(isinstance(value, bool) for value in written) and form in ("csv", "tsv"):
        labels = tuple(label.capitalize() for label in labels)  # as Python writes them
    assert task.labels == labels
    assert read_split(task, tmp_path, "train").labels.tolist() == indices


@pytest.mark.parametrize("labels", [[float("nan"), 1.0], [float("inf"), 1.0], [None, "a", "b"]])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_is_no_label_is_named(tmp_path, form, labels):
    with pytest.raises(UserError, match=rf"train.{form}:1: the label 'label' should be a string or number"):
        write_labels(tmp_path, form, labels)


def test_given_labels_keep_their_spelling(tmp_path):
    write_labels(tmp_path, "csv", ["01", "2", "10"])
    task = get_task("custom", data_dir=tmp_path, labels=("01", "02", "10"))
    assert task.labels == ("01", "02", "10")
    assert read_split(task, tmp_path, "train").labels.tolist() == [0, 1, 2]


def test_labels_in_another_spelling(tmp_path):
    write(tmp_path, "train.csv", "text,label\na,Not Good\nb,GOOD\n")
    task = get_task("custom", data_dir=tmp_path, labels=("good", "not_good"))
    labels = read_split(task, tmp_path, "train").labels
    assert labels is not None
    assert labels.tolist() == [1, 0]
    refuse(
        "unknown label 'Not Good'; custom has ",
        get_task("custom", data_dir=tmp_path, labels=("good", "x")),
        tmp_path,
    )
    write(tmp_path, "train.csv", "text,label\na,US\nb,us\nc,Us\n")
    refuse("unknown label 'Us'", get_task("custom", data_dir=tmp_path, labels=("us", "US")), tmp_path)
    write(tmp_path, "train.tsv", "sentence\tlabel\na\tpositive\nb\t0\n")
    labels = read_split(get_task("sst-2"), tmp_path, "train").labels
    assert labels is not None
    assert labels.tolist() == [1, 0]


def test_custom_regression_and_unlabelled_test_file(tmp_path):
    write(tmp_path, "train.csv", "text,label\na,0.5\nb,-2\n")
    write(tmp_path, "test.csv", "text\na\n")
    task = get_task("custom", data_dir=tmp_path, regression=True)
    assert task.metrics[0] == "pearson_and_spearman"
    labels = read_split(task, tmp_path, "train").labels
    assert labels is not None
    assert labels.tolist() == [0.5, -2]
    assert read_split(task, tmp_path, "test").labels is None
    write(tmp_path, "test.csv", "text,label\na,-1\nb,\n")
    assert (
        read_split(get_task("custom", data_dir=tmp_path, labels=("0", "1")), tmp_path, "test").labels is None
    )


BAD_CUSTOM = {
    "open quote": ("train.csv", 'text,label\n"a,1\nb,0\n', r"train\.csv:2: broken CSV quoting"),
    "short csv row": ("train.csv", 'text,label\n"a\nb",1\nc\n', r"train\.csv:4: 1 columns"),
    "json": ("train.jsonl", '{"text": "a", "label": 1}\n{"text": \n', r"train\.jsonl:2: not valid JSON"),
    "json list": ("train.jsonl", "[1]\n", r"train\.jsonl:1: a JSON an array|train\.jsonl:1: a JSON"),
    "missing key": (
        "train.jsonl",
        '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n{"label": 1}\n',
        r"train\.jsonl:3: no key 'text'",
    ),
    "null text": (
        "train.jsonl",
        '{"text": "a", "label": 1}\n{"text": null, "label": 0}\n',
        r"train\.jsonl:2: 'text' should be a string, it is null",
    ),
    "half a surrogate": (
        "train.jsonl",
        '{"text": "a", "label": 1}\n{"text": "\\ud800", "label": 0}\n',
        r"train\.jsonl:2: 'text' holds half of a surrogate pair",
    ),
    "list label": (
        "train.jsonl",
        '{"text": "a", "label": [1]}\n',
        r"train\.jsonl:1: the label 'label' should be",
    ),
    "deep json": ("train.jsonl", "[" * 100_000 + "\n", r"train\.jsonl:1: not valid JSON"),
    "one label": ("train.csv", "text,label\na,1\nb,1\n", "1 different labels"),
    "fractions": ("train.csv", "text,label\na,1.5\nb,2.5\n", "ask for --kind regression"),
    "no text column": ("train.csv", "review,label\na,1\n", "name the column with --text_column"),
    "no label column": ("train.csv", "text,class\na,1\n", r"train\.csv:1: no column 'label' in the header"),
    "empty": ("train.csv", "", r"train\.csv: the file is empty"),
    "no rows": ("train.jsonl", "\n", r"train\.jsonl: the file is empty"),
    "other form": ("train.xlsx", "x", "no train, dev"),
}


@pytest.mark.parametrize("case", BAD_CUSTOM)
def test_bad_custom_files(tmp_path, case):
    name, text, message = BAD_CUSTOM[case]
    write(tmp_path, name, text)
    with pytest.raises(UserError, match=message) as caught:
        read_split(get_task("custom", data_dir=tmp_path), tmp_path, "train")
    assert "\n" not in str(caught.value)


def test_custom_needs_a_clear_choice(tmp_path):
    with pytest.raises(UserError, match="--data_dir"):
        get_task("custom")
    with pytest.raises(UserError, match="no such directory"):
        get_task("custom", data_dir=tmp_path / "nowhere")
    write(tmp_path, "dev.csv", "text,label\na,1\n")
    with pytest.raises(UserError, match="no train file to take the labels from"):
        get_task("custom", data_dir=tmp_path)
    with pytest.raises(UserError, match="two or more different labels"):
        get_task("custom", data_dir=tmp_path, labels=("1", "1"))
    with pytest.raises(UserError, match="kind regression have no names"):
        get_task("custom", data_dir=tmp_path, labels=("0", "1"), regression=True)
    write(tmp_path, "validation.csv", "text,label\na,1\n")
    with pytest.raises(UserError, match="same split"):
        get_task("custom", data_dir=tmp_path)


def test_csv_field_limit_is_lifted_and_restored(tmp_path):
    limit = csv.field_size_limit()
    write(tmp_path, "train.csv", f'text,label\n"{"x" * 300_000}",1\ny,0\n')
    examples = read_split(get_task("custom", data_dir=tmp_path), tmp_path, "train")
    assert len(examples.texts_a[0]) == 300_000
    assert csv.field_size_limit() == limit
