"""From what a file holds to the parameters of the model asked for: what is used, new, missing or ignored."""

import dataclasses
import logging
from collections.abc import Mapping

import numpy as np

from bert_emd_jax.checkpoints.names import ParamMapping, head_of, name_map, param_mappings
from bert_emd_jax.errors import UserError
from bert_emd_jax.models.embedding_config import EmbeddingConfig
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.families import Head
from bert_emd_jax.models.initialization import NewHead, config_with_labels, initial_params, parameter_shapes
from bert_emd_jax.models.other_architectures import architecture_of_tensors
from bert_emd_jax.models.params import Params, flatten, unflatten

logger = logging.getLogger(__name__)

_CLASSIFIERS: tuple[Head, ...] = ("classifier", "token")
_POOLER = ("bert/pooler/kernel", "bert/pooler/bias")


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """What a model directory or a weights file holds, before a head is chosen; nothing is copied yet.

    Attributes:
      source: the file or directory, for messages.
      arrays: Flax path → array with Flax's axes, in the file's dtype.
      mappings: Flax path → its tensor in a weights file, under its name there; empty for a model directory.
      ignored: harmless tensors without a Flax path.
      left_over: tensors that no model of this config has.
      untied_decoder: the tensor of a masked-LM decoder that differs from the one it should share.
      relu_implied: the relu before the classifier is not a key of the config, but concluded from the tensors.
      projection: the trained map to a teacher's width.
    """

    source: str
    config: EncoderConfig
    arrays: Mapping[str, np.ndarray]
    mappings: Mapping[str, ParamMapping] = dataclasses.field(default_factory=dict)
    ignored: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    left_over: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    untied_decoder: str | None = None
    relu_implied: bool = False
    projection: Params | None = None

    def name(self, path: str) -> str:
        """Returns what the parameter of a Flax path is called in the file."""
        mapping = self.mappings.get(path)
        return mapping.torch_name if mapping else path

    def file_shape(self, path: str, shape: tuple[int, ...]) -> list[int]:
        """Returns a parameter's shape with the axes of the file."""
        mapping = self.mappings.get(path)
        return list(shape[::-1] if mapping and mapping.transposed else shape)


@dataclasses.dataclass(frozen=True)
class LoadPlan:
    """What becomes of a stored model.

    Attributes:
      used: Flax paths that are taken from it.
      new: Flax paths that are drawn at random, from `seed`.
      ignored: tensors that are left out, by their names in the file.
      problems: phrases that say why this is not the model asked for.
    """

    config: EncoderConfig
    head: Head
    used: tuple[str, ...]
    new: tuple[str, ...]
    ignored: tuple[str, ...]
    problems: tuple[str, ...]
    seed: int


def plan_loading(
    stored: StoredModel, head: Head | None, *, as_stored: bool = False, new_head: NewHead | None = None
) -> LoadPlan:
    """Returns how a stored model becomes one with a head.

    Args:
      head: None takes the head that is stored.
      as_stored: a pooler is taken if there is one and never new, as a conversion wants it. Otherwise the
        model is exactly what the head needs: a missing pooler is new, an unused one ignored.
      new_head: for a head that is about to be trained: replaces a missing one, and a classifier with
        another number of labels. None refuses a missing head.
    """
    arrays, config = stored.arrays, stored.config
    stored_head = "embedding" if config.embedding is not None else head_of(arrays, config)
    head = head or stored_head
    if stored_head in _CLASSIFIERS and head in _CLASSIFIERS and head != stored_head:
        # Of texts in place of tokens, or the other way round: it has the same names, and means nothing here.
        foreign = {path: array for path, array in arrays.items() if path.startswith("classifier/")}
        arrays = {path: array for path, array in arrays.items() if path not in foreign}
        ignored_too = {stored.name(path): foreign[path] for path in sorted(foreign)}
        stored = dataclasses.replace(stored, arrays=arrays, ignored={**stored.ignored, **ignored_too})
    replaced: set[str] = set()
    config = _config_with_head(config, head, new_head, stored.source)
    if head in _CLASSIFIERS:
        kernel = arrays.get("classifier/kernel")
        rows = None if kernel is None else kernel.shape[-1]
        config = config_with_labels(config, rows, new_head, stored.source)
        if rows is not None and rows != config.num_labels:
            replaced = {"classifier/kernel", "classifier/bias"}

    shapes = _shapes(config, head, arrays, as_stored)
    used = [path for path in shapes if path in arrays and path not in replaced]
    absent = [path for path in shapes if path not in used]
    may_be_new = set() if _has_pooler(arrays) else set(_POOLER)
    if new_head is not None:
        may_be_new |= {path for path in shapes if not path.startswith("bert/")}
    new = [path for path in absent if path in may_be_new]
    missing = [path for path in absent if path not in may_be_new]
    ignored = [*stored.ignored, *(stored.name(path) for path in arrays if path not in shapes)]
    problems = _problems(stored, head, {path: shapes[path] for path in used}, missing, ignored)
    seed = new_head.seed if new_head else 0
    return LoadPlan(config, head, tuple(used), tuple(new), tuple(ignored), tuple(problems), seed)


def _config_with_head(
    config: EncoderConfig, head: Head, new_head: NewHead | None, source: str
) -> EncoderConfig:
    """Returns the config of a model with this head; that of an embedder has `embedding`."""
    config = config.with_head(head)
    if head != "embedding" or config.embedding is not None:
        return config
    embedding = new_head.embedding if new_head else None
    if embedding is None:
        logger.info("%s: says nothing of its pooling: the mean over all tokens", source)
        embedding = EmbeddingConfig()
    return dataclasses.replace(config, embedding=embedding)


def _has_pooler(arrays: Mapping[str, np.ndarray]) -> bool:
    return any(path in arrays for path in _POOLER)


def _shapes(
    config: EncoderConfig, head: Head, arrays: Mapping[str, np.ndarray], as_stored: bool
) -> dict[str, tuple[int, ...]]:
    """Returns path → shape of the parameters of the model asked for, in the order of the table."""
    shapes = parameter_shapes(config, head)
    if as_stored or head == "embedding":  # an embedder has one only because its files have
        with_pooler = parameter_shapes(config, "none") if _has_pooler(arrays) else {}
        pooler = {path: shape for path, shape in with_pooler.items() if path in _POOLER}
        shapes = {path: shape for path, shape in shapes.items() if path not in _POOLER} | pooler
    paths = (mapping.flax_path for mapping in param_mappings(config, head))
    return {path: shapes[path] for path in paths if path in shapes}


def _problems(
    stored: StoredModel,
    head: Head,
    used: Mapping[str, tuple[int, ...]],
    missing: list[str],
    ignored: list[str],
) -> list[str]:
    """Returns phrases for everything that keeps a stored model from being the one asked for.

    Args:
      used: path → expected shape.
    """
    arrays = stored.arrays
    # A masked-LM head with more than the table's tensors is another head, not one of another task.
    of_other_lm_head = [
        name
        for name in (stored.ignored if head == "masked_lm" else ())
        if name_map(stored.config).lm_prefix in name and name_map(stored.config).lm_decoder not in name
    ]
    lists = {
        "missing": [stored.name(path) for path in missing],
        "left over": [*stored.left_over, *of_other_lm_head],
        "of another shape": [
            f"{stored.name(path)} {stored.file_shape(path, arrays[path].shape)},"
            f" expected {stored.file_shape(path, shape)}"
            for path, shape in used.items()
            if arrays[path].shape != shape
        ],
        "not of floating point": [
            f"{stored.name(path)} ({arrays[path].dtype})" for path in used if arrays[path].dtype.kind in "iub"
        ],
    }
    phrases = [f"{what}: {', '.join(names)}" for what, names in lists.items() if names]
    if phrases and stored.mappings:
        names = [*map(stored.name, arrays), *stored.ignored, *stored.left_over]
        if (foreign := architecture_of_tensors(names, stored.config.model_type)) is not None:
            return [f"these are the tensors of {foreign}"]
        if ignored:
            phrases.append(f"ignored: {', '.join(ignored)}")
    if head == "masked_lm" and stored.untied_decoder:
        phrases.append(
            f"{stored.untied_decoder} is not tied to the embeddings, and only tied decoders are supported"
        )
    return phrases


def load_params(stored: StoredModel, plan: LoadPlan) -> Params:
    """Returns the float32 parameters of a plan.

    An array that is float32 and contiguous already is taken as it is, without a copy.

    Raises:
      UserError: the stored model does not fit; the message has all problems.
    """
    if plan.problems:
        raise UserError(
            f"{stored.source}: does not fit its config as a {plan.config.family.title};"
            f" {'; '.join(plan.problems)}"
        )
    if plan.ignored:
        logger.info("%s: ignored: %s", stored.source, ", ".join(sorted(plan.ignored)))
    flat = {path: np.ascontiguousarray(stored.arrays[path], dtype=np.float32) for path in plan.used}
    if plan.new:
        logger.info("%s: new, randomly initialised: %s", stored.source, ", ".join(map(stored.name, plan.new)))
        fresh = flatten(initial_params(plan.config, plan.head, plan.seed))
        flat |= {path: fresh[path] for path in plan.new}
    return unflatten(flat)
