"""Runs side by side: what counts as a repetition, means and deviations against NumPy, the program's hook."""

import contextlib
import csv
import json
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from report import synthetic_run
from report.test_report import Page

from bert_emd_jax.commands import evaluate
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.errors import UserError
from bert_emd_jax.report.compare import comparison_table, mean_text
from bert_emd_jax.report.compared_runs import group_runs, read_compared_run, repeated_flags, runs_below
from bert_emd_jax.report.table_formats import as_latex, as_markdown
from bert_emd_jax.training.run import directory_of

SCORES = {"emd": [0.81, 0.83, 0.82], "uniform": [0.80, 0.78], "none": [0.7]}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    directories = []
    for mapping, scores in SCORES.items():
        for seed, score in enumerate(scores):
            run = synthetic_run.write_run(tmp_path / f"{mapping}-{seed}")
            config = synthetic_run.config()
            config["flags"] |= {"mapping": mapping, "seed": seed, "output_dir": str(run)}
            (run / "run_config.json").write_text(json.dumps(config))
            results = synthetic_run.results()
            results["student"]["metrics"]["accuracy"] = score
            (run / "eval_results.json").write_text(json.dumps(results))
            directories.append(run)
    return directories


def test_means_and_deviations(runs: list[Path]):
    groups = group_runs([read_compared_run(run) for run in runs])
    assert [group.name for group in groups] == ["mapping=emd", "mapping=uniform", "mapping=none"]
    head, *lines = comparison_table(groups)
    teacher = synthetic_run.model("teacher")["metrics"]["accuracy"]
    for line, scores in zip(lines, SCORES.values(), strict=True):
        cells = dict(zip(head, line, strict=True))
        assert cells["runs"] == str(len(scores))
        numbers = [float(part) for part in cells["accuracy, dev"].split(" ± ")]
        assert numbers[0] == pytest.approx(np.mean(scores), abs=5e-5)
        if len(scores) > 1:
            assert numbers[1] == pytest.approx(np.std(scores, ddof=1), abs=5e-5)
        kept = 100 * np.array(scores) / teacher
        assert float(cells["% retained, dev"].split(" ± ")[0]) == pytest.approx(kept.mean(), abs=0.05)
        assert (cells["M FLOPs"], cells["ms, batch 32"]) == ("300.2", "1.19")
    assert mean_text([]) == "–"


def test_the_program_needs_no_model(runs: list[Path], tmp_path: Path, capsys):
    page = tmp_path / "new" / "comparison.html"
    flags = ["--compare", *map(str, runs), "--output_dir", str(page.parent)]
    assert evaluate.main(flags) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^mapping +runs +accuracy, dev .*\nemd +3 +0\.8200 ± 0\.0100 ", printed)
    assert str(page) in printed
    parsed = Page(page.read_text())
    assert parsed.headings() == [
        "Configurations",
        "Differences to mapping=emd, the first configuration (rotten_tomatoes: accuracy, dev)",
        "Scores over training",
        "Runs",
    ]
    assert len(parsed.tables[-1]) == 1 + len(runs)
    assert "http" not in parsed.source
    assert "src" not in {name for _, attributes in parsed.tags for name in attributes}


def test_the_table_for_other_programs(runs: list[Path], tmp_path: Path, capsys):
    expected = comparison_table(group_runs([read_compared_run(run) for run in runs]))
    flags = ["--compare", *map(str, runs), "--output_dir", str(tmp_path / "page"), "--format"]
    printed = {}
    for name in ("csv", "markdown", "latex"):
        assert evaluate.main([*flags, name]) == 0
        printed[name] = capsys.readouterr().out
    assert list(csv.reader(printed["csv"].splitlines())) == expected
    lines = printed["markdown"].splitlines()
    assert [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines[:1] + lines[2:]
    ] == expected
    assert lines[1] == "|" + " --- |" * len(expected[0])
    latex = printed["latex"].splitlines()
    assert latex[0] == r"\begin{tabular}{l" + "r" * (len(expected[0]) - 1) + "}"
    assert latex[2].count(" & ") == latex[4].count(" & ") == len(expected[0]) - 1
    assert r"\% retained, dev" in latex[2]
    assert latex[4].startswith(r"emd & 3 & 0.8200 $\pm$ 0.0100 & ")
    assert as_latex([["a_b\\", "c|d"], ["{x}", "–"]]).splitlines()[2] == r"a\_b\textbackslash{} & c|d \\"
    assert as_markdown([["a|b", "c"]]).splitlines()[0] == r"| a\|b | c |"


def test_runs_are_found_below_a_directory_and_their_reports_are_linked(
    runs: list[Path], tmp_path: Path, capsys
):
    (runs[0] / "report.html").write_text("a report")
    assert runs_below(tmp_path) == sorted(runs)
    assert runs_below(runs[0]) == [runs[0]]
    assert evaluate.main(["--compare", str(tmp_path), "--output_dir", str(tmp_path / "a page")]) == 0
    capsys.readouterr()
    page = tmp_path / "a page" / "comparison.html"
    (link,) = re.findall(r'<a href="(.+?)">', page.read_text())
    assert (page.parent / unquote(link)).read_text() == "a report"
    assert evaluate.main(["--compare", str(tmp_path), str(runs[0])]) == 2
    assert "is named 2 times" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert evaluate.main(["--compare", str(tmp_path / "empty")]) == 2
    assert "eval_results.json is missing" in capsys.readouterr().err


def test_splits_do_not_share_a_column(runs: list[Path]):
    """A run with a labelled test split beside one without."""
    path = runs[0] / "eval_results.json"
    results = json.loads(path.read_text())
    results["test"] = {
        "rows": 1000,
        "student": {"metrics": {"accuracy": 0.79}},
        "teacher": {"metrics": {"accuracy": 0.8}},
    }
    path.write_text(json.dumps(results))
    groups = group_runs([read_compared_run(run) for run in (runs[0], runs[3])])
    head, *lines = comparison_table(groups)
    assert head[2:4] == ["accuracy, 1,000 test rows", "accuracy, dev"]
    assert [line[2] for line in lines] == ["0.7900", "–"]
    ours, other = (dict(zip(head, line, strict=True)) for line in lines)
    assert (ours["% retained, 1,000 test rows"], other["% retained, 1,000 test rows"]) == ("98.8", "–")
    assert (ours["% retained, dev"], other["% retained, dev"]) == ("98.4", "97.1")


def test_programs_are_not_compared_by_flags_of_their_own(runs: list[Path], tmp_path: Path):
    scores = tmp_path / "scores"
    scores.mkdir()
    student = synthetic_run.model("student")
    results = {"program": "run_eval", "split": "test", "task": "x", "primary_metric": "accuracy"}
    (scores / "eval_results.json").write_text(
        json.dumps(results | {"student": student, "flags": {"student_model": "<b>", "split": "test"}})
    )
    groups = group_runs([read_compared_run(run) for run in [runs[0], runs[3], scores]])
    assert [group.name for group in groups] == [
        "run_distill: mapping=emd",
        "run_distill: mapping=uniform",
        "run_eval: x",
    ]
    assert [group.settings for group in groups] == [
        {"program": "run_distill", "mapping": "emd"},
        {"program": "run_distill", "mapping": "uniform"},
        {"program": "run_eval", "mapping": "–"},
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "eval_results.json is missing"), ("{}", "no results of a student"), ("[", "not valid JSON")],
)
def test_what_is_no_finished_run(tmp_path: Path, content: str | None, message: str):
    if content is not None:
        (tmp_path / "eval_results.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_compared_run(tmp_path)


def test_compare_without_runs(capsys):
    assert evaluate.main(["--compare"]) == 2
    assert "name the output directories" in capsys.readouterr().err


def test_a_run_that_is_named_twice_is_no_repetition(runs: list[Path], capsys):
    assert evaluate.main(["--compare", str(runs[0]), str(runs[0] / ".." / runs[0].name)]) == 2
    assert f"--compare: {runs[0].resolve()} is named 2 times; name each run once" in capsys.readouterr().err


def test_resuming_and_comparing_agree_on_what_changes_a_result(tmp_path: Path):
    """`--resume` refuses other values of just those flags that tell configurations apart, and of the seed."""
    (tmp_path / "run").mkdir()
    required = {"data_dir": "d", "task_name": "rte", "output_dir": tmp_path / "run"}
    # --dtype auto is what the run began with, whatever that was.
    config = DistillConfig(teacher_model="t", student_config="s", dtype="float32", **required, resume=True)
    directory = directory_of(config, "run_distill")
    refused = set()
    for name in directory.flags:
        flags = directory.flags | {name: "another value"}
        (tmp_path / "run" / "run_config.json").write_text(
            json.dumps({"program": "run_distill", "flags": flags}), encoding="utf-8"
        )
        with contextlib.suppress(UserError):
            directory.check()
            continue
        refused.add(name)
    assert refused == {name for name in directory.flags if name not in repeated_flags()} | {"seed"}
    assert {"beta", "mapping", "learning_rate", "task_name"} <= refused
    assert not {"log_steps", "resume", "output_dir", "mirror_dir"} & refused
