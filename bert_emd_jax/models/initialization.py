"""Fresh parameters: shapes of a model, random weights, students cut out of a teacher."""

import dataclasses
import logging
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bert_emd_jax.errors import UserError
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.families import Head
from bert_emd_jax.models.heads import MODULES
from bert_emd_jax.models.params import Params, flatten, unflatten

logger = logging.getLogger(__name__)


PROJECTION = "fit_dense"
"""Key beside a student's parameters of its projection to the teacher's width; no part of the model itself."""


_FIRST_LAYER = "bert/layer_0/"


@dataclasses.dataclass(frozen=True)
class NewHead:
    """The classifier to be trained: its number of labels, their names, the meaning of its logits (see
    `EncoderConfig`), and the seed of its first weights."""

    num_labels: int
    seed: int
    id2label: tuple[str, ...] | None = None
    problem_type: str | None = None

    def on(self, config: EncoderConfig) -> EncoderConfig:
        """Returns a model's config with this head."""
        return dataclasses.replace(
            config, num_labels=self.num_labels, id2label=self.id2label, problem_type=self.problem_type
        )


def parameter_shapes(config: EncoderConfig, head: Head) -> dict[str, tuple[int, ...]]:
    """Returns path → shape of every parameter of a model, sorted by path, without allocating one."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    # Of one layer: to trace twelve takes half a second, and all are alike.
    module = MODULES[head](dataclasses.replace(config, num_hidden_layers=1))
    abstract = jax.eval_shape(module.init, jax.random.key(0), tokens, tokens)
    shapes: dict[str, tuple[int, ...]] = {}
    for path, leaf in flatten(abstract["params"]).items():
        numbers = range(config.num_hidden_layers) if path.startswith(_FIRST_LAYER) else range(1)
        shapes |= {path.replace(_FIRST_LAYER, f"bert/layer_{number}/", 1): leaf.shape for number in numbers}
    return dict(sorted(shapes.items()))


def initial_params(config: EncoderConfig, head: Head, seed: int) -> Params:
    """Returns random parameters on the host: normal(`initializer_range`), zero biases, unit scales.

    NumPy draws them: the same on every backend, and without compiling anything.
    """
    rng = np.random.default_rng(seed)

    def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
        if path.endswith(("/kernel", "/embedding")):
            return (config.initializer_range * rng.standard_normal(shape)).astype(np.float32)
        return np.full(shape, 1 if path.endswith("/scale") else 0, np.float32)

    return unflatten({path: draw(path, shape) for path, shape in parameter_shapes(config, head).items()})


def initial_projection(student_size: int, teacher_size: int, seed: int) -> Params:
    """Returns the first projection of student states to the teacher's width, the identity if it is theirs."""
    if student_size == teacher_size:
        kernel = np.eye(student_size)
    else:
        kernel = 0.02 * np.random.default_rng(seed).standard_normal((student_size, teacher_size))
    return {"kernel": kernel.astype(np.float32), "bias": np.zeros(teacher_size, np.float32)}


def config_with_labels(
    config: EncoderConfig, rows: int | None, new_head: NewHead | None, source: str
) -> EncoderConfig:
    """Returns the config with the label count of the model that results from stored weights.

    Args:
      rows: rows of the stored classifier; None without one.
      new_head: the classifier to be trained, or None to keep the stored one.
    """
    if new_head is not None:
        if rows is not None and rows != new_head.num_labels:
            logger.info(
                "%s: its classifier of %d labels is replaced by a new one of %d",
                source,
                rows,
                new_head.num_labels,
            )
        return new_head.on(config)
    if rows is None or rows == config.num_labels:
        return config
    logger.warning("%s: the classifier has %d rows, the config %d labels", source, rows, config.num_labels)
    return dataclasses.replace(config, num_labels=rows, id2label=None)


def student_from_layers(
    teacher_config: EncoderConfig, teacher_params: Params, layers: Sequence[int], head: Head, seed: int
) -> tuple[EncoderConfig, Params]:
    """Returns a student made of some of the teacher's layers, its embeddings, its pooler and a new head.

    Args:
      layers: encoder layers of the teacher, counted from 0.
      seed: of the new head.

    Raises:
      UserError: a layer number that the teacher lacks, or none at all.
    """
    depth = teacher_config.num_hidden_layers
    if not layers or any(not 0 <= layer < depth for layer in layers):
        raise UserError(
            f"--student_init_layers {','.join(map(str, layers))}: the teacher has layers 0 to {depth - 1};"
            " choose among them"
        )
    config = dataclasses.replace(teacher_config, num_hidden_layers=len(layers), classifier_activation="none")
    fresh = initial_params(config, head, seed)
    teacher = flatten(teacher_params["bert"])
    flat = {}
    for path in flatten(fresh["bert"]):
        module, _, rest = path.partition("/")
        if module.startswith("layer_"):
            module = f"layer_{layers[int(module.removeprefix('layer_'))]}"
        flat[path] = np.asarray(teacher[f"{module}/{rest}"])
    return config, fresh | {"bert": unflatten(flat)}
