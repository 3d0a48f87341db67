"""Google's TensorFlow checkpoints (`bert_model.ckpt.*`), by TensorFlow itself, under PyTorch's names."""

import os
import re
from pathlib import Path

import numpy as np

from bert_emd_jax.errors import UserError, one_line

_OPTIMIZER = re.compile(
    r"(^|/)(adam_m|adam_v|AdamWeightDecayOptimizer(_\d+)?|LAMBOptimizer(_\d+)?|global_step|good_steps|loss_scale)$"
)
_LEAVES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "output_weights": "weight"}
_TOP_LEVEL = {"output_weights": "classifier.weight", "output_bias": "classifier.bias"}


def read_tensorflow_checkpoint(index: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of `PREFIX.index` and its `PREFIX.data-*`, named and laid out as PyTorch has them.

    The optimizer's state is left out.

    Raises:
      UserError: TensorFlow is not installed, the checkpoint is damaged, or it is TensorFlow 2's object form.
    """
    prefix = index.with_suffix("")
    if not list(prefix.parent.glob(f"{_escaped(prefix.name)}.data-*-of-*")):
        raise UserError(
            f"{prefix}: the data file of {index.name} is not beside it ({prefix.name}.data-…); copy it there"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf  # pyright: ignore[reportMissingImports, reportMissingModuleSource]
    except ImportError:
        raise UserError(
            f"{prefix}: reading a TensorFlow checkpoint needs TensorFlow: pip install 'bert_emd_jax[tf]'"
        ) from None
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        names = sorted(reader.get_variable_to_shape_map())
        if any(".ATTRIBUTES/" in name for name in names):
            raise UserError(
                f"{prefix}: a checkpoint of TensorFlow 2 objects; only Google's form (TF 1) can be read"
            )
        return {
            torch_name(name): _as_torch(name, reader.get_tensor(name))
            for name in names
            if not _OPTIMIZER.search(name)
        }
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{prefix}: not a readable TensorFlow checkpoint ({one_line(error)}); fetch it again"
        ) from None


def torch_name(variable: str) -> str:
    """Returns `bert/encoder/layer_0/output/dense/kernel` as `bert.encoder.layer.0.output.dense.weight`."""
    if variable in _TOP_LEVEL:
        return _TOP_LEVEL[variable]
    *scopes, leaf = variable.split("/")
    if leaf.endswith("_embeddings"):
        scopes, leaf = [*scopes, leaf], "weight"
    elif leaf == "output_bias":
        leaf = "bias"
    scopes = [re.sub(r"^layer_(\d+)$", r"layer.\1", scope) for scope in scopes]
    return ".".join([*scopes, _LEAVES.get(leaf, leaf)])


def _as_torch(variable: str, value: np.ndarray) -> np.ndarray:
    """Returns a variable with PyTorch's axes: kernels are [inputs, outputs] in TensorFlow only."""
    return value.T if variable.endswith("/kernel") else value


def _escaped(name: str) -> str:
    """Returns a file name as a pattern that matches nothing else."""
    return re.sub(r"([*?\[])", r"[\1]", name)
