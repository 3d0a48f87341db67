"""Training on MNLI's two dev sets with a SentencePiece vocabulary, and the exported model in transformers."""

import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from bert_emd_jax.checkpoints.model_directory import LoadedModel, save_model
from bert_emd_jax.commands import evaluate, finetune
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.initialization import initial_params
from bert_emd_jax.tokenization.tokenizer import Tokenizer

SENTENCES = (
    "吾輩は猫である。",
    "名前はまだ無い。",
    "the cat sat on a mat",
    "Dogs were running, unable to stop!",
    "café",
)
LABELS = ("contradiction", "entailment", "neutral")


def write_mnli(directory: Path) -> Path:
    directory.mkdir()
    for shift, name in enumerate(("train", "dev_matched", "dev_mismatched")):
        rows = [
            f"{row}\t{SENTENCES[row % 5]}\t{SENTENCES[(row + shift + row // 5) % 5]}\t{LABELS[row % 3]}\n"
            for row in range(10 + shift)
        ]
        text = "index\tsentence1\tsentence2\tgold_label\n" + "".join(rows)
        (directory / f"{name}.tsv").write_text(text, encoding="utf-8")
    return directory


def start_model(directory: Path) -> Path:
    """A random encoder and, in place of vocab.txt, a SentencePiece model."""
    directory.mkdir()
    corpus = directory / "corpus.txt"
    corpus.write_text("\n".join(SENTENCES * 20), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(directory / "spiece"),
        vocab_size=100,
        hard_vocab_limit=False,
        minloglevel=2,
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        pad_id=3,
    )
    tokenizer = Tokenizer.from_directory(directory)
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=96,
        initializer_range=0.3,
        num_labels=3,
        pad_token_id=tokenizer.pad_id,
    )
    save_model(directory / "model", LoadedModel(config, initial_params(config, "classifier", 0), tokenizer))
    return directory / "model"


def test_both_dev_sets_are_scored(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    data, trained, scores = write_mnli(tmp_path / "MNLI"), tmp_path / "trained", tmp_path / "scores"
    flags = ["--data_dir", data, "--task_name", "mnli", "--max_seq_length", 96, "--eval_batch_size", 16]
    start = ["--bert_model", start_model(tmp_path / "start"), "--output_dir", trained]
    assert finetune.main([*map(str, [*flags, *start, "--train_batch_size", 8, "--max_steps", 1])]) == 0
    results = json.loads((trained / "eval_results.json").read_text())
    metrics = results["student"]["metrics"]
    assert set(metrics) == {"accuracy", "accuracy_mismatched"}
    assert "accuracy mismatched" in (trained / "report.html").read_text()

    assert evaluate.main([*map(str, [*flags, "--student_model", trained, "--output_dir", scores])]) == 0
    model = transformers.AutoModelForSequenceClassification.from_pretrained(trained / "pytorch").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained / "pytorch")
    for suffix, file in (("", "dev_matched"), ("_mismatched", "dev_mismatched")):
        rows = [line.split("\t") for line in (data / f"{file}.tsv").read_text("utf-8").splitlines()[1:]]
        inputs = tokenizer(
            [row[1] for row in rows], [row[2] for row in rows], padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            theirs = model(**inputs).logits.softmax(-1).numpy()
        lines = (scores / f"predictions_dev{suffix}.tsv").read_text().splitlines()
        ours = np.array([[float(value) for value in line.split("\t")[3:]] for line in lines[1:]])
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
        right = [LABELS[index] == row[3] for index, row in zip(theirs.argmax(1), rows, strict=True)]
        assert metrics["accuracy" + suffix] == pytest.approx(np.mean(right))
