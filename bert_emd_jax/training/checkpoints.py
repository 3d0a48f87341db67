"""Orbax checkpoints of a run: the last few and the best, with the host's progress beside the state."""

import dataclasses
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import PreservationPolicy

from bert_emd_jax.errors import UserError
from bert_emd_jax.training.state import TrainState

logger = logging.getLogger(__name__)

KEEP_LATEST = 2


@dataclasses.dataclass
class Progress:
    """How far a run has come: where the best score was reached, and when it was last evaluated."""

    best_score: float | None = None
    best_step: int = 0

    def improved_by(self, score: float, step: int) -> bool:
        """Notes a score; true when it is the best so far."""
        better = not math.isnan(score) and (self.best_score is None or score > self.best_score)
        if better:
            self.best_score, self.best_step = score, step
        return better


class _LatestAndBest(PreservationPolicy):
    """Keeps the last checkpoints and that of the best score.

    Orbax's own BestN forgets the scores of checkpoints that an earlier process wrote.
    """

    def __init__(self) -> None:
        self.best_step: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        latest = {info.step for info in checkpoints[-KEEP_LATEST:]}
        return [info.step in latest or info.step == self.best_step for info in checkpoints]


class Checkpoints:
    """Asynchronous checkpoints under one directory. Used by the main process only.

    A checkpoint holds the whole train state and the loop's `Progress`; the one that `Progress` names as the
    best is kept beside the latest.
    """

    def __init__(self, directory: Path) -> None:
        self._policy = _LatestAndBest()
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._policy,
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,
            ),
        )

    def save(self, state: TrainState, progress: Progress) -> None:
        """Starts writing a checkpoint; a save under way is finished first."""
        # A real copy: the next step donates these buffers while Orbax still writes.
        host_state = jax.tree.map(lambda leaf: np.array(leaf), state)
        self._policy.best_step = progress.best_step
        self._manager.save(
            int(host_state.step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(host_state),
                progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
            ),
        )

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def restore(self, step: int, template: TrainState) -> tuple[TrainState, Progress]:
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
        return restored["state"], Progress(**restored["progress"])

    def close(self) -> None:
        """Waits for the last save."""
        self._manager.wait_until_finished()
        self._manager.close()
