"""A model without the words that it will never read."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.params import flatten, unflatten
from bert_emd_jax.tokenization.trimming import trim_tokenizer

_BY_TOKEN = ("bert/embeddings/word_embeddings/embedding", "lm_bias")
"""Parameters whose first axis is the vocabulary."""


class TrimmedModel(NamedTuple):
    """A model with a smaller vocabulary. used: its tokens that the texts have; before: all there were."""

    model: LoadedModel
    used: int
    before: int


def trim_vocabulary(model: LoadedModel, texts: Iterable[str]) -> TrimmedModel:
    """Returns a model without the embeddings of tokens that texts never use; its outputs for them are equal.

    Raises:
      UserError: the model counts positions from the padding token's id, and that would change.
    """
    trimmed = trim_tokenizer(model.tokenizer, texts)
    pad_id = trimmed.tokenizer.pad_id
    config = model.config
    if config.family.positions_after_padding and pad_id != config.pad_token_id:
        raise UserError(
            f"the vocabulary cannot be trimmed: {config.model_type} counts positions from the id of padding,"
            f" {config.pad_token_id}, which would be {pad_id}"
        )
    flat = flatten(model.params)
    flat |= {path: np.asarray(flat[path])[trimmed.kept_ids] for path in _BY_TOKEN if path in flat}
    config = dataclasses.replace(config, vocab_size=len(trimmed.kept_ids), pad_token_id=pad_id)
    smaller = dataclasses.replace(model, config=config, params=unflatten(flat), tokenizer=trimmed.tokenizer)
    return TrimmedModel(smaller, trimmed.used, model.tokenizer.vocab_size)
