"""GLUE's tasks from a stand-in for the hub, whose parquet files our own readers then read as GLUE's."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("huggingface_hub")
from checkpoints.test_hub import local_hub  # noqa: F401
from huggingface_hub import constants

from bert_emd_jax.commands import bert_emd
from bert_emd_jax.data.readers import read_split
from bert_emd_jax.data.task import plain_name
from bert_emd_jax.data.tasks import TASK_NAMES, get_task
from bert_emd_jax.data.tfds_source import split_names, text_features

# The classes in the hub's order, which is not GLUE's everywhere.
CLASSES = {
    "CoLA": ["unacceptable", "acceptable"],
    "SST-2": ["negative", "positive"],
    "MRPC": ["not_equivalent", "equivalent"],
    "QQP": ["not_duplicate", "duplicate"],
    "MNLI": ["entailment", "neutral", "contradiction"],
    "QNLI": ["entailment", "not_entailment"],
    "RTE": ["entailment", "not_entailment"],
    "WNLI": ["not_entailment", "entailment"],
    "AX": ["entailment", "neutral", "contradiction"],
}
ROWS = 5


def parquet(name: str, split: str) -> bytes:
    """A split as the hub has it; a text has a tab and a line break in it."""
    task, classes = get_task(name), CLASSES.get(name)
    columns: dict[str, Any] = {
        feature: [f"{feature} {row} of {split}" + '\tor "\n' * (row == 3) for row in range(ROWS)]
        for feature in text_features(task)
    }
    labels = [row % len(classes) for row in range(ROWS)] if classes else [row * 0.8 for row in range(ROWS)]
    columns["label"] = [-1 for _ in labels] if split.startswith("test") and classes else labels
    columns["idx"] = list(range(10, 10 + ROWS))
    table = pa.table(columns)
    if classes:
        features = {"label": {"names": classes, "_type": "ClassLabel"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


@pytest.fixture
def glue(local_hub, monkeypatch) -> Any:  # noqa: F811
    local_hub.models["nyu-mll/glue"] = {
        f"{plain_name(name)}/{theirs}-00000-of-00001.parquet": parquet(name, theirs)
        for name in CLASSES | {"STS-B": None}
        for theirs in split_names(get_task(name)).values()
    }
    return local_hub


@pytest.mark.parametrize("name", [name for name in TASK_NAMES if name != "custom"])
def test_what_is_fetched_reads_as_glues_own_files(glue, tmp_path: Path, name: str, capsys):
    task, directory = get_task(name), tmp_path / "task"
    assert bert_emd.main(["data", name.lower(), str(directory)]) == 0
    printed = capsys.readouterr().out
    assert f"use it with --data_dir {directory} --task_name {task.name}" in printed
    for split, theirs in split_names(task).items():
        assert f"{directory / task.splits[split].name}: {ROWS} rows" in printed
        examples = read_split(task, directory, split)
        features = text_features(task)
        expected = [f"{features[0]} {row} of {theirs}" + ' or " ' * (row == 3) for row in range(ROWS)]
        assert [text.strip() for text in examples.texts_a] == [text.strip() for text in expected]
        assert (examples.texts_b is not None) == (len(features) == 2)
        if split.startswith("test"):
            assert examples.identifiers == [str(10 + row) for row in range(ROWS)]
            assert examples.labels is None
        elif name == "STS-B":
            np.testing.assert_allclose(examples.labels, [row * 0.8 for row in range(ROWS)], atol=1e-3)
        else:
            order = task.label_order(CLASSES[name])
            assert examples.labels.tolist() == [order.index(row % len(order)) for row in range(ROWS)]


def test_what_keeps_it_from_being_fetched_is_one_line(glue, tmp_path: Path, capsys, monkeypatch):
    def refused(*args: str) -> str:
        assert bert_emd.main(["data", *args]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    assert "no such task" in refused("mrcp", str(tmp_path))
    assert "files of your own need no fetching" in refused("custom", str(tmp_path))
    (tmp_path / "dev.tsv").write_text("mine")
    assert "dev.tsv: is there already" in refused("mrpc", str(tmp_path))
    assert (tmp_path / "dev.tsv").read_text() == "mine"
    del glue.models["nyu-mll/glue"]["mrpc/validation-00000-of-00001.parquet"]
    assert "has no validation of MRPC" in refused("mrpc", str(tmp_path / "new"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "the Hugging Face hub is not reachable" in refused("mrpc", str(tmp_path / "newer"))
