"""The figures' arithmetic against plain definitions, and the colors against the contrast rules of WCAG 2."""

import re
import warnings
from importlib import resources

import matplotlib
import numpy as np
import pytest

from bert_emd_jax.report.figures import (
    Series,
    draw_curves,
    draw_layers,
    running_maximum,
    running_mean,
    spread,
    thin,
)
from bert_emd_jax.report.heatmaps import Cell
from bert_emd_jax.report.metrics_reader import Curve
from bert_emd_jax.report.theme import style_variables
from bert_emd_jax.runs.layer_mapping import entropy

CURVE = Curve(np.arange(5000), np.random.default_rng(0).normal(size=5000))


def test_thinning_keeps_the_ends_and_the_extremes():
    thinned = thin(CURVE, 300)
    assert len(thinned.steps) <= 300
    assert np.all(np.diff(thinned.steps) > 0)
    assert thinned.values.min() == CURVE.values.min()
    assert thinned.values.max() == CURVE.values.max()
    assert {0, 4999} <= set(thinned.steps.tolist())
    np.testing.assert_array_equal(thinned.values, CURVE.values[thinned.steps])
    assert thin(CURVE, 5000) is CURVE


@pytest.mark.parametrize("window", [3, 4, 11])
def test_running_mean_and_maximum(window: int):
    short = Curve(CURVE.steps[:60], CURVE.values[:60])
    half = window // 2
    around = [short.values[max(k - half, 0) : k + half + 1] for k in range(60)]
    np.testing.assert_allclose(
        running_mean(short, window).values, [part.mean() for part in around], atol=1e-12
    )
    np.testing.assert_array_equal(running_maximum(short, window).values, [part.max() for part in around])


@pytest.mark.parametrize(
    "heights", [[0.5, 0.5, 0.5], [0.0, 0.01, 0.9], [0.1, 0.4, 0.9], [0.97, 0.98, 1.0], [0.2]]
)
def test_spread_labels_are_apart_in_order_and_inside(heights: list[float]):
    moved = spread(heights, 0.1)
    assert np.all(np.diff(moved) >= 0.1 - 1e-9)
    assert min(moved) >= 0
    assert max(moved) <= 1 + 1e-9
    if all(np.diff(heights) >= 0.1):
        assert moved == heights


def test_entropy():
    flow = np.stack([np.full((3, 6), 1 / 18), np.eye(3, 6) / 3, np.zeros((3, 6))])
    np.testing.assert_allclose(entropy(flow), [np.log(18), np.log(3), 0], atol=1e-12)


def _points(svg: str, variable: str) -> np.ndarray:
    """The vertices, in SVG units, of the first line of the color `variable`."""
    path = re.search(rf'd="([^"]*)"[^>]*stroke: var\(--{variable}\)', svg)
    assert path is not None
    return np.array([[float(x), float(y)] for x, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path[1])])


def test_a_drawn_curve_is_the_curve():
    values = np.array([1.0, 3.0, 2.0, 7.0])
    svg = draw_curves(
        "one", [Series("loss", "hidden", Curve(np.array([1, 2, 3, 4]), values))], "loss", "a loss"
    )
    x, y = _points(svg, "hidden").T
    np.testing.assert_allclose(np.diff(x), np.diff(x).mean(), atol=0.02)
    # SVG's y axis points down: an affine map with a negative factor.
    slope, offset = np.polyfit(values, y, 1)
    assert slope < 0
    np.testing.assert_allclose(slope * values + offset, y, atol=0.02)


def test_a_steep_fall_is_drawn_logarithmically():
    values = np.array([1.0, 0.1, 0.01, 0.001])
    svg = draw_curves("one", [Series("loss", "hidden", Curve(np.arange(4), values))], "loss", "a loss")
    np.testing.assert_allclose(np.diff(_points(svg, "hidden")[:, 1], n=2), 0, atol=0.03)


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [3.0, 3.0], [-1.0, 1e9], [1e-30, 1.0]])
def test_odd_curves_draw_without_a_warning(values: list[float]):
    curve = Curve(np.arange(len(values)), np.array(values))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in ("auto", "linear"):
            draw_curves("one", [Series("x", "loss", curve)], "$y", "x", scale=scale, best_step=0, level=0.5)
        draw_layers("two", curve.steps, np.full((len(values), 1), np.nan), "weight", "w")
        draw_layers("two", curve.steps, np.ones((len(values), 30)) / 30, "weight", "w")


def test_drawing_leaves_the_readers_matplotlib_alone():
    before = dict(matplotlib.rcParams)
    draw_curves("one", [Series("x", "loss", CURVE)], "y", "x")
    assert dict(matplotlib.rcParams) == before


def test_a_readers_matplotlibrc_does_not_change_the_figure():
    plain = draw_curves("one", [Series("x", "loss", CURVE)], "y", "x")
    with matplotlib.rc_context(
        {"font.size": 30, "axes.grid": True, "text.color": "red", "lines.linewidth": 9}
    ):
        assert draw_curves("one", [Series("x", "loss", CURVE)], "y", "x") == plain


# colors


def _rgb(color: str) -> np.ndarray:
    return np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)], dtype=float)


def _contrast(one: np.ndarray, other: np.ndarray) -> float:
    def luminance(rgb: np.ndarray) -> float:
        part = rgb / 255
        linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _theme(dark: bool) -> dict[str, str]:
    template = resources.files("bert_emd_jax.report").joinpath("base.html").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)^ *\}", template, flags=re.S | re.M)
    return dict(re.findall(r"--([a-z0-9-]+): ([^;]+);", blocks[dark] + style_variables(dark)))


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_lines_stand_out(dark: bool):
    theme = _theme(dark)
    page, card = _rgb(theme["page"]), _rgb(theme["card"])
    for name in ("text", "muted", "best", "good"):
        assert min(_contrast(_rgb(theme[name]), page), _contrast(_rgb(theme[name]), card)) >= 4.5
    for name in ("loss", "attention", "hidden", "embedding", "prediction", "soft", "hard", "score", "best"):
        assert _contrast(_rgb(theme[name]), page) >= 3, name
    for index in range(24):
        assert _contrast(_rgb(theme[f"layer-{index}"]), page) >= 2.5, index


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("tone", ["heat", "warm"])
def test_numbers_in_cells_can_be_read_on_every_shade(dark: bool, tone: str):
    theme = _theme(dark)
    page = _rgb(theme["page"])
    hue = np.array([float(part) for part in theme[tone].split()])
    for shade in np.linspace(0, 1, 101):
        background = shade * hue + (1 - shade) * page
        text = theme["on-deep" if Cell("", float(shade), "").is_deep else "on-light"]
        assert _contrast(_rgb(text), background) >= 4.5, shade
