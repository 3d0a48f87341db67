"""Which family a config describes, and what of it is refused: a model that would compute something else."""

from collections.abc import Mapping
from typing import Any

from bert_emd_jax.errors import UserError
from bert_emd_jax.models.families import FAMILIES, Family
from bert_emd_jax.models.other_architectures import DIFFERENCES, model_type_of_class


def model_type_of(values: Mapping[str, Any], source: str) -> str:
    """Returns the family that a config names, by itself or by the class of the model; BERT if it names none.

    Raises:
      UserError: it is another architecture, or two are named.
    """
    of_class, model_type = _type_of_classes(values.get("architectures")), values.get("model_type")
    for key, named in (("model_type", model_type), ("architectures", of_class)):
        if named and (not isinstance(named, str) or named not in FAMILIES):
            reason = DIFFERENCES.get(named) if isinstance(named, str) else None
            titles = ", ".join(family.title for family in FAMILIES.values())
            raise UserError(
                f"{source}: {key} says {named!r}, which is none of {titles}"
                + (f" ({reason})" if reason else "")
            )
    if model_type and of_class and FAMILIES[model_type].is_other_than(FAMILIES[of_class]):
        raise UserError(f"{source}: model_type says {model_type!r}, but architectures {of_class!r}")
    if named := model_type or of_class:
        return named
    if values.get("type_vocab_size") == 1 and values.get("max_position_embeddings") == 514:
        raise UserError(
            f"{source}: one segment and 514 positions are RoBERTa's sizes, but no model_type is named;"
            ' add "model_type": "roberta", or "bert" if it is one'
        )
    return "bert"


def refuse_other_models(values: Mapping[str, Any], family: Family, source: str) -> None:
    """Raises UserError if a key makes something else of the model than its family is."""
    for key in family.refused_keys:
        if values.get(key):
            raise UserError(f"{source}: {key} is set, which is not supported")
    position_type = values.get("position_embedding_type")
    if position_type not in (None, "absolute"):
        raise UserError(
            f"{source}: position_embedding_type {position_type!r} is not supported, only 'absolute' is"
        )
    for flag in ("is_decoder", "add_cross_attention", "is_encoder_decoder"):
        if values.get(flag):
            raise UserError(f"{source}: {flag} is set, but only encoders are supported")
    if values.get("pruned_heads"):
        raise UserError(f"{source}: pruned_heads is set, but only whole attention layers are supported")
    if values.get("quantization_config"):
        raise UserError(f"{source}: quantization_config is set, but quantised weights are not supported")
    auto_map = values.get("auto_map")
    if isinstance(auto_map, Mapping) and any(name.startswith("AutoModel") for name in auto_map):
        raise UserError(
            f"{source}: auto_map names model code of its own, which may compute something else than"
            f" {family.title}; if it does not, remove that key"
        )


def _type_of_classes(classes: Any) -> str | None:
    """Returns the model type that `architectures` names; None for an unknown one."""
    names = classes if isinstance(classes, list) else []
    return next(filter(None, (model_type_of_class(str(name)) for name in names)), None)
