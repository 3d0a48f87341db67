"""The training loop of fine-tuning and distillation: steps, evaluations, checkpoints, the best kept."""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from bert_emd_jax.data.batching import BatchSchedule
from bert_emd_jax.data.encoding import EncodedDataset
from bert_emd_jax.training.checkpoints import Checkpoints, Progress
from bert_emd_jax.training.config import TrainingConfig
from bert_emd_jax.training.parallel import replicate, rows_for_devices, split_for_training
from bert_emd_jax.training.run_directory import MetricsLog
from bert_emd_jax.training.state import TrainState

logger = logging.getLogger(__name__)


Observer = Callable[[int, Mapping[str, Any]], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Work:
    """What the loop trains, and how it is told apart from other trainings.

    step: a `pmap_step`-ped function. frozen: its second argument, by epoch. evaluate: replicated parameters
    to the metrics of the dev set; `primary_metric` chooses the best. observe: called with (step, host
    measurements) at logged steps, returns what else the row of `metrics.jsonl` shall hold. check: the same
    every `check_every` steps (0: never), for a row of its own. one_at_a_time: finish each step before the
    next is started (host callbacks need it).
    """

    step: Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Any]]]
    frozen: Callable[[int], Any]
    dataset: EncodedDataset
    schedule: BatchSchedule
    learning_rate: optax.Schedule
    evaluate: Callable[[Any], dict[str, float]]
    primary_metric: str
    observe: Observer = lambda step, measurements: {}
    check: Observer = lambda step, measurements: {}
    check_every: int = 0
    one_at_a_time: bool = False


def total_steps(config: TrainingConfig, schedule: BatchSchedule) -> int:
    """Optimizer steps of the whole run."""
    steps = config.num_train_epochs * schedule.steps_per_epoch
    return min(steps, config.max_steps) if config.max_steps else steps


def train(
    config: TrainingConfig,
    work: Work,
    state: TrainState,
    progress: Progress,
    log: MetricsLog,
    checkpoints: Checkpoints,
    before_checkpoint: Callable[[], None],
) -> Progress:
    """Trains from `state` (on the host) to the last step and returns where the best score was.

    Every checkpoint is preceded by `before_checkpoint`, which writes what must not lag behind it.
    """
    last = total_steps(config, work.schedule)
    per_epoch = work.schedule.steps_per_epoch
    padded_rows = rows_for_devices(
        config.train_batch_size, jax.device_count(), config.gradient_accumulation_steps
    )
    step = int(state.step)
    device_state = replicate(state)
    frozen, frozen_epoch = None, -1
    pending: list[dict[str, Any]] = []
    examples, since = 0, time.perf_counter()

    progress_bar = tqdm(total=last, initial=step, unit="step", disable=None)
    with logging_redirect_tqdm([logging.getLogger("bert_emd_jax")]), progress_bar as bar:
        while step < last:
            if step // per_epoch != frozen_epoch:
                frozen_epoch = step // per_epoch
                frozen = work.frozen(frozen_epoch)
            batch = work.schedule.batch(step)
            arrays = work.dataset.collate(batch.rows, batch.length, padded_rows)
            device_state, measurements = work.step(
                device_state, frozen, split_for_training(arrays, config.gradient_accumulation_steps)
            )
            step += 1
            examples += len(batch.rows)
            pending.append(_scalars(measurements))
            if work.one_at_a_time:
                jax.block_until_ready(device_state)

            evaluation_due = step % (config.eval_steps or per_epoch) == 0 or step == last
            checkpoint_due = evaluation_due or (config.save_steps > 0 and step % config.save_steps == 0)
            # A row at every checkpoint: a resumed run then averages over the same steps.
            if step % config.log_steps == 0 or checkpoint_due:
                row = _means(pending) | work.observe(step, jax.device_get(measurements))
                row |= {
                    "epoch": step / per_epoch,
                    "learning_rate": float(np.asarray(work.learning_rate(step - 1))),
                    "examples_per_second": examples / (time.perf_counter() - since),
                }
                log.write("train", step, row)
                bar.set_postfix({"loss": f"{row['loss']:.4f}"}, refresh=False)
                pending, examples, since = [], 0, time.perf_counter()
            if work.check_every and step % work.check_every == 0:
                log.write("check", step, work.check(step, jax.device_get(measurements)))
            bar.update()

            if evaluation_due:
                metrics = work.evaluate(device_state.params)
                score = metrics[work.primary_metric]
                best = progress.improved_by(score, step)
                epoch = step / per_epoch
                row = {"epoch": epoch, **metrics, "primary": work.primary_metric, "best": best}
                log.write("eval", step, row)
                shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
                mark = " (best)" if best else ""
                logger.info("step %d/%d (epoch %.2f): %s%s", step, last, epoch, shown, mark)
            if checkpoint_due:
                before_checkpoint()
                checkpoints.save(device_state, progress)
                since = time.perf_counter()
    return progress


def _scalars(measurements: Mapping[str, Any]) -> dict[str, Any]:
    """The measurements that are one number; they stay on the device until a row is written."""
    return {name: value for name, value in measurements.items() if getattr(value, "ndim", None) == 0}


def _means(pending: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the steps since the last row."""
    host = jax.device_get(pending)
    return {name: float(np.mean([row[name] for row in host])) for name in host[0]}
