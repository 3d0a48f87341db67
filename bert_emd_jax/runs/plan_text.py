"""Transport plans as small pictures of characters, for a terminal."""

import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

_SHADES = " ░▒▓█"
_APART = "    "


def plans_as_text(plans: Mapping[str, Float[np.ndarray, "S T"]]) -> str:
    """Returns plans side by side: student layers down, teacher layers across, darker for more mass.

    A cell with the largest mass of its plan is full, one without mass blank.
    """
    pictures = [_picture(name, plan) for name, plan in plans.items()]
    rows = itertools.zip_longest(*pictures, fillvalue="")
    return "\n".join(_APART.join(lines).rstrip() for lines in rows)


def _picture(name: str, plan: Float[np.ndarray, "S T"]) -> list[str]:
    """Returns lines of one width: the name, the teacher's layers, and a line for each of the student's."""
    students, teachers = plan.shape
    largest = float(plan.max())
    shades = np.zeros(plan.shape, int)
    if largest > 0:
        shades = np.ceil((len(_SHADES) - 1) * np.clip(plan / largest, 0, 1) - 0.02).astype(int)
    margin, cell = len(str(students)), len(str(teachers)) + 1
    lines = [
        " " * (margin + 1) + "".join(f"{layer:>{cell}}" for layer in range(1, teachers + 1)),
        *(
            f"{layer:>{margin}} " + "".join(_SHADES[shade] * cell for shade in row)
            for layer, row in enumerate(shades.clip(0), start=1)
        ),
    ]
    width = max(len(name), len(lines[0]))
    return [line.ljust(width) for line in (name, *lines)]
