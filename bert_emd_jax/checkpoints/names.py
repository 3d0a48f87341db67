"""The name tables: which PyTorch tensor is which Flax parameter, and whether it is transposed.

PyTorch names stand here without the prefix that files with a head carry. `{layer}` runs over the encoder
layers. Flax paths are the same for every family: the encoder is `bert`.
"""

import dataclasses
import itertools
import re
from collections.abc import Container, Mapping

import numpy as np

from bert_emd_jax.models.embedding_config import DenseModule, dense_module_name
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.families import Head


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


@dataclasses.dataclass(frozen=True)
class NameMap:
    """The names of one family's tensors.

    Attributes:
      prefix: what files with a head put before the encoder's names.
      encoder: of embeddings, one `{layer}`, and pooler, in the order of tables.
      heads: of each head. Two heads may have the same parameter under other names, or other parameters.
      other_spellings: patterns of other spellings of names → the spelling of the table.
      lm_prefix: the start of the masked-LM head's names.
      lm_decoder: its decoder, whose weights are tied to the word embeddings and no parameter of ours; its
        bias is under this name in some files.
      ignored: the starts of names that a file may hold beside the tensors of the table.
    """

    prefix: str
    encoder: tuple[ParamMapping, ...]
    heads: Mapping[Head, tuple[ParamMapping, ...]]
    other_spellings: Mapping[str, str]
    lm_prefix: str
    lm_decoder: str
    ignored: tuple[str, ...]


_WORDS_AND_POSITIONS = (
    ParamMapping("embeddings.word_embeddings.weight", "bert/embeddings/word_embeddings/embedding"),
    ParamMapping("embeddings.position_embeddings.weight", "bert/embeddings/position_embeddings/embedding"),
)
_EMBEDDINGS = (
    *_WORDS_AND_POSITIONS,
    ParamMapping(
        "embeddings.token_type_embeddings.weight", "bert/embeddings/token_type_embeddings/embedding"
    ),
    *_layer_norm("embeddings.LayerNorm", "bert/embeddings/layer_norm"),
)
_LAYERS = (
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
_LAYER_NORM_SPELLINGS = {r"LayerNorm\.gamma$": "LayerNorm.weight", r"LayerNorm\.beta$": "LayerNorm.bias"}
# TinyBERT's projections to its teacher, and a buffer of old transformers.
_IGNORED_EVERYWHERE = ("fit_dense.", "fit_denses.", "share_fit_dense.", "embeddings.position_ids")


def _heads(
    classifier: tuple[ParamMapping, ...], transform: str, norm: str, bias: str
) -> dict[Head, tuple[ParamMapping, ...]]:
    """Returns the names of all heads: of a classifier of texts, and of the masked-LM head's three parts."""
    return {
        "classifier": classifier,
        "token": _dense("classifier", "classifier"),
        "answer": _dense("qa_outputs", "qa_outputs"),
        "masked_lm": (
            *_dense(transform, "lm_transform"),
            *_layer_norm(norm, "lm_layer_norm"),
            ParamMapping(bias, "lm_bias"),
        ),
    }


_BERT = NameMap(
    prefix="bert.",
    encoder=(*_EMBEDDINGS, *_LAYERS, *_POOLER),
    heads=_heads(
        _dense("classifier", "classifier"),
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
    ),
    other_spellings=_LAYER_NORM_SPELLINGS,
    lm_prefix="cls.predictions.",
    lm_decoder="cls.predictions.decoder",
    ignored=("cls.", *_IGNORED_EVERYWHERE),
)
_CLASSIFIER_WITH_DENSE = (
    *_dense("classifier.dense", "classifier_dense"),
    *_dense("classifier.out_proj", "classifier"),
)
_ROBERTA = NameMap(
    prefix="roberta.",
    encoder=(*_EMBEDDINGS, *_LAYERS, *_POOLER),
    heads=_heads(
        _CLASSIFIER_WITH_DENSE,
        "lm_head.dense",
        "lm_head.layer_norm",
        "lm_head.bias",
    ),
    other_spellings=_LAYER_NORM_SPELLINGS,
    lm_prefix="lm_head.",
    lm_decoder="lm_head.decoder",
    ignored=("lm_head.", *_IGNORED_EVERYWHERE),
)
_DISTILBERT_LAYER = "transformer.layer.{layer}"
_DISTILBERT = NameMap(
    prefix="distilbert.",
    encoder=(
        *_WORDS_AND_POSITIONS,
        *_layer_norm("embeddings.LayerNorm", "bert/embeddings/layer_norm"),
        *_dense(f"{_DISTILBERT_LAYER}.attention.q_lin", "bert/layer_{layer}/attention/query"),
        *_dense(f"{_DISTILBERT_LAYER}.attention.k_lin", "bert/layer_{layer}/attention/key"),
        *_dense(f"{_DISTILBERT_LAYER}.attention.v_lin", "bert/layer_{layer}/attention/value"),
        *_dense(f"{_DISTILBERT_LAYER}.attention.out_lin", "bert/layer_{layer}/attention/output"),
        *_layer_norm(f"{_DISTILBERT_LAYER}.sa_layer_norm", "bert/layer_{layer}/attention_layer_norm"),
        *_dense(f"{_DISTILBERT_LAYER}.ffn.lin1", "bert/layer_{layer}/intermediate"),
        *_dense(f"{_DISTILBERT_LAYER}.ffn.lin2", "bert/layer_{layer}/output"),
        *_layer_norm(f"{_DISTILBERT_LAYER}.output_layer_norm", "bert/layer_{layer}/output_layer_norm"),
    ),
    heads=_heads(
        (*_dense("pre_classifier", "classifier_dense"), *_dense("classifier", "classifier")),
        "vocab_transform",
        "vocab_layer_norm",
        "vocab_projector.bias",
    ),
    other_spellings=_LAYER_NORM_SPELLINGS,
    lm_prefix="vocab_",
    lm_decoder="vocab_projector",
    ignored=("vocab_", *_IGNORED_EVERYWHERE),
)
_ELECTRA = NameMap(
    prefix="electra.",
    encoder=(*_EMBEDDINGS, *_dense("embeddings_project", "bert/embeddings/projection"), *_LAYERS),
    heads=_heads(
        _CLASSIFIER_WITH_DENSE,
        "generator_predictions.dense",
        "generator_predictions.LayerNorm",
        "generator_lm_head.bias",
    ),
    other_spellings=_LAYER_NORM_SPELLINGS,
    lm_prefix="generator_",
    lm_decoder="generator_lm_head",
    ignored=("generator_", "discriminator_predictions.", *_IGNORED_EVERYWHERE),
)
DENSE_PREFIX = "behind_pooling."
"""Stands before the names of the tensors of an embedder's dense modules, which have files of their own."""
NAME_MAPS: dict[str, NameMap] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "electra": _ELECTRA,
}
"""`model_type` → the names of its tensors."""


def name_map(config: EncoderConfig) -> NameMap:
    """Returns the names of a model's family."""
    return NAME_MAPS[config.model_type]


def param_mappings(config: EncoderConfig, head: Head | None = None) -> tuple[ParamMapping, ...]:
    """Returns the table for a model of this size: the encoder, the pooler and a head; None: all heads."""

    def expanded(group: tuple[bool, list[ParamMapping]]) -> list[ParamMapping]:
        is_layer, mappings = group
        if not is_layer:
            return mappings
        return [
            dataclasses.replace(
                mapping,
                torch_name=mapping.torch_name.format(layer=layer),
                flax_path=mapping.flax_path.format(layer=layer),
            )
            for layer in range(config.num_hidden_layers)
            for mapping in mappings
        ]

    names = name_map(config)
    groups = itertools.groupby(names.encoder, lambda mapping: "{layer}" in mapping.flax_path)
    encoder = itertools.chain(*(expanded((is_layer, list(group))) for is_layer, group in groups))
    modules = config.embedding.modules if config.embedding else ()
    behind = [
        _dense(f"{DENSE_PREFIX}{number}.linear", dense_module_name(number))
        for number, module in enumerate(modules)
        if isinstance(module, DenseModule)
    ]
    heads = names.heads.values() if head is None else [names.heads.get(head, ())]
    return tuple(dict.fromkeys([*encoder, *itertools.chain(*heads, *behind)]))


def head_of(flax_paths: Container[str], config: EncoderConfig) -> Head:
    """Returns the head of a model with these parameters."""
    if "classifier/kernel" in flax_paths:
        return "token" if config.head == "token" else "classifier"
    if "qa_outputs/kernel" in flax_paths:
        return "answer"
    return "masked_lm" if "lm_transform/kernel" in flax_paths else "none"


def canonical_name(torch_name: str, config: EncoderConfig) -> str:
    """Returns the table's spelling of a name: without prefix, `weight`/`bias` for `gamma`/`beta`."""
    names = name_map(config)
    name = torch_name.removeprefix(names.prefix)
    for pattern, spelling in names.other_spellings.items():
        name = re.sub(pattern, spelling, name)
    return name


def torch_file_name(mapping: ParamMapping, head: Head, config: EncoderConfig) -> str:
    """Returns the name under which transformers' model with this head stores a tensor."""
    of_encoder = mapping.flax_path.startswith("bert/")
    prefix = name_map(config).prefix if of_encoder and head != "none" else ""
    return f"{prefix}{mapping.torch_name}"


def is_ignored(canonical: str, config: EncoderConfig) -> bool:
    """Returns whether a tensor outside the table may be left out of a conversion."""
    return canonical.startswith(name_map(config).ignored)
