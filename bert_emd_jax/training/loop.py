"""The training loop of fine-tuning and distillation: steps, evaluations, checkpoints, the best kept."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from tqdm.contrib.logging import logging_redirect_tqdm

from bert_emd_jax.devices.hosts import is_main
from bert_emd_jax.devices.parallel import replicate, rows_for_devices
from bert_emd_jax.errors import Interrupted
from bert_emd_jax.runs.interruption import StopRequest, StopRequested
from bert_emd_jax.runs.progress_bar import progress_bar, progress_fields
from bert_emd_jax.runs.run_costs import RunCosts
from bert_emd_jax.runs.run_directory import TRACE, MetricsLog
from bert_emd_jax.runs.step_trace import StepTrace
from bert_emd_jax.training.checkpoints import Checkpoints, Progress
from bert_emd_jax.training.config import TrainingConfig
from bert_emd_jax.training.nonfinite import means, scalars_to_json, stop_at_bad_steps
from bert_emd_jax.training.prefetch import step_inputs
from bert_emd_jax.training.row_source import RowSource
from bert_emd_jax.training.state import TrainState

logger = logging.getLogger(__name__)


Observer = Callable[[int, Mapping[str, Any]], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Work:
    """What the loop trains, and how it is told apart from other trainings.

    step: a `pmap_step`-ped function. frozen: its second argument, by epoch. evaluate: replicated parameters
    to metrics; `primary_metric` chooses the best (the lowest where `lower_is_better`). observe: called with
    (step, host measurements) at logged steps, returns what else the row of `metrics.jsonl` shall hold. check:
    the same every `check_every` steps (0: never), for a row of its own. one_at_a_time: finish each step
    before the next is started (host callbacks need it).
    """

    step: Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Any]]]
    frozen: Callable[[int], Any]
    rows: RowSource
    learning_rate: optax.Schedule
    evaluate: Callable[[Any], dict[str, float]]
    primary_metric: str
    lower_is_better: bool = False
    observe: Observer = lambda step, measurements: {}
    check: Observer = lambda step, measurements: {}
    check_every: int = 0
    one_at_a_time: bool = False


def total_steps(config: TrainingConfig, rows: RowSource) -> int:
    """Optimizer steps of the whole run."""
    steps = config.num_train_epochs * rows.steps_per_epoch
    return min(steps, config.max_steps) if config.max_steps else steps


def train(
    config: TrainingConfig,
    work: Work,
    state: TrainState,
    progress: Progress,
    log: MetricsLog,
    checkpoints: Checkpoints,
    before_checkpoint: Callable[[], None],
    stop: StopRequest,
    costs: RunCosts,
) -> Progress:
    """Trains from `state` (on the host) to the last step and returns where the best score was.

    Every checkpoint is preceded by `before_checkpoint`, which writes what must not lag behind it.

    Raises:
      Interrupted: a signal came; the last checkpoint is that of the last step.
      UserError: too many bad steps in a row.
    """
    last = total_steps(config, work.rows)
    per_epoch = work.rows.steps_per_epoch
    padded_rows = rows_for_devices(
        config.train_batch_size, jax.device_count(), config.gradient_accumulation_steps
    )
    step = first_step = int(state.step)
    trace = StepTrace(log.directory / TRACE, config.trace_steps)
    inputs = step_inputs(work.rows, step, last, padded_rows, config.gradient_accumulation_steps)
    device_state = replicate(state)
    frozen, frozen_epoch = None, -1
    # Scalars of the steps since the last row; they stay on the device until the row is written.
    pending: list[dict[str, Any]] = list(progress.pending)
    examples, since = 0, time.perf_counter()

    def evaluate() -> None:
        with stop.interruptible():
            metrics = work.evaluate(device_state.params)
        sign = -1 if work.lower_is_better else 1
        best = progress.improved_by(sign * metrics[work.primary_metric], step)
        epoch = step / per_epoch
        log.write("eval", step, {"epoch": epoch, **metrics, "primary": work.primary_metric, "best": best})
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        logger.info("step %d/%d (epoch %.2f): %s%s", step, last, epoch, shown, " (best)" if best else "")
        progress.evaluation_due = False

    def save() -> None:
        before_checkpoint()
        progress.pending = [scalars_to_json(row) for row in jax.device_get(pending)]
        checkpoints.save(device_state, progress)

    with (
        contextlib.closing(inputs),
        contextlib.closing(trace),
        logging_redirect_tqdm([logging.getLogger("bert_emd_jax")]),
        progress_bar(last, step, shown=is_main()) as bar,
    ):
        try:
            while True:
                if progress.evaluation_due:
                    evaluate()
                    save()
                    since = time.perf_counter()
                if step == last:
                    return progress
                stop.check(step)
                trace.before_step(step - first_step, device_state)
                if step // per_epoch != frozen_epoch:
                    frozen_epoch = step // per_epoch
                    frozen = work.frozen(frozen_epoch)
                batch, arrays = next(inputs)
                device_state, measurements = work.step(device_state, frozen, arrays)
                if step == first_step:
                    jax.block_until_ready(device_state)
                    costs.first_step_is_done()
                step += 1
                examples += len(batch.rows)
                pending.append(_scalars(measurements))
                if work.one_at_a_time:
                    jax.block_until_ready(device_state)

                progress.evaluation_due = step % (config.eval_steps or per_epoch) == 0 or step == last
                if step % config.log_steps == 0 or progress.evaluation_due:
                    rows = [scalars_to_json(row) for row in jax.device_get(pending)]
                    stop_at_bad_steps(config, work.rows, rows, step, log.directory)
                    row = means(rows) | work.observe(step, jax.device_get(measurements))
                    row |= {
                        "epoch": step / per_epoch,
                        "learning_rate": float(np.asarray(work.learning_rate(step - 1))),
                        "examples_per_second": examples / (time.perf_counter() - since),
                    }
                    log.write("train", step, row)
                    bar.set_postfix(progress_fields(row), refresh=False)
                    pending, examples, since = [], 0, time.perf_counter()
                if work.check_every and step % work.check_every == 0:
                    log.write("check", step, work.check(step, jax.device_get(measurements)))
                bar.update()
                if config.save_steps and step % config.save_steps == 0 and not progress.evaluation_due:
                    save()
                    since = time.perf_counter()
        except StopRequested as request:
            save()
            checkpoints.wait()
            raise Interrupted(
                f"{request.signal.name} at step {step} of {last}; a checkpoint is written: the same command"
                " line with --resume goes on from there",
                request.signal,
            ) from None


def _scalars(measurements: Mapping[str, Any]) -> dict[str, Any]:
    """The measurements that are one number."""
    return {name: value for name, value in measurements.items() if getattr(value, "ndim", None) == 0}
