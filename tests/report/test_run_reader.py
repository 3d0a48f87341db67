"""Damaged files are refused by name; what only looks odd is read as meant."""

import json
from pathlib import Path

import numpy as np
import pytest
from report import synthetic_run

from bert_emd_jax.errors import UserError
from bert_emd_jax.report.run_reader import read_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return synthetic_run.write_run(tmp_path / "run")


def refusal(run: Path) -> str:
    with pytest.raises(UserError) as error:
        read_run(run)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "line", ["{not json", "[1, 2]", '{"kind": "train"}', '{"step": 1, "kind": ["train"]}', '"x"']
)
def test_a_bad_line_is_named(run: Path, line: str):
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines()
    lines[6] = line
    path.write_text("\n".join(lines) + "\n")
    assert f"{path}, line 7:" in refusal(run)


def test_a_line_still_being_written_is_left_out(run: Path):
    path = run / "metrics.jsonl"
    whole = read_run(run).metrics
    path.write_text(path.read_text() + '{"step": 401, "kind": "tra')
    metrics = read_run(run).metrics
    assert metrics is not None
    assert whole is not None
    np.testing.assert_array_equal(metrics.train["loss"].steps, whole.train["loss"].steps)


@pytest.mark.parametrize("name", ["run_config.json", "eval_results.json"])
@pytest.mark.parametrize("content", [b'{"task": ', b"[]", b"\xff\xfe\x00", b""])
def test_damaged_json(run: Path, name: str, content: bytes):
    (run / name).write_bytes(content)
    assert str(run / name) in refusal(run)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"student": "good"}, "student"),
        ({"best_step": "soon"}, "best_step"),
        ({"student": {"parameters": "many"}}, "student.parameters"),
        ({"teacher": {"metrics": {"accuracy": "high"}}}, "teacher.metrics.accuracy"),
        ({"teacher": {"milliseconds_per_sentence": {"one": 1.0}}}, "batch size"),
        ({"teacher": {"milliseconds_per_sentence": [1.0]}}, "milliseconds_per_sentence"),
    ],
)
def test_wrong_results_are_named(run: Path, change: dict, named: str):
    (run / "eval_results.json").write_text(json.dumps(synthetic_run.results() | change))
    message = refusal(run)
    assert "eval_results.json" in message
    assert named in message


@pytest.mark.parametrize("damage", ["truncated", "text", "array", "empty", "flipped"])
def test_a_damaged_npz(run: Path, damage: str):
    path = run / "layer_mapping.npz"
    content = path.read_bytes()
    if damage == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        middle = content.index(synthetic_run.mapping()["hidden_flow"].tobytes()) + 100
        path.write_bytes(
            {
                "truncated": content[:middle],
                "text": b"hello",
                "empty": b"",
                "flipped": content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :],
            }[damage]
        )
    assert str(path) in refusal(run)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("hidden_flow", np.zeros((41, 6, 3))),
        ("attention_cost", np.zeros((40, 3, 6))),
        ("hidden_student_weights", np.zeros((41, 6))),
        ("attention_teacher_weights", np.zeros(41)),
        ("hidden_cost", np.full((41, 3, 6), "x")),
        ("steps", np.zeros((41, 1))),
    ],
)
def test_a_wrong_shape_is_named(run: Path, name: str, array: np.ndarray):
    np.savez(run / "layer_mapping.npz", **(synthetic_run.mapping() | {name: array}))
    message = refusal(run)
    assert "layer_mapping.npz" in message
    assert name in message


def test_pickled_objects_are_not_loaded(run: Path):
    np.savez(run / "layer_mapping.npz", **(synthetic_run.mapping() | {"extra": np.array([{}], dtype=object)}))
    assert "layer_mapping.npz" in refusal(run)


def test_a_resumed_run_repeats_steps_and_the_last_row_counts(run: Path):
    rows = [
        {"step": 1, "kind": "train", "loss": 5.0},
        {"step": 2, "kind": "train", "loss": 4.0},
        {"step": 2, "kind": "eval", "accuracy": 0.5, "primary": "accuracy", "best": True},
        {"step": 2, "kind": "train", "loss": 3.0},
        {"step": 2, "kind": "eval", "accuracy": 0.6, "primary": "accuracy", "best": True},
        {"step": 3, "kind": "train", "loss": 2.0},
        {"step": 3, "kind": "eval", "accuracy": 0.4, "primary": "accuracy", "best": False},
        {"step": 3, "kind": "something new", "loss": 9.0},
    ]
    synthetic_run.write_rows(run / "metrics.jsonl", rows)
    (run / "eval_results.json").unlink()
    arrays = {name: array[:3] for name, array in synthetic_run.mapping().items()} | {
        "steps": np.array([1, 5, 5])
    }
    np.savez(run / "layer_mapping.npz", **arrays)
    files = read_run(run)
    assert files.metrics is not None
    assert files.mapping is not None
    assert files.metrics.train["loss"].steps.tolist() == [1, 2, 3]
    assert files.metrics.train["loss"].values.tolist() == [5.0, 3.0, 2.0]
    assert files.metrics.eval["accuracy"].values.tolist() == [0.6, 0.4]
    assert (files.best_step, files.primary_metric) == (2, "accuracy")
    assert files.mapping.steps.tolist() == [1, 5]
    np.testing.assert_array_equal(files.mapping.flow["hidden"], arrays["hidden_flow"][[0, 2]])


@pytest.mark.parametrize(
    "command",
    [
        "run_distill.py --task_name sst-2 --aug_train",
        ["run_distill.py", "--task_name", "sst-2", "--aug_train"],
    ],
)
def test_the_command_line_has_one_flag_a_line(run: Path, command):
    (run / "run_config.json").write_text(json.dumps({"command_line": command}))
    assert read_run(run).command_line == "run_distill.py \\\n  --task_name sst-2 \\\n  --aug_train"
