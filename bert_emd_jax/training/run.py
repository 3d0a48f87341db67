"""A whole training run around the loop: directory, resume, best model, results."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable
from typing import Any

import optax

from bert_emd_jax.checkpoints.model_directory import Model, save_model
from bert_emd_jax.devices.hosts import is_main, on_main
from bert_emd_jax.devices.parallel import pmap_step
from bert_emd_jax.distillation.presets import sources_of
from bert_emd_jax.errors import Interrupted
from bert_emd_jax.models.initialization import PROJECTION
from bert_emd_jax.runs.interruption import StopRequest, StopRequested
from bert_emd_jax.runs.run_costs import RunCosts, keep_compiled_programs
from bert_emd_jax.runs.run_directory import (
    CHECKPOINTS,
    RESULTS,
    MetricsLog,
    write_json,
    write_run_config,
)
from bert_emd_jax.training.checkpoints import Checkpoints, Progress
from bert_emd_jax.training.config import TrainingConfig, flags_of
from bert_emd_jax.training.loop import Observer, Work, total_steps, train
from bert_emd_jax.training.optimizer import learning_rate_schedule, make_optimizer
from bert_emd_jax.training.row_source import RowSource
from bert_emd_jax.training.state import TrainState, create_state
from bert_emd_jax.transport.layer_weights import LayerWeights

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Target:
    """What is trained on, and how what was learned is measured.

    rows: the training rows. evaluate: replicated parameters to metrics, of which `primary_metric` chooses the
    best. measured_at_start: also before the first step. results: what `eval_results.json` says of the best
    model; called in the main process.
    """

    rows: RowSource
    evaluate: Callable[[Any], dict[str, float]]
    primary_metric: str
    results: Callable[[Model], dict[str, Any]]
    lower_is_better: bool = False
    measured_at_start: bool = False


@dataclasses.dataclass(frozen=True)
class Method:
    """What tells one kind of training from another.

    make_step: optimizer to the step for `pmap_step`. frozen: its second argument by epoch. extra_params:
    trained beside the model's parameters, and no part of what is saved. learning_rates: peak rates of
    top-level parameters that do not take --learning_rate. resume: told the step that training
    goes on from, 0 for a new run. facts: said in `run_config.json` beside the flags. See `loop.Work` for the
    rest; `before_checkpoint` is `loop.train`'s.
    """

    make_step: Callable[[optax.GradientTransformation], Callable[..., Any]]
    frozen: Callable[[int], Any] = lambda epoch: None
    layer_weights: LayerWeights | None = None
    extra_params: dict[str, Any] = dataclasses.field(default_factory=dict)
    learning_rates: dict[str, float] = dataclasses.field(default_factory=dict)
    observe: Observer = lambda step, measurements: {}
    check: Observer = lambda step, measurements: {}
    check_every: int = 0
    one_at_a_time: bool = False
    resume: Callable[[int], None] = lambda step: None
    before_checkpoint: Callable[[], None] = lambda: None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def finished_results(config: TrainingConfig) -> dict[str, Any] | None:
    """The results of a run to be resumed that has nothing left to do: they are written last."""
    path = config.output_dir / RESULTS
    results = on_main(lambda: json.loads(path.read_text()) if config.resume and path.is_file() else None)
    if results is not None:
        logger.info("%s: this run is finished", config.output_dir)
    return results


def fresh_state(
    config: TrainingConfig, model: Model, target: Target, method: Method
) -> tuple[TrainState, optax.GradientTransformation, optax.Schedule]:
    """The state before the first step, on the host; its optimizer, and the learning rate."""
    learning_rate = learning_rate_schedule(config, total_steps(config, target.rows))
    optimizer = make_optimizer(config, learning_rate, method.learning_rates)
    trained = dict(model.params) | method.extra_params
    if model.projection is not None:
        trained[PROJECTION] = model.projection
    return create_state(trained, optimizer, config.seed, method.layer_weights), optimizer, learning_rate


def run_training(
    config: TrainingConfig, program: str, model: Model, target: Target, method: Method
) -> dict[str, Any]:
    """Trains `model`, leaves everything in `config.output_dir`, and returns what `eval_results.json` holds.

    `config.output_dir` has been prepared (`prepare_run_directory`).

    Raises:
      UserError: no intact checkpoint to go on from, or too many bad steps.
      Interrupted: a signal came; the run can be resumed.
    """
    directory = config.output_dir
    keep_compiled_programs(config.compilation_cache_dir)
    costs = RunCosts()
    fresh, optimizer, learning_rate = fresh_state(config, model, target, method)
    flags = flags_of(config), sources_of(config)
    if is_main():
        write_run_config(directory, program, *flags, method.facts)
    checkpoints = Checkpoints(directory / CHECKPOINTS)
    restored = checkpoints.restore_newest(fresh) if config.resume else None
    state, progress = restored or (fresh, Progress(evaluation_due=target.measured_at_start))
    if restored:
        logger.info("resuming at step %d", state.step)
    elif config.resume:
        logger.info("no checkpoint yet in %s: starting from the beginning", directory)
    method.resume(int(state.step))
    log = MetricsLog(directory, int(state.step), config)
    work = Work(
        step=pmap_step(method.make_step(optimizer)),
        frozen=method.frozen,
        rows=target.rows,
        learning_rate=learning_rate,
        evaluate=target.evaluate,
        primary_metric=target.primary_metric,
        lower_is_better=target.lower_is_better,
        observe=method.observe,
        check=method.check,
        check_every=method.check_every,
        one_at_a_time=method.one_at_a_time,
    )
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        stack.enter_context(contextlib.closing(checkpoints))
        stack.enter_context(contextlib.closing(log))
        stack.enter_context(contextlib.closing(costs))
        try:
            with stop.interruptible():
                stack.enter_context(target.rows.prepared())
            before_checkpoint = method.before_checkpoint
            progress = train(config, work, state, progress, log, checkpoints, before_checkpoint, stop, costs)
            if is_main():
                write_run_config(directory, program, *flags, method.facts | {"measured": costs.so_far()})
            with stop.interruptible():
                checkpoints.wait()

                def export() -> dict[str, Any]:
                    best = checkpoints.best_or_newest(progress.best_step, fresh)
                    return _export(config, model, best, progress, target, method)

                return on_main(export)
        except StopRequested as request:
            message = "before the first step, or after the last one: --resume goes on from there"
            raise Interrupted(f"{request.signal.name} {message}", request.signal) from None


def _export(
    config: TrainingConfig,
    model: Model,
    best: TrainState,
    progress: Progress,
    target: Target,
    method: Method,
) -> dict[str, Any]:
    """Writes the best model and, last of all, the results: they say that the run is finished."""
    params = {name: values for name, values in best.params.items() if name not in method.extra_params}
    projection = params.pop(PROJECTION, None)
    best_model = Model(model.config, params, model.tokenizer, projection)
    save_model(config.output_dir, best_model)
    results = {
        "primary_metric": target.primary_metric,
        "best_step": progress.best_step,
        **target.results(best_model),
    }
    write_json(config.output_dir / RESULTS, results)
    return results
