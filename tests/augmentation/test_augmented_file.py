"""Train files read and written whole: what nobody looks at stays as it is."""

import csv
import json
from collections.abc import Iterator

import pytest

from bert_emd_jax.augmentation.augmented_file import Cells, header_of, whole_rows, write_rows
from bert_emd_jax.data.task import SplitFile
from bert_emd_jax.errors import UserError

TSV = '#1 ID\tsentence\tQuality\n7\t"so " it is \t1\n8\t" open\t0\n9\tno\u2028end\x0c\t1\n'


@pytest.mark.parametrize(("start", "ending"), [("", "\n"), ("\ufeff", "\r\n")])
def test_tsv(tmp_path, start, ending):
    path, file = tmp_path / "train.tsv", SplitFile("train.tsv", "sentence", label="Quality")
    path.write_bytes((start + TSV.replace("\n", ending)).encode())
    rows = list(whole_rows(path, file, False))
    assert rows[0] == {"#1 ID": "7", "sentence": '"so " it is ', "Quality": "1"}
    assert write_rows(tmp_path / "again.tsv", header_of(path, file), rows) == 3
    assert (tmp_path / "again.tsv").read_bytes().decode() == TSV


def test_tsv_without_header(tmp_path):
    path, file = tmp_path / "train.tsv", SplitFile("train.tsv", 3, label=1, columns=4)
    content = "gj04\t1\t\tOne.\ngj04\t0\t*\tTwo.\n"
    path.write_text(content)
    rows = list(whole_rows(path, file, False))
    assert rows[1] == {0: "gj04", 1: "0", 2: "*", 3: "Two."}
    assert header_of(path, file) is None
    write_rows(tmp_path / "again.tsv", None, rows)
    assert (tmp_path / "again.tsv").read_text() == content


def test_malformed_rows_are_skipped_where_the_task_skips_them(tmp_path):
    path, file = tmp_path / "train.tsv", SplitFile("train.tsv", "a", label="b")
    path.write_text("a\tb\nx\t1\nbroken\ny\t0\n")
    assert [row["a"] for row in whole_rows(path, file, True)] == ["x", "y"]
    with pytest.raises(UserError, match=":3: 1 columns"):
        list(whole_rows(path, file, False))


def test_csv(tmp_path):
    path, file = tmp_path / "train.csv", SplitFile("train.csv", "text", label="label")
    table = [
        ["text", "label", "note, more"],
        ['say "no"', "1", "two\nlines"],
        ["", "0", " x\r y "],
        [",", "1", ""],
    ]
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows(table)
    rows = list(whole_rows(path, file, False))
    write_rows(tmp_path / "again.csv", header_of(path, file), rows)
    with (tmp_path / "again.csv").open(newline="") as handle:
        assert list(csv.reader(handle)) == table
    assert list(whole_rows(tmp_path / "again.csv", file, False)) == rows


def test_json_lines(tmp_path):
    path, file = tmp_path / "train.jsonl", SplitFile("train.jsonl", "text", label="label")
    objects = [
        {"text": "né\u2028", "label": 1, "more": {"x": [1, 2.5, None]}},
        {"id": "\ud83d", "label": 0, "text": ""},
    ]
    path.write_text("\n\n".join(map(json.dumps, objects)) + "\n")
    rows = list(whole_rows(path, file, False))
    assert header_of(path, file) is None
    assert write_rows(tmp_path / "again.jsonl", None, rows) == 2
    lines = (tmp_path / "again.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == objects
    assert [list(json.loads(line)) for line in lines] == [list(value) for value in objects]


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "train_aug.tsv"
    target.write_text("old")

    def rows() -> Iterator[Cells]:
        yield {"a": "1"}
        raise UserError("row 2")

    with pytest.raises(UserError):
        write_rows(target, ["a"], rows())
    assert [path.name for path in tmp_path.iterdir()] == ["train_aug.tsv"]
    assert target.read_text() == "old"


def test_a_text_a_line(tmp_path):
    """Without a header: it would be a text of its own."""
    path = tmp_path / "train.txt"
    path.write_text("the film\n\n  a plot \n", encoding="utf-8")
    file = SplitFile("train.txt", "text")
    rows = list(whole_rows(path, file, False))
    assert rows == [{"text": "the film"}, {"text": "a plot"}]
    assert header_of(path, file) is None
    assert write_rows(tmp_path / "train_aug.txt", None, rows) == 2
    assert (tmp_path / "train_aug.txt").read_text(encoding="utf-8") == "the film\na plot\n"
