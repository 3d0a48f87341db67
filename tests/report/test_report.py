"""The page as a reader gets it: parsed by an HTML parser that knows nothing of how it was made."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report import synthetic_run

from bert_emd_jax.errors import UserError
from bert_emd_jax.report import write_report
from bert_emd_jax.report.results_reader import Difference
from bert_emd_jax.report.tables import difference_text

HOSTILE = "<script>alert('x')</script>\"&amp;$\\frac{1}{0}$"
VOID = {"meta", "link", "img", "br", "wbr", "hr", "input", "rect", "path", "use"}


class Page(HTMLParser):
    """Tags with their attributes, the text of every table cell, and all text."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.source = source
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def headings(self, level: str = "h2") -> list[str]:
        return [re.sub(r"<.*?>", "", found) for found in re.findall(f"<{level}>(.*?)</{level}>", self.source)]

    def table(self, name: str) -> list[list[str]]:
        labels = [attrs.get("aria-label") or "" for tag, attrs in self.tags if tag == "table"]
        return next(table for table, label in zip(self.tables, labels, strict=True) if name in label)


def report(run_dir: Path) -> Page:
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    return report(synthetic_run.write_run(tmp_path_factory.mktemp("run")))


def test_sections_of_a_distillation(page: Page):
    assert page.headings() == [
        "Teacher and student",
        "Which layer learns from which",
        "The mapping over training",
        "Training",
        "Predictions on the dev set",
        "Where teacher and student differ most",
        "The run",
    ]
    assert "left out" not in page.text


def test_the_page_needs_nothing_else(page: Page):
    assert "http" not in page.source
    assert not {"link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith(("#", "data:text/csv;")), (tag, value)
    assert not re.search(r"@import|url\((?!#)", page.source)


def test_ids_are_unique_and_every_reference_has_one(page: Page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) > 10
    assert len(set(ids)) == len(ids)
    references = set(re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', page.source))
    assert references
    assert {first or second for first, second in references} <= set(ids)


def test_no_color_is_left_that_ignores_the_theme(page: Page):
    body = page.source[page.source.index("<body>") :]
    assert not re.findall(r"(?:fill|stroke|color|background)\s*[:=]\s*\"?#[0-9a-fA-F]{3,6}", body)
    declared = set(re.findall(r"--([a-z0-9-]+):", page.source))
    assert set(re.findall(r"var\(--([a-z0-9-]+)\)", page.source)) <= declared


def test_the_comparison_has_the_files_numbers(page: Page):
    rows = {row[0]: row[1:] for row in page.tables[0]}
    assert rows["accuracy, the dev rows"] == ["0.8235", "0.8049", f"{100 * 0.8049 / 0.8235:.1f} % retained"]
    assert rows["parameters"] == ["22,713,986", "17,389,826", f"{22713986 / 17389826:.2f}× smaller"]
    assert rows["weights file"] == ["90.9 MB", "69.6 MB", f"{90864192 / 69567544:.2f}× smaller"]
    assert rows["ms per sentence, batch 1"] == ["8.41", "4.52", f"{8.41 / 4.52:.2f}× faster"]
    assert rows["ms per sentence, batch 32"] == ["2.37", "1.19", f"{2.37 / 1.19:.2f}× faster"]
    assert rows["layers"] == ["6", "3", "2.00× fewer"]
    assert rows["FLOPs per sentence"] == ["600 M", "300 M", f"{600136120.32 / 300216284.16:.2f}× fewer"]
    assert rows["hidden size"] == ["384", "384", "equal"]
    assert "keeps 97.7 % of its teacher's accuracy" in page.text


def test_what_has_chosen_nothing_leads(tmp_path: Path):
    """The demo's case: 100.2 % on the rows that chose the step, less on the test rows."""
    run = synthetic_run.write_run(tmp_path / "run")
    results = synthetic_run.results() | {"rows": 500, "chose_step": True}
    results["student"]["metrics"]["accuracy"], results["teacher"]["metrics"]["accuracy"] = 0.812, 0.810
    results["difference"] = {"value": 0.002, "low": -0.02, "high": 0.024}
    (run / "eval_results.json").write_text(json.dumps(results))
    page = Page(write_report(run).read_text())
    assert "keeps 100.2 % of its teacher's accuracy on 500 dev rows, which chose the step" in page.text
    assert (
        "0.0020 above its teacher in accuracy (95 % interval of the difference -0.0200 to +0.0240)"
        in page.text
    )
    results["test"] = {
        "rows": 1000,
        "student": {"metrics": {"accuracy": 0.818}, "interval": [0.79, 0.84]},
        "teacher": {"metrics": {"accuracy": 0.835}, "interval": [0.81, 0.86]},
        "difference": {"value": -0.017, "low": -0.031, "high": -0.003},
    }
    (run / "eval_results.json").write_text(json.dumps(results))
    page = Page(write_report(run).read_text())
    assert "keeps 98.0 % of its teacher's accuracy on 1,000 test rows." in page.text
    assert (
        "0.0170 below its teacher in accuracy (95 % interval of the difference -0.0310 to -0.0030)"
        in page.text
    )
    assert "accuracy on 500 dev rows, which chose the step; teacher 0.8100" in page.text
    of_test, of_dev = (row for row in page.tables[0] if row[0].startswith("accuracy, "))
    assert of_test == [
        "accuracy, 1,000 test rows",
        *("0.8350 (0.8100 to 0.8600)", "0.8180 (0.7900 to 0.8400)", "98.0 % retained"),
    ]
    assert of_dev[0] == "accuracy, 500 dev rows, which chose the step"
    assert "test rows; difference -0.0310 to -0.0030" in page.text  # beside the share, in its tile


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ((-0.01, -0.02, -0.001), "is 0.0100 below its teacher in f1 (95 % interval"),
        (
            (0.01, -0.02, 0.03),
            "above its teacher in f1 (95 % interval of the difference -0.0200 to +0.0300)",
        ),
        ((0.0, -0.02, 0.03), "scores as high as its teacher in f1 (95 %"),
        ((0.0, 0.0, 0.0), "(no draw of these rows gives another difference): these rows do not tell the two"),
    ],
)
def test_a_difference_says_whether_it_is_one(difference: tuple[float, float, float], words: str):
    text = difference_text(Difference(*difference), "f1")
    assert words in text
    assert ("do not tell" in text) == (difference[1] <= 0 <= difference[2])


def test_the_machine_that_was_timed_is_named(tmp_path: Path):
    run = synthetic_run.write_run(tmp_path / "run")
    assert "timed on a machine that eval_results.json does not name" in report(run).text
    machine = {"device": "TPU v4", "processor": "Some Processor", "cores": 4, "machine_cores": 8}
    timed_on = machine | {"load_before": 0.5, "load_after": 4.5, "tokens": 24}
    (run / "eval_results.json").write_text(json.dumps(synthetic_run.results() | {"timed_on": timed_on}))
    page = report(run)
    name = "TPU v4, beside Some Processor, 4 of 8 cores"
    assert f"{name}, 24 tokens per sentence; load 0.5 before, 4.5 after: busy" in page.text
    assert f"was 8.41, on {name}, busy" in page.text


def test_a_validation_loss_says_what_it_is(tmp_path: Path):
    run = synthetic_run.write_run(tmp_path / "run")
    results = {"task": "general distillation", "split": "held out", "primary_metric": "held_out_loss"}
    results |= {"rows": 1000, "chose_step": True, "student": {"metrics": {"held_out_loss": 1.25}}}
    (run / "eval_results.json").write_text(json.dumps(results))
    page = report(run)
    assert "The validation loss is 1.2500 on 1,000 held out rows, which chose the step" in page.text
    assert "It scores no task" in page.text
    assert "retained" not in page.text


def test_a_model_that_always_says_the_same_is_named(tmp_path: Path):
    run = synthetic_run.write_run(tmp_path / "run")
    rows = [row | {"student": [0.7, 0.3]} for row in synthetic_run.predictions()]
    synthetic_run.write_rows(run / "dev_predictions.jsonl", rows)
    page = report(run)
    assert f"The student predicts negative on all {len(rows)} dev rows" in page.text
    assert "The teacher predicts" not in page.text


@pytest.mark.parametrize("kind", ["attention", "hidden"])
def test_the_heatmaps_have_the_last_plan_and_cost(page: Page, kind: str):
    arrays = synthetic_run.mapping()
    flow, cost = arrays[f"{kind}_flow"][-1], arrays[f"{kind}_cost"][-1]
    plan = page.table(f"{kind} transport plan")[2:]
    shown = np.array([[float(cell) for cell in row[1:-1]] for row in plan[:-1]])
    assert shown.shape == (3, 6)
    np.testing.assert_allclose(shown, 100 * flow, atol=0.0501)
    np.testing.assert_allclose([float(row[-1]) for row in plan[:-1]], 100 * flow.sum(1), atol=0.0501)
    np.testing.assert_allclose([float(cell) for cell in plan[-1][1:-1]], 100 * flow.sum(0), atol=0.0501)
    costs = [[float(cell) for cell in row[1:]] for row in page.table(f"{kind} costs")[2:]]
    np.testing.assert_allclose(costs, cost, rtol=5.1e-3)


def test_shades_of_the_small_pictures_follow_the_plans(page: Page):
    start = page.source.index('aria-label="hidden plan at step 400"')
    picture = page.source[start : page.source.index("</svg>", start)]
    shades = np.zeros((3, 6))
    for x, y, shade in re.findall(r'x="(\d+)" y="(\d+)".*?fill-opacity="([\d.]+)"', picture):
        shades[int(y), int(x)] = float(shade)
    flow = synthetic_run.mapping()["hidden_flow"]
    np.testing.assert_allclose(shades, flow[-1] / flow.max(), atol=6e-4)


def test_a_run_may_have_a_name(tmp_path: Path):
    run = synthetic_run.write_run(tmp_path)
    config = synthetic_run.config()
    config["flags"] |= {"run_name": "half of it & more"}
    (run / "run_config.json").write_text(json.dumps(config))
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "<title>half of it &amp; more · BERT-EMD run</title>" in page.source


def test_a_finetuning_run_has_no_mapping_and_no_teacher(tmp_path: Path):
    page = report(synthetic_run.write_finetune_run(tmp_path / "run"))
    assert page.headings() == [
        "The model",
        "Training",
        "Predictions on the dev set",
        "The worst predictions",
        "The run",
    ]
    assert "left out" not in page.text
    assert "teacher" not in " ".join(page.tables[0][0])


def test_hostile_text_stays_text(tmp_path: Path):
    run = synthetic_run.write_run(tmp_path / "run")
    config = synthetic_run.config()
    config |= {"command_line": HOSTILE, "git_revision": HOSTILE, "devices": [HOSTILE], HOSTILE: HOSTILE}
    config["flags"] |= {HOSTILE: HOSTILE, "nested": {"key": [HOSTILE]}}
    config["versions"] = {HOSTILE: HOSTILE}
    (run / "run_config.json").write_text(json.dumps(config))
    results = synthetic_run.results() | {"task": HOSTILE, "split": HOSTILE, "primary_metric": HOSTILE}
    for role in ("student", "teacher"):
        results[role]["metrics"] = {HOSTILE: 0.5}
    (run / "eval_results.json").write_text(json.dumps(results))
    results["labels"] = [HOSTILE, "positive"]
    (run / "eval_results.json").write_text(json.dumps(results))
    predictions = [
        row | {"id": HOSTILE, "text": HOSTILE, "text_pair": HOSTILE, "label": HOSTILE}
        for row in synthetic_run.predictions()
    ]
    synthetic_run.write_rows(run / "dev_predictions.jsonl", predictions)
    rows = [row | {HOSTILE: 0.5, "primary": HOSTILE} for row in synthetic_run.metric_rows()]
    for row in rows:
        row.pop("accuracy", None), row.pop("f1", None)
    synthetic_run.write_rows(run / "metrics.jsonl", rows)
    page = report(run)
    assert page.source.count("<script") == 3
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [
        {"type": "application/json", "id": "plans"},
        {},
        {},
    ]
    assert page.text.count(HOSTILE) >= 30


@pytest.mark.parametrize(
    ("name", "gone", "sentence"),
    [
        (
            "eval_results.json",
            [
                "Teacher and student",
                "Predictions on the dev set",
                "Where teacher and student differ most",
            ],
            "no eval_results.json",
        ),
        (
            "dev_predictions.jsonl",
            ["Predictions on the dev set", "Where teacher and student differ most"],
            "no dev_predictions.jsonl",
        ),
        ("layer_mapping.npz", ["Which layer learns from which"], "no layer_mapping.npz"),
        ("metrics.jsonl", ["Training"], "no metrics.jsonl"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, page: Page, name: str, gone: list[str], sentence: str):
    run = synthetic_run.write_run(tmp_path / "run")
    (run / name).unlink()
    partial = report(run)
    assert sentence in partial.text
    assert [heading for heading in page.headings() if heading not in partial.headings()] == gone


def test_a_run_that_has_just_begun(tmp_path: Path):
    (tmp_path / "run_config.json").write_text("{}")
    page = report(tmp_path)
    assert page.headings() == ["The run"]
    assert page.text.count("left out") == 3


def test_absent_numbers_leave_their_lines_out(tmp_path: Path):
    run = synthetic_run.write_run(tmp_path / "run")
    results = synthetic_run.results()
    results["teacher"] = {"metrics": {}, "parameters": 100}
    del results["student"]["milliseconds_per_sentence"], results["student"]["heads"]
    results["student"]["metrics"]["accuracy"] = float("nan")
    (run / "eval_results.json").write_text(json.dumps(results))
    arrays = synthetic_run.mapping()
    np.savez(run / "layer_mapping.npz", **{name: arrays[name] for name in ("steps", "hidden_flow")})
    synthetic_run.write_rows(
        run / "metrics.jsonl",
        [{"step": step, "kind": "train", "loss": loss} for step, loss in enumerate([1.0, float("nan"), 0.0])],
    )
    page = report(run)
    labels = [row[0] for row in page.tables[0]]
    assert "accuracy" not in labels
    assert "attention heads" not in labels
    assert not any("ms per" in label for label in labels)
    assert "deciding metric" in page.text
    assert "attention plan is left out" in page.text
    assert "loss was not a finite number in 1 train rows, first at step 1." in page.text
    assert page.table("hidden transport plan")


def test_broken_plans_are_shown_as_absent(tmp_path: Path):
    run = synthetic_run.write_run(tmp_path / "run")
    arrays = synthetic_run.mapping()
    arrays["hidden_flow"][-1] = np.nan
    arrays["attention_flow"][:] = 0
    np.savez(run / "layer_mapping.npz", **arrays)
    page = report(run)
    assert {cell for row in page.table("hidden transport plan")[2:] for cell in row[1:]} == {"–", ""}
    assert not re.search(r"\bnan\b(?!\()", page.source.split("<script>")[0])


def test_a_long_run_stays_small(tmp_path: Path):
    run = synthetic_run.write_run(tmp_path / "run")
    synthetic_run.write_rows(run / "metrics.jsonl", synthetic_run.metric_rows(20000))
    np.savez(run / "layer_mapping.npz", **synthetic_run.mapping(12, 24, 20000, 301))
    page = report(run)
    assert len(page.source.encode()) < 1_500_000
    assert "left out" not in page.text


def test_two_reports_of_one_run_are_equal(tmp_path: Path, page: Page):
    assert report(synthetic_run.write_run(tmp_path / "run")).source == page.source


def test_no_run_directory(tmp_path: Path):
    with pytest.raises(UserError, match=r"run_config\.json is missing"):
        write_report(tmp_path / "nothing")


def test_importing_the_report_imports_neither_matplotlib_nor_jax(tmp_path: Path):
    run = synthetic_run.write_run(tmp_path / "run")
    code = (
        "import sys, pathlib; from bert_emd_jax import report; import bert_emd_jax.report.html;"
        "assert 'matplotlib' not in sys.modules; report.write_report(pathlib.Path(sys.argv[1]));"
        "assert 'matplotlib' in sys.modules; assert 'jax' not in sys.modules;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(run)], check=True)
