"""Teachers and students of other families, from the command line to transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_emd_jax
from bert_emd_jax.checkpoints.model_directory import save_huggingface
from bert_emd_jax.commands import convert, distill, finetune, pretrain_data
from bert_emd_jax.errors import UserError

from .test_programs import distill_flags, train_flags

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from family_models import their_model, write_merges

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 66,
    "initializer_range": 0.3,
}


@pytest.fixture
def roberta(tmp_path: Path, task_dir: Path) -> Path:
    """A random RoBERTa as transformers saves one."""
    directory = tmp_path / "roberta"
    torch.manual_seed(0)
    vocabulary = write_merges(directory, (task_dir / "train.csv").read_text())
    config = transformers.RobertaConfig(vocab_size=vocabulary, type_vocab_size=1, **SIZES)
    transformers.RobertaModel(config).save_pretrained(directory)
    return directory


def write_pairs(directory: Path) -> Path:
    """Two texts a row; some are too long for 24 tokens."""
    directory.mkdir()
    good, bad = "the film is good and fine", "a dull movie"
    for split, rows in (("train", 32), ("dev", 11)):
        lines = [
            f"{good * (1 + row % 3)}\t{(good, bad)[row % 2] * (1 + row % 4)}\t{('same', 'other')[row % 2]}\n"
            for row in range(rows)
        ]
        (directory / f"{split}.tsv").write_text("text\ttext_b\tlabel\n" + "".join(lines))
    return directory


def assert_scored_alike(student: Path, data: Path, with_segments: bool) -> None:
    """transformers gives the dev rows the probabilities that the run has written."""
    rows = [json.loads(line) for line in (student / "dev_predictions.jsonl").read_text().splitlines()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(student / "pytorch")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(student / "pytorch").eval()
    texts = [[row["text"], row["text_b"]] if "text_b" in row else row["text"] for row in rows]
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
    assert ("token_type_ids" in inputs) == with_segments
    with torch.no_grad():
        theirs = torch.softmax(model(**inputs).logits, -1).numpy()
    np.testing.assert_allclose(theirs, [row["student"] for row in rows], atol=1e-4)
    assert np.ptp(theirs[:, 0]) > 0.01


def test_a_roberta_learns_a_task_and_teaches_one_with_fewer_layers(tmp_path: Path, roberta: Path):
    pairs = write_pairs(tmp_path / "pairs")
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    flags = ("--bert_model", roberta, "--learning_rate", 3e-3, "--num_train_epochs", 2)
    assert finetune.main(train_flags(pairs, teacher, *flags)) == 0
    assert distill.main(distill_flags(teacher, pairs, student, "--learning_rate", 1e-3)) == 0
    for run in (teacher, student):
        assert_scored_alike(run, pairs, with_segments=False)
    ours = bert_emd_jax.load(student).classify(["the film is good"], ["a dull movie"])
    again = bert_emd_jax.load(student / "pytorch").classify(["the film is good"], ["a dull movie"])
    assert ours == again
    params = bert_emd_jax.load(student).loaded.params
    assert set(params) == {"bert", "classifier", "classifier_dense"}
    assert "pooler" not in params["bert"]


def test_a_distilbert_student_of_a_bert_teacher(tmp_path: Path, task_dir: Path, tiny_model_dir):
    teacher, student = tiny_model_dir("teacher"), tmp_path / "student"
    vocabulary = len((teacher / "vocab.txt").read_text().splitlines())
    sizes = {"dim": 8, "hidden_dim": 12, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "distilbert", "vocab_size": vocabulary, "initializer_range": 0.3, **sizes})
    )
    flags = ("--student_config", tmp_path / "config.json", "--learning_rate", 1e-3)
    assert distill.main(distill_flags(teacher, task_dir, student, *flags)) == 0
    assert_scored_alike(student, task_dir, with_segments=False)
    values = json.loads((student / "config.json").read_text())
    assert (values["model_type"], values["dim"], values["seq_classif_dropout"]) == ("distilbert", 8, 0.2)
    assert "type_vocab_size" not in values
    # Out of it again: a student of its own family, and the whole as one that transformers verifies.
    smaller = tmp_path / "smaller"
    flags = ("--student_init_layers", "1", "--mapping", "last", "--max_steps", 2)
    assert distill.main(distill_flags(student, task_dir, smaller, *flags)) == 0
    assert convert.main(["--input", str(smaller), "--output_dir", str(tmp_path / "out"), "--verify"]) == 0


def test_an_electra_with_narrow_embeddings_is_a_student(tmp_path: Path, task_dir: Path, tiny_model_dir):
    teacher, student = tiny_model_dir("teacher"), tmp_path / "student"
    vocabulary = len((teacher / "vocab.txt").read_text().splitlines())
    sizes = {"hidden_size": 12, "embedding_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 16, "vocab_size": vocabulary, "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "electra", **sizes}))
    flags = ("--student_config", tmp_path / "config.json", "--max_steps", 4)
    assert distill.main(distill_flags(teacher, task_dir, student, *flags)) == 0
    assert json.loads((student / "config.json").read_text())["embedding_size"] == 8
    rows = [json.loads(line) for line in (student / "dev_predictions.jsonl").read_text().splitlines()]
    pipeline = transformers.pipeline(
        "text-classification", str(student / "pytorch"), top_k=None, device="cpu"
    )
    for row, scores in zip(rows, pipeline([row["text"] for row in rows]), strict=True):
        by_label = {one["label"]: one["score"] for one in scores}
        assert [by_label["bad"], by_label["good"]] == pytest.approx(row["student"], abs=1e-4)


def test_general_distillation_of_a_roberta(tmp_path: Path, roberta: Path):
    corpus, data, student = tmp_path / "corpus.txt", tmp_path / "data", tmp_path / "student"
    lines = ["the film is good", "a dull movie and so long", "", "love this plot", "never bad , always great"]
    corpus.write_text("\n".join(lines * 6) + "\n")
    flags = ["--train_corpus", corpus, "--bert_model", roberta, "--output_dir", data, "--max_seq_len", 24]
    flags += ["--epochs_to_generate", 1, "--do_whole_word_mask", "--masked_lm_prob", 0.2]
    assert pretrain_data.main([str(flag) for flag in flags]) == 0
    for line in (data / "epoch_0.json").read_text().splitlines():
        example = json.loads(line)
        tokens, segments = example["tokens"], example["segment_ids"]
        middle = tokens.index("</s>")
        assert tokens[0] == "<s>"
        assert tokens[middle : middle + 2] == ["</s>", "</s>"]
        assert (tokens[-1], set(segments)) == ("</s>", {0})
        assert len(tokens) <= 24
        # A masked word is masked whole: what follows a mask begins a word, or is masked itself.
        for position in example["masked_lm_positions"]:
            following = position + 1
            if following not in example["masked_lm_positions"]:
                assert tokens[following].startswith(("Ġ", "</s>"))
    flags = ["--pregenerated_data", data, "--teacher_model", roberta, "--student_init_layers", "1,3"]
    flags += ["--output_dir", student, "--max_steps", 3, "--train_batch_size", 4, "--held_out_rows", 4]
    assert distill.main([str(flag) for flag in flags]) == 0
    model = transformers.AutoModel.from_pretrained(student / "pytorch")
    assert (type(model).__name__, model.config.num_hidden_layers) == ("RobertaModel", 2)


def test_words_of_a_roberta_are_tagged_as_transformers_does(tmp_path: Path):
    texts = ["The film is good , Zürich !", "dull", "a very long film in that dull plot"]
    source = tmp_path / "source"
    size = write_merges(source, "\n".join(f" {text}" for text in texts * 9))
    labels = {0: "O", 1: "B-ACTOR", 2: "I-ACTOR"}
    model = their_model("roberta", "token", vocab_size=size, pad_token_id=1, id2label=labels)
    model.save_pretrained(source)
    model = bert_emd_jax.load(source)
    save_huggingface(tmp_path / "written", model.loaded)
    pipeline = transformers.pipeline(
        "token-classification", str(tmp_path / "written"), aggregation_strategy="first", device="cpu"
    )
    found = model.tag(texts)
    for text, entities in zip(texts, found, strict=True):
        theirs = [(one["entity_group"], one["start"], one["end"]) for one in pipeline(text)]
        assert [(one.label, one.start, one.end) for one in entities] == theirs
        probabilities = [one["score"] for one in pipeline(text)]
        assert [one.probability for one in entities] == pytest.approx(probabilities, abs=1e-5)
    assert sum(map(len, found)) > 3


def test_pairs_that_do_not_go_together_are_refused(
    tmp_path: Path, roberta: Path, task_dir: Path, tiny_model_dir
):
    bert = tiny_model_dir("bert")
    config = json.loads((roberta / "config.json").read_text()) | {"num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    flags = distill_flags(bert, task_dir, tmp_path / "x", "--student_config", tmp_path / "config.json")
    with pytest.raises(UserError, match="word embeddings, the teacher"):
        bert_emd_jax.distill(**_named(flags))


def _named(flags: list[str]) -> dict[str, Any]:
    pairs = zip(flags[::2], flags[1::2], strict=True)
    return {name.removeprefix("--"): value for name, value in pairs}
