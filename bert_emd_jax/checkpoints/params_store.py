"""Parameters on disk in Orbax's format, as the `params/` of a model directory."""

import inspect
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import type_handlers

from bert_emd_jax.errors import UserError, one_line
from bert_emd_jax.models.params import Params

# Orbax copies arrays before it writes them in the background. `save_params` waits for the end of the writing,
# so the copy, as large as the model, is not needed. Orbax 0.12.4, which Colab has, does not know the option.
_OPTION = "deepcopy_host_arrays"
_KNOWN = inspect.signature(type_handlers.NumpyHandler).parameters
_WITHOUT_COPY: dict[str, Any] = {_OPTION: False} if _OPTION in _KNOWN else {}


def _this_process_only() -> ocp.options.MultiprocessingOptions:
    """Returns options by which each process of a run reads, or writes, without waiting for the others."""
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process_{index}"
    )


def save_params(directory: Path, params: Params) -> None:
    """Writes a nested dict of arrays; `directory` must not exist.

    Raises:
      UserError: it could not be written; the disk may be full.
    """
    handlers = type_handlers.create_type_handler_registry(
        (np.ndarray, type_handlers.NumpyHandler(**_WITHOUT_COPY)),
        (jax.Array, type_handlers.ArrayHandler()),  # not used, but Orbax warns if it is missing
    )
    handler = ocp.PyTreeCheckpointHandler(
        type_handler_registry=handlers, multiprocessing_options=_this_process_only()
    )
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=_this_process_only()) as checkpointer:
            checkpointer.save(directory.absolute(), args=ocp.args.PyTreeSave(jax.device_get(params)))
    except (ValueError, OSError) as error:  # TensorStore's errors of writing are ValueErrors
        raise UserError(
            f"{directory}: could not be written ({' '.join(str(error).split())[-300:]})"
        ) from None


def restore_params(directory: Path) -> Params:
    """Reads what `save_params` wrote, as NumPy arrays.

    Raises:
      UserError: the directory is no Orbax checkpoint, or a damaged one.
    """
    try:
        with ocp.StandardCheckpointer(multiprocessing_options=_this_process_only()) as checkpointer:
            return checkpointer.restore(directory.absolute())
    except (ValueError, OSError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{directory}: not readable as Orbax parameters ({one_line(error)}); copy it again"
        ) from None
