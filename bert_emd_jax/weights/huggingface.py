"""Hugging Face model directories: `model.safetensors` in, converted in memory, and out again."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from bert_emd_jax.bert.config import BertConfig
from bert_emd_jax.errors import UserError
from bert_emd_jax.weights.initialization import (
    NewHead,
    config_with_labels,
    initial_params,
    parameter_shapes,
)
from bert_emd_jax.weights.names import (
    Head,
    canonical_name,
    split_left_over,
    tensors_of,
    torch_file_name,
)
from bert_emd_jax.weights.params import Params, flatten, unflatten

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "model.safetensors"

_POOLER = {"pooler.dense.weight", "pooler.dense.bias"}
_CLASSIFIER = {"classifier.weight", "classifier.bias"}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file.

    Raises:
      UserError: the file is damaged or holds a type that NumPy lacks.
    """
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None


def convert_to_flax(
    tensors: Mapping[str, np.ndarray],
    config: BertConfig,
    head: Head,
    *,
    source: str,
    new_head: NewHead | None = None,
) -> tuple[BertConfig, Params]:
    """The Flax parameters in PyTorch tensors, float32, and the config with the label count found there.

    Args:
      source: the file, for messages.
      new_head: where a classifier is about to be trained: what replaces one that is missing or has
        another number of labels. None takes the file's classifier as it is and refuses a missing one.

    Raises:
      UserError: tensors are missing, left over or of the wrong shape; the message lists all of them.
    """
    by_name = {canonical_name(name): tensor for name, tensor in tensors.items()}
    if len(by_name) != len(tensors):
        raise UserError(f"{source}: some tensors are there twice, with and without the prefix bert.")
    rows = len(by_name["classifier.weight"]) if "classifier.weight" in by_name else None
    if head == "classifier":
        config = config_with_labels(config, rows, new_head, source)
        if rows != config.num_labels:
            by_name = {name: tensor for name, tensor in by_name.items() if name not in _CLASSIFIER}

    shapes = parameter_shapes(config, head)
    flat: dict[str, np.ndarray] = {}
    new: list[str] = []
    missing: list[str] = []
    misshapen: list[str] = []
    for entry in tensors_of(config, head):
        tensor = by_name.pop(entry.torch_name, None)
        if tensor is None:
            may_be_new = entry.torch_name in (_POOLER if new_head is None else _POOLER | _CLASSIFIER)
            (new if may_be_new else missing).append(entry.torch_name)
            continue
        if entry.transform == "transpose":
            tensor = tensor.T
        expected = shapes[entry.flax_path]
        if tensor.shape != expected:
            misshapen.append(f"{entry.torch_name} {list(tensor.shape)}, expected {list(expected)}")
        flat[entry.flax_path] = np.ascontiguousarray(tensor, dtype=np.float32)

    ignored, unknown = split_left_over(by_name, head)
    problems = [
        f"{what}: {', '.join(names)}"
        for what, names in (("missing", missing), ("left over", unknown), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise UserError(f"{source}: the tensors do not fit the config; {'; '.join(problems)}")
    if ignored:
        logger.info("%s: ignored (heads of other tasks): %s", source, ", ".join(ignored))
    if new:
        logger.info("%s: new, randomly initialised: %s", source, ", ".join(new))
        fresh = flatten(initial_params(config, head, seed=new_head.seed if new_head else 0))
        flat = fresh | flat
    return config, unflatten(flat)


def convert_to_torch(params: Params, config: BertConfig, head: Head) -> dict[str, np.ndarray]:
    """PyTorch tensors under transformers' names. Parameters outside the table (`fit_dense`) are left out."""
    flat = flatten(params)
    tensors = {}
    for entry in tensors_of(config, head):
        tensor = np.asarray(flat[entry.flax_path])
        tensors[torch_file_name(entry)] = np.ascontiguousarray(
            tensor.T if entry.transform == "transpose" else tensor
        )
    return tensors


def write_huggingface_weights(directory: Path, params: Params, config: BertConfig) -> None:
    """Writes `config.json` and `model.safetensors` of a classifier, as transformers loads them."""
    directory.mkdir(parents=True, exist_ok=True)
    values = config.to_dict() | {"architectures": ["BertForSequenceClassification"], "dtype": "float32"}
    (directory / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    tensors = convert_to_torch(params, config, "classifier")
    safetensors.numpy.save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    if config.classifier_activation != "none":
        logger.warning(
            "%s: the %s before the classifier is no part of transformers' BERT: logits will differ there",
            directory,
            config.classifier_activation,
        )
