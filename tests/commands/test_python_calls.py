"""Training called from Python: rows in memory, part of an epoch, a callback, and an early end."""

import csv
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from commands.test_embeddings import stop_after
from commands.test_programs import train_flags

import bert_emd_jax
from bert_emd_jax.commands import finetune
from bert_emd_jax.training.run import Run


def rows_of(path) -> tuple[list[str], list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["label"] for row in rows]


def metrics_of(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_rows_in_memory_train_as_their_files_do(tmp_path, task_dir, tiny_model_dir, monkeypatch):
    monkeypatch.setenv("BERT_EMD_JAX_CACHE", str(tmp_path / "cache"))
    start, by_files, by_lists = tiny_model_dir("start"), tmp_path / "files", tmp_path / "lists"
    assert (
        finetune.main(train_flags(task_dir, by_files, "--bert_model", start, "--num_train_epochs", 1.5)) == 0
    )
    train, dev = (rows_of(task_dir / f"{split}.csv") for split in ("train", "dev"))
    flags = json.loads((by_files / "run_config.json").read_text())["flags"]
    kept = ("max_seq_length", "train_batch_size", "learning_rate", "seed", "log_steps")
    logged = []
    results = bert_emd_jax.finetune(
        bert_model=start,
        output_dir=by_lists,
        train=train,
        dev=[{"text": text, "label": label} for text, label in zip(*dev, strict=True)],
        num_train_epochs="1.5",
        on_log=lambda step, values: logged.append((step, values)),
        **{name: str(flags[name]) for name in kept},
    )
    theirs = json.loads((by_files / "eval_results.json").read_text())
    assert results["student"]["metrics"] == theirs["student"]["metrics"]
    steps = -(-len(train[0]) // flags["train_batch_size"])
    assert metrics_of(by_lists)[-1]["step"] == -(-3 * steps // 2)
    assert [row["loss"] for row in metrics_of(by_lists) if row["kind"] == "train"] == [
        row["loss"] for row in metrics_of(by_files) if row["kind"] == "train"
    ]
    assert [(step, values["kind"]) for step, values in logged] == [
        (row["step"], row["kind"]) for row in metrics_of(by_lists)
    ]

    scores = bert_emd_jax.evaluate(
        student_model=bert_emd_jax.load(by_lists), output_dir=tmp_path / "scores", test=dev, max_seq_length=24
    )
    assert scores["split"] == "test"
    assert scores["student"]["metrics"]["accuracy"] == results["student"]["metrics"]["accuracy"]

    model = bert_emd_jax.load(by_lists)
    ranked = model.classify(dev[0][:3], top_k=2)
    assert [row[0] for row in ranked] == model.classify(dev[0][:3])
    assert all(sum(one.probability for one in row) == pytest.approx(1, abs=1e-5) for row in ranked)
    assert [len(row) for row in model.classify(dev[0][:2], top_k=9)] == [2, 2]
    with pytest.raises(bert_emd_jax.UserError, match="top_k 0: must be at least 1"):
        model.classify(["a"], top_k=0)
    model.save(tmp_path / "saved")
    np.testing.assert_array_equal(
        bert_emd_jax.load(tmp_path / "saved").predict(dev[0]), model.predict(dev[0])
    )


def test_a_table_trains_and_further_texts_are_a_list(tmp_path, task_dir, tiny_model_dir, monkeypatch):
    pandas = pytest.importorskip("pandas")
    monkeypatch.setenv("BERT_EMD_JAX_CACHE", str(tmp_path / "cache"))
    train, dev = (pandas.read_csv(task_dir / f"{split}.csv") for split in ("train", "dev"))
    teacher = bert_emd_jax.load(tiny_model_dir("teacher"))
    sizes = {"train_batch_size": 8, "max_seq_length": 24, "max_steps": 2, "log_steps": 1}
    students = {"teacher_model": teacher, "student_init_layers": [1, 3], "alpha": 0.5, **sizes}
    more = {"unlabelled": ["a film"] * 8, "output_dir": tmp_path / "more"}
    results = bert_emd_jax.distill(train=train, dev=dev, **more, **students)
    assert results["rows"] == len(dev)
    flags = json.loads((tmp_path / "more" / "run_config.json").read_text())["flags"]
    written = [json.loads(line) for line in Path(flags["unlabelled"]).read_text().splitlines()]
    assert written == [{"text": "a film"}] * 8
    plan = bert_emd_jax.distill(train=train, dev=dev, dry_run=True, **more, **students)
    assert plan["rows"] == len(train) + 8


def test_patience_ends_a_run_and_a_resumed_one_as_well(tmp_path, task_dir, tiny_model_dir, monkeypatch):
    """With a learning rate of next to nothing no evaluation is better than the first one."""
    start, whole, stopped = tiny_model_dir("start"), tmp_path / "whole", tmp_path / "stopped"
    flags = ("--bert_model", start, "--learning_rate", 1e-12, "--eval_steps", 2, "--patience", 3)

    def run(output, *more) -> int:
        return finetune.main(train_flags(task_dir, output, *flags, "--num_train_epochs", 9, *more))

    assert run(whole) == 0
    evaluations = [row for row in metrics_of(whole) if row["kind"] == "eval"]
    assert [row["step"] for row in evaluations] == [2, 4, 6, 8]
    assert json.loads((whole / "eval_results.json").read_text())["best_step"] == 2
    with monkeypatch.context() as patched:
        patched.setattr(Run, "after_step", stop_after(5))
        assert run(stopped) == 143
    assert run(stopped, "--resume") == 0
    assert [row["step"] for row in metrics_of(stopped) if row["kind"] == "eval"] == [2, 4, 6, 8]
    # Whoever asks again is told what it found, and a run that is ended is not gone on with.
    assert run(stopped, "--resume") == 0
    assert metrics_of(stopped)[-1]["step"] == 8


def test_signatures_have_all_flags():
    for name, config in (
        ("finetune", bert_emd_jax.FinetuneConfig),
        ("distill", bert_emd_jax.DistillConfig),
        ("general_distill", bert_emd_jax.GeneralDistillConfig),
        ("evaluate", bert_emd_jax.EvaluationConfig),
    ):
        signature = inspect.signature(getattr(bert_emd_jax, name))
        from bert_emd_jax.configs import all_flags

        flags = {flag.name: flag for flag in all_flags(config)}
        assert flags.keys() <= signature.parameters.keys()
        assert signature.parameters["output_dir"].kind is inspect.Parameter.KEYWORD_ONLY
    assert inspect.signature(bert_emd_jax.distill).parameters["beta"].default == 0.01


def test_a_config_and_flags_are_not_mixed(tmp_path):
    config = bert_emd_jax.FinetuneConfig(
        bert_model="m", data_dir="d", task_name="cola", output_dir=tmp_path / "o"
    )
    for more in ({"seed": 3}, {"train": ["a"]}):
        with pytest.raises(bert_emd_jax.UserError, match="a config, or flags and rows, not both"):
            bert_emd_jax.finetune(config, **more)
