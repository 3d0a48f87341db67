"""Distillation on rows without labels: with alpha 1 the same as on rows that have some."""

import csv
import json

import numpy as np
import pytest
from commands.test_programs import distill_flags, rows
from commands.test_tokens import write_sentences

from bert_emd_jax.checkpoints.model_directory import load_model, save_model
from bert_emd_jax.commands import distill
from bert_emd_jax.models.initialization import NewHead


def without_labels(task_dir, directory):
    directory.mkdir()
    for path in task_dir.glob("*.csv"):
        (directory / path.name).write_bytes(path.read_bytes())
    with (task_dir / "train.csv").open(newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    (directory / "train.csv").write_text("\n".join(["text", *(f'"{text}"' for text in texts)]) + "\n")
    return directory


def test_texts_without_labels_teach_what_the_teacher_says(tmp_path, task_dir, tiny_model_dir, capsys):
    teacher, bare = tiny_model_dir("teacher"), without_labels(task_dir, tmp_path / "bare")
    labelled, unlabelled = tmp_path / "labelled", tmp_path / "unlabelled"
    assert distill.main(distill_flags(teacher, task_dir, labelled)) == 0
    assert distill.main(distill_flags(teacher, bare, unlabelled)) == 0
    ours, theirs = rows(unlabelled, "train"), rows(labelled, "train")
    losses = ([row["loss"] for row in run] for run in (ours, theirs))
    assert next(losses) == pytest.approx(next(losses), rel=1e-5)
    assert "hard_loss" in theirs[0]
    assert "hard_loss" not in ours[0]
    results = json.loads((unlabelled / "eval_results.json").read_text())
    assert results["labels"] == ["bad", "good"]  # the teacher's
    assert results["test"]["rows"] == 11
    # Labels that are wanted and not there.
    capsys.readouterr()
    assert distill.main(distill_flags(teacher, bare, tmp_path / "o", "--alpha", 0.5)) == 2
    assert "train.csv:1: no column 'label'" in capsys.readouterr().err


def test_words_without_labels_as_well(tmp_path, tiny_model_dir):
    data = write_sentences(tmp_path / "data", (("train", 30), ("dev", 10)))
    names = ("B-OTHER", "B-THING", "I-THING", "O")
    head = NewHead(4, seed=1, id2label=names, problem_type="token_classification")
    save_model(tmp_path / "teacher", load_model(tiny_model_dir("base"), head="token", new_head=head))
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "dev.conll").write_bytes((data / "dev.conll").read_bytes())
    lines = [line.split(" ")[0] for line in (data / "train.conll").read_text().splitlines()]
    (bare / "train.conll").write_text("\n".join(lines) + "\n")
    losses = []
    for directory in (data, bare):
        run = tmp_path / f"run_{directory.name}"
        flags = distill_flags(tmp_path / "teacher", directory, run, "--beta", 0, "--kind", "token")
        assert distill.main(flags) == 0
        losses.append([row["loss"] for row in rows(run, "train")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert np.isfinite(losses[0]).all()
