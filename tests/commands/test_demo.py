"""What the demos print at their end."""

import json
import shlex
from pathlib import Path

import pytest
from report import synthetic_run

from bert_emd_jax.commands import demo, demo_embeddings
from bert_emd_jax.commands.config_file import with_file_flags
from bert_emd_jax.commands.demo import table
from bert_emd_jax.commands.flags import parse_flags
from bert_emd_jax.commands.programs import as_subcommand
from bert_emd_jax.distillation.distill_config import DistillConfig
from bert_emd_jax.report.results_reader import read_results


def test_the_score_says_split_rows_and_interval(tmp_path: Path):
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
    assert not any("dev rows" in line or "f1" in line for line in found)  # the report has the rest
    assert "layers 6 3 2.00× fewer" in found
    assert "Some Processor, 2 cores, 24 tokens per sentence; load 0.2 before, 0.3 after." in lines[-1]


@pytest.mark.parametrize("program", [demo, demo_embeddings])
def test_the_next_commands_have_flags_that_there_are(program, tmp_path: Path):
    for student in ("student", "embedder"):
        (tmp_path / student).mkdir()
        flags = {"teacher_model": "t", "student_init_layers": "1,3,5", "data_dir": "d", "task_name": "custom"}
        flags |= {"freeze_word_embeddings": True, "kind": "embedding" if student == "embedder" else None}
        (tmp_path / student / "run_config.json").write_text(json.dumps({"flags": flags}))
    with as_subcommand():
        lines = [line for of_step in program.next_steps(tmp_path).values() for line in of_step]
    distil = [words[2:] for words in map(shlex.split, lines) if words[1] == "distill"]
    assert len(distil) == 2
    for flags in distil:
        assert parse_flags(DistillConfig, with_file_flags(DistillConfig, flags), "x", "").flags()["data_dir"]
