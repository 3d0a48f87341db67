"""ONNX files of every head and family, run by onnxruntime: outputs, int8, scores on a task."""

import json
from pathlib import Path

import numpy as np
import pytest

import bert_emd_jax
from bert_emd_jax.checkpoints import onnx_file
from bert_emd_jax.checkpoints.model_directory import load_model
from bert_emd_jax.checkpoints.onnx_file import INT8_FILE, ONNX_FILE, onnx_model, random_batches
from bert_emd_jax.commands import convert
from bert_emd_jax.errors import UserError

for package in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

import torch
import transformers
from family_models import their_model

from bert_emd_jax.models.families import Head


def exported(tmp_path: Path, source: Path, *flags: str) -> Path:
    target = tmp_path / "exported"
    line = ["--input", str(source), "--output_dir", str(target), "--to_onnx", *flags]
    assert convert.main(line) == 0
    return target


@pytest.mark.parametrize(  # XLM-RoBERTa and CamemBERT compute as RoBERTa does; an export takes seconds
    ("family", "head"),
    [
        ("bert", "classifier"),
        ("bert", "answer"),
        ("roberta", "classifier"),
        ("distilbert", "token"),
        ("electra", "classifier"),
    ],
)
def test_outputs_are_those_of_transformers(tmp_path: Path, vocabulary_dir: Path, family: str, head: Head):
    theirs = their_model(family, head, vocab_size=70)
    theirs.save_pretrained(tmp_path / "theirs")
    for path in vocabulary_dir.iterdir():
        (tmp_path / "theirs" / path.name).write_bytes(path.read_bytes())
    run = onnx_model(exported(tmp_path, tmp_path / "theirs") / ONNX_FILE)
    config = load_model(tmp_path / "theirs", head=head).config
    for batch in random_batches(config):
        given = {name: torch.tensor(values, dtype=torch.long) for name, values in batch.items()}
        if not config.family.has_segments:
            del given["token_type_ids"]
        with torch.no_grad():
            output = theirs(**given)
        expected = (
            torch.stack([output.start_logits, output.end_logits], dim=-1)
            if head == "answer"
            else output.logits
        )
        real = ... if head == "classifier" else batch["attention_mask"] > 0
        np.testing.assert_allclose(run(batch)[real], expected.numpy()[real], atol=2e-5)


def test_an_embedder(tmp_path: Path, embedder_dir):
    pytest.importorskip("sentence_transformers")
    source = embedder_dir("embedder")
    target = exported(tmp_path, source)
    model = bert_emd_jax.load(source)
    texts = ["the film is good", "dull"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(target)
    batch = {name: np.array(values) for name, values in tokenizer(texts, padding=True).items()}
    np.testing.assert_allclose(onnx_model(target / ONNX_FILE)(batch), model.embed(texts), atol=1e-5)
    assert not list(target.rglob("*.safetensors"))


def test_int8_and_scores_on_the_task(tmp_path: Path, tiny_model_dir, task_dir, capsys):
    model = tiny_model_dir("model")
    flags = {"data_dir": task_dir.name, "task_name": "custom", "max_seq_length": 24, "beta": 0.5}
    (tmp_path / "run_config.json").write_text(
        json.dumps({"flags": flags, "working_directory": str(task_dir.parent)})
    )
    target = exported(tmp_path, model, "--int8", "--measure", str(tmp_path / "run_config.json"))
    table = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    rows = {line[0]: line[1:] for line in table[-4:]}
    assert set(rows) == {"JAX", "PyTorch", ONNX_FILE, INT8_FILE}
    scores = {name: float(cells[0]) for name, cells in rows.items()}
    assert scores[ONNX_FILE] == scores["PyTorch"] == scores["JAX"]
    task = {"data_dir": task_dir, "task_name": "custom", "max_seq_length": 24}
    reference = bert_emd_jax.evaluate(student_model=model, output_dir=tmp_path / "scores", **task)
    assert scores["JAX"] == pytest.approx(reference["student"]["metrics"]["accuracy"], abs=1e-4)
    assert (target / INT8_FILE).stat().st_size < (target / ONNX_FILE).stat().st_size
    batch = next(iter(random_batches(load_model(model).config)))
    exact, rounded = (onnx_model(target / name)(batch) for name in (ONNX_FILE, INT8_FILE))
    assert 0 < np.abs(exact - rounded).max() < 0.2 * np.abs(exact).max()


def test_mistakes(tmp_path: Path, tiny_model_dir, monkeypatch, capsys):
    model = tiny_model_dir("model")
    line = ["--input", str(model), "--output_dir", str(tmp_path / "o")]
    for flags, reason in (
        (["--to_onnx", "--to_stablehlo"], "--to_stablehlo and --to_onnx: choose one"),
        (["--int8"], "--int8 goes with --to_onnx"),
        (["--to_onnx", "--head", "none"], "this model is none"),
        (["--to_onnx", "--classifier_activation", "relu"], "use --to_stablehlo"),
    ):
        assert convert.main([*line, *flags]) == 2
        assert reason in capsys.readouterr().err
    monkeypatch.setattr(onnx_file, "_PACKAGES", ("torch", "no_such_package"))
    assert convert.main([*line, "--to_onnx"]) == 2
    assert "pip install no_such_package" in capsys.readouterr().err


def test_a_file_that_computes_something_else_is_refused(tmp_path: Path, tiny_model_dir, monkeypatch):
    monkeypatch.setattr(
        onnx_file, "onnx_model", lambda path: lambda batch: np.zeros((len(batch["input_ids"]), 2))
    )
    with pytest.raises(UserError, match="differs from the model by"):
        onnx_file.write_onnx(tmp_path / "exported", load_model(tiny_model_dir("model")))
