"""A classifier or an embedder as a `jax.export` artefact, which runs without this package or Flax."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax import export

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.checkpoints.names import head_of
from bert_emd_jax.checkpoints.safetensors_file import write_safetensors
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import write_json
from bert_emd_jax.layout import CONFIG
from bert_emd_jax.models.families import Head
from bert_emd_jax.models.heads import MODULES, forward
from bert_emd_jax.models.params import flatten, unflatten

ARTEFACT = "classifier.stablehlo"  # of embedders, too
PARAMETERS = "classifier.safetensors"
PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(directory: Path, model: LoadedModel) -> None:
    """Writes the exported model, its parameters, `config.json` and the tokenizer.

    The artefact is a function `(params, input_ids, attention_mask, token_type_ids) -> logits` (of an embedder
    vectors) of a flat dict (the content of `classifier.safetensors`) and int32 arrays `[batch, length]` of
    any batch size and of any length up to `EncoderConfig.longest_input`. The parameters stand beside the
    program: as constants inside it they cost several times their size in memory at each step of the way.

    Raises:
      UserError: the model has no head, or `flatbuffers` is missing.
    """
    of_params = head_of(flatten(model.params), model.config)
    head: Head = "embedding" if model.config.embedding is not None else of_params
    if head in ("none", "masked_lm"):
        raise UserError(
            "--to_stablehlo exports a classifier, a finder of answers or an embedder, and this model is none;"
            " give a fine-tuned one"
        )
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError("--to_stablehlo needs the package flatbuffers: pip install flatbuffers")
    module = MODULES[head](model.config)

    def classify(
        params: dict[str, jax.Array],
        input_ids: jax.Array,
        attention_mask: jax.Array,
        token_type_ids: jax.Array,
    ) -> jax.Array:
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        return forward(module, unflatten(params), batch, logits_only=True).logits

    flat = {path: np.ascontiguousarray(leaf) for path, leaf in flatten(model.params).items()}
    longest = model.config.longest_input
    tokens = jax.ShapeDtypeStruct(
        export.symbolic_shape("batch, length", constraints=[f"length <= {longest}"]), jnp.int32
    )
    parameters = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in flat.items()}
    exported = export.export(jax.jit(classify), platforms=PLATFORMS)(parameters, tokens, tokens, tokens)

    directory.mkdir(parents=True, exist_ok=True)
    (directory / ARTEFACT).write_bytes(exported.serialize())
    write_safetensors(directory / PARAMETERS, flat)
    write_json(directory / CONFIG, model.config.to_dict())
    model.tokenizer.save(directory)


def stablehlo_logits(directory: Path, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns what an exported model gives `input_ids`, `attention_mask` and `token_type_ids`."""
    exported = export.deserialize(bytearray((directory / ARTEFACT).read_bytes()))
    params = safetensors.numpy.load_file(directory / PARAMETERS)
    inputs = (batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
    return np.asarray(jax.jit(exported.call)(params, *inputs))
