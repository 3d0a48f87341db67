"""A threshold chosen on the dev set, from the flag to whoever uses the model."""

import json

import numpy as np
import pytest
from commands.test_multi_label import LABELS, write_sets
from commands.test_programs import distill_flags, train_flags

import bert_emd_jax
from bert_emd_jax.commands import distill, evaluate, finetune


def predicted(run, model="student"):
    """Probabilities of a run's dev rows, and their labels."""
    kept = [json.loads(line) for line in (run / "dev_predictions.jsonl").read_text().splitlines()]
    return np.array([row[model] for row in kept]), [row["label"] for row in kept]


def test_two_classes(tmp_path, task_dir, tiny_model_dir, capsys):
    start, run, scores = tiny_model_dir("start", num_labels=2), tmp_path / "run", tmp_path / "scores"
    more = ("--bert_model", start, "--max_steps", 12, "--learning_rate", 2e-3, "--eval_steps", 12)
    more += ("--threshold", "dev", "--metric", "f1_good")
    assert finetune.main(train_flags(task_dir, run, *more)) == 0
    (threshold,) = json.loads((run / "config.json").read_text())["thresholds"]
    assert f"labels are given from {threshold:.3f} on" in capsys.readouterr().out
    results = json.loads((run / "eval_results.json").read_text())
    assert results["student"]["thresholds"] == [threshold]
    probabilities, labels = predicted(run)
    given, good = probabilities[:, 1] > threshold, np.array(labels) == "good"
    assert 0 < given.sum() < len(given)
    f1 = 2 * np.sum(given & good) / (given.sum() + good.sum())
    assert results["student"]["metrics"]["f1_good"] == pytest.approx(f1)
    assert results["student"]["by_label"]["good"]["predicted"] == given.sum()
    before = 2 * np.sum((probabilities[:, 1] > 0.5) & good) / (np.sum(probabilities[:, 1] > 0.5) + good.sum())
    assert f1 >= max(before, 2 * good.sum() / (len(good) + good.sum()))  # that of giving it to all

    # run_eval.py, Python and a comparison decide in the same way.
    flags = [*train_flags(task_dir, scores)[:8], "--student_model", str(run), "--metric", "f1_good"]
    assert evaluate.main(flags) == 0
    again = json.loads((scores / "eval_results.json").read_text())["student"]
    assert again["metrics"]["f1_good"] == results["student"]["metrics"]["f1_good"]
    _, *lines = [line.split("\t") for line in (scores / "predictions_dev.tsv").read_text().splitlines()]
    assert [line[1] == "good" for line in lines] == given.tolist()
    model = bert_emd_jax.load(run)
    texts = [json.loads(line)["text"] for line in (run / "dev_predictions.jsonl").read_text().splitlines()]
    assert [label == "good" for label, _ in model.classify(texts)] == given.tolist()
    assert evaluate.main(["--compare", str(run), str(scores), "--output_dir", str(tmp_path / "c")]) == 0

    # A student that is cut out of the model decides for itself.
    student = tmp_path / "student"
    assert distill.main(distill_flags(run, task_dir, student, "--metric", "f1_good")) == 0
    assert "thresholds" not in json.loads((student / "config.json").read_text())
    results = json.loads((student / "eval_results.json").read_text())
    assert results["teacher"]["thresholds"] == [threshold]
    assert results["teacher"]["metrics"]["f1_good"] == pytest.approx(f1)
    # Read with its labels in another order, it decides the same.
    flags = [*train_flags(task_dir, tmp_path / "turned")[:8], "--student_model", str(run)]
    assert evaluate.main([*flags, "--labels", "good,bad"]) == 0
    turned = json.loads((tmp_path / "turned" / "eval_results.json").read_text())["student"]
    assert turned["thresholds"] == [pytest.approx(1 - threshold)]
    assert turned["metrics"]["accuracy"] == again["metrics"]["accuracy"]


def test_several_labels(tmp_path, tiny_model_dir):
    sets, run = write_sets(tmp_path / "sets"), tmp_path / "run"
    more = ("--bert_model", tiny_model_dir("start", num_labels=2), "--kind", "multi_label")
    more += ("--max_steps", 4, "--threshold", "dev_by_label")
    assert finetune.main(train_flags(sets, run, *more)) == 0
    results = json.loads((run / "eval_results.json").read_text())["student"]
    thresholds = np.array(results["thresholds"])
    probabilities, labels = predicted(run)
    given = probabilities > thresholds
    for column, label in enumerate(LABELS):
        has = np.array([label in row for row in labels])
        f1 = 2 * np.sum(given[:, column] & has) / (given[:, column].sum() + has.sum())
        assert results["by_label"][label]["f1"] == pytest.approx(f1)
        everywhere = 2 * has.sum() / (len(has) + has.sum())
        assert f1 >= everywhere  # rows are ranked no worse than by chance
    model = bert_emd_jax.load(run)
    texts = [json.loads(line)["text"] for line in (run / "dev_predictions.jsonl").read_text().splitlines()]
    names = [{label for label, _ in row} for row in model.classify(texts)]
    assert names == [{label for label, has in zip(LABELS, row, strict=True) if has} for row in given]


def test_a_number_from_python(tmp_path, task_dir, tiny_model_dir):
    start = tiny_model_dir("start", num_labels=2)
    sizes = {"max_seq_length": 24, "max_steps": 1, "train_batch_size": 16}
    flags = {"data_dir": task_dir, "task_name": "custom", "output_dir": tmp_path / "run", **sizes}
    results = bert_emd_jax.finetune(bert_model=start, threshold=0.3, **flags)
    assert results["student"]["thresholds"] == [0.3]
    # Fine-tuned once more, a model decides anew.
    flags["output_dir"] = tmp_path / "again"
    assert "thresholds" not in bert_emd_jax.finetune(bert_model=tmp_path / "run", **flags)["student"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--threshold", "1.5"), "1.5: must be a number between 0 and 1, dev or dev_by_label"),
        (("--threshold", "dev_by_label"), "dev_by_label: two classes have one threshold; use dev"),
        (("--threshold", "dev", "--kind", "regression"), "for two classes, or --kind multi_label"),
    ],
)
def test_mistakes(tmp_path, task_dir, tiny_model_dir, capsys, flags, message):
    if "regression" in flags:
        for split in ("train", "dev", "test"):
            (task_dir / f"{split}.csv").write_text("text,label\nthe film,0.5\nthe plot,1\n")
    start = tiny_model_dir("start", num_labels=2)
    assert finetune.main(train_flags(task_dir, tmp_path / "o", "--bert_model", start, *flags)) == 2
    assert message in capsys.readouterr().err


def test_damaged_thresholds_are_refused_in_a_line(tmp_path, tiny_model_dir, capsys, task_dir):
    start = tiny_model_dir("start", num_labels=2)
    config = json.loads((start / "config.json").read_text())
    for bad in ([0.5, 0.5], [1.5], "x", [None], 3, [True]):
        (start / "config.json").write_text(json.dumps(config | {"thresholds": bad}))
        flags = [*train_flags(task_dir, tmp_path / "o")[:8], "--student_model", str(start)]
        assert evaluate.main(flags) == 2, bad
        assert "thresholds" in capsys.readouterr().err
