"""Transport plans and layer weights as Matplotlib figures, for notebooks and for trackers."""

import io
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bert_emd_jax.runs.layer_mapping import LayerMapping

_MOST_NUMBERED = 12  # layers: with more, a cell has no room for a number
_LEAST_SHOWN = 5e-3  # what rounds to a percent


class NotebookFigure(Figure):
    """A figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        target = io.BytesIO()
        self.savefig(target, format="png")
        return target.getvalue()


def draw_plans(plans: Mapping[str, Float[np.ndarray, "S T"]], title: str = "") -> NotebookFigure:
    """Draws transport plans by name as heatmaps side by side, cells in percent of the mass."""
    students, teachers = next(iter(plans.values())).shape
    width = np.clip(0.42 * teachers, 2.2, 9) + 1.3
    height = np.clip(0.42 * students, 1.4, 9) + 1.2
    figure = NotebookFigure(figsize=(width * len(plans), height), layout="constrained")
    largest = max(float(np.max(plan)) for plan in plans.values())
    row_of_axes = figure.subplots(1, len(plans), squeeze=False)[0]
    for axes, (name, plan) in zip(row_of_axes, plans.items(), strict=True):
        axes.imshow(plan, cmap="viridis", vmin=0, vmax=largest or 1, aspect="auto")
        axes.set(title=name, xlabel="teacher layer", ylabel="student layer")
        for axis, layers in ((axes.xaxis, teachers), (axes.yaxis, students)):
            ticks = range(0, layers, -(-layers // _MOST_NUMBERED))
            axis.set_ticks(ticks, labels=[str(1 + layer) for layer in ticks])
        if max(students, teachers) <= _MOST_NUMBERED:
            for (row, column), mass in np.ndenumerate(plan):
                if mass >= _LEAST_SHOWN:
                    color = "black" if mass > 0.6 * largest else "white"
                    style = {"color": color, "ha": "center", "va": "center", "fontsize": 8}
                    axes.text(column, row, f"{100 * mass:.0f}", **style)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def draw_plans_of(mapping: LayerMapping, step: int | None = None) -> NotebookFigure:
    """Draws the plans of a run at the logged step nearest to `step`; without one, at the last logged step."""
    index = -1 if step is None else int(np.abs(mapping.steps - step).argmin())
    plans = {kind: flow[index] for kind, flow in mapping.flow.items()}
    return draw_plans(plans, f"percent of the mass at step {mapping.steps[index]}")


def draw_layer_weights_of(mapping: LayerMapping) -> NotebookFigure:
    """Draws the layer weights of student and teacher over the training steps, a line for each layer."""
    weights = {
        f"{model} layers, {kind}": by_kind[kind]
        for kind in mapping.student_weights | mapping.teacher_weights
        for model, by_kind in (("student", mapping.student_weights), ("teacher", mapping.teacher_weights))
        if kind in by_kind
    }
    rows = -(-len(weights) // 2)
    figure = NotebookFigure(figsize=(8, 2.6 * rows), layout="constrained")
    cells = figure.subplots(rows, 2, squeeze=False, sharex=True).flat
    marker = "o" if len(mapping.steps) == 1 else None
    for axes, (name, values) in zip(cells, weights.items(), strict=True):
        layers = values.shape[1]
        for layer in range(layers):
            color = colormaps["viridis"](0.85 * layer / max(layers - 1, 1))  # its end is too pale for lines
            axes.plot(mapping.steps, values[:, layer], color=color, marker=marker, label=str(1 + layer))
        axes.set(title=name, xlabel="training step", ylabel="weight", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1), "ncols": 2}
        axes.legend(title="layer", fontsize=7, title_fontsize=7, **beside)
    return figure


def pixels(figure: Figure) -> UInt8[np.ndarray, "height width rgb"]:
    """Returns a figure as an image."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
