"""The numbers of a report as files that the page itself carries: tables as CSV in data URLs."""

import base64
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bert_emd_jax.report import tables
from bert_emd_jax.report.run_reader import RunFiles
from bert_emd_jax.report.table_formats import Table, as_csv
from bert_emd_jax.runs.layer_mapping import LayerMapping

_MOST_STEPS = 200  # of the weights over training: a long run would make the page heavy


class Download(NamedTuple):
    """A file that the page carries: its name, what is in it, and its data URL."""

    file: str
    content: str
    url: str


def downloads(files: RunFiles) -> list[Download]:
    """Returns the tables of a run as files: scores and costs, the last plans, layer weights over training."""
    return [
        Download(name, content, f"data:text/csv;base64,{base64.b64encode(as_csv(table).encode()).decode()}")
        for name, content, table in _tables(files)
    ]


def _tables(files: RunFiles) -> Iterator[tuple[str, str, Table]]:
    if files.results is not None:
        rows = tables.comparison_rows(files.results, files.primary_metric)
        lines = [[row.label, row.teacher, row.student, row.comparison] for row in rows]
        yield "scores.csv", "the first table", [["quantity", "teacher", "student", "comparison"], *lines]
    mapping = files.mapping
    if mapping is not None and len(mapping.steps) and mapping.flow:
        yield "plans.csv", "plans and costs of the last step", _plans(mapping)
        if mapping.student_weights:
            yield "layer_weights.csv", "layer weights over training", _layer_weights(mapping)


def _plans(mapping: LayerMapping) -> Table:
    """Returns a line for every pair of layers and kind of cost."""
    lines = [["kind", "student layer", "teacher layer", "share of the mass", "cost"]]
    for kind, flow in mapping.flow.items():
        for (student, teacher), mass in np.ndenumerate(flow[-1]):
            cost = f"{mapping.cost[kind][-1][student, teacher]:.6g}" if kind in mapping.cost else ""
            lines.append([kind, str(student + 1), str(teacher + 1), f"{mass:.6g}", cost])
    return lines


def _layer_weights(mapping: LayerMapping) -> Table:
    """Returns a line for every kept step, kind of cost, model and layer."""
    kept = np.unique(np.linspace(0, len(mapping.steps) - 1, _MOST_STEPS).round().astype(int))
    lines = [["step", "kind", "model", "layer", "weight"]]
    for model, by_kind in (("student", mapping.student_weights), ("teacher", mapping.teacher_weights)):
        for kind, weights in by_kind.items():
            for (row, layer), weight in np.ndenumerate(weights[kept]):
                lines.append([str(mapping.steps[kept][row]), kind, model, str(layer + 1), f"{weight:.6g}"])
    return lines
