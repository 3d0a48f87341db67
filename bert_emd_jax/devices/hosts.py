"""Several processes, one run: who writes, and how the others learn what only one has read.

Every process runs the same program on the same data. Process 0 (the main one) owns the output directory; what
it reads from there is sent to the others, who need not see it.
"""

import inspect
import json
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost
from orbax.checkpoint.options import MultiprocessingOptions

from bert_emd_jax.devices.accelerators import slow_version, unused_accelerator
from bert_emd_jax.devices.device_config import MultiHostConfig
from bert_emd_jax.errors import UserError

logger = logging.getLogger(__name__)

# A process whose machine is gone ends the others after so long.
_HEARTBEAT_SECONDS = 30
# The main process evaluates and exports the model while the others wait.
_LONGEST_WAIT_SECONDS = 3600

MAIN_PROCESS_ONLY = MultiprocessingOptions(
    primary_host=0, active_processes={0}, barrier_sync_key_prefix="main_process"
)
"""For Orbax objects that only the main process has."""

Value = TypeVar("Value")


def initialize(config: MultiHostConfig) -> None:
    """Joins the other processes, where the flags say that there are any. Before anything else asks JAX.

    Says so where JAX leaves an accelerator of this machine alone, or is slow on it.

    Raises:
      UserError: the flags are incomplete, or the others cannot be reached.
    """
    join(config)
    for problem in (unused_accelerator(), slow_version()):
        if problem is not None:
            logger.warning(problem)


def join(config: MultiHostConfig) -> None:
    """Joins the other processes, if it has not yet; raises UserError as `initialize` does."""
    explicit = (config.coordinator_address, config.num_processes, config.process_id)
    if not config.distributed and all(value is None for value in explicit):
        return
    if config.distributed == any(value is not None for value in explicit) or (
        not config.distributed and any(value is None for value in explicit)
    ):
        raise UserError(
            "several processes need --distributed (on TPU pods, Slurm or MPI), or else all three of"
            " --coordinator_address, --num_processes and --process_id"
        )
    if jax.distributed.is_initialized():
        return
    timeouts: dict[str, Any] = {
        "heartbeat_timeout_seconds": _HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": _LONGEST_WAIT_SECONDS,  # unknown to JAX 0.7
    }
    known = inspect.signature(jax.distributed.initialize).parameters
    try:
        jax.distributed.initialize(
            *explicit, **{name: seconds for name, seconds in timeouts.items() if name in known}
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of this run cannot be joined: {error};"
            " do all of them run, with the same --coordinator_address?"
        ) from None
    if not is_main():
        logging.getLogger("bert_emd_jax").setLevel(logging.WARNING)
    logger.info("%d processes, %d devices", jax.process_count(), jax.device_count())


def is_main() -> bool:
    """Whether this process writes; true for the only one."""
    return jax.process_index() == 0


def on_main(function: Callable[[], Value]) -> Value:
    """Calls a function in the main process; all processes return its value, which JSON must be able to hold.

    Raises:
      UserError: in the main process what the function raised, and in the others that it did.
    """
    if jax.process_count() == 1:
        return function()
    value, error = None, None
    if is_main():
        try:
            value = function()
        except (UserError, OSError) as raised:
            error = raised
    # The function may take minutes; a broadcast alone would not wait that long for the main process.
    multihost.sync_global_processes("on_main", timeout=_LONGEST_WAIT_SECONDS)
    failed, value = _from_main([error is not None, value])
    if error is not None:
        raise error
    if failed:
        raise UserError("the main process cannot go on; its own message says why")
    return value


def state_from_main(state: Any) -> Any:
    """The main process's tree of arrays in every process; theirs are of the same shapes."""
    return state if jax.process_count() == 1 else jax.device_get(multihost_utils.broadcast_one_to_all(state))


def sum_of_processes(tree: Any) -> Any:
    """The sums over processes of a tree of NumPy arrays, in every process, in the order of the processes."""
    if jax.process_count() == 1:
        return tree
    gathered = multihost_utils.process_allgather(tree)
    return jax.tree.map(lambda values: np.sum(values, axis=0, dtype=values.dtype), gathered)


def _from_main(value: Any) -> Any:
    """A JSON value of the main process, in every process."""
    text = np.frombuffer(json.dumps(value).encode(), np.uint8) if is_main() else np.zeros(0, np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(length, np.uint8)
    padded[: len(text)] = text
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).astype(np.uint8).tobytes())
