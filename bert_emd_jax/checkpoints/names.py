"""The name table: which PyTorch tensor is which Flax parameter, and how its axes turn.

PyTorch names stand here without the `bert.` prefix that files with a head carry. `{layer}` runs over the
encoder layers.
"""

import dataclasses
import re
from collections.abc import Container
from typing import Literal

from bert_emd_jax.models.bert_config import BertConfig

Head = Literal["classifier", "masked_lm", "none"]
Transform = Literal["keep", "transpose"]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of the table: its PyTorch name, its Flax path, and what turns one into the other."""

    torch_name: str
    flax_path: str
    transform: Transform = "keep"


def _dense(torch_name: str, flax_path: str) -> tuple[Tensor, Tensor]:
    return (
        Tensor(f"{torch_name}.weight", f"{flax_path}/kernel", "transpose"),
        Tensor(f"{torch_name}.bias", f"{flax_path}/bias"),
    )


def _layer_norm(torch_name: str, flax_path: str) -> tuple[Tensor, Tensor]:
    return (
        Tensor(f"{torch_name}.weight", f"{flax_path}/scale"),
        Tensor(f"{torch_name}.bias", f"{flax_path}/bias"),
    )


_EMBEDDINGS = (
    Tensor("embeddings.word_embeddings.weight", "bert/embeddings/word_embeddings/embedding"),
    Tensor("embeddings.position_embeddings.weight", "bert/embeddings/position_embeddings/embedding"),
    Tensor("embeddings.token_type_embeddings.weight", "bert/embeddings/token_type_embeddings/embedding"),
    *_layer_norm("embeddings.LayerNorm", "bert/embeddings/layer_norm"),
)
_LAYER = (
    *_dense("encoder.layer.{layer}.attention.self.query", "bert/layer_{layer}/attention/query"),
    *_dense("encoder.layer.{layer}.attention.self.key", "bert/layer_{layer}/attention/key"),
    *_dense("encoder.layer.{layer}.attention.self.value", "bert/layer_{layer}/attention/value"),
    *_dense("encoder.layer.{layer}.attention.output.dense", "bert/layer_{layer}/attention/output"),
    *_layer_norm(
        "encoder.layer.{layer}.attention.output.LayerNorm", "bert/layer_{layer}/attention_layer_norm"
    ),
    *_dense("encoder.layer.{layer}.intermediate.dense", "bert/layer_{layer}/intermediate"),
    *_dense("encoder.layer.{layer}.output.dense", "bert/layer_{layer}/output"),
    *_layer_norm("encoder.layer.{layer}.output.LayerNorm", "bert/layer_{layer}/output_layer_norm"),
)
_POOLER = _dense("pooler.dense", "bert/pooler")
_HEADS: dict[Head, tuple[Tensor, ...]] = {
    "classifier": (*_POOLER, *_dense("classifier", "classifier")),
    "masked_lm": (
        *_dense("cls.predictions.transform.dense", "lm_transform"),
        *_layer_norm("cls.predictions.transform.LayerNorm", "lm_layer_norm"),
        Tensor("cls.predictions.bias", "lm_bias"),
    ),
    "none": _POOLER,
}

# What a file may hold beside the tensors of the table, by the start of the canonical name: heads of other
# tasks, TinyBERT's projections to its teacher, and a buffer of old transformers.
_IGNORED = ("cls.", "qa_outputs.", "fit_dense.", "fit_denses.", "share_fit_dense.", "embeddings.position_ids")


def tensors_of(config: BertConfig, head: Head) -> tuple[Tensor, ...]:
    """Every tensor of a model with this config and head."""
    layers = (
        dataclasses.replace(
            tensor,
            torch_name=tensor.torch_name.format(layer=layer),
            flax_path=tensor.flax_path.format(layer=layer),
        )
        for layer in range(config.num_hidden_layers)
        for tensor in _LAYER
    )
    return (*_EMBEDDINGS, *layers, *_HEADS[head])


def known_tensors(config: BertConfig) -> tuple[Tensor, ...]:
    """Every tensor of the table for a model of this size: the encoder, the pooler and all heads."""
    return (*tensors_of(config, "classifier"), *_HEADS["masked_lm"])


def head_of(flax_paths: Container[str]) -> Head:
    """The head of a model with these parameters."""
    if "classifier/kernel" in flax_paths:
        return "classifier"
    return "masked_lm" if "lm_transform/kernel" in flax_paths else "none"


def canonical_name(torch_name: str) -> str:
    """The table's spelling of a name in a file: no `bert.` prefix, `weight`/`bias` for `gamma`/`beta`."""
    name = torch_name.removeprefix("bert.")
    return re.sub(r"LayerNorm\.(gamma|beta)$", _modern_layer_norm, name)


def torch_file_name(tensor: Tensor, head: Head) -> str:
    """The name under which transformers' model with this head stores the tensor."""
    of_encoder = tensor.flax_path.startswith("bert/")
    return f"bert.{tensor.torch_name}" if of_encoder and head != "none" else tensor.torch_name


def is_ignored(canonical: str) -> bool:
    """Whether a tensor outside the table may be left out of a conversion."""
    return canonical.startswith(_IGNORED)


def _modern_layer_norm(match: re.Match[str]) -> str:
    return "LayerNorm." + {"gamma": "weight", "beta": "bias"}[match.group(1)]
