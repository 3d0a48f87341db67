"""Curves as inline SVG: transparent, colored by the style sheet of the page, with ids unique on the page."""

import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int, Num
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from scipy.ndimage import maximum_filter1d

from bert_emd_jax.report.metrics_reader import Curve
from bert_emd_jax.report.theme import color, layer_color, with_variables

WIDTH, HEIGHT = 400, 250  # SVG user units, about the size of a figure on the page in CSS pixels
MAX_POINTS = 1000  # of one curve
SMOOTHED_FROM = 50  # points: shorter curves are not smoothed
_POINTS_PER_FIGURE = 4000
_CELLS, _SHADES = 50, 8  # of a figure of densities: cells along each axis, and shades
_REFERENCE_LINE: dict[str, Any] = {"color": color("muted"), "linewidth": 1, "linestyle": (0, (2, 2))}
# Matplotlib's own defaults first: the matplotlibrc of a user must not change the page.
_SETTINGS: dict[Any, Any] = {
    key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"
} | {
    "svg.fonttype": "none",  # text remains text: selectable, in the page's font
    "svg.hashsalt": "bert_emd_jax",
    "font.size": 11,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
}


@dataclass(frozen=True)
class Series:
    """A curve with its name in the legend and the name of its color."""

    label: str
    color: str
    curve: Curve
    dots: bool = False
    line: bool = True


def finite(curve: Curve) -> Curve:
    """Returns the points of `curve` whose values are finite."""
    kept = np.isfinite(curve.values)
    return Curve(curve.steps[kept], curve.values[kept])


def thin(curve: Curve, limit: int) -> Curve:
    """Returns at most `limit` points (4 or more) of `curve`: both ends, the extremes of equal stretches."""
    count = len(curve.steps)
    if count <= limit:
        return curve
    edges = np.linspace(0, count, limit // 2).astype(int)
    kept = {0, count - 1}
    for start, end in itertools.pairwise(edges):
        kept |= {start + int(curve.values[start:end].argmin()), start + int(curve.values[start:end].argmax())}
    indices = np.array(sorted(kept))
    return Curve(curve.steps[indices], curve.values[indices])


def running_mean(curve: Curve, window: int) -> Curve:
    """Returns the mean of the `window` values around each point; of fewer values at the ends."""
    total = np.concatenate([[0.0], np.cumsum(curve.values)])
    positions = np.arange(len(curve.values))
    start = np.maximum(positions - window // 2, 0)
    end = np.minimum(positions + window // 2 + 1, len(curve.values))
    return Curve(curve.steps, (total[end] - total[start]) / (end - start))


def running_maximum(curve: Curve, window: int) -> Curve:
    """Returns the largest of the `window` values around each point."""
    return Curve(curve.steps, maximum_filter1d(curve.values, window // 2 * 2 + 1, mode="nearest"))


@matplotlib.rc_context(_SETTINGS)
def draw_curves(
    name: str,
    series: Sequence[Series],
    y_label: str,
    description: str,
    scale: str = "auto",
    smooth: str | None = None,
    best_step: int | None = None,
    level: float | None = None,
    level_label: str = "",
) -> Markup:
    """Draws series over the training steps.

    Args:
      name: a prefix of ids, unique on the page.
      description: what a screen reader says.
      scale: "linear", "log", or "auto": log if all values are positive and span a decade.
      smooth: draws long curves as running means, over faint "values" or over faint running "maxima".
      best_step: the step that gets a vertical line.
      level: the value that gets a horizontal line, named by `level_label`.
    """
    figure, axes = _new_figure(y_label)
    values = np.concatenate([one.curve.values for one in series])
    if scale == "auto":
        scale = "log" if values.min() > 0 and values.max() / values.min() > 10 else "linear"
    limit = int(np.clip(_POINTS_PER_FIGURE // (len(series) * (1 + (smooth is not None))), 100, MAX_POINTS))
    for one in series:
        curve = one.curve
        if smooth is not None and one.line and len(curve.steps) >= SMOOTHED_FROM:
            window = max(len(curve.steps) // 25, 3)
            behind = thin(running_maximum(curve, window) if smooth == "maxima" else curve, limit)
            axes.plot(behind.steps, behind.values, color=color(one.color), linewidth=0.7, alpha=0.4)
            curve = running_mean(curve, window)
        curve = thin(curve, limit)
        axes.plot(
            curve.steps,
            curve.values,
            color=color(one.color),
            linestyle="-" if one.line else "none",
            linewidth=1.7,
            marker="o" if one.dots or len(curve.steps) == 1 else None,
            markersize=4.5,
        )
    if level is not None:
        axes.axhline(level, **_REFERENCE_LINE)
        axes.annotate(
            level_label,
            (0.01, level),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=color("muted"),
            parse_math=False,
        )
    _set_scale(axes, scale, values)
    if best_step is not None:
        axes.axvline(best_step, color=color("best"), linewidth=1.2, linestyle=(0, (4, 2)))
        right_half = best_step > np.mean(axes.get_xlim())
        axes.annotate(
            f"best: step {best_step:,}",
            (best_step, 0.03),
            (-4 if right_half else 4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            horizontalalignment="right" if right_half else "left",
            color=color("best"),
        )
    return _svg(name, figure, description)


@matplotlib.rc_context(_SETTINGS)
def draw_layers(
    name: str,
    steps: Int[np.ndarray, " steps"],
    weights: Float[np.ndarray, "steps layers"],
    y_label: str,
    description: str,
) -> Markup:
    """Draws a line per layer, numbered from 1 at its right end; arguments as of `draw_curves`."""
    figure, axes = _new_figure(y_label)
    layers = weights.shape[1]
    limit = int(np.clip(_POINTS_PER_FIGURE // layers, 100, MAX_POINTS))
    ends = []
    for layer in range(layers):
        curve = thin(finite(Curve(steps, weights[:, layer])), limit)
        axes.plot(
            curve.steps,
            curve.values,
            color=color("text") if layers == 1 else layer_color(layer, layers),
            linewidth=1.7,
            marker="o" if len(curve.steps) == 1 else None,
            markersize=4,
        )
        ends.append(curve.values[-1] if len(curve.values) else np.nan)
    axes.axhline(1 / layers, **_REFERENCE_LINE)
    _set_scale(axes, "linear", weights[np.isfinite(weights)])
    _label_ends(axes, np.array(ends))
    return _svg(name, figure, description)


@matplotlib.rc_context(_SETTINGS)
def draw_scatter(
    name: str,
    truth: Num[np.ndarray, " rows"],
    predicted: Num[np.ndarray, " rows"],
    limits: tuple[float, float],
    description: str,
) -> Markup:
    """Draws predicted over true values, of `MAX_POINTS` evenly spaced rows at most.

    Args:
      limits: of both axes, so that figures of several models can be compared.
    """
    figure, axes = _new_figure("predicted", "label")
    rows = np.unique(np.linspace(0, len(truth) - 1, MAX_POINTS).astype(int))
    room = 0.04 * (limits[1] - limits[0] or 1)
    ends = limits[0] - room, limits[1] + room
    axes.plot(ends, ends, **_REFERENCE_LINE)
    style = {"color": color("score"), "markersize": 3, "alpha": 0.5, "markeredgewidth": 0}
    axes.plot(truth[rows], predicted[rows], "o", **style)
    axes.set(xlim=ends, ylim=ends)
    return _svg(name, figure, description)


@matplotlib.rc_context(_SETTINGS)
def draw_density(
    name: str,
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, " points"],
    labels: tuple[str, str],
    description: str,
) -> Markup:
    """Draws how densely points lie: cells of a grid, the darker the more points, and where both are equal.

    Args:
      labels: of the axes, x and y, which have the same limits.
    """
    figure, axes = _new_figure(labels[1], labels[0])
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    room = 0.02 * (high - low or 1)
    edges = np.linspace(low - room, high + room, _CELLS + 1)
    counts, _, _ = np.histogram2d(x, y, bins=(edges, edges))
    centers = (edges[1:] + edges[:-1]) / 2
    axes.plot(edges[[0, -1]], edges[[0, -1]], **_REFERENCE_LINE)
    # A cell is as wide as the axes are in `_CELLS` parts: nearly, for what the labels take is not known yet.
    size = 0.8 * HEIGHT / _CELLS
    # By the logarithm: most pairs lie where few are of interest.
    shades = np.ceil(_SHADES * np.log1p(counts) / np.log1p(counts.max())).astype(int)
    for shade in range(1, _SHADES + 1):
        column, row = np.nonzero(shades == shade)
        style = {"color": color("score"), "alpha": shade / _SHADES, "markeredgewidth": 0, "markersize": size}
        axes.plot(centers[column], centers[row], "s", **style)
    axes.set(xlim=edges[[0, -1]], ylim=edges[[0, -1]])
    return _svg(name, figure, description)


def _label_ends(axes: Axes, ends: np.ndarray) -> None:
    low, high = axes.get_ylim()
    heights = (ends - low) / (high - low)
    labels = [layer for layer in np.argsort(heights) if np.isfinite(heights[layer])]
    every = -(-len(labels) // 16)  # there is room for 16
    labels = [layer for layer in labels if layer % every == 0 or layer == len(ends) - 1]
    positions = spread([float(heights[layer]) for layer in labels], 0.062)
    for layer, position in zip(labels, positions, strict=True):
        line = {"arrowstyle": "-", "color": layer_color(layer, len(ends)), "linewidth": 1}
        axes.annotate(
            str(layer + 1),
            (1, float(heights[layer])),
            (1.045, position),
            xycoords="axes fraction",
            textcoords="axes fraction",
            verticalalignment="center",
            color=color("text"),
            annotation_clip=False,
            arrowprops=line | {"shrinkA": 1, "shrinkB": 0},
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Returns ascending `heights` moved at least `gap` apart, close ones around their mean, within [0, 1]."""
    groups: list[tuple[float, int]] = []  # (mean, members)

    def center(mean: float, members: int) -> float:
        room = gap * (members - 1) / 2
        return min(max(mean, room), 1 - room)

    for height in heights:
        groups.append((height, 1))
        while len(groups) > 1:
            below, above = groups[-2:]
            members = below[1] + above[1]
            if center(*above) - center(*below) >= gap * members / 2 - 1e-12:
                break
            groups[-2:] = [((below[0] * below[1] + above[0] * above[1]) / members, members)]
    return [
        center(mean, members) + gap * (k - (members - 1) / 2)
        for mean, members in groups
        for k in range(members)
    ]


def _new_figure(y_label: str, x_label: str = "") -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72, layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(color("muted"))
    axes.grid(axis="y", color=color("rule"), linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=color("muted"), length=3)
    axes.set_xlabel(x_label or "training step", color=color("muted"))
    axes.set_ylabel(y_label, color=color("muted"), parse_math=False)
    if not x_label:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    return figure, axes


def _set_scale(axes: Axes, scale: str, values: np.ndarray) -> None:
    first, last = axes.get_xlim()
    if last - first < 2:  # one step alone: the ticks beside it must be whole steps too
        axes.set_xlim(first - 1, last + 1)
    if scale == "log":
        axes.set_yscale("log")
        decades = np.log10(values.max() / values.min())
        axes.yaxis.set_major_locator(
            LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,), numticks=8)
        )
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def _svg(name: str, figure: Figure, description: str) -> Markup:
    """Returns the figure as an element of a page, its ids prefixed with `name`."""
    buffer = io.StringIO()
    # With a date or a version in the file, two reports of one run would differ.
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=no_metadata)
    document = buffer.getvalue()
    body = document[document.index(">", document.index("<svg")) + 1 :]
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # nothing refers to groups
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = body.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    body = re.sub(r'\bd="([^"]*)"', _short_path, body)
    label = Markup.escape(description)
    opening = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    return Markup(opening + with_variables(body))


def _short_path(match: re.Match[str]) -> str:
    # A hundredth of a pixel is precise enough, and halves the page.
    numbers = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", match[1])
    return f'd="{" ".join(numbers.split())}"'
