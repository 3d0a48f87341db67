"""Hugging Face's names and files: a checkpoint's tensors as Flax arrays, and a directory for transformers."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from bert_emd_jax.checkpoints.checkpoint_files import SAFETENSORS_FILE, Checkpoint
from bert_emd_jax.checkpoints.loading import StoredModel
from bert_emd_jax.checkpoints.names import (
    canonical_name,
    head_of,
    is_ignored,
    param_mappings,
    torch_file_name,
)
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import write_json
from bert_emd_jax.layout import CONFIG
from bert_emd_jax.models.bert_config import BertConfig, Head
from bert_emd_jax.models.params import Params, flatten

logger = logging.getLogger(__name__)

ARCHITECTURES: dict[Head, str] = {
    "classifier": "BertForSequenceClassification",
    "masked_lm": "BertForMaskedLM",
    "none": "BertModel",
}
# Classes whose `classifier` is no classifier of a whole sequence.
_OTHER_CLASSIFIERS = ("BertForTokenClassification", "BertForMultipleChoice")
_WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
_LM_BIAS = "cls.predictions.bias"


def stored_model(checkpoint: Checkpoint, config: BertConfig, config_values: Mapping[str, Any]) -> StoredModel:
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
        canonical = canonical_name(name)
        if canonical in file_names:
            raise UserError(f"{checkpoint.source}: {file_names[canonical]} and {name} are the same tensor")
        file_names[canonical] = name
    tensors = {canonical: checkpoint.tensors[name] for canonical, name in file_names.items()}

    foreign_classifier = _classifies_no_sequences(tensors, config_values)
    untied = _untied_decoder(tensors)
    # Some files keep the decoder's bias under the other of its two names.
    if _LM_BIAS not in tensors and (bias := tensors.pop("cls.predictions.decoder.bias", None)) is not None:
        tensors[_LM_BIAS] = bias
        file_names[_LM_BIAS] = file_names["cls.predictions.decoder.bias"]
    arrays, mappings = {}, {}
    for mapping in param_mappings(config):
        path, name = mapping.flax_path, mapping.torch_name
        mappings[path] = mapping
        if name in tensors and not (foreign_classifier and name.startswith("classifier.")):
            arrays[path] = mapping.convert(tensors.pop(name))
            mappings[path] = dataclasses.replace(mapping, torch_name=file_names[name])
    relu_implied = (
        "classifier_activation" not in config_values
        and "classifier/kernel" in arrays
        and any("fit_dense" in name for name in tensors)
    )
    if relu_implied:
        config = dataclasses.replace(config, classifier_activation="relu")
    ignored, left_over = {}, {}
    for canonical, tensor in sorted(tensors.items()):
        harmless = is_ignored(canonical) or (foreign_classifier and canonical.startswith("classifier."))
        (ignored if harmless else left_over)[file_names[canonical]] = tensor
    return StoredModel(checkpoint.source, config, arrays, mappings, ignored, left_over, untied, relu_implied)


def torch_tensors(params: Params, config: BertConfig) -> dict[str, np.ndarray]:
    """Returns tensors under transformers' names; parameters outside the table (`fit_dense`) are left out."""
    flat = flatten(params)
    head = head_of(flat)
    return {
        torch_file_name(mapping, head): np.ascontiguousarray(
            mapping.convert(np.asarray(flat[mapping.flax_path]))
        )
        for mapping in param_mappings(config)
        if mapping.flax_path in flat
    }


def write_huggingface_weights(directory: Path, params: Params, config: BertConfig) -> None:
    """Writes `config.json` and `model.safetensors`, as transformers' class for the head loads them."""
    directory.mkdir(parents=True, exist_ok=True)
    head = head_of(flatten(params))
    values = config.to_dict() | {"architectures": [ARCHITECTURES[head]], "dtype": "float32"}
    write_json(directory / CONFIG, values)
    write_safetensors(directory / SAFETENSORS_FILE, torch_tensors(params, config), {"format": "pt"})
    if head == "classifier" and config.classifier_activation != "none":
        logger.warning(
            "%s: the %s before the classifier is no part of transformers' BERT: logits will differ there",
            directory,
            config.classifier_activation,
        )


def write_safetensors(
    path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """Writes contiguous arrays as safetensors, with the permissions that a new file has.

    Raises:
      UserError: it could not be written; the disk may be full.
    """
    path.touch()
    permissions = path.stat().st_mode
    try:
        safetensors.numpy.save_file(tensors, path, metadata)
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: could not be written ({' '.join(str(error).split())})") from None
    path.chmod(permissions)  # the library's are for the owner alone


def _classifies_no_sequences(tensors: Mapping[str, np.ndarray], config_values: Mapping[str, Any]) -> bool:
    """Returns whether the file's classifier is of another kind: no pooler below it, or its class says so."""
    classes = config_values.get("architectures")
    named = isinstance(classes, list) and any(name in _OTHER_CLASSIFIERS for name in classes)
    return named or "pooler.dense.weight" not in tensors


def _untied_decoder(tensors: Mapping[str, np.ndarray]) -> str | None:
    """Returns the tensor of a masked-LM decoder that differs from the one it shares in BERT, if any does."""
    for copy, original in (
        ("cls.predictions.decoder.weight", _WORD_EMBEDDINGS),
        ("cls.predictions.decoder.bias", _LM_BIAS),
    ):
        if copy in tensors and original in tensors and not np.array_equal(tensors[copy], tensors[original]):
            return copy
    return None
