"""The model card of a run: read back by the hub's own library, with the numbers of the run."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from report import synthetic_run

from bert_emd_jax.errors import UserError
from bert_emd_jax.publishing.model_card import read_card, write_model_card


def run_with_pytorch(directory: Path, facts: Mapping[str, Any] = MappingProxyType({}), **flags) -> Path:
    run = synthetic_run.write_run(directory)
    (run / "pytorch").mkdir()
    config = json.loads((run / "run_config.json").read_text())
    config["flags"] |= flags
    (run / "run_config.json").write_text(json.dumps(config | dict(facts)))
    return run


def with_test_split(run: Path) -> dict:
    results = json.loads((run / "eval_results.json").read_text()) | {"rows": 500, "chose_step": True}
    results["student"]["interval"] = [0.77, 0.84]
    results["test"] = {
        "rows": 1000,
        "student": {"metrics": {"accuracy": 0.8361}, "interval": [0.81, 0.86]},
        "teacher": {"metrics": {"accuracy": 0.835}, "interval": [0.80, 0.85]},
    }
    (run / "eval_results.json").write_text(json.dumps(results))
    return results


def test_scores_by_split_with_rows_and_intervals(tmp_path: Path):
    run = run_with_pytorch(tmp_path / "small", teacher_model=["someone/bert-reviews@main"])
    with_test_split(run)
    path = write_model_card(run)
    assert path == run / "pytorch" / "README.md"
    card = ModelCard.load(path)
    scores = {one.dataset_split: one for one in card.data.eval_results}
    assert scores["test"].metric_value == pytest.approx(0.8361)
    assert scores["test"].metric_args == {"rows": 1000, "interval_95": [0.81, 0.86]}
    assert scores["validation"].metric_args == {"rows": 500, "interval_95": [0.77, 0.84]}
    assert card.data.base_model == ["someone/bert-reviews"]
    head = card.data.to_dict()
    found = {name: head[name] for name in ("library_name", "pipeline_tag", "license")}
    assert found == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "license": "unknown",
    }
    assert "accuracy, 1,000 test rows" in card.text
    assert "timed on" in card.text
    assert "set `license` at the head" in card.text


def test_nothing_of_the_machine_is_published(tmp_path: Path):
    local, on_hub = str(tmp_path / "bodies/gone"), "google-bert/bert-base-uncased"
    start = {"working_directory": str(tmp_path), "command_line": ["bert-emd", "--student_model", local]}
    teacher = run_with_pytorch(
        tmp_path / "teacher", start, bert_model=on_hub, student_model="bodies/gone", teacher_model=None
    )
    places = {"teacher_model": [str(teacher)], "data_dir": "/home/me/secret/rows", "beta": 0.1}
    run = run_with_pytorch(tmp_path / "small", **places)
    config = json.loads((run / "run_config.json").read_text())
    config["flag_sources"] = dict.fromkeys(config["flags"], "default") | dict.fromkeys(places, "given")
    (run / "run_config.json").write_text(json.dumps(config))
    text = write_model_card(run).read_text()
    assert str(tmp_path) not in text
    assert "secret" not in text
    assert "- `--teacher_model` teacher\n" in text
    assert "- `--beta` 0.1\n" in text
    # What a local teacher was made from is on the hub.
    assert yaml.safe_load(text.split("---")[1])["base_model"] == [on_hub]


def test_without_results_or_files_for_pytorch_there_is_none(tmp_path: Path):
    run = synthetic_run.write_run(tmp_path / "run")
    assert write_model_card(run) is None
    (run / "pytorch").mkdir()
    (run / "eval_results.json").unlink()
    assert write_model_card(run) is None


def test_a_damaged_card_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"README\.md: no such file"):
        read_card(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: [unclosed\n---\n# A model\n")
    with pytest.raises(UserError, match=r"README\.md: not a model card"):
        read_card(tmp_path)
