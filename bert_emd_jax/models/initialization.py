"""Fresh parameters: shapes of a model, random weights, students cut out of a teacher."""

import dataclasses
import logging
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bert_emd_jax.models.embedding_config import EmbeddingConfig
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.families import Head
from bert_emd_jax.models.heads import MODULES
from bert_emd_jax.models.params import Params, flatten, unflatten

logger = logging.getLogger(__name__)


PROJECTION = "fit_dense"
"""Key beside a student's parameters of its projection to the teacher's width; no part of the model itself."""
VECTOR_PROJECTION = "vector_projection"
"""Key beside an embedder's parameters of the projection of its vectors to the width of the teacher's."""


HEAD_DENSE = "classifier_dense"
"""Key beside the encoder's parameters of what a classifier of texts has in place of a pooler."""

_FIRST_LAYER = "bert/layer_0/"


@dataclasses.dataclass(frozen=True)
class NewHead:
    """The head to be trained, see `EncoderConfig`: of a classifier its number of labels, their names and the
    meaning of its logits; of an embedder what follows its encoder; and the seed of its first weights."""

    num_labels: int
    seed: int
    id2label: tuple[str, ...] | None = None
    problem_type: str | None = None
    embedding: EmbeddingConfig | None = None

    def on(self, config: EncoderConfig) -> EncoderConfig:
        """Returns a model's config with this head."""
        return dataclasses.replace(
            config,
            num_labels=self.num_labels,
            id2label=self.id2label,
            problem_type=self.problem_type,
            embedding=self.embedding,
            thresholds=None,
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
    return dataclasses.replace(config, num_labels=rows, id2label=None, thresholds=None)


def student_from_layers(
    teacher_config: EncoderConfig, teacher_params: Params, layers: Sequence[int], head: Head, seed: int
) -> tuple[EncoderConfig, Params]:
    """Returns a student made of some of the teacher's layers, its embeddings and its pooler.

    What a classifier has in place of a pooler comes from the teacher, too. Its head is new; that of an
    embedder, the dense modules behind the pooling, is the teacher's.

    Args:
      layers: encoder layers of the teacher, counted from 0.
      seed: of the new head.
    """
    config = dataclasses.replace(
        teacher_config, num_hidden_layers=len(layers), classifier_activation="none", thresholds=None
    )
    if head == "embedding":
        of_head = {name: values for name, values in teacher_params.items() if name != "bert"}
    else:
        of_head = initial_params(config, head, seed)
        if HEAD_DENSE in of_head and HEAD_DENSE in teacher_params:
            of_head[HEAD_DENSE] = teacher_params[HEAD_DENSE]
    teacher = flatten(teacher_params["bert"])
    flat = {}
    for path in parameter_shapes(config, head):
        module, _, rest = path.removeprefix("bert/").partition("/")
        if not path.startswith("bert/") or (module == "pooler" and f"{module}/{rest}" not in teacher):
            continue
        source = module
        if module.startswith("layer_"):
            source = f"layer_{layers[int(module.removeprefix('layer_'))]}"
        flat[f"{module}/{rest}"] = np.asarray(teacher[f"{source}/{rest}"])
    return config, of_head | {"bert": unflatten(flat)}
