"""The predictions' file: counts against scikit-learn, the rows shown, damage named."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from report import synthetic_run
from report.test_report import Page, report

from bert_emd_jax.data.examples import Examples
from bert_emd_jax.data.kinds import KINDS
from bert_emd_jax.data.tasks import get_task
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.evaluate import write_predictions
from bert_emd_jax.evaluation.row_predictions import write_row_predictions
from bert_emd_jax.report.predictions import agreement, confusion, notable_examples
from bert_emd_jax.report.predictions_reader import read_prediction_table, read_predictions
from bert_emd_jax.report.tables import flags_by_source

LABELS = ("negative", "positive")
KIND = KINDS["classification"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    synthetic_run.write_rows(tmp_path / "dev_predictions.jsonl", synthetic_run.predictions())
    return tmp_path / "dev_predictions.jsonl"


def test_counts_and_the_rows_of_most_disagreement(path: Path):
    metrics = pytest.importorskip("sklearn.metrics")
    predictions = read_predictions(path, KIND, LABELS)
    assert predictions is not None
    for model in ("teacher", "student"):
        expected = metrics.confusion_matrix(predictions.truth, predictions.by_model[model].argmax(axis=1))
        np.testing.assert_array_equal(confusion(predictions, model), expected)
    assert confusion(predictions, "student").tolist() == [[10, 2], [3, 7]]
    assert agreement(predictions).startswith(
        "Of 22 rows both are right on 16, both wrong on 3, the teacher alone is right on 2 and the student "
        "alone on 1."
    )
    shown = notable_examples(predictions)
    # Rows 9 to 11 are those on which one of the two is wrong; the later, the further apart.
    assert [one.identifier for one in shown] == ["r11", "r10", "r9"]
    assert shown[0].texts == ("sentence 11", "a second text")
    assert [(one.model, one.text.replace("\xa0", " "), one.is_right) for one in shown[0].predictions] == [
        ("teacher", "positive 71 %", False),
        ("student", "negative 71 %", True),
    ]


def test_the_page_shows_them(tmp_path: Path):
    page = report(synthetic_run.write_run(tmp_path / "run"))
    table = page.table("student confusion matrix")
    assert [row[1:] for row in table[2:]] == [["10", "2", "12"], ["3", "7", "10"], ["13", "9", ""]]
    assert "sentence 11" in page.text
    given = page.source.index("Flags given")
    preset = page.source.index("Flags of the preset bert_emd_4")
    assert given < page.source.index("<dt>task_name") < preset < page.source.index("<dt>beta")
    assert page.source.index("<dt>alpha") > page.source.index("Flags at their defaults")


def test_regression_is_a_scatter_plot(tmp_path: Path):
    run = synthetic_run.write_run(tmp_path / "run")
    (run / "eval_results.json").write_text(json.dumps(synthetic_run.results() | {"labels": None}))
    synthetic_run.write_rows(run / "dev_predictions.jsonl", synthetic_run.predictions(regression=True))
    page = report(run)
    assert "Predictions of the teacher" in page.text
    assert "confusion" not in page.source
    start = page.source.index("Predicted against true values, student")
    drawn = page.source[start : page.source.index("</svg>", start)]
    assert drawn.count("<use") >= len(synthetic_run.RIGHT)
    first = page.tables[-1][1]
    assert first[0].strip().startswith("sentence 11")
    assert first[1:] == ["2.75", "0.64", "2.85"]


def test_many_labels_have_no_matrix(tmp_path: Path):
    run = synthetic_run.write_run(tmp_path / "run")
    names = [f"label {index}" for index in range(30)]
    (run / "eval_results.json").write_text(json.dumps(synthetic_run.results() | {"labels": names}))
    share = [1 / 30] * 30
    rows = [{"id": 1, "text": "x", "label": names[k], "student": share, "teacher": share} for k in range(30)]
    synthetic_run.write_rows(run / "dev_predictions.jsonl", rows)
    page = report(run)
    assert "confusion" not in page.source
    assert "both are right on 1" in page.text
    assert "disagree" not in page.text  # they say the same everywhere


@pytest.mark.parametrize(
    "change",
    [
        {"label": "other"},
        {"student": [0.5]},
        {"student": [0.5, "x"]},
        {"student": [0.5, float("nan")]},
        {"student": 0.5},
        {"teacher": None},
        {"text": ...},
        {"student": ...},
        {"teacher": ...},
    ],
)
def test_a_bad_row_is_named(path: Path, change: dict):
    rows = synthetic_run.predictions()
    rows[4] = {name: value for name, value in (rows[4] | change).items() if value is not ...}
    synthetic_run.write_rows(path, rows)
    with pytest.raises(UserError, match=r"dev_predictions\.jsonl, line 5: "):
        read_predictions(path, KIND, LABELS)


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("classification", np.array([2, 0, 1, 2], np.int32)),
        ("regression", np.array([0.1, 2, -3e-4, 1e6], np.float32)),
        ("multi_label", np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], np.float32)),
    ],
)
def test_what_is_written_is_read(tmp_path: Path, kind: str, labels: np.ndarray):
    rng = np.random.default_rng(0)
    (tmp_path / "train.csv").write_text("text,label\na,0\nb,1\nc,2\n")
    task = get_task("custom", data_dir=tmp_path, kind=kind)
    texts = ["tab\there", "line\nbreak", "\u2028 and \x00", "ünïcode"]
    examples = Examples(texts, None, labels, np.arange(4), [str(row) for row in range(4)], tmp_path)
    logits = {
        name: rng.normal(size=(4, task.num_labels)).astype(np.float32) for name in ("student", "teacher")
    }
    predictions = {name: task.kind.predictions(array) for name, array in logits.items()}
    write_row_predictions(tmp_path / "dev_predictions.jsonl", task, examples, predictions)
    write_predictions(tmp_path / "predictions_dev.tsv", task, examples, logits["student"])
    read = read_predictions(tmp_path / "dev_predictions.jsonl", task.kind, task.labels)
    table = read_prediction_table(tmp_path / "predictions_dev.tsv", task.kind)
    assert read is not None
    assert table is not None
    assert [text for (text,) in read.texts] == texts
    for one in (read, table):
        np.testing.assert_array_equal(one.truth, labels)
        for name, values in one.by_model.items():
            exponentials = np.exp(logits[name].astype(np.float64))
            expected = {
                "classification": exponentials / exponentials.sum(axis=1, keepdims=True),
                "regression": logits[name][:, 0],
                "multi_label": exponentials / (1 + exponentials),
            }[kind]
            np.testing.assert_allclose(values, expected, atol=6e-7)


def test_flags_without_sources_are_one_list():
    assert flags_by_source({"a": 1}, {}) == [("Flags given", []), ("Flags", [("a", "1")])]


def test_the_slider_data_are_the_plans(tmp_path: Path):
    run = synthetic_run.write_run(tmp_path / "run")
    page = report(run)
    start = page.source.index(">", page.source.index('id="plans"')) + 1
    plans = json.loads(page.source[start : page.source.index("</script>", start)])
    arrays = synthetic_run.mapping()
    assert plans["steps"] == arrays["steps"].tolist()
    for kind in ("attention", "hidden"):
        flow = np.array(plans["sides"][kind]["flow"]) / plans["unit"]
        np.testing.assert_allclose(flow, arrays[f"{kind}_flow"], atol=5.1e-6)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_the_slider_moves_the_plans(tmp_path: Path):
    source = report(synthetic_run.write_run(tmp_path / "run")).source
    moved = 'player.hidden = false; slider.value = 3; slider.dispatchEvent(new Event("input"));'
    (tmp_path / "moved.html").write_text(source.replace("player.hidden = false;", moved))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'c'}"]
    done = subprocess.run(
        [*command, "--dump-dom", (tmp_path / "moved.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        pytest.skip(f"chromium does not run here: {done.stderr[-200:]}")
    arrays = synthetic_run.mapping()
    page = Page(done.stdout.replace("<!DOCTYPE html>", ""))
    assert f"at step {arrays['steps'][3]}," in page.text
    for kind in ("attention", "hidden"):
        flow = arrays[f"{kind}_flow"][3]
        table = page.table(f"{kind} transport plan")[2:]
        shown = np.array([[float(cell) for cell in row[1:]] for row in table[:-1]])
        np.testing.assert_allclose(shown[:, :-1], 100 * flow, atol=0.0511)
        np.testing.assert_allclose(shown[:, -1], 100 * flow.sum(1), atol=0.0511)
        np.testing.assert_allclose([float(cell) for cell in table[-1][1:-1]], 100 * flow.sum(0), atol=0.0511)
