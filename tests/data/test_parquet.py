"""Parquet files in the forms of the Hugging Face Hub, written by pyarrow, and custom tasks from any file."""

import csv
import json

import numpy as np
import pytest

from bert_emd_jax.data.readers import read_split
from bert_emd_jax.data.task import augmented
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.errors import UserError

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq

TEXTS = ["the cat", 'say "no",\tor\nnot', "ü🙂\u2028", "", "n\x00l", "last"]
OTHERS = ["sat", "x", "y", "z", "", "w"]
NAMES = ["negative", "positive", "neutral"]  # the order of the file, not of the alphabet


def write(path, columns, names=None, column="label", **options):
    """A parquet file; `names` are stored as the datasets library stores the names of classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = pa.table(columns)
    if names is not None:
        features = {column: {"names": names, "_type": "ClassLabel"}, "text": {"_type": "Value"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        written = written.replace_schema_metadata(metadata)
    pq.write_table(written, path, **options)


def rows(labels, texts=TEXTS, others=OTHERS):
    return {"idx": list(range(len(texts))), "text": texts, "other": others, "label": labels}


def refuse(message, directory, split="train", **options):
    with pytest.raises(UserError, match=message) as caught:
        read_split(get_task("custom", data_dir=directory, **options), directory, split)
    assert "\n" not in str(caught.value)


LAYOUTS = {
    "plain": ["train.parquet"],
    "hub": ["data/train-00000-of-00001.parquet"],
    "shards": ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
    "hub shards": ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_class_names(tmp_path, layout):
    labels = [2, 0, 1, 1, 0, 2]
    names = LAYOUTS[layout]
    for shard, name in enumerate(names):
        part = slice(shard * 4, (shard + 1) * 4) if len(names) > 1 else slice(None)
        values = {column: cells[part] for column, cells in rows(labels).items()}
        write(tmp_path / name, values, NAMES, row_group_size=2)
    write(tmp_path / names[0].replace("train", "validation").replace("00002", "00001"), rows(labels), NAMES)
    task = get_task("custom", data_dir=tmp_path, text_pair_column="other")
    assert task.labels == tuple(NAMES)
    for split in ("train", "dev"):
        examples = read_split(task, tmp_path, split)
        assert examples.texts_a == TEXTS
        assert examples.texts_b == OTHERS
        assert examples.labels is not None
        assert examples.labels.tolist() == labels
    given = get_task("custom", data_dir=tmp_path, labels=("positive", "neutral", "negative"))
    train = read_split(given, tmp_path, "train").labels
    assert train is not None
    assert train.tolist() == [1, 2, 0, 0, 2, 1]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()]
)
def test_kinds_of_text(tmp_path, kind):
    if kind == pa.string_view() and int(pa.__version__.partition(".")[0]) < 21:
        pytest.skip("pyarrow cannot write this kind before version 21")
    write(tmp_path / "train.parquet", {"text": pa.array(TEXTS).cast(kind), "label": [0, 1] * 3})
    assert read_split(get_task("custom", data_dir=tmp_path), tmp_path, "train").texts_a == TEXTS


def test_labels_that_are_not_known(tmp_path):
    """-1 and null in a test set, with and without names; a test set without the column."""
    write(tmp_path / "train.parquet", rows([0, 1, 2, 0, 1, 2]), NAMES)
    task = get_task("custom", data_dir=tmp_path)
    for labels, names in (([-1] * 6, NAMES), ([-1] * 6, None), ([None] * 6, NAMES)):
        write(tmp_path / "test.parquet", rows(pa.array(labels, pa.int64())), names)
        task = get_task("custom", data_dir=tmp_path)
        assert read_split(task, tmp_path, "test").labels is None
    write(tmp_path / "test.parquet", {"text": TEXTS})
    assert read_split(task, tmp_path, "test").labels is None
    write(tmp_path / "train.parquet", rows([0.5, -1.0, 2, 3, 4, 5]))
    write(tmp_path / "test.parquet", rows([-1.0] * 6))
    task = get_task("custom", data_dir=tmp_path, regression=True)
    assert read_split(task, tmp_path, "test").labels is None
    train = read_split(task, tmp_path, "train").labels
    assert train is not None
    assert train.tolist() == [0.5, -1, 2, 3, 4, 5]


def test_a_label_may_be_minus_one(tmp_path):
    write(tmp_path / "train.parquet", rows([-1, 1, 1, -1, 1, -1]))
    write(tmp_path / "test.parquet", rows([1, -1, 1, -1, 1, 1]))
    task = get_task("custom", data_dir=tmp_path)
    labels = read_split(task, tmp_path, "test").labels
    assert task.labels == ("-1", "1")
    assert labels is not None
    assert labels.tolist() == [1, 0, 1, 0, 1, 1]


def test_bad_files_and_rows(tmp_path):
    path = tmp_path / "train.parquet"
    path.write_bytes(b"PAR1 and no more")
    refuse(r"train\.parquet: not a readable parquet file", tmp_path)
    write(path, rows([0, 1, 2, 3, 0, 1]), NAMES)
    refuse(r"train\.parquet: row 4: 'label' is 3, but there are 3 classes", tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(60) + content[160:])
    refuse("not a readable parquet file|is not valid UTF-8|should be", tmp_path)
    write(path, rows([0, 1] * 3, texts=["a", "b", None, "c", "d", "e"]))
    refuse(r"train\.parquet:3: 'text' should be a string, it is null", tmp_path)
    write(path, rows([0, 1] * 3, texts=[1, 2, 3, 4, 5, 6]))
    refuse(r"train\.parquet:1: 'text' should be a string, it is a number", tmp_path)
    write(path, rows([0, 1] * 3, texts=[b"a"] * 6))
    refuse(r"train\.parquet:1: 'text' should be a string, it is bytes", tmp_path)
    broken = pa.array([b"a", b"b", b"\xff"] * 2).view(pa.string())
    write(path, rows([0, 1] * 3, texts=broken))
    refuse(r"train\.parquet: row 3: 'text' is not valid UTF-8", tmp_path)
    write(path, rows([[1], [0]] * 3))
    refuse(r"train\.parquet:1: the label 'label' should be a string or number, it is an array", tmp_path)
    write(path, rows([0, None, 1, 1, 1, 1]))
    refuse(r"train\.parquet:2: the label 'label' should be .* it is null", tmp_path)
    write(path, {"review": TEXTS, "label": [0, 1] * 3})
    refuse("no column 'text' or 'sentence'", tmp_path)
    refuse(r"no column 'label' in|no column 'stars'", tmp_path, text_column="review", label_column="stars")
    write(path, {"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())})
    refuse("no rows", tmp_path, labels=("0", "1"))


def test_damaged_bytes_are_refused(tmp_path):
    path = tmp_path / "train.parquet"
    write(path, rows([0, 1, 2, 0, 1, 2]), NAMES)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(whole)
        for position in generator.integers(0, len(whole), 3):
            content[position] = generator.integers(0, 256)
        path.write_bytes(content)
        try:
            read_split(get_task("custom", data_dir=tmp_path), tmp_path, "train")
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_missing_shards_and_double_splits(tmp_path):
    write(tmp_path / "train-00001-of-00003.parquet", rows([0, 1] * 3))
    refuse("1 files of this split are here, their names speak of 3", tmp_path)
    write(tmp_path / "train-00000-of-00003.parquet", rows([0, 1] * 3))
    write(tmp_path / "train-00002-of-00003.parquet", rows([0, 1] * 3))
    task = get_task("custom", data_dir=tmp_path)
    assert len(read_split(task, tmp_path, "train")) == 18
    with pytest.raises(UserError, match=r"not beside \.parquet"):
        augmented(task.splits["train"])
    (tmp_path / "train.csv").write_text("text,label\na,0\nb,1\n")
    refuse("the same split", tmp_path)


def save(directory, form, header, cells):
    """The same rows as any kind of file."""
    path = directory / f"train.{form}"
    if form == "parquet":
        pq.write_table(pa.table(dict(zip(header, zip(*cells, strict=True), strict=True))), path)
    elif form == "jsonl":
        lines = [json.dumps(dict(zip(header, row, strict=True))) for row in cells]
        path.write_text("\n".join(lines), encoding="utf-8")
    elif form == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *cells])
    else:
        lines = ["\t".join(map(str, row)) for row in (header, *cells)]
        path.write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n").encode())


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl", "parquet"])
@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("kind", ["inferred", "given", "regression"])
def test_every_kind_of_custom_task(tmp_path, form, pair, kind):
    texts, others = ["a b", "ü 🙂", "", "x" * 5000], ["1", "2", "", "4"]
    labels = [0.5, -2.0, 1e-3, 7.0] if kind == "regression" else ["no", "yes", "yes", "no"]
    save(tmp_path, form, ["first", "second", "target"], list(zip(texts, others, labels, strict=True)))
    options = {"text_column": "first", "label_column": "target"}
    options |= {"text_pair_column": "second"} if pair else {}
    options |= {"given": {"labels": ("yes", "no")}, "regression": {"regression": True}}.get(kind, {})
    task = get_task("custom", data_dir=tmp_path, **options)
    examples = read_split(task, tmp_path, "train")
    assert examples.texts_a == texts
    assert examples.texts_b == (others if pair else None)
    assert examples.labels is not None
    indices = {"inferred": [0, 1, 1, 0], "given": [1, 0, 0, 1]}
    expected = np.array(labels, np.float32) if kind == "regression" else indices[kind]
    np.testing.assert_array_equal(examples.labels, expected)
