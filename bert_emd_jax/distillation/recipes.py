"""Flags that were measured to be a good first try, by kind of task and start of the student: docs/recipes.md.

Imports no JAX.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from bert_emd_jax.data.kinds import CLASSIFICATION, EMBEDDING, TOKEN
from bert_emd_jax.distillation.distill_config import DistillConfig


class Recipe(NamedTuple):
    """Flags and values, for students of which `title` says what they are."""

    title: str
    flags: Mapping[str, Any]


# A student that is cut out of its teacher bears a high rate in a short run, and a lower one in a longer one.
_SHORT_RUN = 300
_TEXTS = Recipe("a classifier with some of its teacher's layers", {"learning_rate": 1e-4})
_SHORT_TEXTS = Recipe(f"{_TEXTS.title}, up to {_SHORT_RUN} steps", {"learning_rate": 4e-4})
_NARROW_TEXTS = Recipe(
    "a classifier that is narrower than its teacher",
    {"learning_rate": 6e-4, "num_train_epochs": 6, "beta": 1.0},
)
_TAGS = Recipe("a tagger with some of its teacher's layers", {"mapping": "uniform", "num_train_epochs": 5})
_VECTORS_ALONE = {"beta": 0.0, "freeze_word_embeddings": True, "student_dropout": 0.0}
_VECTORS = Recipe(
    "an embedder with some of its teacher's layers",
    {**_VECTORS_ALONE, "learning_rate": 1e-4, "num_train_epochs": 1},
)
_NARROW_VECTORS = Recipe(
    "an embedder that is narrower than its teacher",
    {**_VECTORS_ALONE, "learning_rate": 1e-3, "num_train_epochs": 3},
)
RECIPES = (_SHORT_TEXTS, _TEXTS, _NARROW_TEXTS, _TAGS, _VECTORS, _NARROW_VECTORS)


def recipe_for(config: DistillConfig, kind: str, steps: int) -> Recipe | None:
    """Returns the recipe for a run; None where nothing was measured.

    Args:
      kind: of the task.
      steps: of the whole run.
    """
    if not config.pair.student_init_layers:
        return None
    is_narrow = config.pair.student_width is not None
    if kind == EMBEDDING.name:
        return _NARROW_VECTORS if is_narrow else _VECTORS
    if kind == TOKEN.name:
        return None if is_narrow else _TAGS
    if kind != CLASSIFICATION.name:
        return None
    if is_narrow:
        return _NARROW_TEXTS
    return _SHORT_TEXTS if steps <= _SHORT_RUN else _TEXTS
