"""GLUE from TensorFlow Datasets: the library's own builder prepares it from the official files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bert_emd_jax.data.readers import read_split, scored_splits
from bert_emd_jax.data.tasks import TASK_NAMES, get_task
from bert_emd_jax.data.tfds_source import library
from bert_emd_jax.errors import UserError

ROWS = 12
TEXTS = ['He said " no', "ünïcode 中文 🙂", "", "  spaces  ", "a 'quote\"", "the cat sat ."]


def text(row: int, shift: int = 0) -> str:
    return f"{TEXTS[(row + shift) % len(TEXTS)]} {row}"


def table(header: list[str], rows: list[list[str]]) -> str:
    return "".join("\t".join(cells) + "\n" for cells in ([header] if header else []) + rows)


def official_file(task: str, split: str) -> str:
    """A file of the benchmark's form with `ROWS` rows."""
    labelled = not split.startswith("test")
    names = {"MNLI": ("contradiction", "entailment", "neutral"), "AX": ("entailment",)}
    labels = names.get(task, ("not_entailment", "entailment") if task in ("QNLI", "RTE") else ("0", "1"))
    rows = range(ROWS)
    label = [labels[row * 7 % len(labels)] for row in rows]
    if task == "CoLA" and labelled:
        return table([], [["src", label[row], "", text(row)] for row in rows])
    if task in ("CoLA", "SST-2"):
        if labelled:
            return table(["sentence", "label"], [[text(row), label[row]] for row in rows])
        return table(["index", "sentence"], [[str(row), text(row)] for row in rows])
    columns = {"QQP": ("question1", "question2"), "QNLI": ("question", "sentence")}
    label_column = {"QQP": "is_duplicate", "STS-B": "score", "MNLI": "gold_label"}.get(task, "label")
    if task == "STS-B":
        label = [f"{row / 3:.3f}" for row in rows]
    header = ["id" if task == "QQP" else "index", *columns.get(task, ("sentence1", "sentence2"))]
    cells = [[str(row), text(row), text(row, 1)] for row in rows]
    if labelled and task != "AX":
        header.append(label_column)
        cells = [[*cell, label[row]] for row, cell in enumerate(cells)]
    return table(header, cells)


def write_official_files(directory: Path, task: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for split, file in get_task(task).splits.items():
        (directory / file.name).write_text(official_file(task, split), encoding="utf-8", newline="\n")


class LocalFiles:
    """In place of the library's download manager."""

    downloaded_size = 0

    def __init__(self, directory: Path):
        self.directory = directory

    def download_and_extract(self, url: str) -> str:
        return str(self.directory)

    def download(self, url: str) -> str:
        return str(self.directory / "AX" / "diagnostic.tsv")


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> tuple[Path, Path]:
    """The official files of each task in a directory of its own, and what the library makes of them."""
    tfds = library()
    files, prepared = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patched:
        glue = tfds.text.glue.Glue
        patched.setattr(glue, "_make_download_manager", lambda self, **_: LocalFiles(files))
        for task in TASK_NAMES[:-1]:
            write_official_files(files / task, task)
            if task == "MRPC":  # put together from other files, see below
                continue
            builder = tfds.builder(f"glue/{task.replace('-', '').lower()}", data_dir=prepared)
            builder.download_and_prepare(file_format="array_record")
    return files, prepared


SPLITS = [(task, split) for task in TASK_NAMES[:-1] for split in get_task(task).splits if task != "MRPC"]


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_examples_are_those_of_the_files(sources, name, split):
    files, prepared = sources
    task = get_task(name, data_dir="tfds")
    theirs = read_split(task, files / name, split)
    ours = read_split(task, "tfds", split, tfds_data_dir=prepared)
    assert ours.texts_a == theirs.texts_a
    assert ours.texts_b == theirs.texts_b
    assert ours.identifiers == theirs.identifiers
    if theirs.labels is None:
        assert ours.labels is None
    else:
        assert ours.labels is not None
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert ours.labels.dtype == theirs.labels.dtype


def test_mrpc_from_the_original_files(tmp_path, monkeypatch):
    """The library makes the dev set itself, from the numbers of its rows."""
    tfds = library()
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    rows = [f"{row % 2}\t{row}\t{row + 100}\tA{row}\tB{row}\n" for row in range(10)]
    paths = {name: str(tmp_path / name) for name in ("train", "test", "dev_ids")}
    Path(paths["train"]).write_text("\ufeff" + header + "".join(rows), encoding="utf-8")
    Path(paths["test"]).write_text(header + "".join(rows[:3]))
    Path(paths["dev_ids"]).write_text("3\t103\n8\t108\n")

    class Downloads(LocalFiles):
        def download(self, url):
            return paths

    glue = tfds.text.glue.Glue
    monkeypatch.setattr(glue, "_make_download_manager", lambda self, **_: Downloads(tmp_path))
    data = tmp_path / "data"
    tfds.builder("glue/mrpc", data_dir=data).download_and_prepare(file_format="array_record")
    task = get_task("mrpc")
    train = read_split(task, "tfds", "train", tfds_data_dir=data)
    assert len(train) + len(read_split(task, "tfds", "dev", tfds_data_dir=data)) == 10
    assert train.labels is not None
    assert [f"A{row}" for row in map(int, train.identifiers)] == train.texts_a
    assert train.labels.tolist() == [int(number) % 2 for number in train.identifiers]
    assert read_split(task, "tfds", "test", tfds_data_dir=data).labels is None


def test_the_mismatched_sets(sources):
    _, prepared = sources
    assert scored_splits(get_task("mnli"), "tfds", "dev", prepared) == ("dev", "dev_mismatched")
    assert scored_splits(get_task("rte"), "tfds", "test", prepared) == ("test",)


def test_tensorflow_is_not_needed(sources):
    code = (
        "import sys\n"
        "from bert_emd_jax.data.readers import read_split\n"
        "from bert_emd_jax.data.tasks import get_task\n"
        f"rows = read_split(get_task('sst-2'), 'tfds', 'train', tfds_data_dir={str(sources[1])!r})\n"
        f"assert len(rows) == {ROWS}\n"
        "assert not {'jax', 'torch', 'tensorflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def refused(message: str, name: str, data_dir: Path, split: str = "train", **options) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_split(get_task(name), "tfds", split, tfds_data_dir=data_dir, **options)
    assert "\n" not in str(caught.value)


def test_refusals(sources, tmp_path, monkeypatch):
    import requests

    prepared = tmp_path / "prepared"
    shutil.copytree(sources[1] / "glue" / "sst2", prepared / "glue" / "sst2")
    version = next((prepared / "glue" / "sst2").iterdir())
    refused("AX has no train split here, only test", "ax", sources[1])
    refused("--aug_train reads a file", "sst-2", prepared, aug_train=True)
    with pytest.raises(UserError, match="name the directory"):
        get_task("custom", data_dir="tfds")

    def no_network(*_, **__):
        raise requests.ConnectionError("no\nway out")

    with monkeypatch.context() as patched:
        patched.setattr(requests, "head", no_network)
        refused("cannot be downloaded .no way out.; name the place of a prepared one", "qnli", prepared)

    record = next(version.glob("*train*"))
    content = record.read_bytes()
    record.write_bytes(content[: len(content) // 2])
    refused("the train split is damaged", "sst-2", prepared)
    record.write_bytes(b"")
    refused("cannot be read|is damaged", "sst-2", prepared)
    record.unlink()
    refused("cannot be read|is damaged", "sst-2", prepared)
    record.write_bytes(content)
    description = version / "dataset_info.json"
    values = json.loads(description.read_text())
    description.write_text(json.dumps(values | {"fileFormat": "tfrecord"}))
    refused("stored as tfrecord, which needs TensorFlow", "sst-2", prepared)
    description.write_text("{")
    refused("damaged", "sst-2", prepared)
