"""The pictures of a study's pages, as SVG on white."""

import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bert_emd_jax.files import write_text
from bert_emd_jax.runs.layer_mapping import COST_KINDS
from comparison.findings import Findings, Pair, mean_and_deviation
from comparison.intervals import Interval
from comparison.methods import BASELINE, DEFAULT, METHODS
from comparison.primary import primary_tests
from comparison.records import Record
from comparison.tasks import TASKS

# Okabe and Ito's colors, which remain distinct under the common color blindnesses.
_TEXT, _MUTED, _RULE = "#1c2430", "#586372", "#d9dfe6"
_BLUE, _ORANGE = "#0072b2", "#d55e00"
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "study",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 9,
}


@matplotlib.rc_context(_SETTINGS)
def draw(findings: Findings, directory: Path) -> dict[str, str]:
    """Writes the pictures for which there are records, removes the others; returns name → what it shows."""
    directory.mkdir(parents=True, exist_ok=True)
    pictures = {
        "primary": (_primary(findings), "the primary comparisons, 95 % intervals"),
        "differences": (_differences(findings), "pooled difference from uniform by method, 95 % intervals"),
        "scores": (_scores(findings), "scores by task and student, every seed a dot"),
        "curves": (_curves(findings), "loss on the teacher's predictions over training, mean over seeds"),
        "layer_weights": (_layer_weights(findings), "weights of the teacher's layers over training"),
        "plans": (_plans(findings), "the last transport plans of one run by student"),
    }
    for name, (figure, _) in pictures.items():
        path = directory / f"{name}.svg"
        if figure is None:
            path.unlink(missing_ok=True)
        else:
            write_text(path, svg(figure))
    return {name: text for name, (figure, text) in pictures.items() if figure is not None}


def svg(figure: Figure) -> str:
    """Returns the picture without a date and with numbered clip paths: equal records give equal files.

    By default the names of clip paths are hashes of positions, whose last bits differ between processes.
    """
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=no_metadata)
    numbers: dict[str, str] = {}
    text = re.sub(
        r"\bp[0-9a-f]{10}\b",
        lambda name: numbers.setdefault(name[0], f"clip{len(numbers)}"),
        buffer.getvalue(),
    )
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _subplots(
    width: float, height: float, rows: int = 1, columns: int = 1, grid: Any = None, **layout: Any
) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, **layout)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color(_MUTED)
        one.tick_params(colors=_TEXT, length=3)
        if grid is not None:
            one.grid(axis=grid, color=_RULE)
            one.set_axisbelow(True)
    return figure, axes


def _list_methods(axes: Axes, methods: Iterable[str]) -> None:
    _label_rows(axes, [METHODS[method].title for method in methods])


def _label_rows(axes: Axes, titles: Sequence[str]) -> None:
    """Labels the rows of a plot, from the top."""
    axes.set_yticks(range(len(titles)), titles)
    axes.set_ylim(len(titles) - 0.5, -0.5)


def _viridis(count: int) -> np.ndarray:
    return matplotlib.colormaps["viridis"](np.linspace(0, 0.9, count))


def _primary(findings: Findings) -> Figure | None:
    if not findings.plan.dev_halves:
        return None
    tests = [(test.title, test.result.interval) for test in primary_tests(findings)]
    return _intervals([(title, interval) for title, interval in tests if interval.count], "points")


def _differences(findings: Findings) -> Figure | None:
    pooled = [
        (METHODS[method].title, findings.pooled(method)) for method in findings.methods if method != BASELINE
    ]
    known = [(title, interval) for title, interval in pooled if interval.count]
    return _intervals(known, f"points above {METHODS[BASELINE].title}")


def _intervals(rows: Sequence[tuple[str, Interval]], label: str) -> Figure | None:
    """Draws a dot and an interval for each row, in points; None without rows."""
    if not rows:
        return None
    figure, axes = _subplots(7, 0.8 + 0.28 * len(rows), grid="x")
    one = axes[0, 0]
    one.axvline(0, color=_MUTED, linewidth=1)
    for row, (_, interval) in enumerate(rows):
        if math.isfinite(interval.high - interval.low):
            one.plot([100 * interval.low, 100 * interval.high], [row, row], color=_BLUE, linewidth=2)
        one.plot(100 * interval.mean, row, "o", color=_BLUE, markersize=6)
    _label_rows(one, [title for title, _ in rows])
    one.set_xlabel(label)
    return figure


def _scores(findings: Findings) -> Figure | None:
    """Draws a panel for each pair, a row for each method that was run on it."""
    pairs = findings.finals
    if not pairs:
        return None
    heights = [0.8 + 0.22 * len(methods) for methods in pairs.values()]
    figure, axes = _subplots(7, sum(heights), len(pairs), grid="x", height_ratios=heights)
    for one, (pair, methods) in zip(axes[:, 0], pairs.items(), strict=True):
        one.set_title(pair.title, color=_TEXT)
        _list_methods(one, methods)
        for row, method in enumerate(methods):
            scores = [100 * score for score in findings.scores(pair, method)]
            color = _ORANGE if method == BASELINE else _BLUE
            mean, deviation = mean_and_deviation(scores)
            dots = {"color": color, "markersize": 3, "alpha": 0.6, "markeredgewidth": 0}
            one.plot(scores, [row + 0.28] * len(scores), "o", **dots)
            bar = {"color": color, "markersize": 5, "linewidth": 1.6, "capsize": 2}
            one.errorbar(mean, row, xerr=deviation, fmt="o", **bar)
    return figure


def _curves(findings: Findings) -> Figure | None:
    """Draws a panel for each pair, with a line for each method that has trials of its own."""
    curves: dict[Pair, dict[str, list[dict[str, list[float]]]]] = {}
    for pair, by_method in findings.finals.items():
        for method, by_seed in by_method.items():
            found = [run.curve for run in by_seed.values() if run.curve]
            if found and not METHODS[method].like:
                curves.setdefault(pair, {})[method] = found
    if not curves:
        return None
    columns = min(len(curves), 4)
    rows = math.ceil(len(curves) / columns)
    figure, axes = _subplots(1.8 + 2.9 * columns, 2.6 * rows, rows, columns, grid="y")
    for unused in axes.flat[len(curves) :]:
        unused.remove()
    others = [method for method in findings.methods if method != BASELINE and not METHODS[method].like]
    colors = {BASELINE: _ORANGE, **dict(zip(others, _viridis(max(1, len(others))), strict=False))}
    lines: dict[str, Any] = {}
    for one, (pair, by_method) in zip(axes.flat, curves.items(), strict=False):
        for method, found in by_method.items():
            loss = np.mean([curve["soft_loss"] for curve in found], axis=0)
            (line,) = one.plot(found[0]["step"], loss, color=colors[method], linewidth=1.4)
            lines.setdefault(METHODS[method].title, line)
        one.set_title(pair.title, color=_TEXT)
        one.set_xlabel("training step")
    figure.legend(list(lines.values()), list(lines), loc="outside right upper", frameon=False)
    return figure


def _layer_weights(findings: Findings) -> Figure | None:
    """Draws the first task and seed: a row for each rule whose weights change, a column for each student."""
    runs: dict[tuple[str, str], dict[str, Any]] = {}
    for pair, by_method in findings.finals.items():
        for method, by_seed in by_method.items():
            mapping = next(iter(by_seed.values())).mapping or {}
            weights = np.array(mapping.get("teacher_weights", []))
            if weights.size and np.ptp(weights, axis=0).max() > 0 and not METHODS[method].like:
                runs.setdefault((method, pair.student), mapping)
    if not runs:
        return None
    methods = [method for method in findings.methods if any(method == key[0] for key in runs)]
    students = [student for student in findings.students if any(student == key[1] for key in runs)]
    figure, axes = _subplots(1.2 + 2.8 * len(students), 2.1 * len(methods), len(methods), len(students))
    for row, method in enumerate(methods):
        for one, student in zip(axes[row], students, strict=True):
            if (mapping := runs.get((method, student))) is None:
                one.set_axis_off()
                continue
            weights = np.array(mapping["teacher_weights"])
            for layer, color in enumerate(_viridis(weights.shape[1])):
                label = str(layer + 1)
                one.plot(mapping["steps"], weights[:, layer], color=color, linewidth=1.6, label=label)
            one.axhline(1 / weights.shape[1], color=_MUTED, linewidth=1, linestyle=(0, (2, 2)))
            one.set_ylim(bottom=0)
            one.set_title(f"{METHODS[method].title}; {student}", color=_TEXT)
            if row == len(methods) - 1:
                one.set_xlabel("training step")
    handles, labels = next(one for one in axes.flat if one.lines).get_legend_handles_labels()
    figure.legend(handles, labels, title="teacher layer", loc="outside right upper", frameon=False)
    return figure


def _plans(findings: Findings) -> Figure | None:
    """Draws the last plans of EMD on the first task that has them: attention above hidden states."""
    runs: dict[str, Record] = {}
    for pair in findings.finals:
        run = findings.first_run(pair, DEFAULT)
        if run is not None and run.mapping is not None:
            runs.setdefault(pair.student, run)
    if not runs:
        return None
    figure, axes = _subplots(0.8 + 2.9 * len(runs), 3.9, len(COST_KINDS), len(runs))
    for column, (student, run) in enumerate(runs.items()):
        plans = (run.mapping or {})["flow"]
        for row, kind in enumerate(COST_KINDS):
            one = axes[row, column]
            if kind not in plans:
                one.set_axis_off()
                continue
            flow = np.array(plans[kind])
            most = flow.sum(axis=1).max()
            one.imshow(flow, cmap="Blues", vmin=0, vmax=most, aspect="auto")
            one.spines[:].set_visible(False)
            for (i, j), mass in np.ndenumerate(flow):
                if mass >= 5e-3:
                    color = "white" if mass > 0.6 * most else _TEXT
                    one.text(j, i, f"{100 * mass:.0f}", ha="center", va="center", color=color, fontsize=8)
            one.set_xticks(range(flow.shape[1]), [str(j + 1) for j in range(flow.shape[1])])
            one.set_yticks(range(flow.shape[0]), [str(i + 1) for i in range(flow.shape[0])])
            one.set_title(f"{kind}; {student}; {TASKS[run.task or ''].title}", color=_TEXT)
            one.set_ylabel("student layer" if column == 0 else "")
            one.set_xlabel("teacher layer" if row else "")
    return figure
