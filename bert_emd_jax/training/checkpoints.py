"""Orbax checkpoints of a run: the last few and the best, with the host's progress beside the state."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from bert_emd_jax.errors import UserError
from bert_emd_jax.training.state import TrainState

logger = logging.getLogger(__name__)

KEEP_LATEST = 2


class Checkpoints:
    """Asynchronous checkpoints under one directory. Used by the main process only.

    A checkpoint holds the whole train state and a JSON object `progress` (best score and step so far).
    One that was saved with a score may become the best, which is kept beside the latest.
    """

    def __init__(self, directory: Path) -> None:
        policy = AnyPreservationPolicy(
            [
                LatestN(KEEP_LATEST),
                BestN(
                    # Of equal scores the earlier step is the best, as it is during training.
                    get_metric_fn=lambda metrics: (metrics["score"], -metrics["step"]),  # pyright: ignore
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy, enable_async_checkpointing=True, cleanup_tmp_directories=True
            ),
        )

    def save(self, state: TrainState, progress: Mapping[str, Any], score: float | None) -> None:
        """Starts writing a checkpoint; a save under way is finished first."""
        # A real copy: the next step donates these buffers while Orbax still writes.
        host_state = jax.tree.map(lambda leaf: np.array(leaf), state)
        step = int(host_state.step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(host_state), progress=ocp.args.JsonSave(dict(progress))
            ),
            metrics=None if score is None else {"score": score, "step": step},
        )

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def restore(self, step: int, template: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The (state as NumPy arrays, progress) of a step.

        Args:
          template: a state of the same structure, whose values do not matter.

        Raises:
          UserError: the checkpoint is damaged or of another model.
        """
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(jax.tree.map(np.asarray, template)),
                    progress=ocp.args.JsonRestore(),
                ),
            )
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise UserError(f"{self._manager.directory / str(step)}: damaged checkpoint ({error})") from None
        return restored["state"], restored["progress"]

    def close(self) -> None:
        """Waits for the last save."""
        self._manager.wait_until_finished()
        self._manager.close()
