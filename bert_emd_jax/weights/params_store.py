"""Parameters on disk in Orbax's form, as the `params/` of a model directory."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp

from bert_emd_jax.errors import UserError
from bert_emd_jax.weights.params import Params


def save_params(directory: Path, params: Params) -> None:
    """Writes a nested dict of arrays; `directory` must not exist."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory.absolute(), jax.device_get(params))


def load_params(directory: Path) -> Params:
    """Reads what `save_params` wrote, as NumPy arrays.

    Raises:
      UserError: the directory is no Orbax checkpoint, or a damaged one.
    """
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(directory.absolute())
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise UserError(f"{directory}: not readable as Orbax parameters ({error})") from None
