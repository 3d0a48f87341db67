"""What is kept of a run: one line of JSON with its command, seconds, scores and predictions. No jax."""

import dataclasses
import json
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from bert_emd_jax import layout
from bert_emd_jax.devices.machine import processor_name
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import read_json, write_json, write_text
from bert_emd_jax.runs.layer_mapping import read_mapping
from comparison.intervals import score_of
from comparison.matrix import Plan, Run

RECORD = "record.json"  # written last: a run that has it is done
LOG = "runs.jsonl"
PLAN = "plan.json"
_SEED = 2020  # of the halves of dev sets
_LOGGED_STEPS = 25  # that are kept of curves and layer weights


@dataclasses.dataclass(frozen=True)
class Record:
    """A finished run.

    seconds: of its program, from start to end. setting: the flag that was tuned and its value. rows: training
    rows of a teacher, or rows made by augmentation. score: the task's metric on the dev rows that are
    reported. choice: that on the rows that choose, where these are others. scores: on all dev rows.
    predictions, labels: a digit for each reported row. curve: the loss on the teacher's predictions over
    training. mapping: the layer weights over training and the last plans.
    """

    name: str
    kind: str
    command: str
    started: str
    seconds: float
    task: str | None = None
    student: str | None = None
    method: str | None = None
    seed: int = 0
    setting: tuple[str, float] | None = None
    rows: int | None = None
    examples_per_second: float | None = None
    metric: str | None = None
    score: float | None = None
    choice: float | None = None
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    predictions: str | None = None
    labels: str | None = None
    curve: dict[str, list[float]] | None = None
    mapping: dict[str, Any] | None = None
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def standing(self) -> float:
        """The score by which it is chosen among others."""
        return (self.score if self.choice is None else self.choice) or 0.0


def record_of(run: Run, directory: Path, *, halves: bool = False, **measured: Any) -> Record:
    """Reads what a run has left in its directory.

    Args:
      halves: whether one half of the dev rows chooses and the other is reported.
      measured: the other fields of the record, which its starter knows.

    Raises:
      UserError: a file is missing or damaged.
    """
    identity = {field: getattr(run, field) for field in ("name", "kind", "task", "student", "method", "seed")}
    if run.kind in ("corpus", "augmentation"):
        return Record(**identity, **measured)
    results = _read(directory / layout.RESULTS)
    rows = _read_lines(directory / layout.METRICS)
    speeds = [row["examples_per_second"] for row in rows if row["kind"] == "train"]
    model = dict(results["student"])
    scores = model.pop("metrics")
    if run.kind in ("student", "masked_lm"):
        scores["held_out_loss_at_start"] = next(row for row in rows if row["kind"] == "eval")["held_out_loss"]
    metric = results["primary_metric"]
    found: dict[str, Any] = {"score": scores[metric]}
    if run.kind in ("teacher", "tuning", "final"):
        labels, predictions = _classes(directory / layout.DEV_PREDICTIONS, results["labels"])
        if halves:
            choosing = choosing_rows(len(labels))
            found["score"], found["choice"] = (
                score_of(metric, labels[rows], predictions[rows]) for rows in (~choosing, choosing)
            )
            labels, predictions = labels[~choosing], predictions[~choosing]
        if run.kind != "tuning":
            found["predictions"] = _text(predictions)
        if run.kind == "teacher":
            found["labels"] = _text(labels)
    if run.kind == "final":
        found["curve"] = _curve(rows)
        if (directory / layout.LAYER_MAPPING).is_file():
            found["mapping"] = _mapping(directory / layout.LAYER_MAPPING)
    return Record(
        **identity,
        **measured,
        **found,
        # The first row's steps were compiled.
        examples_per_second=round(statistics.median(speeds[1:] or speeds), 2),
        metric=metric,
        scores=scores,
        model=model,
        environment=_environment(_read(directory / layout.RUN_CONFIG)),
    )


def read_record(directory: Path) -> Record:
    """Reads the record of a run that is done. Raises UserError if it is damaged."""
    path = directory / RECORD
    try:
        return Record(**_fields(_read(path)))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not the record of a run ({error}); delete it to run it again") from error


def write_record(directory: Path, record: Record) -> None:
    write_text(directory / RECORD, json.dumps(_to_values(record)) + "\n")


def write_log(path: Path, plan: Plan, records: Iterable[Record]) -> None:
    """Writes the raw log: the plan in the first line, then a record a line, in a fixed order.

    Plans and layer weights are kept of the first seed of each method, task and student.
    """
    lines = [{"plan": dataclasses.asdict(plan)}]
    with_mapping: set[tuple[str | None, ...]] = set()
    for record in sorted(records, key=_position_in_log):
        key = (record.task, record.student, record.method)
        kept = record if key not in with_mapping else dataclasses.replace(record, mapping=None)
        if record.mapping is not None:
            with_mapping.add(key)
        lines.append(_to_values(kept))
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def _position_in_log(record: Record) -> tuple[str, int, str]:
    return record.name.rpartition("/")[0], record.seed, record.name


def read_log(path: Path) -> tuple[Plan, list[Record]]:
    """Reads the plan and the records of a raw log. Raises UserError, naming the line, if it is damaged."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; a study writes it to its --output_dir")
    plan, records = None, []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            values = json.loads(line)
            if number == 1:
                plan = Plan(**_fields(values["plan"]))
            else:
                records.append(Record(**_fields(values)))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number}: not a line of a study ({error})") from error
    if plan is None:
        raise UserError(f"{path}: is empty")
    return plan, records


def write_plan(path: Path, plan: Plan) -> None:
    write_json(path, dataclasses.asdict(plan))


def read_plan(path: Path) -> Plan:
    """Reads the plan that a study was begun with. Raises UserError if the file is damaged."""
    try:
        return Plan(**_fields(_read(path)))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not the plan of a study ({error})") from error


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a plan or a record from JSON, lists as tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in dict(values).items()}


def _to_values(record: Record) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(record).items() if value not in (None, {}, [])}


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _read_lines(path: Path) -> list[dict[str, Any]]:
    # Not splitlines: a text may hold characters that it takes for the end of a line.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def choosing_rows(count: int) -> Bool[np.ndarray, " count"]:
    """Returns which of so many dev rows choose: half of them, the same in every run."""
    return np.isin(np.arange(count), np.random.default_rng(_SEED).permutation(count)[: count // 2])


def _classes(path: Path, labels: Sequence[str]) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
    """Returns the (true, predicted) classes of the dev rows."""
    rows = _read_lines(path)
    true = np.array([labels.index(row["label"]) for row in rows])
    return true, np.array([int(np.argmax(row["student"])) for row in rows])


def _text(classes: Int[np.ndarray, " rows"]) -> str:
    return "".join(map(str, classes))


def _curve(rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    logged = [row for row in rows if row["kind"] == "train"]
    kept = [logged[index] for index in _evenly(len(logged))]
    return {name: [round(row[name], 4) for row in kept] for name in ("step", "soft_loss")}


def _evenly(count: int) -> np.ndarray:
    """Returns the indices of at most `_LOGGED_STEPS` of so many rows, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, _LOGGED_STEPS).round().astype(int))


def _mapping(path: Path) -> dict[str, Any] | None:
    mapping = read_mapping(path)
    if not mapping.teacher_weights:
        return None
    kept = _evenly(len(mapping.steps))
    any_kind = next(iter(mapping.teacher_weights))  # both cost kinds have the same weights
    return {
        "steps": mapping.steps[kept].tolist(),
        "teacher_weights": np.round(mapping.teacher_weights[any_kind][kept], 3).tolist(),
        "student_weights": np.round(mapping.student_weights[any_kind][kept], 3).tolist(),
        "flow": {kind: np.round(flow[-1], 4).tolist() for kind, flow in mapping.flow.items()},
        "cost": {kind: np.round(cost[-1], 4).tolist() for kind, cost in mapping.cost.items()},
    }


def _environment(config: dict[str, Any]) -> dict[str, Any]:
    """Returns machine, devices, versions and revision of a run, from its config."""
    versions = {name: config["versions"].get(name) for name in ("python", "jax", "flax", "optax")}
    facts = {"devices": config["devices"], "git_revision": config.get("git_revision")}
    return {"machine": processor(), "versions": versions, **facts}


def processor() -> str:
    """Returns the name of the processor and the number of cores."""
    return f"{processor_name()}, {os.cpu_count()} cores"
