"""The report's colors: one name per quantity, one color per name on a light page and one on a dark page.

A figure is drawn once. Matplotlib needs a real color, so every name has a stand-in (`color`), which the
finished SVG replaces by `var(--name)`: the style sheet of the page then decides what the reader sees.
"""

import re

import numpy as np

# Okabe and Ito's colors, which remain distinct under the common color blindnesses; (light, dark) page.
_COLORS = {
    "text": ("#1c2430", "#e7eaee"),
    "muted": ("#586372", "#9ba7b4"),
    "rule": ("#d9dfe6", "#313a45"),
    "loss": ("#1c2430", "#e7eaee"),
    "attention": ("#0072b2", "#56b4e9"),
    "hidden": ("#d55e00", "#f08a3c"),
    "embedding": ("#009e73", "#2fc79b"),
    "prediction": ("#a8387f", "#dd8fbf"),
    "soft": ("#8a6d00", "#f0d442"),
    "hard": ("#5b6fd6", "#9aa8ff"),
    "score": ("#0072b2", "#56b4e9"),
    "second": ("#009e73", "#2fc79b"),
    "third": ("#8a6d00", "#f0d442"),
    "good": ("#00694b", "#2fc79b"),
    "best": ("#b34700", "#f08a3c"),
}
# Five points of Matplotlib's viridis: lightness and hue both change, so the order needs no color vision.
_VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_NAMES = tuple(_COLORS)
_SHADES = 24  # colors for layers: more are not distinguishable


def color(name: str) -> str:
    """Returns the stand-in of the color `name`, for Matplotlib; a name without a color has "third"."""
    return f"#fe00{_NAMES.index(name if name in _COLORS else 'third'):02x}"


def layer_color(layer: int, layers: int) -> str:
    """Returns the stand-in of `layer` (0-based) of `layers`; first and last always get the same colors."""
    return f"#fe01{round(layer * (_SHADES - 1) / max(layers - 1, 1)):02x}"


def with_variables(svg: str) -> str:
    """Returns `svg` with every stand-in replaced by its CSS variable."""

    def variable(match: re.Match[str]) -> str:
        family, index = match[1], int(match[2], 16)
        return f"var(--{_NAMES[index]})" if family == "00" else f"var(--layer-{index})"

    return re.sub(r"#fe(00|01)([0-9a-f]{2})", variable, svg)


def style_variables(dark: bool) -> str:
    """Returns the CSS declarations of all names; the colors of layers follow viridis."""
    # Without the end that has no contrast to the page: yellow on a light one, purple on a dark one.
    first, last = (0.3, 1.0) if dark else (0.0, 0.66)
    positions, anchors = np.linspace(first, last, _SHADES), np.linspace(0, 1, len(_VIRIDIS))
    channels = [np.interp(positions, anchors, channel) for channel in zip(*_VIRIDIS, strict=True)]
    colors = {name: pair[dark] for name, pair in _COLORS.items()} | {
        f"layer-{index}": f"#{red:02x}{green:02x}{blue:02x}"
        for index, (red, green, blue) in enumerate(np.stack(channels, axis=1).round().astype(int))
    }
    return " ".join(f"--{name}: {value};" for name, value in colors.items())
