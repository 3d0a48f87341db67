"""Orbax checkpoints of a run: the last few and the best, with the host's progress beside the state."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import PreservationPolicy

from bert_emd_jax.devices.hosts import MAIN_PROCESS_ONLY, is_main, on_main, state_from_main
from bert_emd_jax.errors import UserError
from bert_emd_jax.training.state import TrainState

logger = logging.getLogger(__name__)

KEEP_LATEST = 2
_LAYOUT = 2  # of the train state; that of 0.1.0 had layer_weights and potentials in place of method


@dataclasses.dataclass
class Progress:
    """What the host knows of a run beside the train state.

    Where the best score was reached, and how many evaluations since then did not reach a better one;
    measurements of the steps since the last row of `metrics.jsonl`; and whether the evaluation after the last
    step is still to be done.
    """

    best_score: float | None = None
    best_step: int = 0
    pending: list[dict[str, float]] = dataclasses.field(default_factory=list)
    evaluation_due: bool = False
    evaluations_since_best: int = 0

    def improved_by(self, score: float, step: int) -> bool:
        """Notes a score; true when it is the best so far."""
        better = not math.isnan(score) and (self.best_score is None or score > self.best_score)
        self.evaluations_since_best = 0 if better else self.evaluations_since_best + 1
        if better:
            self.best_score, self.best_step = score, step
        return better


class DamagedCheckpoint(Exception):  # noqa: N818  (the message is read, the name is not)
    """A checkpoint that cannot be read, or whose content is not what was written."""


class Restored(NamedTuple):
    """A checkpoint's content, the state as NumPy arrays."""

    state: TrainState
    progress: Progress


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
    """Asynchronous checkpoints under one directory, of the main process; in the others nothing happens.

    A checkpoint holds the whole train state and the loop's `Progress`; the one that `Progress` names as the
    best is kept beside the latest. A SHA-256 of the content goes with it: Orbax alone restores flipped bits
    without a word.
    """

    def __init__(self, directory: Path) -> None:
        self._policy = _LatestAndBest()
        if not is_main():
            return
        directory.mkdir(parents=True, exist_ok=True)  # Orbax does not where it is told of one process only
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._policy,
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,
                create=False,
                multiprocessing_options=MAIN_PROCESS_ONLY,
            ),
        )

    def save(self, state: TrainState, progress: Progress) -> None:
        """Starts writing a checkpoint; a save under way is finished first.

        Raises:
          UserError: this one or the one before could not be written.
        """
        if not is_main():
            return
        # A real copy: the next step donates these buffers while Orbax still writes.
        host_state = jax.tree.map(lambda leaf: np.array(leaf), state)
        self._require_room(sum(leaf.nbytes for leaf in jax.tree.leaves(host_state)))
        values = dataclasses.asdict(progress)
        self._policy.best_step = progress.best_step
        with self._named_errors():
            self._manager.save(
                int(host_state.step),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(host_state),
                    progress=ocp.args.JsonSave(
                        {
                            "values": values,
                            "sha256": _digest(host_state, values),
                            "layout": _LAYOUT,
                            "has_loss_scale": host_state.loss_scale is not None,
                        }
                    ),
                ),
            )

    def restore(self, step: int, template: TrainState) -> Restored:
        """The content of a step's checkpoint.

        Args:
          template: a state of the same structure, whose values do not matter.

        Raises:
          DamagedCheckpoint: not readable, or not what was written.
          UserError: an earlier version of this package wrote it.
        """
        scale = template.loss_scale
        if not self._facts(step).get("has_loss_scale", False):
            template = template.replace(loss_scale=None)  # pyright: ignore[reportAttributeAccessIssue]
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(jax.tree.map(np.asarray, template)),
                    progress=ocp.args.JsonRestore(),
                ),
            )
            state, stored = restored["state"], restored["progress"]
            values, digest = stored["values"], stored["sha256"]
            progress = Progress(**values)
        except Exception as error:  # a damaged file can end in any exception of Orbax and TensorStore
            raise DamagedCheckpoint(" ".join(str(error).split())[:300] or type(error).__name__) from None
        if _digest(state, values) != digest:
            raise DamagedCheckpoint("its content is not what was written: bits have changed on the disk")
        if template.loss_scale is None:  # written before there was one: with that of a new run
            state = state.replace(loss_scale=scale)
        return Restored(state, progress)

    def _facts(self, step: int) -> dict[str, Any]:
        """What a checkpoint says of itself; {} if it is damaged, which `restore` notices."""
        try:
            progress = ocp.args.Composite(progress=ocp.args.JsonRestore())
            stored = self._manager.restore(step, args=progress)["progress"]
            layout = stored.get("layout", 1) if "sha256" in stored else _LAYOUT
        except Exception:
            return {}
        if layout != _LAYOUT:
            raise UserError(
                f"{self._directory_of(step)}: bert_emd_jax 0.1.0 wrote this checkpoint, in a layout that this"
                " version does not go on from: resume the run with 0.1.0, or --overwrite starts anew"
            )
        return stored

    def restore_newest(self, template: TrainState) -> Restored | None:
        """The newest intact checkpoint, in all processes; None where no checkpoint was ever completed.

        Damaged ones are named, and removed once an older intact one is found, since the run will write those
        steps again.

        Raises:
          UserError: there are checkpoints, but none is intact.
        """
        found: list[Restored] = []

        def read() -> dict[str, Any] | None:
            found.extend(self._newest_intact(template))
            return dataclasses.asdict(found[0].progress) if found else None

        progress = on_main(read)
        if progress is None:
            return None
        return Restored(state_from_main(found[0].state if found else template), Progress(**progress))

    def best_or_newest(self, best_step: int, template: TrainState) -> TrainState:
        """In the main process, the state of the best score; the newest where that is missing or damaged."""
        if best_step:
            try:
                return self.restore(best_step, template).state
            except DamagedCheckpoint as error:
                logger.warning(
                    "%s: the best model's checkpoint is damaged, taking the newest instead: %s",
                    *(self._directory_of(best_step), error),
                )
        return self._newest_intact(template)[0].state  # a run ends with a checkpoint

    def _newest_intact(self, template: TrainState) -> list[Restored]:
        damaged: list[int] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self.restore(step, template)
            except DamagedCheckpoint as error:
                logger.warning("%s: damaged checkpoint: %s", self._directory_of(step), error)
                damaged.append(step)
                continue
            for broken in damaged:
                self._manager.delete(broken)
                logger.warning("%s: removed; going on from step %d", self._directory_of(broken), step)
            return [restored]
        if damaged:
            raise UserError(
                f"{self._manager.directory}: none of the checkpoints of steps"
                f" {', '.join(map(str, sorted(damaged)))} is intact; --overwrite starts anew"
            )
        return []

    def wait(self) -> None:
        """Waits for the last save; raises UserError where it could not be written."""
        if is_main():
            with self._named_errors():
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last save and lets go of the directory."""
        if is_main():
            with self._named_errors():
                self._manager.close()

    def _require_room(self, size: int) -> None:
        """Raises UserError where the disk has no room: Orbax would say so in hundreds of lines."""
        free = shutil.disk_usage(self._manager.directory).free
        if free < size:
            raise UserError(
                f"{self._manager.directory}: a checkpoint takes {size / 1e6:,.0f} MB, the disk has"
                f" {free / 1e6:,.0f} MB left; complete ones are intact: make room, then --resume"
            )

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Errors of writing, of many types and often from an earlier save, as one that says where."""
        try:
            yield
        except Exception as error:
            raise UserError(
                f"{self._manager.directory}: a checkpoint could not be written; complete ones are intact, and"
                f" --resume continues from them. {' '.join(str(error).split())[-300:]}"
            ) from None

    def _directory_of(self, step: int) -> str:
        return str(self._manager.directory / str(step))


def _digest(state: TrainState, values: dict[str, Any]) -> str:
    """SHA-256 over names, types, shapes and bytes of all leaves, and over the progress."""
    leaves = [
        (jax.tree_util.keystr(path), np.ascontiguousarray(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    ]
    with concurrent.futures.ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter
        of_leaves = pool.map(
            lambda leaf: hashlib.sha256(leaf[1].reshape(-1).view(np.uint8)).hexdigest(), leaves
        )
        parts = [
            f"{name} {leaf.dtype} {leaf.shape} {digest}"
            for (name, leaf), digest in zip(leaves, of_leaves, strict=True)
        ]
    parts.append(json.dumps(values, sort_keys=True))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
