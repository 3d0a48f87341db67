"""Embedders from files to results; sentence-transformers as the oracle."""

import json
import os
import signal

import numpy as np
import pytest
from report.test_report import Page
from scipy.stats import pearsonr
from texts import texts_of, write_texts

import bert_emd_jax
from bert_emd_jax.commands import convert, distill, evaluate, finetune
from bert_emd_jax.models.embedding_config import NORMALIZE, DenseModule
from bert_emd_jax.training.run import Run

COLUMNS = ("--text_column", "sentence1", "--text_pair_column", "sentence2", "--label_column", "score")


def flags_of(teacher, data, output, *flags) -> list[str]:
    fixed = ("--teacher_model", teacher, "--data_dir", data, "--task_name", "custom", "--kind", "embedding")
    run = ("--output_dir", output, "--train_batch_size", 16, "--num_train_epochs", 2, "--max_seq_length", 32)
    return [str(flag) for flag in (*fixed, *run, *flags)]


def stop_after(steps: int):
    """`Run.after_step` with a signal after so many steps."""
    after_step = Run.after_step

    def stopping(self, measurements):
        after_step(self, measurements)
        if self._step == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    return stopping


def test_distil_score_and_export(tmp_path, embedder_dir, capsys):
    st = pytest.importorskip("sentence_transformers")
    teacher, data = embedder_dir("teacher", NORMALIZE), write_texts(tmp_path / "texts")
    run = tmp_path / "run"
    learning = ("--student_init_layers", "1,3", "--learning_rate", 5e-3, "--similarity_weight", 1)
    assert distill.main(flags_of(teacher, data, run, *COLUMNS, *learning)) == 0
    said = capsys.readouterr().out
    assert f"for sentence-transformers: {run / 'pytorch'}" in said
    assert "on 20 test pairs" in said

    results = json.loads((run / "eval_results.json").read_text())
    assert (results["kind"], results["primary_metric"], results["unit"]) == ("embedding", "spearman", "pairs")
    rows = [line.split("\t") for line in (data / "test.tsv").read_text().splitlines()[1:]]
    scores = [float(row[2]) for row in rows]
    for name, directory in (("teacher", teacher), ("student", run / "pytorch")):
        model = st.SentenceTransformer(str(directory), device="cpu")
        a, b = (model.encode([row[side] for row in rows]) for side in (0, 1))
        cosines = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert results["test"][name]["metrics"]["pearson"] == pytest.approx(
            pearsonr(cosines, scores)[0], abs=1e-4
        )
        ours = bert_emd_jax.load(directory if name == "teacher" else run).embed([row[0] for row in rows])
        np.testing.assert_allclose(ours, a, atol=1e-4)
    kept = [json.loads(line) for line in (run / "test_predictions.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([row["student"] for row in kept], cosines, atol=1e-4)
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row for row in losses if row["kind"] == "train"]
    assert {"vector_loss", "similarity_loss", "attention_loss", "hidden_loss"} <= set(losses[0])
    assert losses[-1]["vector_loss"] < losses[0]["vector_loss"]

    page = Page((run / "report.html").read_text())
    assert "How both compare texts" in page.headings()
    assert len(page.table("nearest texts")) == 1 + 8
    assert page.table("furthest apart")[0] == ["texts", "teacher", "student"]
    assert "is left out" not in page.text
    assert "20 test pairs" in page.text

    scored = tmp_path / "scores"
    flags = [*flags_of(teacher, data, scored)[2:8], "--output_dir", str(scored), *COLUMNS]
    flags += ["--student_model", str(run), "--split", "test", "--max_seq_length", "32"]
    assert evaluate.main(flags) == 0
    again = json.loads((scored / "eval_results.json").read_text())
    assert again["student"]["metrics"] == pytest.approx(results["test"]["student"]["metrics"], abs=1e-6)
    head, *lines = [line.split("\t") for line in (scored / "predictions_test.tsv").read_text().splitlines()]
    assert head == ["index", "prediction", "label"]
    np.testing.assert_allclose([float(line[1]) for line in lines], cosines, atol=1e-4)

    assert (
        convert.main(["--input", str(run), "--to_pytorch", "--output_dir", str(tmp_path / "c"), "--verify"])
        == 0
    )
    converted = st.SentenceTransformer(str(tmp_path / "c"), device="cpu")
    np.testing.assert_array_equal(converted.encode(["the plot"]), model.encode(["the plot"]))


def test_a_narrow_student_of_texts_alone_is_resumed_exactly(tmp_path, embedder_dir, monkeypatch):
    """Its vectors are compared by a projection, which is kept; the dev texts are held out."""
    teacher, data = embedder_dir("teacher", NORMALIZE), write_texts(tmp_path / "texts", pairs=False)
    config = json.loads((teacher / "config.json").read_text())
    narrow = tmp_path / "narrow.json"
    narrow.write_text(
        json.dumps(config | {"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 16})
    )
    learning = ("--student_config", narrow, "--learning_rate", 5e-3, "--keep_projection", "--save_steps", 3)
    learning = (*learning, "--beta", 0, "--embedding_loss", "cosine", "--teacher_cache", "memory")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert distill.main(flags_of(teacher, data, whole, *learning)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Run, "after_step", stop_after(7))
        assert distill.main(flags_of(teacher, data, stopped, *learning)) == 128 + signal.SIGTERM
    results = json.loads((whole / "eval_results.json").read_text())
    assert (results["primary_metric"], results["unit"]) == ("teacher_cosine", "texts")
    assert results["teacher"]["metrics"] == {"teacher_cosine": pytest.approx(1)}
    assert (results["test"]["rows"], results["test"]["unit"]) == (len({*texts_of(12, 5)}), "texts")
    best = results["student"]["metrics"]["teacher_cosine"]
    assert best > 0.5
    model = bert_emd_jax.load(whole)
    assert model.loaded.config.embedding.modules == (NORMALIZE, DenseModule(16), NORMALIZE)
    texts = [*dict.fromkeys(texts_of(150, 0))]
    held_out = texts[-(len(texts) // 10) :]
    ours, theirs = (bert_emd_jax.load(path).embed(held_out) for path in (whole, teacher))
    assert np.mean(np.sum(ours * theirs, axis=1)) == pytest.approx(best, abs=1e-4)

    st = pytest.importorskip("sentence_transformers")
    np.testing.assert_allclose(
        st.SentenceTransformer(str(whole / "pytorch"), device="cpu").encode(["the plot"]),
        model.embed(["the plot"]),
        atol=1e-4,
    )
    page = Page((whole / "report.html").read_text())
    left_out = [line.strip() for line in page.text.splitlines() if "left out" in line]
    assert left_out == ["There is no layer_mapping.npz: plans and layer weights are left out."]

    assert distill.main(flags_of(teacher, data, stopped, *learning, "--resume")) == 0
    again = json.loads((stopped / "eval_results.json").read_text())
    assert again["student"]["metrics"] == results["student"]["metrics"]


def test_mistakes_are_one_line(tmp_path, embedder_dir, tiny_model_dir, task_dir, capsys):
    teacher, data = embedder_dir("teacher"), write_texts(tmp_path / "texts")
    classifier = tiny_model_dir("classifier")
    cut = ("--student_init_layers", "1")

    def refused(program, flags) -> str:
        assert program.main([str(flag) for flag in flags]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert "Traceback" not in error
        return error

    output = ("--output_dir", tmp_path / "o", "--task_name", "custom")
    task = ("--data_dir", task_dir, *output)
    assert "fine-tune" in refused(finetune, ("--bert_model", classifier, "--kind", "embedding", *task))
    message = refused(distill, ("--teacher_model", classifier, *cut, *task, "--similarity_weight", 1))
    assert "--kind embedding" in message
    message = refused(distill, ("--teacher_model", teacher, *cut, *task, "--kind", "classification"))
    assert "missing: classifier/kernel, classifier/bias" in message or "missing: classifier.weight" in message
    of_texts = ("--data_dir", data, *output, "--max_seq_length", 32)
    message = refused(distill, ("--teacher_model", teacher, *cut, *of_texts, *COLUMNS, "--alpha", 0.5))
    assert "--alpha 0.5: kind embedding has no labels" in message
    flags = ("--student_model", teacher, *of_texts)
    assert "no column 'text' or 'sentence'" in refused(evaluate, flags)
    for split in ("dev", "test"):
        (data / f"{split}.tsv").unlink()
    assert "there is nothing to measure vectors by" in refused(evaluate, flags)
    sst = ("--teacher_model", teacher, *cut, "--data_dir", data, "--output_dir", tmp_path / "o")
    assert "is of kind embedding, task SST-2" in refused(distill, (*sst, "--task_name", "sst-2"))
