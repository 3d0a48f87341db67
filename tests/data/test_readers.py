"""Every file form and every bad row; GLUE files in the official layout."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_emd_jax.data.readers import read_split, scored_splits
from bert_emd_jax.data.tasks import TASK_NAMES, get_task
from bert_emd_jax.errors import UserError


def write(directory, name, text, encoding="utf-8"):
    path = directory / name
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return path


def refuse(message, task, directory, split="train", **options):
    with pytest.raises(UserError, match=message) as caught:
        read_split(task, directory, split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- tasks


@pytest.mark.parametrize("name", ["SST-2", "sst2", "Sst-2", "SST_2"])
def test_names_in_any_spelling(name):
    assert get_task(name).name == "SST-2"


def test_every_glue_task_is_known():
    for name in TASK_NAMES[:-1]:
        task = get_task(name.lower())
        assert task.name == name
        assert task.num_labels == (1 if task.labels is None else len(task.labels))
        for file in task.splits.values():
            assert (file.text_b is not None) == task.pair
    assert get_task("cola").metrics == ("matthews_correlation",)
    assert get_task("mrpc").metrics == ("accuracy_and_f1", "accuracy", "f1")
    assert get_task("stsb").metrics == ("pearson_and_spearman", "pearson", "spearman")
    assert get_task("stsb").kind.name == "regression"


def test_unknown_task_lists_the_known_ones():
    with pytest.raises(UserError, match=r"snli: no such task; it is one of CoLA, SST-2, .*custom"):
        get_task("snli")


# --- GLUE

MRPC_HEADER = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
OFFICIAL_ROWS = {
    # task: (file, text, texts_a, texts_b, labels, identifiers)
    "CoLA": (
        "train.tsv",
        'gj04\t1\t\tThe "cat sat.\nx\t0\t*\tSat cat the.\n',
        ['The "cat sat.', "Sat cat the."],
        None,
        [1, 0],
    ),
    "SST-2": ("dev.tsv", "sentence\tlabel\nit 's \t1\nno \t0\n", ["it 's ", "no "], None, [1, 0]),
    "MRPC": (
        "train.tsv",
        MRPC_HEADER + '1\t7\t8\tHe said " no .\t" Yes .\n',
        ['He said " no .'],
        ['" Yes .'],
        [1],
    ),
    "STS-B": (
        "dev.tsv",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tg\tf\t2012\t1\tn\tn\tA.\tB.\t4.750\n",
        ["A."],
        ["B."],
        [4.75],
    ),
    "QQP": (
        "dev.tsv",
        'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n5\t1\t2\t"A?"\tB?\t1\n',
        ['"A?"'],
        ["B?"],
        [1],
    ),
    "MNLI": (
        "dev_matched.tsv",
        "index\tpromptID\tpairID\tgenre\ts1b\ts2b\ts1p\ts2p\tsentence1\tsentence2\tlabel1\tgold_label\n"
        "3\t1\t2\tg\t-\t-\t-\t-\tA\tB\tentailment\tneutral\n",
        ["A"],
        ["B"],
        [2],
    ),
    "QNLI": (
        "train.tsv",
        "index\tquestion\tsentence\tlabel\n0\tQ?\tS.\tnot_entailment\n",
        ["Q?"],
        ["S."],
        [1],
    ),
    "RTE": ("train.tsv", "index\tsentence1\tsentence2\tlabel\n0\tQ.\tS.\tentailment\n", ["Q."], ["S."], [0]),
    "WNLI": ("train.tsv", "index\tsentence1\tsentence2\tlabel\n0\tQ.\tS.\t1\n", ["Q."], ["S."], [1]),
}


@pytest.mark.parametrize("name", OFFICIAL_ROWS)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_official_layouts(tmp_path, name, ending):
    file, text, texts_a, texts_b, labels = OFFICIAL_ROWS[name]
    write(tmp_path, file, text.replace("\n", ending))
    examples = read_split(get_task(name), tmp_path, "train" if "train" in file else "dev")
    assert examples.texts_a == texts_a
    assert examples.texts_b == texts_b
    assert examples.labels is not None
    assert examples.labels.tolist() == labels
    assert examples.labels.dtype == (np.float32 if name == "STS-B" else np.int32)


def test_unlabelled_files_keep_their_index(tmp_path):
    write(tmp_path, "diagnostic.tsv", "index\tsentence1\tsentence2\n10\tA\tB\n11\tC\tD\n")
    examples = read_split(get_task("AX"), tmp_path, "test")
    assert examples.labels is None
    assert examples.identifiers == ["10", "11"]
    write(tmp_path, "test.tsv", "index\tsentence\n0\tA\n")
    assert read_split(get_task("CoLA"), tmp_path, "test").texts_a == ["A"]


def test_no_quoting_and_no_odd_line_ends(tmp_path):
    texts = ['"', 'a"b', '""', "", "  x ", "u\u2028v\u0085w\x0cz", "n\x00l", "é中🙂", "end\rmiddle", "'"]
    write(tmp_path, "train.tsv", "sentence\tlabel\n" + "".join(f"{text}\t1\n" for text in texts))
    examples = read_split(get_task("SST-2"), tmp_path, "train")
    assert examples.texts_a == texts
    assert examples.lines.tolist() == list(range(2, 2 + len(texts)))


def test_a_gigantic_field(tmp_path):
    write(tmp_path, "train.tsv", f"sentence\tlabel\n{'word ' * 400_000}\t1\nx\t0\n")
    assert len(read_split(get_task("SST-2"), tmp_path, "train").texts_a[0]) == 2_000_000


BAD_ROWS = {
    "too few columns": ("sentence\tlabel\na\t1\nb\n", r"train\.tsv:3: 1 columns where there should be 2"),
    "too many columns": ("sentence\tlabel\na\tb\t1\n", r"train\.tsv:2: 3 columns"),
    "empty line": ("sentence\tlabel\na\t1\n\nb\t0\n", r"train\.tsv:3: 1 columns"),
    "unknown label": ("sentence\tlabel\na\t1\nb\t2\n", r"train\.tsv:3: unknown label '2'; SST-2 has 0, 1"),
    "empty label": ("sentence\tlabel\na\t\n", r"train\.tsv:2: unknown label ''"),
    "bytes": (b"sentence\tlabel\na\t1\nb\xff\t1\n", r"train\.tsv:3: byte 2 of the line is not valid UTF-8"),
    "utf-16": (
        "sentence\tlabel\na\t1\n".encode("utf-16"),
        r"train\.tsv:1: byte 1 of the line is not valid UTF-8",
    ),
    "no header": ("a film\t1\nb\t0\n", r"train\.tsv:1: no column 'sentence' in the header"),
    "two columns of a name": ("sentence\tsentence\tlabel\na\tb\t1\n", r"train\.tsv:1: 2 columns are named"),
    "header only": ("sentence\tlabel\n", r"train\.tsv: no rows"),
    "header and ends": ("sentence\tlabel\n\n\r\n\n", r"train\.tsv: no rows"),
    "nothing": ("", r"train\.tsv: the file is empty"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_name_file_and_line(tmp_path, case):
    text, message = BAD_ROWS[case]
    write(tmp_path, "train.tsv", text)
    assert str(tmp_path) in refuse(message, get_task("SST-2"), tmp_path)


def test_cola_without_header_counts_columns(tmp_path):
    write(tmp_path, "train.tsv", "gj04\t1\t\tA.\ngj04\t1\tB.\n")
    refuse(r"train\.tsv:2: 3 columns where there should be 4", get_task("CoLA"), tmp_path)


def test_qqp_skips_its_broken_rows_and_counts_them(tmp_path):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    write(tmp_path, "train.tsv", header + "0\t1\t2\tA?\tB?\t1\nbroken\trow\n1\t1\t2\tC?\tD?\t0\n")
    examples = read_split(get_task("QQP"), tmp_path, "train")
    assert examples.texts_a == ["A?", "C?"]
    assert examples.skipped_lines == (3,)


@pytest.mark.parametrize("score", ["", "high", "nan", "inf", "1e60"])
def test_scores_must_be_numbers(tmp_path, score):
    header = "\t".join("abcdefg") + "\tsentence1\tsentence2\tscore\n"
    write(tmp_path, "train.tsv", header + "\t".join("abcdefg") + f"\tA\tB\t{score}\n")
    refuse(r"train\.tsv:2: the value .* is no finite number", get_task("STS-B"), tmp_path)


def test_missing_places(tmp_path):
    task = get_task("SST-2")
    refuse("no such directory", task, tmp_path / "nowhere")
    refuse(r"train\.tsv: no such file; it holds the train split of SST-2", task, tmp_path)
    refuse("AX has no train split here, only test", get_task("AX"), tmp_path)
    write(tmp_path, "train.tsv", "sentence\tlabel\na\t1\n")
    refuse(r"train_aug\.tsv: no such file; make it with run_augment.py", task, tmp_path, aug_train=True)


def test_the_mismatched_sets_go_with_the_matched_ones(tmp_path, said):
    task = get_task("MNLI")
    write(tmp_path, "dev_mismatched.tsv", "")
    assert scored_splits(task, tmp_path, "dev") == ("dev", "dev_mismatched")
    assert not said.records
    assert scored_splits(task, tmp_path, "test") == ("test",)
    assert "no test_mismatched; MNLI is scored on the matched set only" in said.text
    assert scored_splits(task, tmp_path, "train") == ("train",)
    assert scored_splits(get_task("RTE"), tmp_path, "dev") == ("dev",)


def test_augmented_train_file(tmp_path):
    write(tmp_path, "train.tsv", "sentence\tlabel\na\t1\n")
    write(tmp_path, "train_aug.tsv", "sentence\tlabel\na\t1\nb\t1\n")
    write(tmp_path, "dev.tsv", "sentence\tlabel\nc\t0\n")
    assert read_split(get_task("SST-2"), tmp_path, "train", aug_train=True).texts_a == ["a", "b"]
    assert read_split(get_task("SST-2"), tmp_path, "dev", aug_train=True).texts_a == ["c"]


# --- custom tasks

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
