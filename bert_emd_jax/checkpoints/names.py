"""The name table: which PyTorch tensor is which Flax parameter, and whether it is transposed.

PyTorch names stand here without the `bert.` prefix that files with a head carry. `{layer}` runs over the
encoder layers.
"""

import dataclasses
import itertools
import re
from collections.abc import Container

import numpy as np

from bert_emd_jax.models.bert_config import BertConfig, Head


@dataclasses.dataclass(frozen=True)
class ParamMapping:
    """A PyTorch tensor and the Flax parameter that it becomes, transposed or as it is."""

    torch_name: str
    flax_path: str
    transposed: bool = False

    def convert(self, array: np.ndarray) -> np.ndarray:
        """Returns a tensor with the parameter's axes, or a parameter with the tensor's; a view."""
        return array.T if self.transposed else array


def _dense(torch_name: str, flax_path: str) -> tuple[ParamMapping, ParamMapping]:
    return (
        ParamMapping(f"{torch_name}.weight", f"{flax_path}/kernel", transposed=True),
        ParamMapping(f"{torch_name}.bias", f"{flax_path}/bias"),
    )


def _layer_norm(torch_name: str, flax_path: str) -> tuple[ParamMapping, ParamMapping]:
    return (
        ParamMapping(f"{torch_name}.weight", f"{flax_path}/scale"),
        ParamMapping(f"{torch_name}.bias", f"{flax_path}/bias"),
    )


_EMBEDDINGS = (
    ParamMapping("embeddings.word_embeddings.weight", "bert/embeddings/word_embeddings/embedding"),
    ParamMapping("embeddings.position_embeddings.weight", "bert/embeddings/position_embeddings/embedding"),
    ParamMapping(
        "embeddings.token_type_embeddings.weight", "bert/embeddings/token_type_embeddings/embedding"
    ),
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
_HEADS: dict[Head, tuple[ParamMapping, ...]] = {
    "classifier": _dense("classifier", "classifier"),
    "masked_lm": (
        *_dense("cls.predictions.transform.dense", "lm_transform"),
        *_layer_norm("cls.predictions.transform.LayerNorm", "lm_layer_norm"),
        ParamMapping("cls.predictions.bias", "lm_bias"),
    ),
}

# What a file may hold beside the tensors of the table, by the start of the canonical name: heads of other
# tasks, TinyBERT's projections to its teacher, and a buffer of old transformers.
_IGNORED = ("cls.", "qa_outputs.", "fit_dense.", "fit_denses.", "share_fit_dense.", "embeddings.position_ids")


def param_mappings(config: BertConfig) -> tuple[ParamMapping, ...]:
    """Returns the table for a model of this size: the encoder, the pooler and all heads."""
    layers = (
        dataclasses.replace(
            mapping,
            torch_name=mapping.torch_name.format(layer=layer),
            flax_path=mapping.flax_path.format(layer=layer),
        )
        for layer in range(config.num_hidden_layers)
        for mapping in _LAYER
    )
    return (*_EMBEDDINGS, *layers, *_POOLER, *itertools.chain(*_HEADS.values()))


def head_of(flax_paths: Container[str]) -> Head:
    """Returns the head of a model with these parameters."""
    if "classifier/kernel" in flax_paths:
        return "classifier"
    return "masked_lm" if "lm_transform/kernel" in flax_paths else "none"


def canonical_name(torch_name: str) -> str:
    """Returns the table's spelling of a name: no `bert.` prefix, `weight`/`bias` for `gamma`/`beta`."""
    name = torch_name.removeprefix("bert.")
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)


def torch_file_name(mapping: ParamMapping, head: Head) -> str:
    """Returns the name under which transformers' model with this head stores a tensor."""
    of_encoder = mapping.flax_path.startswith("bert/")
    return f"bert.{mapping.torch_name}" if of_encoder and head != "none" else mapping.torch_name


def is_ignored(canonical: str) -> bool:
    """Returns whether a tensor outside the table may be left out of a conversion."""
    return canonical.startswith(_IGNORED)
