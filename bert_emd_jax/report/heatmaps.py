"""Matrices as tables of shaded cells: transport plans, costs, confusion matrices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert_emd_jax.report.tables import ABSENT
from bert_emd_jax.runs.layer_mapping import COST_KINDS, LayerMapping

DEEP = 0.72  # from this shade on white text has more contrast than black; see --heat in the style sheet
FAINT = 5e-4  # less mass than this is shown as 0
# The slider's plans are written as whole numbers of this share of the mass, and so many cells at most.
_UNIT = 100_000
_MOST_CELLS = 30_000
_MOST_MOMENTS = 60
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
    """A matrix with the names of its rows and columns, and perhaps their sums."""

    cells: list[list[Cell]]
    rows: list[str]
    columns: list[str]
    row_title: str = "student"
    column_title: str = "teacher layer"
    row_sums: Sequence[str] = ()
    column_sums: Sequence[str] = ()


def plan_grid(mapping: LayerMapping, side: str) -> Grid:
    """The plan of the last moment, in percent of the mass; shaded like the pictures of `moments`."""
    flow = mapping.flow[side][-1]
    brightest = _largest(mapping.flow[side])
    cells = [
        [
            Cell(
                text=_percent(value),
                shade=_shade(value, brightest),
                title=f"student layer {i}, teacher layer {j}: {_amount(value)} of the mass",
                marked=bool(value == np.max(row) > 0),
                faint=bool(value < FAINT),
            )
            for j, value in enumerate(row, start=1)
        ]
        for i, row in enumerate(flow, start=1)
    ]
    return Grid(
        cells,
        *_layer_names(flow),
        row_sums=[_percent(total) for total in flow.sum(axis=1)],
        column_sums=[_percent(total) for total in flow.sum(axis=0)],
    )


def cost_grid(mapping: LayerMapping, side: str) -> Grid:
    """The costs of the last moment; each row's cheapest teacher layer is marked."""
    cost = mapping.cost[side][-1]
    largest = _largest(cost)
    cells = [
        [
            Cell(
                text=_amount(value, 3),
                shade=_shade(value, largest),
                title=f"student layer {i}, teacher layer {j}: cost {_amount(value)}",
                marked=bool(value == np.min(row)),
            )
            for j, value in enumerate(row, start=1)
        ]
        for i, row in enumerate(cost, start=1)
    ]
    return Grid(cells, *_layer_names(cost))


def moments(mapping: LayerMapping, side: str, count: int = 6) -> list[tuple[int, list[list[float]]]]:
    """(step, shades [student layers, teacher layers]) of `count` moments, first and last among them."""
    flow = mapping.flow[side]
    brightest = _largest(flow)
    return [
        (int(mapping.steps[k]), [[_shade(value, brightest) for value in row] for row in flow[k]])
        for k in _evenly(len(flow), count)
    ]


def player(mapping: LayerMapping) -> dict[str, Any] | None:
    """What the slider shows, ready for JSON: the plans of many moments; None where there is one moment."""
    cells = sum(flow[0].size for flow in mapping.flow.values())
    chosen = _evenly(len(mapping.steps), min(_MOST_MOMENTS, max(_MOST_CELLS // cells, 2)))
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
            side: {
                "largest": whole(_largest(flow)),
                "flow": [[[whole(value) for value in row] for row in flow[k]] for k in chosen],
            }
            for side, flow in ((side, mapping.flow[side]) for side in COST_KINDS if side in mapping.flow)
        },
    }


def confusion_grid(counts: np.ndarray, labels: Sequence[str]) -> Grid | None:
    """The rows of each label (down) by prediction (across); None for more labels than a page can show."""
    if len(labels) > _MOST_LABELS:
        return None
    totals = counts.sum(axis=1)
    cells = [
        [
            Cell(
                text=f"{count:,}",
                shade=_shade(count, totals[i]),
                title=f"{labels[i]}, predicted {labels[j]}: {count:,} of {totals[i]:,} rows",
                marked=i == j,
                faint=count == 0,
            )
            for j, count in enumerate(row.tolist())
        ]
        for i, row in enumerate(counts)
    ]
    return Grid(
        cells,
        list(labels),
        list(labels),
        "label",
        "predicted",
        [f"{total:,}" for total in totals],
        [f"{total:,}" for total in counts.sum(axis=0)],
    )


def _layer_names(matrix: np.ndarray) -> tuple[list[str], list[str]]:
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
