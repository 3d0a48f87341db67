"""What a run left on disk, read and checked, so that the rest of the report can trust it."""

import json
import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert_emd_jax.errors import UserError
from bert_emd_jax.report.predictions import Predictions, read_predictions
from bert_emd_jax.runs.layer_mapping import LayerMapping, read_mapping

HELD_OUT_LOSS = "held_out_loss"
"""What decides in general distillation, where there is no task."""


@dataclass(frozen=True)
class Curve:
    """One logged quantity: `values[k]` at `steps[k]`, steps strictly increasing, all values finite."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Metrics:
    """`metrics.jsonl`: by kind of row, by name, a curve. `best_step` is the last one marked as best."""

    train: dict[str, Curve]
    eval: dict[str, Curve]
    check: dict[str, Curve]
    primary: str | None
    best_step: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ModelResult:
    """One model's line in `eval_results.json`; what is absent there is None or empty."""

    metrics: dict[str, float]
    parameters: int | None
    layers: int | None
    hidden_size: int | None
    heads: int | None
    intermediate_size: int | None
    file_bytes: int | None
    flops_per_sentence: float | None
    milliseconds_per_sentence: dict[int, float]


@dataclass(frozen=True)
class Results:
    """`eval_results.json`. `labels` is None for regression, and () where the file does not say."""

    task: str | None
    split: str | None
    primary_metric: str | None
    labels: tuple[str, ...] | None
    best_step: int | None
    student: ModelResult | None
    teacher: ModelResult | None


@dataclass(frozen=True)
class RunFiles:
    """Everything the report shows. A file that the run did not leave is None."""

    config: dict[str, Any]
    command_line: str | None
    metrics: Metrics | None
    mapping: LayerMapping | None
    results: Results | None
    predictions: Predictions | None

    @property
    def best_step(self) -> int | None:
        if self.results is not None and self.results.best_step is not None:
            return self.results.best_step
        return None if self.metrics is None else self.metrics.best_step

    @property
    def primary_metric(self) -> str | None:
        if self.results is not None and self.results.primary_metric is not None:
            return self.results.primary_metric
        return None if self.metrics is None else self.metrics.primary


def read_run(run_dir: Path) -> RunFiles:
    """Reads the files of `run_dir`. Raises UserError, naming the file, for one that is damaged."""
    config_path = run_dir / "run_config.json"
    if not config_path.is_file():
        raise UserError(f"{config_path} is missing: is {run_dir} the --output_dir of a run?")
    config = read_object(config_path)

    def read_if_there(name: str, read: Any) -> Any:
        path = run_dir / name
        return read(path) if path.is_file() else None

    results = read_if_there("eval_results.json", read_results)
    predictions = None
    if results is not None and results.labels != ():
        predictions = read_if_there(
            "dev_predictions.jsonl", lambda path: read_predictions(path, results.labels)
        )
    return RunFiles(
        config=config,
        command_line=_command_line(config.get("command_line")),
        metrics=read_if_there("metrics.jsonl", read_metrics),
        mapping=read_if_there("layer_mapping.npz", read_mapping),
        results=results,
        predictions=predictions,
    )


def _command_line(command: Any) -> str | None:
    """The command, a string or a list of words, one flag per line, as a shell takes it."""
    if command is None:
        return None
    try:
        words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    except (TypeError, ValueError):
        return str(command)
    return "".join(
        (" \\\n  " if word.startswith("--") else " " if position else "") + shlex.quote(word)
        for position, word in enumerate(words)
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error}): restore it, or run again") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file. Raises UserError, naming the file, where it holds none."""
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore it, or run again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold one JSON object: restore it, or run again")
    return content


_LARGEST = (1 << 63) - 1  # what arrays of whole numbers hold


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) <= _LARGEST)


# metrics.jsonl


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = _read_text(path)
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                return  # no line end yet: a run that is still writing, or was killed while it wrote
            raise UserError(f"{path}, line {number}: not valid JSON ({error}): remove the line") from error
        if (
            not isinstance(row, dict)
            or not isinstance(row.get("step"), int)
            or not _is_number(row["step"])
            or not isinstance(row.get("kind"), str)
        ):
            raise UserError(f'{path}, line {number}: expected {{"step": …, "kind": …}}: remove the line')
        yield number, row


def read_metrics(path: Path) -> Metrics:
    """Reads `metrics.jsonl`. Raises UserError, naming the line, where it is damaged."""
    by_kind: dict[str, dict[int, dict[str, Any]]] = {"train": {}, "eval": {}, "check": {}}
    primary = best_step = None
    for _, row in _rows(path):
        # A resumed run repeats steps: its rows replace the ones from before it was killed.
        if row["kind"] in by_kind:
            by_kind[row["kind"]][row["step"]] = row
    for step, row in sorted(by_kind["eval"].items()):
        primary = row.get("primary", primary)
        if row.get("best") is True:
            best_step = step
    notes: list[str] = []
    curves = {kind: _curves(kind, rows, notes) for kind, rows in by_kind.items()}
    primary = None if primary is None else str(primary)
    return Metrics(
        train=curves["train"],
        eval=curves["eval"],
        check=curves["check"],
        primary=primary,
        best_step=best_step,
        notes=tuple(notes),
    )


def _curves(kind: str, rows: dict[int, dict[str, Any]], notes: list[str]) -> dict[str, Curve]:
    points: dict[str, list[tuple[int, float]]] = {}
    broken: dict[str, list[int]] = {}
    for step, row in sorted(rows.items()):
        for name, value in row.items():
            if name == "step" or not _is_number(value):
                continue
            if math.isfinite(value):
                points.setdefault(name, []).append((step, float(value)))
            else:
                broken.setdefault(name, []).append(step)
    for name, steps in broken.items():
        notes.append(
            f"{name} was not a finite number in {len(steps)} {kind} rows, first at step {steps[0]:,}."
        )
    return {
        name: Curve(np.array([step for step, _ in pairs]), np.array([value for _, value in pairs]))
        for name, pairs in points.items()
    }


# eval_results.json


def read_results(path: Path) -> Results:
    """Reads `eval_results.json`. Raises UserError, naming the file, where it is damaged."""
    content = read_object(path)
    texts = {name: content.get(name) for name in ("task", "split", "primary_metric")}
    models = {}
    for role in ("student", "teacher"):
        entry = content.get(role)
        if entry is not None and not isinstance(entry, dict):
            raise UserError(f"{path}: {role} must be an object: restore it, or run again")
        models[role] = None if entry is None else _model_result(path, role, entry)
    return Results(
        **{name: None if text is None else str(text) for name, text in texts.items()},
        labels=_labels(path, content),
        best_step=_number(path, "best_step", content.get("best_step"), whole=True),
        **models,
    )


def _labels(path: Path, content: dict[str, Any]) -> tuple[str, ...] | None:
    labels = content.get("labels", [])
    if labels is None:
        return None
    if not isinstance(labels, list):
        raise UserError(f"{path}: labels must be a list or null: restore it, or run again")
    return tuple(map(str, labels))


def _model_result(path: Path, role: str, entry: dict[str, Any]) -> ModelResult:
    def numbers(name: str) -> dict[str, float]:
        content = entry.get(name) or {}
        if not isinstance(content, dict):
            raise UserError(f"{path}: {role}.{name} must be an object: restore it, or run again")
        checked = {key: _number(path, f"{role}.{name}.{key}", value) for key, value in content.items()}
        return {key: value for key, value in checked.items() if value is not None}

    sizes = ("parameters", "layers", "hidden_size", "heads", "intermediate_size", "file_bytes")
    latency = numbers("milliseconds_per_sentence")
    if not all(batch.isdecimal() for batch in latency):
        raise UserError(
            f"{path}: {role}.milliseconds_per_sentence must be keyed by batch size: restore it, or run again"
        )
    return ModelResult(
        metrics=numbers("metrics"),
        flops_per_sentence=_number(path, f"{role}.flops_per_sentence", entry.get("flops_per_sentence")),
        milliseconds_per_sentence={int(batch): value for batch, value in latency.items()},
        **{name: _number(path, f"{role}.{name}", entry.get(name), whole=True) for name in sizes},
    )


def _number(path: Path, name: str, value: Any, whole: bool = False) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None  # an unmeasured number and one that is not finite read the same: absent
    if not _is_number(value) or (whole and value != int(value)):
        raise UserError(f"{path}: {name} is {value!r}, expected a number: restore it, or run again")
    return int(value) if whole else float(value)
