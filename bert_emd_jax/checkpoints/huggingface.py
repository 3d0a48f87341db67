"""Hugging Face's names and files: a checkpoint's tensors as Flax arrays, and a directory for transformers."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bert_emd_jax.checkpoints.checkpoint_files import SAFETENSORS_FILE, Checkpoint
from bert_emd_jax.checkpoints.loading import StoredModel
from bert_emd_jax.checkpoints.names import (
    DENSE_PREFIX,
    canonical_name,
    head_of,
    is_ignored,
    name_map,
    param_mappings,
    torch_file_name,
)
from bert_emd_jax.checkpoints.safetensors_file import write_safetensors
from bert_emd_jax.checkpoints.sentence_transformers import write_modules
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import write_json
from bert_emd_jax.layout import CONFIG
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.params import Params, flatten

logger = logging.getLogger(__name__)

# The end of classes whose `classifier` is one of neither texts nor tokens.
_OTHER_CLASSIFIER = "ForMultipleChoice"


def stored_model(
    checkpoint: Checkpoint, config: EncoderConfig, config_values: Mapping[str, Any]
) -> StoredModel:
    """Returns a checkpoint's tensors under their Flax paths, as views.

    A file with TinyBERT's `fit_dense` and a classifier gets the relu of TinyBERT's code before it, unless
    the config has a `classifier_activation`.

    Args:
      config_values: the keys of the file that `config` was read from.

    Raises:
      UserError: a tensor is there under two names.
    """
    file_names: dict[str, str] = {}
    for name in checkpoint.tensors:
        canonical = canonical_name(name, config)
        if canonical in file_names:
            raise UserError(f"{checkpoint.source}: {file_names[canonical]} and {name} are the same tensor")
        file_names[canonical] = name
    tensors = {canonical: checkpoint.tensors[name] for canonical, name in file_names.items()}

    by_path = {mapping.flax_path: mapping.torch_name for mapping in param_mappings(config)}
    foreign_classifier = config.head != "token" and _is_foreign(tensors, by_path, config, config_values)
    untied = _untied_decoder(tensors, by_path, name_map(config).lm_decoder)
    # Some files keep the decoder's bias under the other of its two names.
    lm_bias, other_name = by_path["lm_bias"], f"{name_map(config).lm_decoder}.bias"
    if lm_bias not in tensors and (bias := tensors.pop(other_name, None)) is not None:
        tensors[lm_bias] = bias
        file_names[lm_bias] = file_names[other_name]
    arrays, mappings = {}, {}
    for mapping in param_mappings(config):
        path, name = mapping.flax_path, mapping.torch_name
        mappings.setdefault(path, mapping)
        if name in tensors and not (foreign_classifier and name.startswith("classifier.")):
            arrays[path] = mapping.convert(tensors.pop(name))
            mappings[path] = dataclasses.replace(mapping, torch_name=file_names[name])
    relu_implied = (
        "classifier_activation" not in config_values
        and "classifier/kernel" in arrays
        and config.head is None
        and any("fit_dense" in name for name in tensors)
    )
    if relu_implied:
        config = dataclasses.replace(config, classifier_activation="relu")
    ignored, left_over = {}, {}
    for canonical, tensor in sorted(tensors.items()):
        harmless = is_ignored(canonical, config) or (
            foreign_classifier and canonical.startswith("classifier.")
        )
        (ignored if harmless else left_over)[file_names[canonical]] = tensor
    return StoredModel(checkpoint.source, config, arrays, mappings, ignored, left_over, untied, relu_implied)


def torch_tensors(params: Params, config: EncoderConfig) -> dict[str, np.ndarray]:
    """Returns tensors under transformers' names; parameters outside the table (`fit_dense`) are left out."""
    flat = flatten(params)
    head = head_of(flat, config)
    return {
        torch_file_name(mapping, head, config): np.ascontiguousarray(
            mapping.convert(np.asarray(flat[mapping.flax_path]))
        )
        for mapping in param_mappings(config, "embedding" if config.embedding is not None else head)
        if mapping.flax_path in flat
    }


def write_huggingface_weights(
    directory: Path, params: Params, config: EncoderConfig, *, half: bool = False
) -> None:
    """Writes `config.json` and `model.safetensors`, as transformers' class for the head loads them.

    An embedder becomes a directory of sentence-transformers.

    Args:
      half: writes float16 in place of float32.

    Raises:
      UserError: a weight is too large for float16.
    """
    directory.mkdir(parents=True, exist_ok=True)
    head = head_of(flatten(params), config)
    values = config.to_dict() | {
        "architectures": [config.family.classes[head]],
        "dtype": "float16" if half else "float32",
    }
    values.pop("embedding", None)
    tensors = torch_tensors(params, config)
    if half:
        tensors = {name: _halved(name, tensor) for name, tensor in tensors.items()}
    behind_pooling = {name: tensors.pop(name) for name in list(tensors) if name.startswith(DENSE_PREFIX)}
    write_json(directory / CONFIG, values)
    write_safetensors(directory / SAFETENSORS_FILE, tensors, {"format": "pt"})
    if config.embedding is not None:
        write_modules(directory, config.embedding, config.hidden_size, behind_pooling)
    if head == "classifier" and config.classifier_activation != "none":
        logger.warning(
            "%s: the %s before the classifier is not part of transformers' model: logits will differ there",
            directory,
            config.classifier_activation,
        )


def _halved(name: str, tensor: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        halved = tensor.astype(np.float16)
    if not np.isfinite(halved).all():
        raise UserError(f"{name}: has values that float16 cannot hold; leave --half out")
    return halved


def _is_foreign(
    tensors: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    config: EncoderConfig,
    config_values: Mapping[str, Any],
) -> bool:
    """Returns whether a classifier is not one of texts: nothing is below it, or its class says so."""
    classes = config_values.get("architectures")
    named = isinstance(classes, list) and any(str(name).endswith(_OTHER_CLASSIFIER) for name in classes)
    below = "bert/pooler/kernel" if config.family.classifier_dense is None else "classifier_dense/kernel"
    return named or names[below] not in tensors


def _untied_decoder(
    tensors: Mapping[str, np.ndarray], names: Mapping[str, str], lm_decoder: str
) -> str | None:
    """Returns the tensor of a masked-LM decoder that differs from the one it should share, if any does."""
    for copy, original in (
        (f"{lm_decoder}.weight", names["bert/embeddings/word_embeddings/embedding"]),
        (f"{lm_decoder}.bias", names["lm_bias"]),
    ):
        if copy in tensors and original in tensors and not np.array_equal(tensors[copy], tensors[original]):
            return copy
    return None
