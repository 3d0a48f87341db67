"""The one format of a model on disk: `config.json`, the tokenizer's files, `params/`, and `pytorch/`.

Reading also takes a directory of Hugging Face or sentence-transformers, a single weights file or a hub id,
converted in memory.
"""

import dataclasses
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from bert_emd_jax.checkpoints.checkpoint_files import config_directory, find_weights, read_weights
from bert_emd_jax.checkpoints.foreign_directories import what_is_there_instead
from bert_emd_jax.checkpoints.hub import resolve_model
from bert_emd_jax.checkpoints.huggingface import stored_model, write_huggingface_weights
from bert_emd_jax.checkpoints.loading import LoadPlan, StoredModel, load_params, plan_loading
from bert_emd_jax.checkpoints.names import param_mappings
from bert_emd_jax.checkpoints.params_store import restore_params, save_params
from bert_emd_jax.checkpoints.sentence_transformers import read_modules, transformer_directory
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import write_json
from bert_emd_jax.layout import CONFIG, PARAMS, PYTORCH
from bert_emd_jax.models.encoder_config import EncoderConfig, load_config, read_config_values
from bert_emd_jax.models.families import Head
from bert_emd_jax.models.initialization import PROJECTION, NewHead
from bert_emd_jax.models.params import Params, flatten
from bert_emd_jax.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A BERT with its head.

    Attributes:
      params: NumPy arrays.
      tokenizer: has the vocabulary of the embeddings.
      projection: the trained map to a teacher's width, if the model was distilled.
    """

    config: EncoderConfig
    params: Params
    tokenizer: Tokenizer
    projection: Params | None = None


def load_model(
    path: Path,
    *,
    head: Head | None = "classifier",
    new_head: NewHead | None = None,
    do_lower_case: bool | None = None,
) -> LoadedModel:
    """Loads a model to use it with a head.

    Args:
      path: a model directory, a directory of Hugging Face or sentence-transformers, a weights file beside its
        config and vocabulary, or a hub id.
      head: None: the one that the config names, else a classifier of texts.
      new_head: for a head that is going to be trained: replaces a missing one, or a classifier with
        another number of labels. Nothing stands between the pooler and a classifier that we train.
      do_lower_case: overrules the tokenizer's own setting.

    Raises:
      UserError: nothing loadable there, an unsupported architecture, or tensors that do not fit it.
    """
    path = resolve_model(path)
    stored = read_stored(path)
    if head is None:
        head = stored.config.head or "classifier"
    plan = plan_loading(stored, head, new_head=new_head)
    return _load(path, stored, plan, "none" if new_head else None, do_lower_case)


def load_for_texts(path: Path) -> LoadedModel:
    """Loads a model to use it as it is: with its classifier if it has one, else as a sentence embedder."""
    path = resolve_model(path)
    stored = read_stored(path)
    has_classifier = "classifier/kernel" in stored.arrays
    head = stored.config.head or ("classifier" if has_classifier else "embedding")
    plan = plan_loading(stored, head)
    return _load(path, stored, plan, None)


def load_whole_model(
    path: Path, *, head: Head | None = None, classifier_activation: Literal["none", "relu"] | None = None
) -> LoadedModel:
    """Loads everything that a path holds, to convert it: the encoder, the pooler if there is one, a head.

    Args:
      path: as for `load_model`.
      head: None takes the head that is there: a classifier before a masked-LM head.
      classifier_activation: overrules what the file says or suggests.
    """
    path = resolve_model(path)
    stored = read_stored(path)
    return _load(path, stored, plan_loading(stored, head, as_stored=True), classifier_activation)


def read_stored(path: Path) -> StoredModel:
    """Returns what a local path holds, before a head is chosen.

    Raises:
      UserError: there is no model there, or one of an unsupported architecture.
    """
    if (path / PARAMS).is_dir():
        return _read_params(path)
    modules = read_modules(path)
    encoder = path if modules is None else modules.transformer
    weights = find_weights(encoder)
    if weights is None:
        raise UserError(f"{encoder}: {what_is_there_instead(encoder)}")
    values, source = read_config_values(config_directory(encoder))
    config = EncoderConfig.from_dict(values, source)  # a refusal here needs no reading of the weights
    checkpoint = read_weights(weights)
    if modules is not None:
        config = dataclasses.replace(config, embedding=modules.embedding)
        checkpoint = dataclasses.replace(checkpoint, tensors={**checkpoint.tensors, **modules.tensors})
    return stored_model(checkpoint, config, values)


def _read_params(directory: Path) -> StoredModel:
    params = restore_params(directory / PARAMS)
    projection = params.pop(PROJECTION, None)
    arrays = {path: np.asarray(leaf) for path, leaf in flatten(params).items()}
    config = load_config(directory)
    known = {mapping.flax_path for mapping in param_mappings(config)}
    # More layers than the config has, for instance.
    left_over = {path: arrays.pop(path) for path in list(arrays) if path not in known}
    return StoredModel(str(directory / PARAMS), config, arrays, left_over=left_over, projection=projection)


def _load(
    path: Path,
    stored: StoredModel,
    plan: LoadPlan,
    classifier_activation: Literal["none", "relu"] | None,
    do_lower_case: bool | None = None,
) -> LoadedModel:
    config = plan.config
    if classifier_activation is not None:
        config = dataclasses.replace(config, classifier_activation=classifier_activation)
    elif plan.head == "classifier" and stored.relu_implied:
        logger.warning(
            "%s: has fit_dense beside its classifier, as TinyBERT's task models: a relu stands before the"
            " classifier, as in their code (a conversion with --classifier_activation none leaves it out)",
            stored.source,
        )
    params = load_params(stored, plan)
    directory = config_directory(transformer_directory(path))
    tokenizer = Tokenizer.from_directory(directory, do_lower_case)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{directory}: the vocabulary has {tokenizer.vocab_size} entries,"
            f" the model only {config.vocab_size} embeddings; take the tokenizer that belongs to the weights"
        )
    if config.embedding is not None and config.embedding.max_seq_length is None:
        embedding = dataclasses.replace(config.embedding, max_seq_length=tokenizer.longest_input)
        config = dataclasses.replace(config, embedding=embedding)
    return LoadedModel(config, params, tokenizer, stored.projection)


def save_model(directory: Path, model: LoadedModel, *, with_pytorch: bool = True) -> None:
    """Writes a model directory, with its `pytorch/` or without, replacing these files and nothing else.

    Each part is written aside and renamed, so that a reader never sees half of one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for left_over in directory.glob(".writing-*"):  # of a process that was killed here
        shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=directory) as temporary_name:
        temporary = Path(temporary_name)
        stored = dict(model.params)
        if model.projection is not None:
            stored[PROJECTION] = model.projection
        save_params(temporary / PARAMS, stored)
        if with_pytorch:
            save_huggingface(temporary / PYTORCH, model)
        model.tokenizer.save(temporary, with_segments=model.config.family.has_segments)
        write_json(temporary / CONFIG, model.config.to_dict())
        for part in sorted(temporary.iterdir()):
            target = directory / part.name
            if target.is_dir():
                shutil.rmtree(target)
            part.replace(target)


def save_huggingface(directory: Path, model: LoadedModel, *, half: bool = False) -> None:
    """Writes a Hugging Face directory: config.json, model.safetensors, tokenizer.

    Args:
      half: writes float16 in place of float32.

    Raises:
      UserError: a weight is too large for float16.
    """
    write_huggingface_weights(directory, model.params, model.config, half=half)
    model.tokenizer.save(
        directory,
        with_segments=model.config.family.has_segments,
        starts_in_sentence=model.config.head == "token",  # words were learned from one by one
        for_pytorch=True,
    )
