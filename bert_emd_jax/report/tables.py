"""The report's numbers as text: the teacher/student table, the plans' cells, the run's settings."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert_emd_jax.report.mapping_file import Mapping
from bert_emd_jax.report.run_files import ModelResult, Results

ABSENT = "–"


@dataclass(frozen=True)
class Row:
    """One line of the teacher/student table."""

    label: str
    teacher: str
    student: str
    comparison: str
    important: bool = False


@dataclass(frozen=True)
class Cell:
    """One pair of layers: `shade` runs from 0 to 1, `marked` is the largest of its row."""

    text: str
    shade: float
    title: str
    marked: bool = False
    faint: bool = False

    @property
    def is_deep(self) -> bool:
        # Where white text begins to have more contrast than black; see --heat in the template.
        return self.shade > 0.72


@dataclass(frozen=True)
class Grid:
    """A matrix over student layers (rows) and teacher layers (columns), with the sums of a plan."""

    cells: list[list[Cell]]
    row_sums: list[str]
    column_sums: list[str]


def score_text(score: float) -> str:
    return f"{score:.4f}"


def share_text(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.1f} %"


def retained_share(results: Results, metric: str | None) -> float | None:
    """The student's score over the teacher's; None where one is absent or the teacher's is not positive."""
    if metric is None or results.student is None or results.teacher is None:
        return None
    student, teacher = results.student.metrics.get(metric), results.teacher.metrics.get(metric)
    return None if student is None or teacher is None or teacher <= 0 else student / teacher


def times(teacher: float | None, student: float | None, better: str, worse: str) -> str:
    """How many times smaller or faster the student is, such as "1.93× faster"."""
    if not teacher or not student or teacher < 0 or student < 0:
        return ABSENT
    ratio = teacher / student
    if ratio == 1:
        return "equal"
    return f"{ratio:.2f}× {better}" if ratio >= 1 else f"{1 / ratio:.2f}× {worse}"


def comparison_rows(results: Results, metric: str | None) -> list[Row]:
    """The table's lines: scores (the deciding one first), shape, size, speed. Lines without a number go."""
    student, teacher = results.student, results.teacher
    models = [model for model in (student, teacher) if model is not None]

    def row(
        label: str, value: Callable[[ModelResult], Any], text: Callable[[Any], str], better: str, worse: str
    ) -> Row:
        values = [None if model is None else value(model) for model in (teacher, student)]
        texts = [ABSENT if one is None else text(one) for one in values]
        comparison = times(values[0], values[1], better, worse) if better else ""
        return Row(label, texts[0], texts[1], comparison)

    rows = []
    names = dict.fromkeys(name for model in models for name in model.metrics)
    for name in sorted(names, key=lambda name: name != metric):
        line = row(
            name.replace("_", " "), lambda model, name=name: model.metrics.get(name), score_text, "", ""
        )
        share = retained_share(results, name)
        kept = "" if share is None else f"{share_text(share)} retained"
        rows.append(Row(line.label, line.teacher, line.student, kept, important=name == metric))
    rows += [
        row("layers", lambda model: model.layers, str, "fewer", "more"),
        row("hidden size", lambda model: model.hidden_size, _grouped, "smaller", "larger"),
        row("attention heads", lambda model: model.heads, str, "fewer", "more"),
        row("intermediate size", lambda model: model.intermediate_size, _grouped, "smaller", "larger"),
        row("parameters", lambda model: model.parameters, _grouped, "smaller", "larger"),
        row("weights file", lambda model: model.file_bytes, _megabytes, "smaller", "larger"),
    ]
    for batch in sorted({batch for model in models for batch in model.milliseconds_per_sentence}):
        rows.append(
            row(
                f"ms per sentence, batch {batch}",
                lambda model, batch=batch: model.milliseconds_per_sentence.get(batch),
                lambda value: f"{value:.3g}" if value < 100 else f"{value:,.0f}",
                "faster",
                "slower",
            )
        )
    return [line for line in rows if (line.teacher, line.student) != (ABSENT, ABSENT)]


def _grouped(value: float) -> str:
    return f"{value:,}"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def plan_grid(mapping: Mapping, side: str) -> Grid:
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
                faint=bool(value < 5e-4),
            )
            for j, value in enumerate(row, start=1)
        ]
        for i, row in enumerate(flow, start=1)
    ]
    return Grid(
        cells,
        [_percent(total) for total in flow.sum(axis=1)],
        [_percent(total) for total in flow.sum(axis=0)],
    )


def cost_grid(mapping: Mapping, side: str) -> Grid:
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
    return Grid(cells, [], [])


def moments(mapping: Mapping, side: str, count: int = 6) -> list[tuple[int, list[list[float]]]]:
    """(step, shades [student layers, teacher layers]) of `count` moments, first and last among them."""
    flow = mapping.flow[side]
    brightest = _largest(flow)
    indices = np.unique(np.linspace(0, len(flow) - 1, count).round().astype(int))
    return [
        (int(mapping.steps[k]), [[_shade(value, brightest) for value in row] for row in flow[k]])
        for k in indices
    ]


def _largest(values: np.ndarray) -> float:
    return float(np.max(values, where=np.isfinite(values), initial=0.0))


def _shade(value: float, largest: float) -> float:
    return round(float(np.clip(value / largest, 0, 1)), 3) if largest > 0 and np.isfinite(value) else 0.0


def _amount(value: float, digits: int = 6) -> str:
    return f"{value:.{digits}g}" if np.isfinite(value) else ABSENT


def _percent(value: float) -> str:
    if not np.isfinite(value):
        return ABSENT
    return "0" if value == 0 else f"{100 * value:.1f}"


def settings(values: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, value as text) of flags or versions, in the file's order."""
    return [(str(name), setting_text(value)) for name, value in values.items()]


def setting_text(value: Any) -> str:
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def devices_text(devices: list[Any]) -> str:
    """Equal devices counted: "8 × TPU v4"."""
    counts = Counter(setting_text(device) for device in devices)
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items())
