"""Multi-label from files to results: learned, distilled, scored, exported; transformers as the oracle."""

import json

import numpy as np
import pytest
from commands.test_programs import distill_flags, rows, train_flags
from conftest import SENTENCES
from report.test_report import Page

import bert_emd_jax
from bert_emd_jax.commands import distill, evaluate, finetune
from bert_emd_jax.errors import UserError

LABELS = ("bad", "good", "short")


def write_sets(directory, rows_of=(("train", 160), ("dev", 16), ("test", 16)), *, columns=False):
    """Texts of good or bad sentences, of both or of none, and whether they say that they are short.

    All are equally long: one padded length, compiled once.
    """
    rng = np.random.default_rng(0)
    directory.mkdir()
    for split, count in rows_of:
        lines = ["text," + ",".join(LABELS) if columns else "text,label"]
        for row in range(count):
            has = {"bad": row % 2 == 0, "good": row % 4 < 2, "short": row % 3 == 0}
            parts = [rng.choice(SENTENCES[label].split("|")) for label in ("good", "bad") if has[label]] or [
                "the plot"
            ]
            words = [*" ".join(parts).split(), "short" if has["short"] else "long"]
            text = " ".join([*words, *["the"] * (18 - len(words))])
            cells = (
                [str(int(has[label])) for label in LABELS]
                if columns
                else ['"' + ",".join(label for label in LABELS if has[label]) + '"']
            )
            lines.append(",".join([f'"{text}"', *cells]))
        (directory / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return directory


@pytest.fixture
def sets(tmp_path):
    return write_sets(tmp_path / "sets")


def test_finetune_distill_evaluate(tmp_path, sets, tiny_model_dir, capsys):
    start = tiny_model_dir("start", num_labels=2)
    teacher, student, scores = tmp_path / "teacher", tmp_path / "student", tmp_path / "scores"
    kind, learning = ("--kind", "multi_label"), ("--learning_rate", 5e-3, "--num_train_epochs", 24)
    learning += ("--eval_steps", 160)  # seldom: checkpoints are most of the time
    assert finetune.main(train_flags(sets, teacher, "--bert_model", start, *kind, *learning)) == 0
    results = json.loads((teacher / "eval_results.json").read_text())
    assert (results["kind"], results["labels"], results["primary_metric"]) == (
        "multi_label",
        list(LABELS),
        "f1_micro",
    )
    assert results["student"]["metrics"]["f1_micro"] > 0.85  # the labels are plain to see in the words
    config = json.loads((teacher / "pytorch" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"

    # The teacher says what kind it is; the chosen score decides.
    flags = distill_flags(teacher, sets, student, "--metric", "recall_short", "--alpha", 0.5)
    assert distill.main(flags) == 0
    results = json.loads((student / "eval_results.json").read_text())
    best = max(rows(student, "eval"), key=lambda row: (row["recall_short"], -row["step"]))
    assert (results["primary_metric"], results["best_step"]) == ("recall_short", best["step"])
    kept = [json.loads(line) for line in (student / "dev_predictions.jsonl").read_text().splitlines()]
    truths, answers = (
        np.array([[label in row["label"] for label in LABELS] for row in kept]),
        np.array([row["student"] for row in kept]) > 0.5,
    )
    table = results["student"]["by_label"]
    for column, label in enumerate(LABELS):
        assert table[label]["true"] == truths[:, column].sum()
        assert table[label]["predicted"] == answers[:, column].sum()
    both, either = (truths & answers).sum(), truths.sum() + answers.sum()
    assert results["student"]["metrics"]["f1_micro"] == pytest.approx(2 * both / either)
    assert results["student"]["metrics"]["subset_accuracy"] == pytest.approx(
        (truths == answers).all(1).mean()
    )
    page = Page((student / "report.html").read_text())
    assert "By label" in page.text
    assert [row[0] for table in page.tables for row in table if row[0] in LABELS] == list(LABELS)
    assert "confusion" not in page.source

    capsys.readouterr()
    flags = [*train_flags(sets, scores)[:8], "--student_model", str(student), "--metric", "recall_short"]
    assert evaluate.main(flags) == 0
    assert f"recall_short: {best['recall_short']:.4f}" in capsys.readouterr().out
    head, *lines = [line.split("\t") for line in (scores / "predictions_dev.tsv").read_text().splitlines()]
    assert head == ["index", "prediction", "label", *(f"probability_{label}" for label in LABELS)]
    assert [line[1] for line in lines] == [
        ", ".join(label for label, given in zip(LABELS, row, strict=True) if given) for row in answers
    ]
    assert evaluate.main(["--compare", str(teacher), str(scores), "--output_dir", str(tmp_path / "c")]) == 0
    assert "recall short" in capsys.readouterr().out


def test_columns_of_labels_learn_the_same(tmp_path, sets, tiny_model_dir):
    """A column for each label is another way to write the same task, in the order of the columns."""
    start = tiny_model_dir("start", num_labels=2)
    other = write_sets(tmp_path / "columns", columns=True)
    runs = {
        "sets": (sets, ("--labels", ",".join(LABELS))),
        "columns": (other, ("--label_columns", ",".join(LABELS))),
    }
    for name, (data, flags) in runs.items():
        more = ("--bert_model", start, "--kind", "multi_label", "--max_steps", 3, *flags)
        assert finetune.main(train_flags(data, tmp_path / f"run_{name}", *more)) == 0
    losses = [[row["loss"] for row in rows(tmp_path / f"run_{name}", "train")] for name in runs]
    assert losses[0] == losses[1]


def test_the_pipeline_of_transformers_agrees(tmp_path, tiny_model_dir):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    texts = ["the film is good", "a dull movie and so long", "hate this plot", "fine !"]
    path = tiny_model_dir(
        "model", num_labels=3, id2label=LABELS, problem_type="multi_label_classification", seed=3
    )
    ours = bert_emd_jax.load(path)
    pipeline = transformers.pipeline("text-classification", model=str(path / "pytorch"), top_k=None)
    for text, probabilities, given in zip(texts, ours.predict(texts), ours.classify(texts), strict=True):
        theirs = {one["label"]: one["score"] for one in pipeline([text])[0]}
        assert dict(zip(LABELS, probabilities.tolist(), strict=True)) == pytest.approx(theirs, abs=1e-5)
        above = sorted((one for one in theirs.items() if one[1] > 0.5), key=lambda one: -one[1])
        assert [one.label for one in given] == [label for label, _ in above]
    # And what transformers has saved is read back as the same.
    pipeline.model.save_pretrained(tmp_path / "theirs")
    pipeline.tokenizer.save_pretrained(tmp_path / "theirs")
    again = bert_emd_jax.load(tmp_path / "theirs")
    assert (again.kind, again.labels) == ("multi_label", LABELS)
    np.testing.assert_allclose(again.predict(texts), ours.predict(texts), atol=1e-6)


def test_what_does_not_go_together(tmp_path, sets, tiny_model_dir, capsys):
    labels = {"num_labels": 3, "id2label": LABELS}
    of_kind = {
        "multi_label": tiny_model_dir("multi", **labels, problem_type="multi_label_classification"),
        "classification": tiny_model_dir("single", **labels),
    }
    flags = train_flags(sets, tmp_path / "out")[:8]

    def said(program, *more: object) -> str:
        assert program.main([*flags, *map(str, more)]) == 2
        return capsys.readouterr().err

    for kind, model in of_kind.items():
        other = next(name for name in of_kind if name != kind)
        for program, flag in ((evaluate, "--student_model"), (distill, "--teacher_model")):
            start = ("--student_init_layers", "1") if program is distill else ()
            error = said(program, flag, model, "--kind", other, *start)
            assert f"--kind {other}: the model is of kind {kind}" in error
    multi = of_kind["multi_label"]
    submission = ("--submission", "--split", "test")
    assert "not a task of the GLUE benchmark" in said(evaluate, "--student_model", multi, *submission)
    flags = ["--pregenerated_data", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    assert "--kind: no such flag" in said(distill, "--kind", "multi_label", "--teacher_model", multi)


def test_a_model_says_what_it_is(tiny_model_dir):
    labels = {"num_labels": 3, "id2label": LABELS, "num_hidden_layers": 2}
    multi = bert_emd_jax.load(tiny_model_dir("multi", **labels, problem_type="multi_label_classification"))
    assert repr(multi).startswith("<Model multi_label: 2 layers of width 16, ")
    assert repr(multi).endswith(" parameters; labels: bad, good, short>")
    probabilities = multi.predict(["good"])
    assert probabilities.shape == (1, 3)
    assert not np.isclose(probabilities.sum(), 1)
    assert multi.predict([]).shape == (0, 3)
    assert multi.classify([]) == []
    value = bert_emd_jax.load(tiny_model_dir("value", num_labels=1, id2label=None, num_hidden_layers=1))
    assert "regression" in repr(value)
    with pytest.raises(
        UserError, match="classify: is for models of kind classification or multi_label; this one"
    ):
        value.classify(["good"])
