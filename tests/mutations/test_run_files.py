"""Damaged runs: what a run left behind, read to go on with it, to report it and to compare it."""

import dataclasses
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutations.harness import read_files, refusal, survives, write_files
from mutations.mutators import damaged_bytes, damaged_json, damaged_json_lines, damaged_text, either
from report import synthetic_run

from bert_emd_jax.configs import plain_values
from bert_emd_jax.report.compare import as_text
from bert_emd_jax.report.compared_runs import group_runs, read_compared_run
from bert_emd_jax.report.html import render
from bert_emd_jax.report.run_reader import read_run
from bert_emd_jax.runs.layer_mapping import COST_KINDS, LayerMappingWriter
from bert_emd_jax.runs.metrics_log import MetricsLog
from bert_emd_jax.training.run import directory_of
from bert_emd_jax.training.training_config import FinetuneConfig

damaged_object = either(damaged_json, damaged_json, damaged_json, damaged_bytes, damaged_text)
damaged_lines = either(damaged_json_lines, damaged_json_lines, damaged_bytes, damaged_text)


def write_mapping(file: Any, arrays: dict[str, Any]) -> None:
    np.savez(file, **arrays)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run of 8 steps."""
    directory = synthetic_run.write_run(tmp_path_factory.mktemp("run"))
    synthetic_run.write_rows(directory / "metrics.jsonl", synthetic_run.metric_rows(8))
    write_mapping(directory / "layer_mapping.npz", synthetic_run.mapping(2, 3, 8, 3))
    return read_files(directory)


REPORTED = [
    ("run_config.json", damaged_object, 200),
    ("eval_results.json", damaged_object, 400),
    ("metrics.jsonl", damaged_lines, 300),
    ("dev_predictions.jsonl", damaged_lines, 400),
    ("layer_mapping.npz", either(damaged_bytes), 300),
]


VALUES = {
    "run_config.json": damaged_json,
    "eval_results.json": damaged_json,
    "metrics.jsonl": damaged_json_lines,
    "layer_mapping.npz": lambda content, rng: content,
}


@pytest.mark.parametrize(("name", "mutate", "count"), REPORTED)
def test_runs_to_report(tmp_path: Path, run: dict[str, bytes], name: str, mutate, count: int):
    survives(tmp_path / "run", run, name, read_run, mutate, count)


def test_pages(tmp_path: Path, run: dict[str, bytes]):
    """What was read from damaged files can be drawn; that takes most of a second, so that there are few."""
    write_files(tmp_path / "run", run)
    render(read_run(tmp_path / "run"))  # at its first use Matplotlib makes directories of its own
    readable = 0
    for number in range(200):
        rng = random.Random(number)
        mutants = {name: damaged(run[name], rng) for name, damaged in VALUES.items()}
        write_files(tmp_path / "run", run | mutants)
        if refusal(lambda: read_run(tmp_path / "run")) is None:
            assert refusal(lambda: render(read_run(tmp_path / "run"))) is None
            readable += 1
        if readable == 6:
            return
    pytest.fail("too few could be read")


@pytest.mark.parametrize("name", ["layer_mapping.npz", "steps", "hidden_flow", "attention_student_weights"])
def test_arrays_in_layer_mappings(tmp_path: Path, run: dict[str, bytes], name: str):
    """The arrays themselves are damaged, in a sound archive."""
    arrays = synthetic_run.mapping(2, 3, 8, 3)

    def mutate(content: bytes, rng) -> bytes:
        del content
        changed = rng.choice(list(arrays)) if name not in arrays else name
        array = arrays[changed]
        odd = [
            *(
                np.zeros((0,)),
                np.zeros(()),
                np.array(["x"]),
                np.array([b"x"]),
                np.zeros(3, "M8[s]"),
                array[..., :0],
            ),
            *(
                array * np.nan,
                array * -1,
                array.astype(np.float64) * 1e300,
                array.astype(complex),
                array[::-1],
            ),
            *(array.astype(np.float16), np.full_like(array, 0), array.T, array[None], array[:1], array > 0),
            np.full(array.shape, np.iinfo(np.int64).max),
            np.zeros(array.shape, [("a", "i4")]),
        ]
        made = io.BytesIO()
        write_mapping(made, arrays | {changed: rng.choice(odd)})
        return made.getvalue()

    survives(tmp_path / "run", run, "layer_mapping.npz", read_run, mutate, 60)


@pytest.mark.parametrize(
    ("name", "mutate"),
    [
        ("run_config.json", damaged_object),
        ("eval_results.json", damaged_object),
        ("metrics.jsonl", damaged_lines),
        ("dev_predictions.jsonl", damaged_lines),
    ],
)
def test_runs_to_compare(tmp_path: Path, run: dict[str, bytes], name: str, mutate):
    def read(directory: Path) -> None:
        other = dataclasses.replace(read_compared_run(directory), program="another")
        as_text(group_runs([read_compared_run(directory), other]))

    survives(tmp_path / "run", run, name, read, mutate, 200)


def test_runs_to_go_on_with(tmp_path: Path):
    directory = tmp_path / "run"
    config = FinetuneConfig(
        bert_model=tmp_path / "model",
        data_dir=tmp_path,
        task_name="custom",
        output_dir=directory,
        resume=True,
    )
    stored = {"program": "run_finetune", "flags": plain_values(config.flags())}
    files = {"run_config.json": json.dumps(stored).encode()}
    read = lambda path: directory_of(config.replace(output_dir=path), "run_finetune").prepare()
    survives(directory, files, "run_config.json", read, damaged_object, 500, allowed=directory)


def test_metrics_to_go_on_with(tmp_path: Path, run: dict[str, bytes]):
    def read(directory: Path) -> None:
        content = (
            (directory / "metrics.jsonl").read_bytes() if (directory / "metrics.jsonl").is_file() else None
        )
        log = MetricsLog(directory, 4)
        log.write("train", 5, {"loss": 0.5})
        log.close()
        for path in (directory / "tensorboard").iterdir():
            path.unlink()
        (directory / "tensorboard").rmdir()
        if content is None:
            (directory / "metrics.jsonl").unlink()
            (directory / "nothing").unlink(missing_ok=True)

    files = {"metrics.jsonl": run["metrics.jsonl"]}
    survives(
        tmp_path / "run", files, "metrics.jsonl", read, damaged_lines, 100, allowed=tmp_path, refuses=None
    )


def test_layer_mappings_to_go_on_with(tmp_path: Path, run: dict[str, bytes]):
    def read(directory: Path) -> None:
        history = LayerMappingWriter(directory)
        history.resume(4)
        arrays = synthetic_run.mapping(2, 3, 8, 3)
        flow, cost = (
            {kind: arrays[f"{kind}_{part}"][-1] for kind in COST_KINDS} for part in ("flow", "cost")
        )
        history.add(5, flow, cost)
        (tmp_path / "copy").mkdir(exist_ok=True)
        history._path = tmp_path / "copy" / "layer_mapping.npz"
        history.write()

    files = {"layer_mapping.npz": run["layer_mapping.npz"]}
    mutate = either(damaged_bytes)
    survives(tmp_path / "run", files, "layer_mapping.npz", read, mutate, 150, allowed=tmp_path, refuses=False)
