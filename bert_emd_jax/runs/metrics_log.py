"""`metrics.jsonl` as it is written, with what watches a run beside it."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bert_emd_jax import layout
from bert_emd_jax.devices.hosts import is_main
from bert_emd_jax.runs.plan_text import plans_as_text
from bert_emd_jax.runs.trackers import TensorBoard, Tracker, WeightsAndBiases

logger = logging.getLogger(__name__)

_ROWS_PER_PICTURE = 20  # where no evaluation comes earlier


class MetricsLog:
    """`metrics.jsonl`, one row per event; the same numbers and pictures of the plans to TensorBoard and W&B.

    Written by the main process; in the others it does nothing.
    """

    def __init__(
        self,
        directory: Path,
        resume_step: int,
        wandb_project: str | None = None,
        flags: Mapping[str, Any] | None = None,
    ) -> None:
        """Opens the log; rows past `resume_step` belong to steps that will be run again and are dropped.

        Raises:
          UserError: Weights & Biases does not let us in.
        """
        self._file = None
        self._trackers: list[Tracker] = []
        self._plans: dict[str, np.ndarray] = {}
        self._prints_plans = bool((flags or {}).get("show_mapping"))
        self._rows_since_picture = 0
        if not is_main():
            return
        path = directory / layout.METRICS
        kept = []
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                step = _logged_step(line)
                if step is not None and step <= resume_step:
                    kept.append(line + "\n")
        path.write_text("".join(kept), encoding="utf-8")
        if wandb_project is not None:
            self._trackers.append(WeightsAndBiases(directory, wandb_project, flags or {}))
        self._trackers.append(TensorBoard(directory, resume_step))
        self._file = path.open("a", encoding="utf-8")

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Adds a row {"step", "kind", **values}; plans [S, T] among the values only become pictures."""
        if self._file is None:
            return
        row = {name: value for name, value in values.items() if not isinstance(value, np.ndarray)}
        self._file.write(json.dumps({"step": step, "kind": kind, **row}) + "\n")
        self._file.flush()
        scalars = {
            f"{kind}/{name}": value
            for name, value in row.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        for tracker in self._trackers:
            tracker.scalars(step, scalars)
        self._plans |= {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        self._rows_since_picture += 1
        if self._plans and (kind == "eval" or self._rows_since_picture >= _ROWS_PER_PICTURE):
            self._show_plans(step)

    def _show_plans(self, step: int) -> None:
        from bert_emd_jax.runs.plan_figures import draw_plans, pixels  # Matplotlib, which starts slowly

        self._rows_since_picture = 0
        picture = pixels(draw_plans(self._plans))
        for tracker in self._trackers:
            tracker.picture(step, "mapping", picture)
        if self._prints_plans:
            heading = f"step {step}: how much of each teacher layer (across) each student layer (down) learns"
            logger.info("%s\n%s", heading, plans_as_text(self._plans))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        for tracker in self._trackers:
            tracker.close()


def _logged_step(line: str) -> int | None:
    """The step of a row; None for a line that a killed process was writing, or a damaged one."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) else None
