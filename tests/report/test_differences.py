"""Differences between runs: scipy's bootstrap on the same rows, and what is not compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report import synthetic_run
from report.test_report import Page
from scipy import stats

from bert_emd_jax.report.compare import as_text, notes, write_comparison
from bert_emd_jax.report.compared_runs import group_runs, read_compared_run
from bert_emd_jax.report.differences import difference_lines, difference_table

ROWS = 200
RNG = np.random.default_rng(0)
TRUTH = RNG.integers(2, size=ROWS)
RIGHT = {name: RNG.random(ROWS) < share for name, share in (("emd", 0.85), ("uniform", 0.75), ("again", 0.8))}
MACHINE = {"device": "cpu", "processor": "P", "cores": 2, "machine_cores": 2}
TIMED_ON = MACHINE | {"load_before": 0.1, "load_after": 0.2, "tokens": 24}


def write_run(
    directory: Path, right: np.ndarray, flags: dict[str, Any], *, scored_on: str = "dev", **changes: Any
) -> Path:
    """A training run that was right on these rows of a split."""
    directory.mkdir()
    config = synthetic_run.config()
    config["flags"] |= flags
    (directory / "run_config.json").write_text(json.dumps(config))
    results = synthetic_run.results() | {"rows": ROWS, "timed_on": TIMED_ON}
    scores = {"metrics": {"accuracy": float(right.mean())}}
    if scored_on == "test":
        results["test"] = {"rows": ROWS, "student": scores}
        results["rows"] = None
    else:
        results["student"] = results["student"] | scores
    (directory / "eval_results.json").write_text(json.dumps(results | changes))
    synthetic_run.write_rows(directory / f"{scored_on}_predictions.jsonl", prediction_rows(right))
    return directory


def prediction_rows(right: np.ndarray) -> list[dict[str, Any]]:
    names = ["negative", "positive"]
    return [
        {"id": str(row), "text": f"text {row}", "label": names[truth]}
        | {"student": [0.9, 0.1] if truth == (not is_right) else [0.1, 0.9]}
        for row, (truth, is_right) in enumerate(zip(TRUTH.tolist(), right.tolist(), strict=True))
    ]


def differences(*directories: Path) -> list[dict[str, str]]:
    return difference_lines(group_runs([read_compared_run(directory) for directory in directories]))


def bounds(text: str) -> list[float]:
    return [float(part) for part in text.split(" to ")]


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    return [
        write_run(tmp_path / name, RIGHT[name], {"mapping": name, "seed": 1}) for name in ("emd", "uniform")
    ]


@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_interval_over_rows_is_paired(tmp_path: Path, split: str):
    first, second = (
        write_run(tmp_path / name, RIGHT[name], {"mapping": name}, scored_on=split)
        for name in ("emd", "uniform")
    )
    lines = [line for line in differences(first, second) if f"{split} rows" in line["score"]]
    (line,) = lines
    apart = RIGHT["uniform"].astype(float) - RIGHT["emd"]
    assert (line["mapping"], line["minus"]) == ("uniform", "mapping=emd")
    assert line["score"] == f"rotten_tomatoes: accuracy, 200 {split} rows"
    assert float(line["difference"]) == pytest.approx(apart.mean(), abs=5e-5)
    theirs = stats.bootstrap((apart,), np.mean, method="percentile", n_resamples=20_000, rng=0)
    np.testing.assert_allclose(bounds(line["95 % over rows"]), theirs.confidence_interval, atol=0.01)
    assert (line["95 % over seeds"], line["note"]) == ("–", "")


def test_seeds_have_an_interval_of_their_own(pair: list[Path], tmp_path: Path):
    """A third run repeats the first with another seed, a fourth repeats its seed too."""
    pair.append(write_run(tmp_path / "again", RIGHT["again"], {"mapping": "emd", "seed": 2}))
    pair.append(write_run(tmp_path / "twice", RIGHT["again"], {"mapping": "emd", "seed": 2}))
    (line,) = differences(*pair)
    seeds = [RIGHT["emd"].mean(), RIGHT["again"].mean()]
    half = stats.t.ppf(0.975, 1) * np.std(seeds, ddof=1) * np.sqrt(1 + 1 / 2)
    middle = RIGHT["uniform"].mean() - np.mean(seeds)
    np.testing.assert_allclose(bounds(line["95 % over seeds"]), [middle - half, middle + half], atol=5e-5)
    assert "mapping=emd: 2 runs of seed 2, which repeat each other" in notes(
        group_runs([read_compared_run(run) for run in pair])
    )


def test_without_predictions_there_is_no_interval_over_rows(pair: list[Path]):
    (pair[1] / "dev_predictions.jsonl").unlink()
    (line,) = differences(*pair)
    assert float(line["difference"]) == pytest.approx(RIGHT["uniform"].mean() - RIGHT["emd"].mean(), abs=5e-5)
    assert line["95 % over rows"] == "–"
    assert "no interval" in line["note"]


def test_predictions_of_another_score_are_not_taken(pair: list[Path]):
    synthetic_run.write_rows(pair[1] / "dev_predictions.jsonl", prediction_rows(RIGHT["again"]))
    (line,) = differences(*pair)
    assert line["95 % over rows"] == "–"


@pytest.mark.parametrize("change", [{"id": "x"}, {"text": "x"}])
def test_other_rows_are_not_compared(pair: list[Path], change: dict):
    rows = prediction_rows(RIGHT["uniform"])
    rows[3] |= change
    synthetic_run.write_rows(pair[1] / "dev_predictions.jsonl", rows)
    (line,) = differences(*pair)
    assert (line["difference"], line["note"]) == ("–", "other rows")


@pytest.mark.parametrize("change", [{"task": "mrpc"}, {"split": "held out"}, {"rows": 199}])
def test_other_tasks_splits_and_counts_are_not_compared(tmp_path: Path, pair: list[Path], change: dict):
    other = write_run(tmp_path / "other", RIGHT["again"], {"mapping": "none"}, **change)
    assert differences(pair[0], other) == []
    groups = group_runs([read_compared_run(directory) for directory in (pair[0], other)])
    assert "no differences: no two configurations" in as_text(groups)


def test_rows_that_are_not_known_to_be_the_same(tmp_path: Path):
    runs = [
        write_run(tmp_path / name, RIGHT[name], {"data_dir": name}, task="custom")
        for name in ("emd", "uniform")
    ]
    (line,) = differences(*runs)
    assert line["95 % over rows"] != "–"  # the rows themselves show that they are the same
    for run in runs:
        (run / "dev_predictions.jsonl").unlink()
    (line,) = differences(*runs)
    assert line["note"] == "custom tasks of two directories, without predictions per row"
    for run in runs:
        results = json.loads((run / "eval_results.json").read_text())
        (run / "eval_results.json").write_text(json.dumps(results | {"rows": None, "task": "sst-2"}))
    (line,) = differences(*runs)
    assert line["note"] == "how many rows they are of is not recorded"


def test_rows_that_chose_the_step_are_named(tmp_path: Path):
    runs = [
        write_run(tmp_path / name, RIGHT[name], {"mapping": name}, chose_step=True)
        for name in ("emd", "uniform")
    ]
    (line,) = differences(*runs)
    assert line["note"] == "the rows chose the step"


def test_an_evaluation_stands_beside_a_run(pair: list[Path], tmp_path: Path):
    evaluated = tmp_path / "evaluated"
    evaluated.mkdir()
    right = RIGHT["again"]
    results = synthetic_run.results() | {"rows": ROWS, "program": "run_eval", "labels": []}
    results["student"]["metrics"] = {"accuracy": float(right.mean())}
    (evaluated / "eval_results.json").write_text(json.dumps(results | {"flags": {"split": "dev"}}))
    lines = ["index\tprediction\tlabel\tprobability_negative\tprobability_positive"]
    for row in prediction_rows(right):
        probabilities = "\t".join(f"{value:.6f}" for value in row["student"])
        lines.append(f"{row['id']}\t?\t{row['label']}\t{probabilities}")
    (evaluated / "predictions_dev.tsv").write_text("\n".join(lines) + "\n")
    (line,) = differences(pair[0], evaluated)
    apart = right.astype(float) - RIGHT["emd"]
    theirs = stats.bootstrap((apart,), np.mean, method="percentile", n_resamples=20_000, rng=0)
    np.testing.assert_allclose(bounds(line["95 % over rows"]), theirs.confidence_interval, atol=0.01)


def test_an_evaluation_is_no_seed(pair: list[Path], tmp_path: Path):
    pair.append(write_run(tmp_path / "again", RIGHT["again"], {"mapping": "emd", "seed": 2}))
    config = json.loads((pair[1] / "run_config.json").read_text())
    (pair[1] / "run_config.json").write_text(json.dumps(config | {"flags": config["flags"] | {"seed": None}}))
    (line,) = differences(*pair)
    assert line["95 % over seeds"] == "–"


def test_what_lines_have_in_common_is_said_once(pair: list[Path], tmp_path: Path):
    pair.append(write_run(tmp_path / "again", RIGHT["again"], {"mapping": "none", "beta": 3}))
    table = difference_table(group_runs([read_compared_run(run) for run in (pair[1], pair[0], pair[2])]))
    assert table is not None
    where = "rotten_tomatoes: accuracy, 200 dev rows"
    assert table.title == f"Differences to beta=0.01, mapping=uniform, the first configuration ({where})"
    assert table.head == ["beta", "mapping", "difference", "95 % over rows"]
    assert [line[:2] for line in table.lines] == [["0.01", "emd"], ["3", "none"]]

    for run in pair:
        (run / "dev_predictions.jsonl").unlink()
    table = difference_table(group_runs([read_compared_run(run) for run in pair]))
    assert table is not None
    assert table.head == ["beta", "mapping", "difference"]
    (note,) = table.notes
    assert note.startswith("No interval: not all predictions are kept")


def test_tasks_do_not_share_a_figure(pair: list[Path], tmp_path: Path):
    rows = synthetic_run.metric_rows(40)
    pair.append(write_run(tmp_path / "mrpc", RIGHT["again"], {"mapping": "none"}, task="mrpc"))
    for run in pair:
        synthetic_run.write_rows(run / "metrics.jsonl", rows)
    groups = group_runs([read_compared_run(run) for run in pair])
    page = Page(write_comparison(tmp_path / "page.html", groups).read_text())
    assert page.headings("h3") == ["rotten_tomatoes: accuracy, 200 dev rows", "mrpc: accuracy, 200 dev rows"]
    assert "mrpc: accuracy, 200 dev rows" in page.tables[0][0]


def test_milliseconds_of_two_machines_share_no_column(pair: list[Path], tmp_path: Path):
    busy = TIMED_ON | {"processor": "Q", "load_after": 1.5}
    pair.append(write_run(tmp_path / "q", RIGHT["again"], {"mapping": "none"}, timed_on=busy))
    groups = group_runs([read_compared_run(run) for run in pair])
    text = as_text(groups)
    assert "ms, batch 1, machine 1" in text
    assert "ms, batch 1, machine 2" in text
    assert "ms, machine 1: per sentence, timed on P, 2 cores, 24 tokens per sentence\n" in text
    assert "timed on Q, 2 cores, 24 tokens per sentence; busy in 1 of 1 runs" in text
