"""Matrices as tables of shaded cells: transport plans, costs, confusion matrices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from bert_emd_jax.report.tables import ABSENT
from bert_emd_jax.runs.layer_mapping import LayerMapping

DEEP = 0.72  # from this shade on white text has more contrast than black; see --heat in the style sheet
FAINT = 5e-4  # less mass than this is shown as 0
# The plans of the slider are whole multiples of 1 / _UNIT of the mass, and have at most so many cells in all.
_UNIT = 100_000
_MOST_CELLS = 30_000
_MOST_STEPS = 60
_MOST_LABELS = 20


@dataclass(frozen=True)
class Cell:
    """One entry: `shade` runs from 0 to 1; `marked` cells are framed."""

    text: str
    shade: float
    title: str
    marked: bool = False
    faint: bool = False

    @property
    def is_deep(self) -> bool:
        return self.shade > DEEP


@dataclass(frozen=True)
class Grid:
    """A matrix with the names of its rows and columns, and their sums if they mean something."""

    cells: list[list[Cell]]
    rows: list[str]
    columns: list[str]
    row_title: str = "student"
    column_title: str = "teacher layer"
    row_sums: Sequence[str] = ()
    column_sums: Sequence[str] = ()


def plan_grid(mapping: LayerMapping, kind: str) -> Grid:
    """Returns the last plan of a cost kind in percent of the mass, shaded like `plan_shades`."""
    flow = mapping.flow[kind][-1]
    largest = _largest(mapping.flow[kind])

    def cell(i: int, j: int, mass: float) -> Cell:
        return Cell(
            text=_percent(mass),
            shade=_shade(mass, largest),
            title=f"student layer {i + 1}, teacher layer {j + 1}: {_amount(mass)} of the mass",
            marked=bool(mass == np.max(flow[i]) > 0),
            faint=bool(mass < FAINT),
        )

    return Grid(
        _cells(flow, cell),
        *_layer_names(flow),
        row_sums=[_percent(total) for total in flow.sum(axis=1)],
        column_sums=[_percent(total) for total in flow.sum(axis=0)],
    )


def cost_grid(mapping: LayerMapping, kind: str) -> Grid:
    """Returns the last costs of a cost kind; the cheapest teacher layer of each row is marked."""
    cost = mapping.cost[kind][-1]
    largest = _largest(cost)

    def cell(i: int, j: int, value: float) -> Cell:
        title = f"student layer {i + 1}, teacher layer {j + 1}: cost {_amount(value)}"
        return Cell(_amount(value, 3), _shade(value, largest), title, marked=bool(value == np.min(cost[i])))

    return Grid(_cells(cost, cell), *_layer_names(cost))


def plan_shades(mapping: LayerMapping, kind: str, count: int = 6) -> list[tuple[int, list[list[float]]]]:
    """Returns (step, shades) of `count` logged steps, the first and the last among them.

    Shades are lists [student layers, teacher layers] of numbers from 0 to 1.
    """
    flow = mapping.flow[kind]
    largest = _largest(flow)
    return [
        (int(mapping.steps[k]), [[_shade(mass, largest) for mass in row] for row in flow[k]])
        for k in _evenly(len(flow), count)
    ]


def slider_data(mapping: LayerMapping) -> dict[str, Any] | None:
    """Returns the plans of many logged steps, ready for JSON; None if there is only one step."""
    cells = sum(flow[0].size for flow in mapping.flow.values())
    chosen = _evenly(len(mapping.steps), min(_MOST_STEPS, max(_MOST_CELLS // cells, 2)))
    if len(chosen) < 2:
        return None

    def whole(value: float) -> int | None:
        return round(_UNIT * value) if np.isfinite(value) else None

    return {
        "steps": [int(mapping.steps[k]) for k in chosen],
        "unit": _UNIT,
        "deep": DEEP,
        "faint": FAINT * _UNIT,
        "sides": {
            kind: {
                "largest": whole(_largest(mapping.flow[kind])),
                "flow": [[[whole(mass) for mass in row] for row in mapping.flow[kind][k]] for k in chosen],
            }
            for kind in mapping.flow
        },
    }


def confusion_grid(counts: Int[np.ndarray, "labels labels"], labels: Sequence[str]) -> Grid | None:
    """Returns the rows of each label (down) by prediction (across); None if there are too many labels."""
    if len(labels) > _MOST_LABELS:
        return None
    totals = counts.sum(axis=1)

    def cell(i: int, j: int, count: int) -> Cell:
        return Cell(
            text=f"{count:,}",
            shade=_shade(count, totals[i]),
            title=f"{labels[i]}, predicted {labels[j]}: {count:,} of {totals[i]:,} rows",
            marked=i == j,
            faint=count == 0,
        )

    return Grid(
        _cells(counts, cell),
        list(labels),
        list(labels),
        "label",
        "predicted",
        [f"{total:,}" for total in totals],
        [f"{total:,}" for total in counts.sum(axis=0)],
    )


def _cells(matrix: np.ndarray, cell: Callable[[int, int, Any], Cell]) -> list[list[Cell]]:
    return [[cell(i, j, value) for j, value in enumerate(row)] for i, row in enumerate(matrix)]


def _layer_names(matrix: Float[np.ndarray, "S T"]) -> tuple[list[str], list[str]]:
    students, teachers = matrix.shape
    return [str(layer + 1) for layer in range(students)], [str(layer + 1) for layer in range(teachers)]


def _evenly(total: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, total - 1, count).round().astype(int)).tolist()


def _largest(values: np.ndarray) -> float:
    return float(np.max(values, where=np.isfinite(values), initial=0.0))


def _shade(value: float, largest: float) -> float:
    return round(float(np.clip(value / largest, 0, 1)), 3) if largest > 0 and np.isfinite(value) else 0.0


def _amount(value: float, digits: int = 6) -> str:
    return f"{value:.{digits}g}" if np.isfinite(value) else ABSENT


def _percent(value: float) -> str:
    if not np.isfinite(value):
        return ABSENT
    return "0" if value < FAINT else f"{100 * value:.1f}"
