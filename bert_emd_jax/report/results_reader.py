"""The scores, sizes and times of `eval_results.json`."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert_emd_jax.data.kind import Kind, Labels
from bert_emd_jax.data.kinds import CLASSIFICATION, KINDS, REGRESSION
from bert_emd_jax.devices.machine import Machine
from bert_emd_jax.errors import UserError
from bert_emd_jax.report.json_files import is_number, read_object

HELD_OUT_LOSS = "held_out_loss"
"""The deciding metric of general distillation, which has no task."""


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
    thresholds: tuple[float, ...] | None = None
    """Probabilities above which labels are given; None: one half."""


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
    unit: str = "rows"


@dataclass(frozen=True)
class Results:
    """`eval_results.json`. `labels` is None if they have no names, and () if the file does not say. `kind` is
    None if it does not say that, for general distillation too.

    `rows` are those of the split, counted in `unit`, which `chose_step` if the step with the best score on it
    was kept.
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
    unit: str = "rows"
    chose_step: bool = False
    difference: Difference | None = None
    test: TestResults | None = None
    timed_on: TimedOn | None = None

    @property
    def thresholds(self) -> dict[str, tuple[float, ...]]:
        """Those of models that have some, by model."""
        models = {"student": self.student, "teacher": self.teacher}
        return {name: one.thresholds for name, one in models.items() if one is not None and one.thresholds}


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
        student=_model_result(path, "student", content.get("student"), len(labels or ())),
        teacher=_model_result(path, "teacher", content.get("teacher"), len(labels or ())),
        rows=_number(path, "rows", content.get("rows"), whole=True),
        unit=_unit(content),
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
        unit=_unit(entry),
    )


def _unit(entry: dict[str, Any]) -> str:
    return str(entry.get("unit", "rows"))


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


def _thresholds(path: Path, role: str, entry: Any, labels: int) -> tuple[float, ...] | None:
    if entry is None:
        return None
    given = entry if isinstance(entry, list) else []
    numbers = tuple(_number(path, f"{role}.thresholds", value) for value in given)
    # Of two classes the second alone has one.
    if None in numbers or not (len(numbers) == labels or (len(numbers) == 1 and labels == 2)):
        raise UserError(f"{path}: {role}.thresholds do not fit the labels: restore it, or run again")
    return numbers


def _model_result(path: Path, role: str, entry: Any, labels: int = 0) -> ModelResult | None:
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
        thresholds=_thresholds(path, role, entry.get("thresholds"), labels),
        by_label={
            label: {name: _number(path, f"{role}.by_label.{label}", value) for name, value in scores.items()}
            for label, scores in by_label.items()
        },
        **{name: _number(path, f"{role}.{name}", entry.get(name), whole=True) for name in sizes},
    )


def _number(path: Path, name: str, value: Any, whole: bool = False) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None  # an unmeasured number and one that is not finite read the same: absent
    if not is_number(value) or (whole and value != int(value)):
        raise UserError(f"{path}: {name} is {value!r}, expected a number: restore it, or run again")
    return int(value) if whole else float(value)
