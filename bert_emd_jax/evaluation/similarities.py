"""How a student and its teacher compare texts: cosines of pairs, and neighbours, for the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from bert_emd_jax.evaluation.vector_scores import unit
from bert_emd_jax.files import write_json

_TEXTS, _PAIRS, _QUERIES, _NEIGHBOURS, _APART = 2000, 5000, 8, 4, 10
_LONGEST_TEXT = 300


def write_similarities(
    path: Path, texts: Sequence[str], vectors: Mapping[str, Float[np.ndarray, "texts dim"]]
) -> None:
    """Writes cosines of sampled pairs of different texts, those that are furthest apart, and neighbours.

    The sample is always the same. Most pairs of texts have nothing to do with each other, so half of the
    pairs are near neighbours by one of the models.

    Args:
      vectors: by model, "student" and "teacher".
    """
    generator = np.random.default_rng(0)
    chosen = np.sort(generator.permutation(len(texts))[:_TEXTS])
    if len(chosen) < 2:
        return
    cosines = {name: _cosines(unit(values[chosen])) for name, values in vectors.items()}
    student, teacher = cosines["student"], cosines["teacher"]
    near = np.concatenate([_nearest(matrix, min(5, len(chosen) - 1)) for matrix in (student, teacher)])
    pairs = np.concatenate([generator.integers(len(chosen), size=(_PAIRS, 2)), generator.permutation(near)])
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    half = _PAIRS // 2
    pairs = np.unique(np.concatenate([pairs[:half], pairs[len(pairs) - half :]]), axis=0)
    first, second = pairs.T

    def text(index: int) -> str:
        return texts[int(chosen[index])][:_LONGEST_TEXT]

    def neighbours(index: int, matrix: np.ndarray) -> list[dict[str, Any]]:
        best = np.argsort(-matrix[index], kind="stable")[:_NEIGHBOURS]
        return [{"text": text(other), "cosine": round(float(matrix[index, other]), 4)} for other in best]

    gaps = np.abs(student[first, second] - teacher[first, second])
    apart = np.argsort(-gaps, kind="stable")[:_APART]
    queries = generator.permutation(len(chosen))[:_QUERIES]
    write_json(
        path,
        {
            "cosines": {
                name: np.round(matrix[first, second], 4).tolist() for name, matrix in cosines.items()
            },
            "apart": [
                {
                    "text": text(first[pair]),
                    "text_pair": text(second[pair]),
                    **{name: round(float(m[first[pair], second[pair]]), 4) for name, m in cosines.items()},
                }
                for pair in apart
            ],
            "neighbours": [
                {"text": text(row), **{name: neighbours(row, matrix) for name, matrix in cosines.items()}}
                for row in queries
            ],
        },
    )


def _cosines(vectors: np.ndarray) -> np.ndarray:
    """Of all pairs; -2 of a text with itself, which is no neighbour."""
    matrix = vectors @ vectors.T
    np.fill_diagonal(matrix, -2)
    return matrix


def _nearest(matrix: np.ndarray, count: int) -> np.ndarray:
    """Pairs of every text and its nearest ones."""
    others = np.argpartition(-matrix, count - 1, axis=1)[:, :count]
    return np.stack([np.repeat(np.arange(len(matrix)), count), others.ravel()], axis=1)
