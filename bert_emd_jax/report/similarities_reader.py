"""How teacher and student compare texts: `dev_similarities.json` of an embedder's run."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from bert_emd_jax.errors import UserError
from bert_emd_jax.report.json_files import is_number, read_object

MODELS = ("teacher", "student")


@dataclass(frozen=True)
class Pair:
    """Two texts and the cosines that the models give them."""

    texts: tuple[str, str]
    teacher: float
    student: float


@dataclass(frozen=True)
class Neighbours:
    """A text, and by model the texts nearest to it with their cosines, the nearest first."""

    text: str
    by_model: dict[str, list[tuple[str, float]]]


@dataclass(frozen=True)
class Similarities:
    """Cosines of sampled pairs by model, the pairs furthest apart, and neighbours of some texts."""

    cosines: dict[str, Float[np.ndarray, " pairs"]]
    apart: list[Pair]
    neighbours: list[Neighbours]


def read_similarities(path: Path) -> Similarities:
    """Reads `dev_similarities.json`. Raises UserError, naming the file, if it is damaged."""
    content = read_object(path)
    try:
        cosines = {name: np.array([_number(value) for value in content["cosines"][name]]) for name in MODELS}
        if len({len(values) for values in cosines.values()}) > 1:
            raise ValueError("the models have different numbers of cosines")
        apart = [
            Pair(
                (str(pair["text"]), str(pair["text_pair"])),
                _number(pair["teacher"]),
                _number(pair["student"]),
            )
            for pair in content["apart"]
        ]
        neighbours = [
            Neighbours(
                str(query["text"]),
                {
                    name: [(str(one["text"]), _number(one["cosine"])) for one in query[name]]
                    for name in MODELS
                },
            )
            for query in content["neighbours"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: no similarities of two models ({error}): restore it, or run again"
        ) from error
    return Similarities(cosines, apart, neighbours)


def _number(value: Any) -> float:
    if not is_number(value):
        raise ValueError(f"{value!r} is not a number")
    if not math.isfinite(value):
        raise ValueError("a cosine is not finite")
    return float(value)
