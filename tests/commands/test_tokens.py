"""Classifiers of tokens from files to results; transformers' pipeline and seqeval as oracles."""

import json

import numpy as np
import pytest
from report.test_report import Page

import bert_emd_jax
from bert_emd_jax.commands import augment, compare, distill, evaluate, finetune

NAMES = ("actor", "plot", "movie")  # entities of a toy language: these words, and "the" before them


def write_sentences(directory, counts=(("train", 64), ("dev", 20), ("test", 20))):
    """Sentences in which `the plot` and its like are an entity, and `it` one of another type."""
    directory.mkdir()
    rng = np.random.default_rng(0)
    others = ("is", "was", "good", "so", "funny", "!", ",")
    for split, count in counts:
        lines = []
        for _ in range(count):
            for _ in range(rng.integers(1, 7)):
                kind = rng.integers(3)
                if kind == 0:
                    lines += ["the B-THING", f"{rng.choice(NAMES)} I-THING"]
                elif kind == 1:
                    lines += ["it B-OTHER"]
                lines += [f"{rng.choice(others)} O"]
            lines.append("")
        (directory / f"{split}.conll").write_text("\n".join(lines) + "\n")
    return directory


def read_conll(path):
    rows = [[line.split("\t") for line in part.splitlines()] for part in path.read_text().split("\n\n")]
    return [list(zip(*row, strict=True)) for row in rows if row]


@pytest.fixture
def trained(tmp_path, tiny_model_dir):
    """A teacher, and a student of two of its layers that has learned from it and its layers."""
    data = write_sentences(tmp_path / "data")
    task = ("--data_dir", data, "--task_name", "custom", "--kind", "token", "--max_seq_length", 16)
    run = ("--train_batch_size", 8, "--learning_rate", 1e-2)
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    base = tiny_model_dir("base")
    flags = (
        "--bert_model",
        base,
        "--output_dir",
        teacher,
        "--num_train_epochs",
        9,
        "--eval_steps",
        30,
        *task,
        *run,
    )
    assert finetune.main([str(flag) for flag in flags]) == 0
    flags = ("--teacher_model", teacher, "--student_init_layers", "1,3", "--output_dir", student)
    flags = (*flags, *task, *run, "--num_train_epochs", 4, "--alpha", 0.5, "--label_all_tokens")
    assert distill.main([str(flag) for flag in flags]) == 0
    return data, teacher, student


def test_from_conll_to_a_student_for_transformers(tmp_path, trained, capsys):
    seqeval = pytest.importorskip("seqeval.metrics")
    transformers = pytest.importorskip("transformers")
    data, teacher, student = trained
    results = json.loads((student / "eval_results.json").read_text())
    assert (results["kind"], results["primary_metric"], results["unit"]) == (
        "token",
        "entity_f1",
        "sentences",
    )
    assert results["rows"] == results["test"]["rows"] == 20
    rows = [json.loads(line) for line in (student / "test_predictions.jsonl").read_text().splitlines()]
    truth = [row["label"] for row in rows]
    for model in ("student", "teacher"):
        said = [row[model] for row in rows]
        metrics = results["test"][model]["metrics"]
        assert metrics["entity_f1"] == pytest.approx(seqeval.f1_score(truth, said))
        assert metrics["accuracy"] == pytest.approx(seqeval.accuracy_score(truth, said))
    assert results["test"]["teacher"]["metrics"]["entity_f1"] > 0.5
    assert list(results["student"]["by_label"]) == ["OTHER", "THING"]

    # What run_eval.py writes is what conlleval reads: word, truth, prediction.
    scored = tmp_path / "scored"
    flags = ("--student_model", student, "--data_dir", data, "--task_name", "custom", "--split", "test")
    flags = (*flags, "--output_dir", scored, "--max_seq_length", 16)
    assert evaluate.main([str(flag) for flag in flags]) == 0
    written = read_conll(scored / "predictions_test.conll")
    assert [list(row[1]) for row in written] == truth
    assert [list(row[2]) for row in written] == [row["student"] for row in rows]
    again = json.loads((scored / "eval_results.json").read_text())
    assert again["student"]["metrics"] == pytest.approx(results["test"]["student"]["metrics"])

    texts = ["the plot was good , it is so funny !", "the actor ! the movie", "good", "it it"]
    pipeline = transformers.pipeline(
        "token-classification", str(student / "pytorch"), aggregation_strategy="first", device="cpu"
    )
    model = bert_emd_jax.load(student)
    for text, entities in zip(texts, model.tag(texts), strict=True):
        theirs = [
            (text[one["start"] : one["end"]], one["entity_group"], one["start"], one["end"])
            for one in pipeline(text)
        ]
        assert [tuple(entity[:4]) for entity in entities] == theirs
        for entity, one in zip(entities, pipeline(text), strict=True):
            assert entity.probability == pytest.approx(one["score"], abs=1e-4)
    assert sum(len(entities) for entities in model.tag(texts)) > 3
    of_words = model.tag([text.split() for text in texts])
    assert [[(one.text, one.label) for one in row] for row in of_words] == [
        [(one.text, one.label) for one in row] for row in model.tag(texts)
    ]
    assert model.tag([]) == []
    assert model.tag(["", "it"])[0] == []
    # A long text is read in windows: the same sentences again and again have the same entities.
    long = " ".join(["the plot was good ."] * 40)
    assert len(model.tag([long])[0]) >= 30

    page = Page((student / "report.html").read_text())
    assert "Sentences on which teacher and student differ most" in page.headings()
    assert "20 test sentences" in page.text
    assert "is left out" not in page.text
    assert compare.main(["--compare", str(student), str(teacher), "--output_dir", str(tmp_path / "c")]) == 0
    table = capsys.readouterr().out
    assert "custom: entity f1" in table
    assert "95 % over rows" in table


def test_mistakes_are_one_line(tmp_path, tiny_model_dir, task_dir, capsys):
    data, base = write_sentences(tmp_path / "data"), tiny_model_dir("base")

    def refused(program, *flags) -> str:
        assert program.main([str(flag) for flag in flags]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert "Traceback" not in error
        return error

    custom = ("--task_name", "custom", "--output_dir", tmp_path / "o")
    of_tokens = ("--data_dir", data, *custom, "--kind", "token")
    message = refused(distill, "--teacher_model", base, "--student_init_layers", 1, *of_tokens)
    assert "missing: classifier/kernel" in message
    message = refused(finetune, "--bert_model", base, "--data_dir", task_dir, *custom, "--label_all_tokens")
    assert "--label_all_tokens: not for kind classification" in message
    message = refused(finetune, "--bert_model", base, "--data_dir", task_dir, *custom, "--kind", "token")
    assert "no train, dev (or validation) or test file among *.conll, *.jsonl, *.parquet" in message
    message = refused(finetune, "--bert_model", base, *of_tokens, "--metric", "f1_THINK")
    assert "did you mean f1_THING" in message
    message = refused(
        augment, "--bert_model", base, *of_tokens[:-4], "--task_name", "custom", "--kind", "token"
    )
    assert "--kind token: words are replaced in whole texts" in message
    model = bert_emd_jax.load(base)
    with pytest.raises(bert_emd_jax.UserError, match="tag: is for models of kind token"):
        model.tag(["a text"])
