"""The one form of a model on disk: `config.json`, the tokenizer's files, `params/`, and `pytorch/`.

Reading also takes a Hugging Face directory, converted in memory.
"""

import dataclasses
import json
import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np

from bert_emd_jax.bert.config import BertConfig, load_bert_config
from bert_emd_jax.data.tokenization import Tokenizer
from bert_emd_jax.errors import UserError
from bert_emd_jax.weights.huggingface import (
    WEIGHTS_FILE,
    convert_to_flax,
    read_safetensors,
    write_huggingface_weights,
)
from bert_emd_jax.weights.initialization import (
    PROJECTION,
    NewHead,
    config_with_labels,
    initial_params,
    parameter_shapes,
)
from bert_emd_jax.weights.names import Head
from bert_emd_jax.weights.params import Params, flatten, unflatten
from bert_emd_jax.weights.params_store import load_params, save_params

logger = logging.getLogger(__name__)

PARAMS = "params"
PYTORCH = "pytorch"


@dataclasses.dataclass(frozen=True)
class Model:
    """A BERT with its head: parameters as NumPy arrays, and the tokenizer its vocabulary belongs to.

    `projection` is the trained map to a teacher's width, where the model was distilled.
    """

    config: BertConfig
    params: Params
    tokenizer: Tokenizer
    projection: Params | None = None


def load_model(
    directory: Path,
    *,
    head: Head = "classifier",
    new_head: NewHead | None = None,
    do_lower_case: bool | None = None,
) -> Model:
    """Loads a model directory or a Hugging Face directory.

    Args:
      new_head: for a classifier that will be trained: replaces a missing one, or one with another
        number of labels.
      do_lower_case: overrules the tokenizer's own setting.

    Raises:
      UserError: nothing loadable there, an unsupported architecture, or tensors that do not fit it.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory (a model directory or a Hugging Face directory)")
    config = load_bert_config(directory)
    tokenizer = Tokenizer.from_directory(directory, do_lower_case)
    projection = None
    if (directory / PARAMS).is_dir():
        stored = load_params(directory / PARAMS)
        projection = stored.pop(PROJECTION, None)
        config, params = _checked(stored, config, head, new_head, str(directory / PARAMS))
    elif (directory / WEIGHTS_FILE).is_file():
        path = directory / WEIGHTS_FILE
        config, params = convert_to_flax(
            read_safetensors(path), config, head, source=str(path), new_head=new_head
        )
    else:
        raise UserError(f"{directory}: holds neither {PARAMS}/ nor {WEIGHTS_FILE}")
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{directory}: the vocabulary has {tokenizer.vocab_size} entries,"
            f" the model only {config.vocab_size} embeddings"
        )
    return Model(config, params, tokenizer, projection)


def save_model(directory: Path, model: Model) -> None:
    """Writes a model directory with its `pytorch/`, replacing these files and nothing else.

    Each part is written aside and renamed, so a reader never sees half of one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for left_over in directory.glob(".writing-*"):  # of a process that was killed here
        shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=directory) as aside_name:
        aside = Path(aside_name)
        stored = dict(model.params)
        if model.projection is not None:
            stored[PROJECTION] = model.projection
        save_params(aside / PARAMS, stored)
        save_huggingface(aside / PYTORCH, model)
        model.tokenizer.save(aside)
        config_text = json.dumps(model.config.to_dict(), indent=2) + "\n"
        (aside / "config.json").write_text(config_text)
        for part in sorted(aside.iterdir()):
            target = directory / part.name
            if target.is_dir():
                shutil.rmtree(target)
            part.replace(target)


def save_huggingface(directory: Path, model: Model) -> None:
    """Writes a Hugging Face directory of a classifier: config.json, model.safetensors, tokenizer."""
    write_huggingface_weights(directory, model.params, model.config)
    model.tokenizer.save(directory)


def _checked(
    stored: Params, config: BertConfig, head: Head, new_head: NewHead | None, source: str
) -> tuple[BertConfig, Params]:
    """Parameters from `params/` made to fit a config and head, as for a file from outside."""
    flat = {path: np.asarray(leaf) for path, leaf in flatten(stored).items()}
    if head == "classifier":
        kernel = flat.get("classifier/kernel")
        rows = None if kernel is None else kernel.shape[-1]
        config = config_with_labels(config, rows, new_head, source)
        if rows != config.num_labels:
            flat = {path: leaf for path, leaf in flat.items() if not path.startswith("classifier/")}
    shapes = parameter_shapes(config, head)
    missing = sorted(set(shapes) - set(flat))
    if new_head is not None:
        fresh = flatten(initial_params(config, head, new_head.seed))
        flat |= {path: fresh[path] for path in missing if path.startswith("classifier/")}
        missing = sorted(set(shapes) - set(flat))
    misshapen = [
        f"{path} {list(flat[path].shape)}, expected {list(shape)}"
        for path, shape in shapes.items()
        if path in flat and flat[path].shape != shape
    ]
    if missing or misshapen:
        problems = [f"missing: {', '.join(missing)}"] * bool(missing)
        problems += [f"of another shape: {', '.join(misshapen)}"] * bool(misshapen)
        raise UserError(f"{source}: the parameters do not fit config.json; {'; '.join(problems)}")
    return config, unflatten({path: flat[path] for path in shapes})
