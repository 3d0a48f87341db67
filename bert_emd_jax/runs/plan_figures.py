"""Transport plans and layer weights as Matplotlib figures, for notebooks and for live tracking."""

import io
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bert_emd_jax.runs.layer_mapping import COST_KINDS, LayerMapping

_MOST_NUMBERED = 12  # layers of a side: more cells have no room for a number
_LEAST_SHOWN = 5e-3  # what rounds to a percent


class NotebookFigure(Figure):
    """A figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        target = io.BytesIO()
        self.savefig(target, format="png")
        return target.getvalue()


def draw_plans(plans: Mapping[str, Float[np.ndarray, "S T"]], title: str = "") -> NotebookFigure:
    """Heatmaps of transport plans beside one another, by name; cells in percent of the mass."""
    students, teachers = next(iter(plans.values())).shape
    width = np.clip(0.42 * teachers, 2.2, 9) + 1.3
    height = np.clip(0.42 * students, 1.4, 9) + 1.2
    figure = NotebookFigure(figsize=(width * len(plans), height), layout="constrained")
    brightest = max(float(np.max(plan)) for plan in plans.values())
    row_of_axes = figure.subplots(1, len(plans), squeeze=False)[0]
    for axes, (name, plan) in zip(row_of_axes, plans.items(), strict=True):
        axes.imshow(plan, cmap="viridis", vmin=0, vmax=brightest or 1, aspect="auto")
        axes.set(title=name, xlabel="teacher layer", ylabel="student layer")
        for axis, layers in ((axes.xaxis, teachers), (axes.yaxis, students)):
            ticks = range(0, layers, -(-layers // _MOST_NUMBERED))
            axis.set_ticks(ticks, labels=[str(1 + layer) for layer in ticks])
        if max(students, teachers) <= _MOST_NUMBERED:
            for (row, column), mass in np.ndenumerate(plan):
                if mass >= _LEAST_SHOWN:
                    ink = "black" if mass > 0.6 * brightest else "white"
                    style = {"color": ink, "ha": "center", "va": "center", "fontsize": 8}
                    axes.text(column, row, f"{100 * mass:.0f}", **style)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def draw_plans_of(mapping: LayerMapping, step: int | None = None) -> NotebookFigure:
    """The plans of a run at the recorded moment nearest to `step`, at the end without one."""
    moment = -1 if step is None else int(np.abs(mapping.steps - step).argmin())
    plans = {side: mapping.flow[side][moment] for side in COST_KINDS if side in mapping.flow}
    return draw_plans(plans, f"percent of the mass at step {mapping.steps[moment]}")


def draw_layer_weights_of(mapping: LayerMapping) -> NotebookFigure:
    """The layer weights of both sides over the training steps, a line for each layer."""
    weights = {
        f"{owner} layers, {side}": values[side]
        for side in COST_KINDS
        for owner, values in (("student", mapping.student_weights), ("teacher", mapping.teacher_weights))
        if side in values
    }
    figure = NotebookFigure(figsize=(8, 2.6 * -(-len(weights) // 2)), layout="constrained")
    cells = figure.subplots(-(-len(weights) // 2), 2, squeeze=False, sharex=True).flat
    for axes, (name, values) in zip(cells, weights.items(), strict=True):
        layers = values.shape[1]
        for layer in range(layers):
            shade = 0.85 * layer / max(layers - 1, 1)  # the end of viridis is too pale for lines
            marker = "o" if len(mapping.steps) == 1 else None
            axes.plot(
                mapping.steps, values[:, layer], color=_viridis(shade), marker=marker, label=str(1 + layer)
            )
        axes.set(title=name, xlabel="training step", ylabel="weight", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1), "ncols": 2}
        axes.legend(title="layer", fontsize=7, title_fontsize=7, **beside)
    return figure


def pixels(figure: Figure) -> UInt8[np.ndarray, "height width rgb"]:
    """A figure as an image."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _viridis(position: float) -> tuple[float, ...]:
    from matplotlib import colormaps

    return colormaps["viridis"](position)
