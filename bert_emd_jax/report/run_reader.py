"""Reads and checks the files of a run, so that the rest of the report can rely on their content."""

import csv
import io
import json
import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from bert_emd_jax import layout
from bert_emd_jax.data.kinds import CLASSIFICATION, KINDS, REGRESSION, Kind, Labels
from bert_emd_jax.devices.machine import Machine
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.metrics import ScoredRows
from bert_emd_jax.runs.layer_mapping import LayerMapping, read_mapping

HELD_OUT_LOSS = "held_out_loss"
"""The deciding metric of general distillation, which has no task."""
_LARGEST = (1 << 63) - 1  # the largest int64


@dataclass(frozen=True)
class Curve:
    """One logged quantity: `values[k]` at `steps[k]`, steps strictly increasing, all values finite."""

    steps: Int[np.ndarray, " steps"]
    values: Float[np.ndarray, " steps"]


@dataclass(frozen=True)
class MetricsCurves:
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
    interval: tuple[float, float] | None = None
    """The 95 % interval of the deciding metric over other rows."""
    by_label: dict[str, dict[str, float]] = field(default_factory=dict)
    """Label → its scores, and how many rows have it ("true") and are given it ("predicted")."""


@dataclass(frozen=True)
class TimedOn:
    """Where the milliseconds were measured, and how long the sentences were."""

    machine: Machine
    tokens: int | None

    @property
    def name(self) -> str:
        """All but the load, which differs from run to run."""
        tokens = "" if self.tokens is None else f", {self.tokens} tokens per sentence"
        return f"{self.machine.name}{tokens}"

    def __str__(self) -> str:
        return f"{self.name}; {self.machine.load_text}"


@dataclass(frozen=True)
class Difference:
    """What the student scores above its teacher in the deciding metric, and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TestResults:
    """The scores on a test split, which has chosen nothing."""

    __test__ = False  # for pytest

    rows: int | None
    student: ModelResult | None
    teacher: ModelResult | None
    difference: Difference | None


@dataclass(frozen=True)
class Results:
    """`eval_results.json`. `labels` is None if they have no names, and () if the file does not say. `kind` is
    None if it does not say that, for general distillation too.

    `rows` are those of the split, which `chose_step` if the step with the best score on it was kept.
    """

    task: str | None
    split: str | None
    primary_metric: str | None
    kind: Kind | None
    labels: Labels
    best_step: int | None
    student: ModelResult | None
    teacher: ModelResult | None
    rows: int | None = None
    chose_step: bool = False
    difference: Difference | None = None
    test: TestResults | None = None
    timed_on: TimedOn | None = None


@dataclass(frozen=True)
class Predictions:
    """`dev_predictions.jsonl`, row for row.

    `truth` as the kind has it. `by_model`: "teacher" and "student", or "student" alone, to probabilities
    [rows, labels] or values [rows].
    """

    kind: Kind
    labels: Labels
    identifiers: list[str]
    texts: list[tuple[str, ...]]
    truth: Num[np.ndarray, "rows ..."]
    by_model: dict[str, Float[np.ndarray, "rows ..."]]

    def scored(self, model: str) -> ScoredRows:
        """Returns what a model predicts beside the truth, to be scored."""
        return ScoredRows(self.kind, self.by_model[model], self.truth)


@dataclass(frozen=True)
class RunFiles:
    """Everything that the report shows. A file that the run did not leave is None."""

    config: dict[str, Any]
    command_line: str | None
    metrics: MetricsCurves | None
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
    """Reads the files of a run; only `run_config.json` must be there.

    Raises:
      UserError: a file is damaged; the message names it.
    """
    config_path = run_dir / layout.RUN_CONFIG
    if not config_path.is_file():
        raise UserError(f"{config_path} is missing: is {run_dir} the --output_dir of a run?")
    config = read_object(config_path)

    def read_if_there(name: str, read: Any, *args: Any) -> Any:
        path = run_dir / name
        return read(path, *args) if path.is_file() else None

    results = read_if_there(layout.RESULTS, read_results)
    predictions = None
    if results is not None and results.kind is not None:
        predictions = read_if_there(layout.DEV_PREDICTIONS, read_predictions, results.kind, results.labels)
    return RunFiles(
        config=config,
        command_line=_command_line(config.get("command_line")),
        metrics=read_if_there(layout.METRICS, read_metrics),
        mapping=read_if_there(layout.LAYER_MAPPING, read_mapping),
        results=results,
        predictions=predictions,
    )


def _command_line(command: Any) -> str | None:
    """Returns the command, a string or a list of words, as a shell takes it, one flag per line."""
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
    """Reads the JSON object of a file. Raises UserError, naming the file, if it holds none."""
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore it, or run again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold one JSON object: restore it, or run again")
    return content


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) <= _LARGEST)


# metrics.jsonl


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    lines = _read_text(path).split("\n")
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
        yield row


def read_metrics(path: Path) -> MetricsCurves:
    """Reads `metrics.jsonl`. Raises UserError, naming the line, if it is damaged."""
    by_kind: dict[str, dict[int, dict[str, Any]]] = {"train": {}, "eval": {}, "check": {}}
    for row in _rows(path):
        # A resumed run repeats steps: its rows replace those from before it was killed.
        if row["kind"] in by_kind:
            by_kind[row["kind"]][row["step"]] = row
    primary = best_step = None
    for step, row in sorted(by_kind["eval"].items()):
        primary = row.get("primary", primary)
        if row.get("best") is True:
            best_step = step
    notes: list[str] = []
    curves = {kind: _curves(kind, rows, notes) for kind, rows in by_kind.items()}
    primary = None if primary is None else str(primary)
    return MetricsCurves(**curves, primary=primary, best_step=best_step, notes=tuple(notes))


def _curves(kind: str, rows: dict[int, dict[str, Any]], notes: list[str]) -> dict[str, Curve]:
    """Returns a curve for each name; adds to `notes` the names that have values which are not finite."""
    points: dict[str, list[tuple[int, float]]] = {}
    nonfinite: dict[str, list[int]] = {}
    for step, row in sorted(rows.items()):
        for name, value in row.items():
            if name == "step" or not _is_number(value):
                continue
            if math.isfinite(value):
                points.setdefault(name, []).append((step, float(value)))
            else:
                nonfinite.setdefault(name, []).append(step)
    notes += [
        f"{name} was not a finite number in {len(steps)} {kind} rows, first at step {steps[0]:,}."
        for name, steps in nonfinite.items()
    ]
    return {name: Curve(*map(np.array, zip(*pairs, strict=True))) for name, pairs in points.items()}


# eval_results.json


def read_results(path: Path) -> Results:
    """Reads `eval_results.json`. Raises UserError, naming the file, if it is damaged."""
    content = read_object(path)
    texts = {name: content.get(name) for name in ("task", "split", "primary_metric")}
    labels = content.get("labels", [])
    if labels is not None and not isinstance(labels, list):
        raise UserError(f"{path}: labels must be a list or null: restore it, or run again")
    # Runs of 0.1.0 do not name their kind, and their evaluations no labels either.
    of_labels = REGRESSION if labels is None else CLASSIFICATION if labels else None
    kind = content.get("kind", of_labels.name if of_labels else None)
    if kind is not None and kind not in KINDS:
        raise UserError(f"{path}: kind {kind!r} is none of {', '.join(KINDS)}: restore it, or run again")
    return Results(
        **{name: None if text is None else str(text) for name, text in texts.items()},
        kind=None if kind is None else KINDS[kind],
        labels=None if labels is None else tuple(map(str, labels)),
        best_step=_number(path, "best_step", content.get("best_step"), whole=True),
        student=_model_result(path, "student", content.get("student")),
        teacher=_model_result(path, "teacher", content.get("teacher")),
        rows=_number(path, "rows", content.get("rows"), whole=True),
        chose_step=content.get("chose_step") is True,
        difference=_difference(path, content.get("difference")),
        test=_test_results(path, content.get("test")),
        timed_on=_timed_on(path, content.get("timed_on")),
    )


def _test_results(path: Path, entry: Any) -> TestResults | None:
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise UserError(f"{path}: test must be an object: restore it, or run again")
    return TestResults(
        rows=_number(path, "test.rows", entry.get("rows"), whole=True),
        student=_model_result(path, "test.student", entry.get("student")),
        teacher=_model_result(path, "test.teacher", entry.get("teacher")),
        difference=_difference(path, entry.get("difference")),
    )


def _difference(path: Path, entry: Any) -> Difference | None:
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise UserError(f"{path}: difference must be an object: restore it, or run again")
    numbers = [_number(path, f"difference.{name}", entry.get(name)) for name in ("value", "low", "high")]
    return None if None in numbers else Difference(*numbers)


def _timed_on(path: Path, entry: Any) -> TimedOn | None:
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise UserError(f"{path}: timed_on must be an object: restore it, or run again")

    def number(name: str, whole: bool = False) -> Any:
        return _number(path, f"timed_on.{name}", entry.get(name), whole)

    cores, machine_cores = number("cores", whole=True), number("machine_cores", whole=True)
    if cores is None or machine_cores is None:
        return None
    return TimedOn(
        Machine(
            device=str(entry.get("device")),
            processor=str(entry.get("processor")),
            cores=cores,
            machine_cores=machine_cores,
            load_before=number("load_before"),
            load_after=number("load_after"),
        ),
        tokens=number("tokens", whole=True),
    )


def _interval(path: Path, role: str, entry: Any) -> tuple[float, float] | None:
    if entry is None:
        return None
    if not isinstance(entry, list) or len(entry) != 2:
        raise UserError(f"{path}: {role}.interval must be two numbers: restore it, or run again")
    low, high = (_number(path, f"{role}.interval", value) for value in entry)
    return None if low is None or high is None else (low, high)


def _model_result(path: Path, role: str, entry: Any) -> ModelResult | None:
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise UserError(f"{path}: {role} must be an object: restore it, or run again")

    def numbers(name: str) -> dict[str, float]:
        content = entry.get(name) or {}
        if not isinstance(content, dict):
            raise UserError(f"{path}: {role}.{name} must be an object: restore it, or run again")
        checked = {key: _number(path, f"{role}.{name}.{key}", value) for key, value in content.items()}
        return {key: value for key, value in checked.items() if value is not None}

    by_label = entry.get("by_label") or {}
    if not isinstance(by_label, dict) or not all(isinstance(scores, dict) for scores in by_label.values()):
        raise UserError(f"{path}: {role}.by_label must be an object of objects: restore it, or run again")
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
        interval=_interval(path, role, entry.get("interval")),
        by_label={
            label: {name: _number(path, f"{role}.by_label.{label}", value) for name, value in scores.items()}
            for label, scores in by_label.items()
        },
        **{name: _number(path, f"{role}.{name}", entry.get(name), whole=True) for name in sizes},
    )


def _number(path: Path, name: str, value: Any, whole: bool = False) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None  # an unmeasured number and one that is not finite read the same: absent
    if not _is_number(value) or (whole and value != int(value)):
        raise UserError(f"{path}: {name} is {value!r}, expected a number: restore it, or run again")
    return int(value) if whole else float(value)


# dev_predictions.jsonl


def read_predictions(path: Path, kind: Kind, labels: Labels) -> Predictions | None:
    """Reads `dev_predictions.jsonl`; None if it has no rows.

    Args:
      labels: of the task, in the order of the probabilities.

    Raises:
      UserError: the file is damaged; the message names the line.
    """
    identifiers: list[str] = []
    texts: list[tuple[str, ...]] = []
    truth: list[Any] = []
    by_model: dict[str, list[Any]] = {}
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            pair = (row["text"], row["text_pair"]) if "text_pair" in row else (row["text"],)
            label = kind.read(row["label"], labels)
            models = [model for model in ("teacher", "student") if model in row]
            if "student" not in models or (by_model and list(by_model) != models):
                raise ValueError("other models than in the rows before")
            for model in models:
                by_model.setdefault(model, []).append(_prediction(row[model], labels))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise UserError(
                f"{path}, line {number}: not a row of predictions ({error}): restore the file, or run again"
            ) from error
        identifiers.append(str(row.get("id", number - 1)))
        texts.append(tuple(map(str, pair)))
        truth.append(label)
    if not truth:
        return None
    return Predictions(
        kind=kind,
        labels=labels,
        identifiers=identifiers,
        texts=texts,
        truth=kind.truths(truth),
        by_model={model: np.array(values, float) for model, values in by_model.items()},
    )


def read_prediction_table(path: Path, kind: Kind | None) -> Predictions | None:
    """Reads `predictions_SPLIT.tsv` of run_eval.py; None if it has no labels. Texts are not in it.

    Args:
      kind: None if `eval_results.json` does not say.

    Raises:
      UserError: the file is damaged.
    """
    try:
        header, *rows = csv.reader(io.StringIO(_read_text(path), newline=""), delimiter="\t", strict=True)
        if "label" not in header:
            return None
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        prefix = f"{(kind or CLASSIFICATION).output_name}_"
        names = [name for name in header if name.startswith(prefix)]
        labels = tuple(name.removeprefix(prefix) for name in names) or None
        values = np.array([columns[name] for name in names or ["prediction"]]).astype(float).T
        kind = kind or (CLASSIFICATION if labels else REGRESSION)
        truth = [kind.read(label, labels) for label in columns["label"]]
        if not np.isfinite(values).all():
            raise ValueError("a prediction is not a finite number")
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path}: not a table of predictions ({error}): restore the file, or run again"
        ) from error
    return Predictions(
        kind=kind,
        labels=labels,
        identifiers=list(columns["index"]),
        texts=[],
        truth=kind.truths(truth),
        by_model={"student": values if labels else values[:, 0]},
    )


def _prediction(value: Any, labels: Labels) -> Any:
    numbers = [value] if labels is None else value
    if labels is not None and len(numbers) != len(labels):
        raise ValueError(f"{len(numbers)} probabilities for {len(labels)} labels")
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ValueError("a prediction is not a finite number")
    return value
