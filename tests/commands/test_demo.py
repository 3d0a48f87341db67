"""What the demo prints at its end."""

import json
from pathlib import Path

from report import synthetic_run

from bert_emd_jax.commands.demo import table
from bert_emd_jax.report.results_reader import read_results


def test_every_score_says_split_rows_and_interval(tmp_path: Path):
    results = synthetic_run.results() | {"rows": 500, "chose_step": True}
    results["student"]["interval"], results["teacher"]["interval"] = [0.77, 0.84], [0.79, 0.86]
    machine = {"device": "cpu", "processor": "Some Processor", "cores": 2, "machine_cores": 2}
    results["timed_on"] = machine | {"load_before": 0.2, "load_after": 0.3, "tokens": 24}
    results["test"] = {
        "rows": 1000,
        "student": {"metrics": {"accuracy": 0.836}, "interval": [0.81, 0.86]},
        "teacher": {"metrics": {"accuracy": 0.835}, "interval": [0.80, 0.85]},
        "difference": {"value": 0.001, "low": -0.02, "high": 0.022},
    }
    path = tmp_path / "eval_results.json"
    path.write_text(json.dumps(results))
    lines = table(read_results(path)).splitlines()
    assert lines[0] == (
        "The student keeps 100.1 % of its teacher's accuracy on 1,000 test rows. The student is 0.0010 above"
        " its teacher in accuracy (95 % interval of the difference -0.0200 to +0.0220): these rows do not"
        " tell the two apart."
    )
    found = [" ".join(line.split()) for line in lines]
    of_test = "0.8350 (0.8000 to 0.8500) 0.8360 (0.8100 to 0.8600) 100.1 % retained"
    assert f"accuracy, 1,000 test rows {of_test}" in found
    of_dev = "0.8235 (0.7900 to 0.8600) 0.8049 (0.7700 to 0.8400) 97.7 % retained"
    assert f"accuracy, 500 dev rows, which chose the step {of_dev}" in found
    assert "Some Processor, 2 cores, 24 tokens per sentence; load 0.2 before, 0.3 after." in lines[-1]
