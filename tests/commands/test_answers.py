"""Finders of answers from SQuAD's files to results, with their teacher's outputs kept."""

import json

import numpy as np
import pytest
from report.test_report import Page

import bert_emd_jax
from bert_emd_jax.commands import compare, distill, evaluate, finetune
from bert_emd_jax.evaluation.answers import scored_answers


def write_questions(directory):
    """As SQuAD 2.0: every text is asked something, and something that it does not say."""
    directory.mkdir()
    rng = np.random.default_rng(0)
    words = ["the", "plot", "was", "so", "dull", ",", "it", "is", "sad"]
    for split, count in (("train", 24), ("dev", 8), ("test", 8)):
        paragraphs = []
        for number in range(count):
            before, after = (" ".join(rng.choice(words, size=rng.integers(2, 12))) for _ in range(2))
            word = str(rng.choice(["good", "bad", "funny"]))
            answers = [{"text": word, "answer_start": len(before) + 1}]
            entries = [{"id": f"{split}{number}", "question": "what is it ?", "answers": answers}]
            entries.append({"id": f"{split}{number}x", "question": "never ?", "answers": []})
            paragraphs.append({"context": f"{before} {word} {after}", "qas": entries})
        data = {"data": [{"paragraphs": paragraphs}]}
        (directory / f"{split}.json").write_text(json.dumps(data))
    return directory


def test_finetune_distill_evaluate(tmp_path, tiny_model_dir, capsys):
    data, base = write_questions(tmp_path / "data"), tiny_model_dir("base")
    task = ("--data_dir", data, "--task_name", "custom", "--max_seq_length", 24, "--max_query_length", 6)
    run = ("--train_batch_size", 8, "--learning_rate", 5e-3, "--num_train_epochs", 4, "--eval_steps", 6)
    teacher, student, scores = tmp_path / "teacher", tmp_path / "student", tmp_path / "scores"
    flags = ("--bert_model", base, "--kind", "answer", "--output_dir", teacher, *task, *run)
    assert finetune.main([str(flag) for flag in flags]) == 0
    flags = ("--teacher_model", teacher, "--student_init_layers", "1,3", "--output_dir", student, *task, *run)
    flags = (*flags, "--alpha", 0.5, "--teacher_cache", "memory")
    assert distill.main([str(flag) for flag in flags]) == 0
    said = capsys.readouterr().out
    assert "16 test questions" in said
    results = json.loads((student / "eval_results.json").read_text())
    assert (results["kind"], results["primary_metric"]) == ("answer", "answer_f1")
    kept = [json.loads(line) for line in (student / "test_predictions.jsonl").read_text().splitlines()]
    for model in ("student", "teacher"):
        right = [[one["text"] for one in row["label"]] for row in kept]
        expected = scored_answers([row[model]["text"] for row in kept], right)
        for name, values in expected.values.items():
            assert results["test"][model]["metrics"][name] == pytest.approx(values.mean())
    for row in kept:
        start, text = row["student"]["start"], row["student"]["text"]
        assert row["context"][start : start + len(text)] == text
    assert any(row[model]["text"] == "" for row in kept for model in ("student", "teacher"))

    flags = ("--student_model", student, "--output_dir", scores, "--split", "test", *task)
    assert evaluate.main([str(flag) for flag in flags]) == 0
    best = json.loads((scores / "predictions_test.json").read_text())
    assert best == {row["id"]: row["student"]["text"] for row in kept}
    ranked = json.loads((scores / "nbest_test.json").read_text())
    assert {name: answers[0]["text"] for name, answers in ranked.items()} == best
    answer = bert_emd_jax.load(student, max_seq_length=128).answer("what is it ?", kept[0]["context"])
    assert answer.text in kept[0]["context"]

    again = json.loads((scores / "eval_results.json").read_text())["student"]
    assert again["by_label"] == results["test"]["student"]["by_label"]
    assert again["by_label"]["no answer"]["true"] == 8
    f1 = [again["by_label"][name]["answer_f1"] for name in ("answer", "no answer")]
    assert np.mean(f1) == pytest.approx(again["metrics"]["answer_f1"])

    page = Page((student / "report.html").read_text())
    assert "16 test questions" in page.text
    assert [row[:2] for table in page.tables for row in table if row[0].endswith("answer")] == [
        ["answer", "8"],
        ["no answer", "8"],
    ]
    assert "is left out" not in page.text
    assert compare.main(["--compare", str(student), str(teacher), "--output_dir", str(tmp_path / "c")]) == 0
    assert "custom: answer f1" in capsys.readouterr().out
    capsys.readouterr()
    assert compare.main(["--compare", str(student), str(scores), "--output_dir", str(tmp_path / "d")]) == 0
    assert "95 %" in capsys.readouterr().out  # the same answers, row by row
