"""A frozen model's logits for evaluation rows, kept on disk for later runs with the same model and rows."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float

from bert_emd_jax import __version__
from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.evaluation.model_cost import flops_per_sentence
from bert_emd_jax.files import content_hash, replacing
from bert_emd_jax.models.ensemble import Ensemble
from bert_emd_jax.models.params import flatten
from bert_emd_jax.training.classifiers import members_of

logger = logging.getLogger(__name__)

_FEWEST_FLOPS = 2e11  # some seconds of a CPU; less is computed as fast as the parameters are hashed
_VERSION = 1


def kept_logits(
    directory: Path | None,
    module: nn.Module,
    model: LoadedModel,
    rows: EncodedDataset,
    compute: Callable[[], Float[np.ndarray, "predicted outputs"]],
) -> Float[np.ndarray, "predicted outputs"]:
    """Returns what `compute` returns, from `directory` if it is there, and keeps it there.

    Args:
      directory: None does without; one that cannot be written is only logged.
      module: of the model; its type and temperature are among what the logits follow from.
    """
    flops = sum(flops_per_sentence(one.config, rows.lengths) for one in members_of(model)) * len(rows)
    if directory is None or flops < _FEWEST_FLOPS:
        return compute()
    fields = {field.name: getattr(rows, field.name) for field in dataclasses.fields(rows)}
    arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
    facts = [_VERSION, type(rows).__name__]
    path = directory / f"logits-{outputs_hash(module, model, arrays, facts)}.npy"
    shape = rows.predicted, model.config.output_size
    if (stored := _load(path, shape)) is not None:
        return stored
    logits = compute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, logits)
    except OSError as error:
        logger.info("%s: predictions are not kept there (%s)", directory, error.strerror or error)
    return logits


def outputs_hash(module: Any, model: LoadedModel, arrays: Mapping[str, np.ndarray], facts: list[Any]) -> str:
    """A hash of everything that a model's outputs follow from: itself, `arrays` of rows, the programs."""
    facts = [*facts, __version__, jax.__version__, str(np.dtype(module.dtype)), jax.default_backend()]
    facts += [one.config.values() for one in members_of(model)]
    if isinstance(module, Ensemble):
        facts.append(module.temperature)
    return content_hash(facts, flatten(model.params) | dict(arrays))


def _load(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns stored logits; None if there are none or they are damaged."""
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_whole = stored.dtype == np.float32 and stored.shape == shape and np.isfinite(stored).all()
    return stored if is_whole else None
