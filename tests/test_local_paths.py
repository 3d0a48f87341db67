"""Paths into buckets are refused, by every program and from Python, before anything is written."""

import sys
from pathlib import Path

import pytest
from fsspec.registry import _registry

import bert_emd_jax
from bert_emd_jax.commands import convert, distill, pretrain_data
from bert_emd_jax.local_paths import require_local
from bert_emd_jax.training.training_config import FinetuneConfig


@pytest.fixture(autouse=True)
def _no_package_for_buckets(monkeypatch):
    """As after `pip install bert_emd_jax` without an extra."""
    for name in ("gs", "gcs"):
        monkeypatch.delitem(_registry, name, raising=False)
    monkeypatch.setitem(sys.modules, "gcsfs", None)


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("gs://bucket/run", "gs://bucket/run"),
        (Path("gs://bucket/run"), "gs://bucket/run"),  # as pathlib spells it
        ("S3://bucket", "S3://bucket"),
        ("https://example.org/model.bin", "https://example.org/model.bin"),
        ("gs:///", "gs://"),
    ],
)
def test_urls_are_refused(path, url):
    with pytest.raises(bert_emd_jax.UserError, match="not on a disk of this machine") as caught:
        require_local(path, "--output_dir ")
    assert str(caught.value).startswith(f"--output_dir {url}: ")


@pytest.mark.parametrize(
    "path",
    ["run", "/gs/run", "runs/gs:/x", "google-bert/bert-base-uncased", "C:/run", "tfds", "my:/run"],
)
def test_paths_are_not(path):
    require_local(path)
    require_local(Path(path))


def test_programs_say_how_to_copy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    task = ("--data_dir", "data", "--task_name", "rte")
    student = ("--teacher_model", "gs://b/teacher", "--student_init_layers", "1")
    assert distill.main([*task, *student, "--output_dir", "run"]) == 2
    error = capsys.readouterr().err
    assert "gs://b/teacher: cannot be read" in error
    assert "pip install 'bert_emd_jax[gcs]'" in error
    assert distill.main([*task, *student, "--output_dir", "run", "--cache_dir", "s3://b/cache"]) == 2
    assert "`aws s3 sync s3://b/cache DIR`" in capsys.readouterr().err
    assert convert.main(["--input", "model", "--output_dir", "s3://b/model"]) == 2
    assert "`aws s3 sync DIR s3://b/model`" in capsys.readouterr().err
    corpus = ("--train_corpus", "c", "--bert_model", "m", "--output_dir", "gs://b/corpus")
    assert pretrain_data.main(corpus) == 2
    assert capsys.readouterr().err.count("\n") == 1
    start = ("--teacher_model", "teacher", "--student_init_layers", "1", "--output_dir", "gs://b/run")
    assert distill.main([*task, *start]) == 2
    assert "pip install 'bert_emd_jax[gcs]'" in capsys.readouterr().err
    assert distill.main([*task, *start, "--mirror_dir", "gs://b/other"]) == 2
    assert "--output_dir gs://b/run and --mirror_dir gs://b/other: choose one" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_from_python(tmp_path):
    with pytest.raises(bert_emd_jax.UserError, match=r"^--mirror_dir gs://b/run: cannot be read"):
        bert_emd_jax.finetune(bert_model="m", data_dir=tmp_path, task_name="rte", output_dir="gs://b/run")
    with pytest.raises(bert_emd_jax.UserError, match=r"^--bert_model https://b/m: "):
        FinetuneConfig(
            bert_model=Path("https://b/m"), data_dir=tmp_path, task_name="rte", output_dir=tmp_path
        )
    with pytest.raises(bert_emd_jax.UserError, match=r"^gs://b/student: "):
        bert_emd_jax.load("gs://b/student")
