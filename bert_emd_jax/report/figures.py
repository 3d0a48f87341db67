"""Curves as inline SVG: transparent, coloured by the page's style sheet, with ids of their own."""

import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from scipy.ndimage import maximum_filter1d

from bert_emd_jax.report.run_files import Curve
from bert_emd_jax.report.theme import ink, layer_ink, with_variables

WIDTH, HEIGHT = 400, 250  # SVG user units; about the CSS pixels a figure gets in every layout of the page
MAX_POINTS = 1000  # of one curve
SMOOTHED_FROM = 50  # points: shorter curves are drawn as they are
_POINTS_PER_FIGURE = 4000
# Matplotlib's own defaults first: a reader's matplotlibrc must not change the page.
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
    """A curve with its name in the legend and the name of its colour."""

    label: str
    colour: str
    curve: Curve
    dots: bool = False
    line: bool = True


def thin(curve: Curve, limit: int) -> Curve:
    """At most `limit` points (4 or more) of `curve`: its ends, the lowest and highest of equal stretches."""
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
    """The mean of the `window` values around each point, of those that exist at the ends."""
    total = np.concatenate([[0.0], np.cumsum(curve.values)])
    positions = np.arange(len(curve.values))
    start = np.maximum(positions - window // 2, 0)
    end = np.minimum(positions + window // 2 + 1, len(curve.values))
    return Curve(curve.steps, (total[end] - total[start]) / (end - start))


def running_maximum(curve: Curve, window: int) -> Curve:
    """The largest of the `window` values around each point."""
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
    """Series over the training steps.

    `scale` is "linear", "log", or "auto": log where all values are positive and span a decade. `smooth`
    draws long curves as their running mean, over faint "values" or over faint running "maxima".
    `best_step` is marked by a vertical line, `level` by a horizontal one. `name` must be unique on the page.
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
            axes.plot(behind.steps, behind.values, color=ink(one.colour), linewidth=0.7, alpha=0.4)
            curve = running_mean(curve, window)
        curve = thin(curve, limit)
        style = {
            "color": ink(one.colour),
            "linestyle": "-" if one.line else "none",
            "linewidth": 1.7,
            "marker": "o" if one.dots or len(curve.steps) == 1 else None,
            "markersize": 4.5,
        }
        axes.plot(curve.steps, curve.values, **style)
    if level is not None:
        axes.axhline(level, color=ink("muted"), linewidth=1, linestyle=(0, (2, 2)))
        axes.annotate(
            level_label,
            (0.01, level),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=ink("muted"),
            parse_math=False,
        )
    _set_scale(axes, scale, values)
    if best_step is not None:
        axes.axvline(best_step, color=ink("best"), linewidth=1.2, linestyle=(0, (4, 2)))
        right_half = best_step > np.mean(axes.get_xlim())
        axes.annotate(
            f"best: step {best_step:,}",
            (best_step, 0.03),
            (-4 if right_half else 4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            horizontalalignment="right" if right_half else "left",
            color=ink("best"),
        )
    return _svg(name, figure, description)


@matplotlib.rc_context(_SETTINGS)
def draw_layers(name: str, steps: np.ndarray, weights: np.ndarray, y_label: str, description: str) -> Markup:
    """One line per layer of `weights` [moments, layers], numbered from 1 at its right end."""
    figure, axes = _new_figure(y_label)
    layers = weights.shape[1]
    limit = int(np.clip(_POINTS_PER_FIGURE // layers, 100, MAX_POINTS))
    ends = []
    for layer in range(layers):
        finite = np.isfinite(weights[:, layer])
        curve = thin(Curve(steps[finite], weights[finite, layer]), limit)
        axes.plot(
            curve.steps,
            curve.values,
            color=ink("text") if layers == 1 else layer_ink(layer, layers),
            linewidth=1.7,
            marker="o" if len(curve.steps) == 1 else None,
            markersize=4,
        )
        ends.append(curve.values[-1] if len(curve.values) else np.nan)
    axes.axhline(1 / layers, color=ink("muted"), linewidth=1, linestyle=(0, (2, 2)))
    _set_scale(axes, "linear", weights[np.isfinite(weights)])
    _label_ends(axes, np.array(ends))
    return _svg(name, figure, description)


@matplotlib.rc_context(_SETTINGS)
def draw_scatter(
    name: str, truth: np.ndarray, predicted: np.ndarray, limits: tuple[float, float], description: str
) -> Markup:
    """Predicted over true values [rows], the same `limits` on both axes; of many rows, evenly chosen ones."""
    figure, axes = _new_figure("predicted", "label")
    rows = np.unique(np.linspace(0, len(truth) - 1, MAX_POINTS).astype(int))
    room = 0.04 * (limits[1] - limits[0] or 1)
    ends = limits[0] - room, limits[1] + room
    axes.plot(ends, ends, color=ink("muted"), linewidth=1, linestyle=(0, (2, 2)))
    axes.plot(
        *(truth[rows], predicted[rows]), "o", color=ink("score"), markersize=3, alpha=0.5, markeredgewidth=0
    )
    axes.set(xlim=ends, ylim=ends)
    return _svg(name, figure, description)


def _label_ends(axes: Axes, ends: np.ndarray) -> None:
    low, high = axes.get_ylim()
    heights = (ends - low) / (high - low)
    labels = [layer for layer in np.argsort(heights) if np.isfinite(heights[layer])]
    every = -(-len(labels) // 16)  # more labels than this cannot stand above one another
    labels = [layer for layer in labels if layer % every == 0 or layer == len(ends) - 1]
    for layer, height in zip(labels, spread([float(heights[layer]) for layer in labels], 0.062), strict=True):
        axes.annotate(
            str(layer + 1),
            (1, float(heights[layer])),
            (1.045, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            verticalalignment="center",
            color=ink("text"),
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": layer_ink(layer, len(ends)),
                "linewidth": 1,
                "shrinkA": 1,
                "shrinkB": 0,
            },
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending `heights` moved until they lie `gap` apart, each crowd around its mean but within [0, 1]."""
    crowds: list[tuple[float, int]] = []  # (mean, members)

    def centre(mean: float, members: int) -> float:
        room = gap * (members - 1) / 2
        return min(max(mean, room), 1 - room)

    for height in heights:
        crowds.append((height, 1))
        while len(crowds) > 1:
            below, above = crowds[-2:]
            members = below[1] + above[1]
            if centre(*above) - centre(*below) >= gap * members / 2 - 1e-12:
                break
            crowds[-2:] = [((below[0] * below[1] + above[0] * above[1]) / members, members)]
    return [
        centre(mean, members) + gap * (k - (members - 1) / 2)
        for mean, members in crowds
        for k in range(members)
    ]


def _new_figure(y_label: str, x_label: str = "") -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72, layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink("muted"))
    axes.grid(axis="y", color=ink("rule"), linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=ink("muted"), length=3)
    axes.set_xlabel(x_label or "training step", color=ink("muted"))
    axes.set_ylabel(y_label, color=ink("muted"), parse_math=False)
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
    buffer = io.StringIO()
    # A date or a version in the file would make two reports of one run differ.
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    return Markup(embeddable(name, buffer.getvalue(), description))


def embeddable(name: str, svg: str, description: str) -> str:
    """A whole SVG document of Matplotlib's as an element of a page, its ids prefixed with `name`."""
    svg = svg[svg.index("<svg") :]
    body = svg[svg.index(">") + 1 :]
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # nothing refers to groups
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = body.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    body = re.sub(r'\bd="([^"]*)"', _short_path, body)
    label = Markup.escape(description)
    opening = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    return opening + with_variables(body)


def _short_path(match: re.Match[str]) -> str:
    # A hundredth of a pixel is plenty, and halves the page.
    numbers = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", match[1])
    return f'd="{" ".join(numbers.split())}"'
