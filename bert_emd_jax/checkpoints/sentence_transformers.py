"""The directories of sentence-transformers: which modules make a vector of a text, read and written as files.

The layouts of versions 1 to 6 are read. Written are class paths and pooling flags that all of them read.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bert_emd_jax.checkpoints.checkpoint_files import SAFETENSORS_FILE, read_checkpoint
from bert_emd_jax.checkpoints.names import DENSE_PREFIX
from bert_emd_jax.checkpoints.safetensors_file import write_safetensors
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import write_json
from bert_emd_jax.layout import CONFIG
from bert_emd_jax.models.embedding_config import (
    NORMALIZE,
    POOLINGS,
    DenseModule,
    EmbeddingConfig,
    VectorModule,
)
from bert_emd_jax.tokenization.tokenizer_files import read_json_object

MODULES_FILE = "modules.json"
SETTINGS_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlnet_config.json",
)
FILES = (MODULES_FILE, SETTINGS_FILE, *TRANSFORMER_FILES)
"""Beside the encoder's own; modules but the first have directories such as `1_Pooling`."""

_PACKAGE = "sentence_transformers."
_KNOWN = ("Transformer", "Pooling", "Dense", "Normalize")
_USUAL_INPUTS = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
# Our names of poolings → their names in lists, and of flags.
_POOLING_NAMES = {**dict(zip(POOLINGS, POOLINGS, strict=True)), "mean_sqrt_len": "mean_sqrt_len_tokens"}
_POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
}
_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
}
# Keys of the transformer's settings that change what it computes, and the values with which they do not.
_NEUTRAL = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "tokenizer_name_or_path": ("",),
}
_READ_OR_HARMLESS = (
    *("max_seq_length", "do_lower_case", "modality_config"),
    *("unpad_inputs", "model_args", "model_kwargs"),
)


@dataclasses.dataclass(frozen=True)
class Modules:
    """What a directory holds.

    Attributes:
      transformer: the directory of the encoder and its tokenizer.
      tensors: those of the dense modules, under the names of `names.param_mappings`.
    """

    transformer: Path
    embedding: EmbeddingConfig
    tensors: Mapping[str, np.ndarray]


def transformer_directory(path: Path) -> Path:
    """Returns the directory of the encoder's files: `path` itself, unless it is one of several modules."""
    return path / _entries(path / MODULES_FILE)[0][1] if (path / MODULES_FILE).is_file() else path


def read_modules(path: Path) -> Modules | None:
    """Reads everything but the encoder; None if there is no `modules.json`.

    Raises:
      UserError: a module or a setting that is not supported, by its name, or damaged files.
    """
    if not (path / MODULES_FILE).is_file():
        return None
    source = path / MODULES_FILE
    entries = _entries(source)
    names = [name for name, _ in entries]
    if names[:2] != ["Transformer", "Pooling"] or {*names[2:]} & {"Transformer", "Pooling"}:
        raise UserError(
            f"{source}: the modules are {', '.join(names)}; supported is a Transformer, then a Pooling, then"
            " any Dense and Normalize"
        )
    transformer = path / entries[0][1]
    modules: list[VectorModule] = []
    tensors: dict[str, np.ndarray] = {}
    for number, (name, folder) in enumerate(entries[2:]):
        if name == "Normalize":
            _check_values(path / folder / CONFIG, _USUAL_INPUTS)
            modules.append(NORMALIZE)
        else:
            modules.append(_read_dense(path / folder))
            found = read_checkpoint(path / folder).tensors
            tensors |= {f"{DENSE_PREFIX}{number}.{tensor}": values for tensor, values in found.items()}
    try:
        embedding = EmbeddingConfig(
            pooling=_read_pooling(path / entries[1][1] / CONFIG),
            modules=tuple(modules),
            **_read_transformer(transformer),
            **_read_settings(path / SETTINGS_FILE),
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Modules(transformer, embedding, tensors)


def write_modules(
    directory: Path, embedding: EmbeddingConfig, width: int, tensors: Mapping[str, Any]
) -> None:
    """Writes what makes a sentence-transformers directory of the encoder's files in `directory`.

    Args:
      width: that of the encoder.
      tensors: those of the dense modules, as `read_modules` returns them.
    """
    names = ["Transformer", "Pooling"]
    flags = {flag: way in embedding.pooling for way, flag in _POOLING_FLAGS.items()}
    _write(directory / "1_Pooling" / CONFIG, {"word_embedding_dimension": width, **flags})
    size = embedding.pooled_size(width)
    for number, module in enumerate(embedding.modules):
        names.append("Dense" if isinstance(module, DenseModule) else "Normalize")
        if isinstance(module, DenseModule):
            folder = directory / f"{number + 2}_Dense"
            classes = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
            values = {
                "in_features": size,
                "out_features": module.out_features,
                "bias": module.bias,
                "activation_function": classes[module.activation],
            }
            _write(folder / CONFIG, values)
            prefix = f"{DENSE_PREFIX}{number}."
            own = {name: values for name, values in tensors.items() if name.startswith(prefix)}
            stored = {name.removeprefix(prefix): values for name, values in own.items()}
            write_safetensors(folder / SAFETENSORS_FILE, stored, {"format": "pt"})
            size = module.out_features
    entries = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{name}" if index else "",
            "type": f"{_PACKAGE}models.{name}",
        }
        for index, name in enumerate(names)
    ]
    transformer = {"max_seq_length": embedding.max_seq_length, "do_lower_case": embedding.do_lower_case}
    settings = {
        "prompts": dict(embedding.prompts),
        "default_prompt_name": embedding.default_prompt_name,
        "similarity_fn_name": embedding.similarity,
    }
    write_json(directory / TRANSFORMER_FILES[0], transformer)
    write_json(directory / SETTINGS_FILE, settings)
    write_json(directory / MODULES_FILE, entries)


def weights_folder(files: Iterable[str]) -> str:
    """Returns the folder of the encoder among a model's files as it is listed elsewhere: "" or "0_NAME/"."""
    folders = {file.partition("/")[0] for file in files if file.startswith("0_") and "/" in file}
    return f"{min(folders)}/" if folders else ""


def _entries(source: Path) -> list[tuple[str, str]]:
    """The class and the folder of every module. Raises UserError for one that is not supported."""
    entries = _json(source, list)
    found = []
    for index, entry in enumerate(entries):
        try:
            path, class_path = str(entry["path"]), str(entry["type"])
        except (TypeError, KeyError):
            raise UserError(f"{source}: module {index} has no path and type; fetch it again") from None
        name = class_path.rpartition(".")[2]
        if not class_path.startswith(_PACKAGE) or name not in _KNOWN:
            raise UserError(
                f"{source}: module {index} is {class_path}, which is not supported, only {', '.join(_KNOWN)}"
                " of sentence-transformers are"
            )
        folder = Path(path)
        if folder.is_absolute() or ".." in folder.parts:
            raise UserError(f"{source}: module {index} names {path!r}, which is not a folder below it")
        found.append((name, path))
    if not found:
        raise UserError(f"{source}: names no module; fetch it again")
    return found


def _read_pooling(path: Path) -> tuple[str, ...]:
    values = read_json_object(path)
    if values.get("include_prompt", True) is not True:
        raise UserError(
            f"{path}: include_prompt is off, which is not supported: prompts are pooled like texts"
        )
    named = values.get("pooling_mode")
    if named is not None:
        ours = {theirs: way for way, theirs in _POOLING_NAMES.items()}
        listed = [named] if isinstance(named, str) else list(named)
        return tuple(ours.get(mode, mode) for mode in listed)
    known = {flag: way for way, flag in _POOLING_FLAGS.items()}
    given = [key for key, value in values.items() if key.startswith("pooling_mode_") and value]
    if unknown := [key for key in given if key not in known]:
        raise UserError(f"{path}: {', '.join(unknown)} is set, which is not supported")
    return tuple(way for way, flag in _POOLING_FLAGS.items() if flag in given)


def _read_dense(folder: Path) -> DenseModule:
    path = folder / CONFIG
    values = read_json_object(path)
    _check_values(path, _USUAL_INPUTS | {"use_residual": False}, values)
    # sentence-transformers' own default.
    class_path = values.get("activation_function", "torch.nn.modules.activation.Tanh")
    if class_path not in _ACTIVATIONS:
        raise UserError(f"{path}: activation_function {class_path!r} is not one of {', '.join(_ACTIVATIONS)}")
    try:
        return DenseModule(values["out_features"], _ACTIVATIONS[class_path], bool(values.get("bias", True)))
    except KeyError:
        raise UserError(f"{path}: no out_features; fetch it again") from None


def _read_transformer(directory: Path) -> dict[str, Any]:
    """The settings of the encoder's module that are not those of the encoder or its tokenizer."""
    path = next((directory / name for name in TRANSFORMER_FILES if (directory / name).is_file()), None)
    values = {} if path is None else read_json_object(path)
    for key, value in values.items():
        if value and key not in _READ_OR_HARMLESS and value not in _NEUTRAL.get(key, ()):
            raise UserError(f"{path}: {key} is set, which is not supported")
    text = (values.get("modality_config") or {}).get("text", {})
    if text.get("method_output_name", "last_hidden_state") != "last_hidden_state":
        raise UserError(
            f"{path}: modality_config takes {text['method_output_name']} of the encoder, which is not"
            " supported, only last_hidden_state is"
        )
    return {
        "max_seq_length": values.get("max_seq_length"),
        "do_lower_case": bool(values.get("do_lower_case", False)),
    }


def _read_settings(path: Path) -> dict[str, Any]:
    """The prompts and the similarity; files of version 1 have none."""
    values = read_json_object(path) if path.is_file() else {}
    model_type = values.get("model_type", "SentenceTransformer")
    if model_type != "SentenceTransformer":
        raise UserError(f"{path}: model_type {model_type!r} is not supported, only SentenceTransformer is")
    if values.get("truncate_dim"):
        raise UserError(f"{path}: truncate_dim is set, which is not supported")
    prompts = values.get("prompts") or {}
    if not isinstance(prompts, dict):
        raise UserError(f"{path}: prompts must map names to texts")
    return {
        "prompts": tuple((str(name), str(text or "")) for name, text in prompts.items()),
        "default_prompt_name": values.get("default_prompt_name"),
        "similarity": values.get("similarity_fn_name") or "cosine",
    }


def _check_values(path: Path, neutral: Mapping[str, Any], values: Mapping[str, Any] | None = None) -> None:
    """Raises UserError if a setting is there and not what it is without it."""
    if values is None:
        values = read_json_object(path) if path.is_file() else {}
    for key, expected in neutral.items():
        if values.get(key) not in (None, expected):
            raise UserError(f"{path}: {key} is {values[key]!r}, which is not supported, only {expected!r} is")


def _json(path: Path, kind: type) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); fetch it again") from None
    if not isinstance(value, kind):
        raise UserError(f"{path}: a list of modules was expected; fetch it again")
    return value


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, values)
