"""A training run around the steps: directory, log, checkpoints, evaluations, signals, and what it leaves."""

import contextlib
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import jax
from tqdm.contrib.logging import logging_redirect_tqdm

from bert_emd_jax import layout
from bert_emd_jax.checkpoints.model_directory import save_model
from bert_emd_jax.devices.compile_ahead import CompileAhead
from bert_emd_jax.devices.device_needs import device_needs
from bert_emd_jax.devices.hosts import is_main, on_main
from bert_emd_jax.devices.parallel import replicate
from bert_emd_jax.devices.precision import resolved_dtype
from bert_emd_jax.errors import Interrupted
from bert_emd_jax.files import write_json
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.runs.interruption import StopRequest, StopRequested
from bert_emd_jax.runs.metrics_log import MetricsLog
from bert_emd_jax.runs.progress_bar import progress_bar, progress_fields
from bert_emd_jax.runs.run_costs import RunCosts, keep_compiled_programs
from bert_emd_jax.runs.run_directory import RunDirectory
from bert_emd_jax.runs.step_trace import StepTrace
from bert_emd_jax.training.checkpoints import Checkpoints, Progress
from bert_emd_jax.training.nonfinite import means, scalars_to_json, stop_at_nonfinite_steps

if TYPE_CHECKING:
    from bert_emd_jax.training.trainer import Measurements, Trainer
    from bert_emd_jax.training.training_config import TrainingConfig

logger = logging.getLogger(__name__)

_SHOWN_SCORES = 3


def directory_of(config: "TrainingConfig", program: str) -> RunDirectory:
    """The output directory of a run of a program."""
    return RunDirectory(config.program.output_dir, program, config, config.run)


def compute_dtype(config: "TrainingConfig", program: str) -> str:
    """The compute type of a run; for --dtype auto the one that it began with, of a new run the device's."""
    if config.program.dtype != "auto":
        return config.program.dtype
    before = directory_of(config, program).facts_before() or {}
    return before.get("compute_dtype") or resolved_dtype(before.get("flags", {}).get("dtype", "auto"))


class Run:
    """One run of a trainer; entered, it stands where training begins or continues."""

    def __init__(self, trainer: "Trainer") -> None:
        config = trainer.config
        self._trainer, self._config = trainer, config.run
        self._directory = directory_of(config, trainer.program)
        self._last = trainer.total_steps
        self._per_epoch = trainer.rows.steps_per_epoch

    def finished_results(self) -> dict[str, Any] | None:
        """Makes the directory ready; returns the results if the run to be resumed has nothing left to do."""
        on_main(self._directory.prepare)
        return on_main(self._directory.finished_results)

    def __enter__(self) -> "Run":
        trainer, speed, path = self._trainer, self._trainer.config.speed, self._directory.path
        keep_compiled_programs(speed)
        self._costs = RunCosts()
        with ThreadPoolExecutor(1) as worker:  # hashing needs no lock of Python's
            hashing = worker.submit(trainer.inputs)
            self._fresh = trainer.initial_state()
            inputs = hashing.result()
        on_main(lambda: self._directory.check_inputs(inputs))
        self._facts = {"inputs": inputs, "compute_dtype": trainer.dtype, **trainer.prepare()}
        logger.info("computing in %s", trainer.dtype)
        if is_main():
            self._directory.write_config(self._facts)
        self._checkpoints = Checkpoints(path / layout.CHECKPOINTS)
        restored = self._checkpoints.restore_newest(self._fresh) if self._config.resume else None
        start = Progress(evaluation_due=trainer.evaluates_at_start)
        state, self.progress = restored or (self._fresh, start)
        self._step = self._first = int(state.step)
        if restored:
            logger.info("resuming at step %d", self._step)
        elif self._config.resume:
            logger.info("no checkpoint yet in %s: starting from the beginning", path)
        trainer.resume(self._step)
        with contextlib.ExitStack() as stack:
            self._log = MetricsLog(path, self._step, self._config.wandb, self._directory.flags)
            self._stop = stack.enter_context(StopRequest())
            for closed_at_the_end in (self._checkpoints, self._log, self._costs):
                stack.enter_context(contextlib.closing(closed_at_the_end))
            with self._outside_of_steps(), self._stop.interruptible():
                stack.enter_context(trainer.rows.prepared())
            self._trace = stack.enter_context(
                contextlib.closing(StepTrace(path / layout.TRACE, speed.trace_steps))
            )
            self._batches = stack.enter_context(trainer.batches(self._step, self._last))
            stack.enter_context(logging_redirect_tqdm([logging.getLogger("bert_emd_jax")]))
            self._bar = stack.enter_context(progress_bar(self._last, self._step, shown=is_main()))
            trainer.state = replicate(state)
            self._ahead = stack.enter_context(contextlib.closing(CompileAhead()))
            if device_needs().compiles_ahead and speed.compilation_cache and jax.process_count() == 1:
                trainer.meanwhile = lambda: self._ahead.start(trainer.needed_later())
            self._stack = stack.pop_all()
        # Scalars of the steps since the last row; they stay on the device until the row is written.
        self._pending: list[dict[str, Any]] = list(self.progress.pending)
        self._examples, self._since = 0, time.perf_counter()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def steps(self) -> Iterator[tuple[int, Batch]]:
        """(epoch, batch) of every step that is left; evaluates and saves in between, when it is time.

        Raises:
          Interrupted: a signal came; the last checkpoint is that of the last step.
        """
        try:
            while True:
                if self.progress.evaluation_due:
                    self._evaluate()
                    self._save()
                if self._step == self._last or self._is_out_of_patience():
                    return
                self._stop.check(self._step)
                self._trace.before_step(self._step - self._first, self._trainer.state)
                rows, batch = next(self._batches)
                self._examples += rows
                yield self._step // self._per_epoch, batch
        except StopRequested as request:
            self._save()
            self._checkpoints.wait()
            raise Interrupted(
                f"{request.signal.name} at step {self._step} of {self._last}; a checkpoint is written: the"
                " same command line with --resume continues from there",
                request.signal,
            ) from None

    def _is_out_of_patience(self) -> bool:
        """Whether the last evaluations have all found nothing better; says so."""
        patience, progress = self._config.patience, self.progress
        if not patience or progress.evaluations_since_best < patience:
            return False
        logger.info(
            "ends at step %d of %d: the best score is that of step %d, %d evaluations ago",
            self._step,
            self._last,
            progress.best_step,
            progress.evaluations_since_best,
        )
        return True

    def after_step(self, measurements: "Measurements") -> None:
        """Counts a step, and logs, checks and saves what is due.

        Raises:
          UserError: too many steps in a row were not finite.
        """
        trainer, config = self._trainer, self._config
        if self._step == self._first:
            jax.block_until_ready(trainer.state)
            self._costs.first_step_is_done()
            self._ahead.first_step_is_done()
        self._step += 1
        step = self._step
        self._pending.append({name: value for name, value in measurements.items() if _is_scalar(value)})
        if trainer.waits_for_step:
            jax.block_until_ready(trainer.state)
        due = step % (config.eval_steps or self._per_epoch) == 0 or step == self._last
        self.progress.evaluation_due = due
        if step % config.log_steps == 0 or due:
            self._write_row(measurements)
        if trainer.check_every and step % trainer.check_every == 0:
            self._write("check", step, trainer.check(step, jax.device_get(measurements)))
        self._bar.update()
        if config.save_steps and step % config.save_steps == 0 and not due:
            self._save()

    def finish(self) -> dict[str, Any]:
        """Writes the best model and, last of all, the results, which say that the run is finished."""
        if is_main():
            self._directory.write_config(self._facts | {"measured": self._costs.so_far()})
        with self._outside_of_steps(), self._stop.interruptible():
            self._checkpoints.wait()
            return on_main(self._export)

    def _export(self) -> dict[str, Any]:
        trainer, best_step = self._trainer, self.progress.best_step
        self._ahead.wait("export")
        best = trainer.best_model(self._checkpoints.best_or_newest(best_step, self._fresh))
        save_model(self._directory.path, best)
        results = {
            "primary_metric": trainer.primary_metric,
            "best_step": best_step,
            **trainer.results(best),
        }
        write_json(self._directory.path / layout.RESULTS, results)
        return results

    def _write_row(self, measurements: "Measurements") -> None:
        """Writes the row of the steps since the last one."""
        trainer, step = self._trainer, self._step
        rows = [scalars_to_json(row) for row in jax.device_get(self._pending)]
        stop_at_nonfinite_steps(self._config.max_bad_steps, trainer.rows, rows, step, self._directory.path)
        row = means(rows) | trainer.log(step, jax.device_get(measurements))
        row |= {
            "epoch": step / self._per_epoch,
            "learning_rate": rows[-1]["learning_rate"],
            "examples_per_second": self._examples / (time.perf_counter() - self._since),
        }
        self._write("train", step, row)
        self._bar.set_postfix(progress_fields(row), refresh=False)
        self._pending, self._examples, self._since = [], 0, time.perf_counter()

    def _write(self, kind: str, step: int, row: dict[str, Any]) -> None:
        """Writes a row of `metrics.jsonl`, and shows it to whoever wants to know."""
        self._log.write(kind, step, row)
        if self._trainer.on_log is not None and is_main():
            self._trainer.on_log(step, {"kind": kind, **row})

    def _evaluate(self) -> None:
        trainer, step = self._trainer, self._step
        with self._stop.interruptible():
            self._ahead.wait("evaluate")
            metrics = trainer.evaluate()
        sign = -1 if trainer.lower_is_better else 1
        best = self.progress.improved_by(sign * metrics[trainer.primary_metric], step)
        epoch = step / self._per_epoch
        row = {"epoch": epoch, **metrics, "primary": trainer.primary_metric, "best": best}
        self._write("eval", step, row)
        # The deciding one is the first.
        shown = ", ".join(f"{name} {value:.4f}" for name, value in list(metrics.items())[:_SHOWN_SCORES])
        logger.info(
            "step %d/%d (epoch %.2f): %s%s", step, self._last, epoch, shown, " (best)" if best else ""
        )
        self.progress.evaluation_due = False

    def _save(self) -> None:
        self._trainer.before_checkpoint()
        self.progress.pending = [scalars_to_json(row) for row in jax.device_get(self._pending)]
        self._checkpoints.save(self._trainer.state, self.progress)
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def _outside_of_steps(self) -> Iterator[None]:
        """Says of a signal that no step was lost."""
        try:
            yield
        except StopRequested as request:
            message = "before the first step, or after the last one: --resume continues from there"
            raise Interrupted(f"{request.signal.name} {message}", request.signal) from None


def _is_scalar(value: Any) -> bool:
    return getattr(value, "ndim", None) == 0
