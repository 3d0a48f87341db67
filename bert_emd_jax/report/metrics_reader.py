"""The curves of `metrics.jsonl`."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from bert_emd_jax.errors import UserError
from bert_emd_jax.report.json_files import is_number, read_text


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


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    lines = read_text(path).split("\n")
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
            or not is_number(row["step"])
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
            if name == "step" or not is_number(value):
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
