"""The picture of the README and the start page: `python docs/overview.py demo_output/student`.

Draws what a finished run says: which teacher layers each student layer learns, and what the student keeps and
saves. Not a hook of the site: it is run by hand after the demo.
"""

import sys
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline

from bert_emd_jax.layout import LAYER_MAPPING, RESULTS
from bert_emd_jax.report.results_reader import Results, read_results
from bert_emd_jax.runs.layer_mapping import read_mapping

_TARGET = Path(__file__).with_name("overview.png")
_TEACHER, _STUDENT = "#586372", "#0072b2"
_GAP = 0.045  # between layers, in units of all mass
_BOX = 0.16  # width of a layer


def draw(plan: Float[np.ndarray, "S T"], results: Results) -> Figure:
    """Draws the plan as ribbons, and bars of score, milliseconds and size."""
    figure = Figure(figsize=(10, 3.9), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _draw_ribbons(left, plan)
    _draw_bars(right, results)
    return figure


def _draw_ribbons(axes: Axes, plan: Float[np.ndarray, "S T"]) -> None:
    plan = plan / plan.sum()
    students, teachers = plan.shape
    height = 1 + _GAP * (max(students, teachers) - 1)
    starts = {"teacher": _starts(plan.sum(axis=0), height), "student": _starts(plan.sum(axis=1), height)}
    colors = colormaps["viridis"](np.linspace(0.12, 0.62, students))
    for side, mass, x in (("teacher", plan.sum(axis=0), 0.0), ("student", plan.sum(axis=1), 1.0)):
        for layer, size in enumerate(mass):
            bottom = starts[side][layer]
            face = "#d9dfe6" if side == "teacher" else colors[layer]
            axes.add_patch(Rectangle((x - _BOX / 2, bottom), _BOX, size, facecolor=face))
            color = "black" if side == "teacher" else "white"
            style = {"ha": "center", "va": "center", "color": color, "fontsize": 10}
            axes.text(x, bottom + size / 2, f"layer {1 + layer}", **style)
    used = {"teacher": starts["teacher"].copy(), "student": starts["student"].copy()}
    for student in range(students):
        for teacher in range(teachers):
            mass = plan[student, teacher]
            if mass > 1e-3:
                low = used["teacher"][teacher], used["student"][student]
                axes.add_patch(_ribbon(low, mass, colors[student]))
                used["teacher"][teacher] += mass
                used["student"][student] += mass
    axes.set(xlim=(-0.12, 1.12), ylim=(-0.02, height + 0.18))
    axes.set_axis_off()
    for x, name in ((0, "teacher"), (1, "student")):
        axes.text(x, height + 0.03, name, ha="center", va="bottom", fontsize=12, weight="bold")
    title = "who learns from whom: the transport plan of the last step"
    axes.text(0.5, height + 0.13, title, ha="center", va="bottom", fontsize=11)


def _starts(mass: Float[np.ndarray, " layers"], height: float) -> Float[np.ndarray, " layers"]:
    """Returns where each layer begins from below, in a stack that is centred on a height."""
    total = mass.sum() + _GAP * (len(mass) - 1)
    before = np.concatenate([[0.0], np.cumsum(mass)[:-1]])
    return (height - total) / 2 + before + _GAP * np.arange(len(mass))


def _ribbon(low: tuple[float, float], mass: float, color: object) -> PathPatch:
    """Returns the band between a teacher layer (left) and a student layer (right), `mass` high."""
    x, end = _BOX / 2, 1 - _BOX / 2
    (teacher, student), middle = low, 0.5
    points = [(x, teacher), (middle, teacher), (middle, student), (end, student)]
    back = [(px, py + mass) for px, py in reversed(points)]
    curve = [Outline.CURVE4] * 3
    codes = [Outline.MOVETO, *curve, Outline.LINETO, *curve, Outline.CLOSEPOLY]
    return PathPatch(Outline([*points, *back, points[0]], codes), facecolor=color, alpha=0.55, linewidth=0)


def _draw_bars(axes: Axes, results: Results) -> None:
    scored = results.test or results
    models = results.teacher, results.student
    assert None not in (*models, scored.teacher, scored.student)
    metric = results.primary_metric
    measures = {
        f"{metric}, test rows": [model.metrics[metric] for model in (scored.teacher, scored.student)],
        "ms per sentence": [model.milliseconds_per_sentence[1] for model in models],
        "layers": [model.layers for model in models],
        "parameters": [model.parameters for model in models],
    }
    for row, values in enumerate(measures.values()):
        for offset, value, color in ((-0.19, values[0], _TEACHER), (0.19, values[1], _STUDENT)):
            share = value / max(values)
            axes.barh(row + offset, share, 0.36, color=color)
            style = {"va": "center", "ha": "right", "color": "white", "fontsize": 10, "weight": "bold"}
            axes.text(share - 0.02, row + offset, _short(value), **style)
    axes.set_yticks(range(len(measures)), [name.replace(", ", ",\n") for name in measures])
    axes.tick_params(left=False, labelsize=10.5)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.0), xticks=[])
    axes.spines[:].set_visible(False)
    for x, name, color in ((0.0, "teacher", _TEACHER), (0.25, "student", _STUDENT)):
        axes.text(x, -0.75, name, color=color, fontsize=12, weight="bold")


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.1f} M"
    return str(value) if isinstance(value, int) else f"{value:.3f}" if value < 1 else f"{value:.1f}"


def main() -> int:
    run = Path(sys.argv[1])
    flow = read_mapping(run / LAYER_MAPPING).flow
    figure = draw(flow["hidden"][-1], read_results(run / RESULTS))
    FigureCanvasAgg(figure)
    figure.savefig(_TARGET, dpi=130)
    print(_TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
