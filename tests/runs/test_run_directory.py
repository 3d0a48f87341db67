"""What `run_config.json` says of when and from where a run was started."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bert_emd_jax
from bert_emd_jax.runs import run_directory
from bert_emd_jax.runs.run_directory import RunDirectory
from bert_emd_jax.training.training_config import FinetuneConfig


def directory(path: Path, **flags) -> RunDirectory:
    config = FinetuneConfig(bert_model="m", data_dir="d", task_name="cola", output_dir=path, **flags)
    return RunDirectory(path, "run_finetune", config, config.run)


def written(run: RunDirectory) -> dict:
    run.write_config({})
    return json.loads((run.path / "run_config.json").read_text())


def at(monkeypatch: pytest.MonkeyPatch, hour: int) -> None:
    class Clock(run_directory.datetime.datetime):
        @classmethod
        def now(cls, zone=None):
            return cls(2026, 1, 1, hour, tzinfo=zone)

    monkeypatch.setattr(run_directory.datetime, "datetime", Clock)


def test_the_time_is_that_of_the_start(tmp_path, monkeypatch):
    at(monkeypatch, 8)
    run = directory(tmp_path)
    run.prepare()
    assert written(run)["started"] == "2026-01-01T08:00:00+00:00"
    at(monkeypatch, 9)
    assert written(run)["started"] == "2026-01-01T08:00:00+00:00"  # again at the end of the run
    for hour in (10, 11):
        at(monkeypatch, hour)
        resumed = directory(tmp_path, resume=True)
        written(resumed)
        values = written(resumed)
    assert values["started"] == "2026-01-01T08:00:00+00:00"
    assert values["resumed"] == ["2026-01-01T10:00:00+00:00", "2026-01-01T11:00:00+00:00"]


def git(place: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.com")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=place, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_repository_around_the_environment_is_somebody_elses(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("needs git")
    for name, package in (("theirs", "venv/lib/bert_emd_jax"), ("ours", "bert_emd_jax")):
        repository = tmp_path / name
        (repository / package).parent.mkdir(parents=True)
        shutil.copytree(Path(bert_emd_jax.__file__).parent, repository / package)
        git(repository, "init", "-q")
        (repository / "notes.txt").write_text("mine")
        git(repository, "add", "notes.txt")
        git(repository, "commit", "-qm", "notes")
        code = "from bert_emd_jax.runs.run_directory import _git_revision; print(_git_revision())"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=(repository / package).parent,
            env={"PYTHONPATH": str((repository / package).parent), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == ("None" if name == "theirs" else git(repository, "rev-parse", "HEAD"))
