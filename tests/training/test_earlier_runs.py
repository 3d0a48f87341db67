"""What version 0.1.0 left: students load and evaluate, stopped runs end in a line that names the version."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

import bert_emd_jax
from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.commands import distill, finetune
from bert_emd_jax.report.html import write_report

FIXTURE = Path(__file__).parent / "fixtures" / "runs_0.1.0.tar.xz"
TASK = ["--data_dir", "task", "--task_name", "custom", "--max_seq_length", "32", "--train_batch_size", "8"]
TASK += ["--log_steps", "1", "--learning_rate", "1e-3", "--no_token_cache"]
STUDENT = ["--teacher_model", "teacher", "--student_config", "small.json", *TASK]
STUDENT += ["--alpha", "0.5", "--beta", "1", "--teacher_cache", "off"]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory: teacher, task, a finished student, a student and a teacher that were stopped."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)


def test_a_finished_run_is_read(capsys):
    written = json.loads(Path("student/eval_results.json").read_text())
    logits = bert_emd_jax.load("student").logits(["the film is good", "a dull movie"])
    params = bert_emd_jax.load("student/pytorch").logits(["the film is good", "a dull movie"])
    np.testing.assert_allclose(logits, params, rtol=1e-6)
    flags = {"data_dir": "task", "task_name": "custom", "max_seq_length": 32, "token_cache": False}
    results = bert_emd_jax.evaluate(student_model="student", output_dir="scores", **flags)
    assert results["student"]["metrics"].items() >= written["student"]["metrics"].items()
    recorded = bert_emd_jax.mapping("student")
    assert recorded.flow["attention"].shape == (10, 2, 4)
    assert "accuracy" in write_report(Path("student")).read_text()
    assert load_model(Path("student")).projection is not None
    # Resumed it has nothing left to do.
    assert distill.main([*STUDENT, "--num_train_epochs", "2", "--output_dir", "student", "--resume"]) == 0
    assert json.loads(Path("student/eval_results.json").read_text()) == written


@pytest.mark.parametrize(
    ("program", "flags", "directory"),
    [
        (distill, STUDENT, "stopped_student"),
        (finetune, ["--bert_model", "teacher", *TASK], "stopped_teacher"),
    ],
)
def test_a_stopped_run_is_refused_in_one_line(capsys, program, flags, directory):
    before = sorted(Path(directory).rglob("*"))
    output = ["--num_train_epochs", "60", "--output_dir", directory, "--resume"]
    assert program.main([*flags, *output]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "bert_emd_jax 0.1.0 wrote this checkpoint" in error
    assert "--overwrite" in error
    checkpoints = [path for path in before if path.parts[1] == "checkpoints"]
    assert all(path.exists() for path in checkpoints)
