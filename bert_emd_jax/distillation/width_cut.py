"""A narrower student out of a model: its dimensions, heads and neurons that matter most on some rows."""

import dataclasses
import logging
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.distillation.distill_config import TeacherAndStudentConfig
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.activations import activation
from bert_emd_jax.models.attention_projections import attention_projection
from bert_emd_jax.models.embedding_config import DenseModule
from bert_emd_jax.models.encoder import Encoder, layer_norm
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.families import Head
from bert_emd_jax.models.initialization import HEAD_DENSE, initial_params
from bert_emd_jax.models.params import Params

logger = logging.getLogger(__name__)

_ROWS, _ROWS_AT_ONCE = 256, 16


class Importance(NamedTuple):
    """How much parts of an encoder matter: mean sizes of what they contribute to the states of real tokens.

    dimensions: of all states, their mean square. heads: the length of what a head adds to the states.
      neurons: that of what a neuron of the feed-forward part adds.
    """

    dimensions: Float[Array, " dim"]
    heads: Float[Array, "layers heads"]
    neurons: Float[Array, "layers intermediate"]


class Kept(NamedTuple):
    """What is kept of an encoder, in its order: dimensions [W], heads [layers, …], neurons [layers, …]."""

    dimensions: Int[np.ndarray, " kept"]
    heads: Int[np.ndarray, "layers kept"]
    neurons: Int[np.ndarray, "layers kept"]


def with_width(
    student: LoadedModel, pair: TeacherAndStudentConfig, head: Head, seed: int, dataset: Any
) -> LoadedModel:
    """Returns the student of `--student_width`, cut out of the one that has its teacher's layers.

    Heads keep their width, so that there are fewer of them; the feed-forward part shrinks as the states do.
    What is kept is measured on up to 256 rows. The projection to the teacher's width begins as the way back.

    Args:
      head: of the student, which is new but for that of an embedder.
      seed: of the new head.
      dataset: training rows, with `lengths` [rows] and `collate`.

    Raises:
      UserError: such a width is not possible.
    """
    width, config = pair.student_width, student.config
    if width is None:
        return student
    if not 0 < width < config.hidden_size or width % config.head_dim:
        raise UserError(
            f"--student_width {width}: must be a multiple of the heads' width {config.head_dim}, below"
            f" {config.hidden_size}"
        )
    if width == config.embedding_size:
        raise UserError(f"--student_width {width}: is that of the embeddings, which would need no projection")
    modules = config.embedding.modules if config.embedding else ()
    if any(isinstance(module, DenseModule) for module in modules):
        raise UserError("--student_width: the teacher has dense modules behind its pooling, of its own width")
    narrow = dataclasses.replace(
        config,
        hidden_size=width,
        num_attention_heads=width // config.head_dim,
        intermediate_size=max(round(config.intermediate_size * width / config.hidden_size), 1),
    )
    found = importance(config, student.params["bert"], dataset)
    kept = Kept(
        _largest(found.dimensions, width),
        np.stack([_largest(layer, narrow.num_attention_heads) for layer in found.heads]),
        np.stack([_largest(layer, narrow.intermediate_size) for layer in found.neurons]),
    )
    share = float(found.dimensions[kept.dimensions].sum() / found.dimensions.sum())
    logger.info(
        "the student keeps %d of %d dimensions (%.0f %% of the states' squares), %d of %d heads and %d of %d"
        " neurons of every layer",
        *(width, config.hidden_size, 100 * share, narrow.num_attention_heads, config.num_attention_heads),
        *(narrow.intermediate_size, config.intermediate_size),
    )
    params = initial_params(narrow, head, seed) | {"bert": cut(config, student.params["bert"], kept)}
    if HEAD_DENSE in params and HEAD_DENSE in student.params:
        params[HEAD_DENSE] = _dense(student.params[HEAD_DENSE], kept.dimensions, kept.dimensions)
    kernel = np.zeros((width, config.hidden_size), np.float32)
    kernel[np.arange(width), kept.dimensions] = 1
    projection = {"kernel": kernel, "bias": np.zeros(config.hidden_size, np.float32)}
    return dataclasses.replace(student, config=narrow, params=params, projection=projection)


def importance(config: EncoderConfig, bert: Params, dataset: Any) -> Importance:
    """Measures the parts of an encoder, whose parameters `bert` are, on rows from all over the dataset."""
    rows = np.unique(np.linspace(0, len(dataset.lengths) - 1, _ROWS).astype(np.int64))
    length = int(dataset.lengths[rows].max())
    measure = jax.jit(lambda bert, batch: _contributions(config, bert, batch))
    total: Any = None
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        batch = dataset.collate(rows[start : start + _ROWS_AT_ONCE], length, _ROWS_AT_ONCE)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        sums = jax.device_get(measure(bert, inputs))
        total = sums if total is None else jax.tree.map(np.add, total, sums)
    return total


def _contributions(config: EncoderConfig, bert: Params, batch: Any) -> Importance:
    """Sums over the real tokens of a batch."""
    inputs = batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]
    output: Any = Encoder(config, with_pooler=False, scan=False).apply({"params": bert}, *inputs)
    tokens = batch["attention_mask"].astype(jnp.float32)
    states = jnp.concatenate([output.embeddings[None], output.layer_outputs])
    dimensions = jnp.einsum("nbld,bl->d", jnp.square(states), tokens)
    values = attention_projection(bert, "value", states[:-1])
    bias = jnp.where(tokens[:, None, None] > 0, 0, jnp.finfo(jnp.float32).min)
    heads, neurons = [], []
    for number in range(config.num_hidden_layers):
        layer = bert[f"layer_{number}"]
        weights = jax.nn.softmax(output.attention_scores[number] + bias, axis=-1)
        value = values[number].reshape(*tokens.shape, config.num_attention_heads, config.head_dim)
        context = jnp.einsum("bhqv,bvhk->bqhk", weights, value)
        outwards = layer["attention"]["output"]["kernel"].reshape(*context.shape[2:], -1)
        added = jnp.einsum("bqhk,hkd->bqhd", context, outwards)
        heads.append(jnp.einsum("bqh,bq->h", jnp.linalg.norm(added, axis=-1), tokens))
        attended = states[number] + added.sum(axis=2) + layer["attention"]["output"]["bias"]
        norm = layer_norm(config, jnp.float32, "attention_layer_norm")
        attended = norm.apply({"params": layer["attention_layer_norm"]}, attended)
        inner = attended @ layer["intermediate"]["kernel"] + layer["intermediate"]["bias"]
        sizes = jnp.abs(activation(config.hidden_act)(inner))
        lengths = jnp.linalg.norm(layer["output"]["kernel"], axis=1)
        neurons.append(jnp.einsum("bqi,bq->i", sizes, tokens) * lengths)
    return Importance(dimensions, jnp.stack(heads), jnp.stack(neurons))


def cut(config: EncoderConfig, bert: Params, kept: Kept) -> Params:
    """Returns an encoder's parameters with what is kept alone.

    Args:
      config: of the whole encoder.
    """
    dims = kept.dimensions

    def of_states(values: Any) -> Any:
        """The last axis is one of states."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[..., dims], values)

    embeddings = bert["embeddings"]
    if "projection" in embeddings:  # the tables have a width of their own
        narrow = {"embeddings": embeddings | {"projection": of_states(embeddings["projection"])}}
    else:
        narrow = {"embeddings": of_states(embeddings)}
    for number, (heads, neurons) in enumerate(zip(kept.heads, kept.neurons, strict=True)):
        layer, attention = bert[f"layer_{number}"], bert[f"layer_{number}"]["attention"]
        columns = (heads[:, None] * config.head_dim + np.arange(config.head_dim)).ravel()
        inward = {name: _dense(attention[name], dims, columns) for name in ("query", "key", "value")}
        narrow[f"layer_{number}"] = {
            "attention": {**inward, "output": _dense(attention["output"], columns, dims)},
            "attention_layer_norm": of_states(layer["attention_layer_norm"]),
            "intermediate": _dense(layer["intermediate"], dims, neurons),
            "output": _dense(layer["output"], neurons, dims),
            "output_layer_norm": of_states(layer["output_layer_norm"]),
        }
    if "pooler" in bert:
        narrow["pooler"] = _dense(bert["pooler"], dims, dims)
    return narrow


def _dense(layer: Params, rows: np.ndarray, columns: np.ndarray) -> Params:
    kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
    return {"kernel": kernel[np.ix_(rows, columns)], "bias": bias[columns]}


def _largest(values: Any, count: int) -> Int[np.ndarray, " count"]:
    """The places of the largest values, in their order."""
    return np.sort(np.argsort(-np.asarray(values), kind="stable")[:count])
