"""A whole training run around the loop: directory, resume, best model, results."""

import dataclasses
import json
import logging
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax

from bert_emd_jax.bert.config import BertConfig
from bert_emd_jax.bert.heads import BertForSequenceClassification
from bert_emd_jax.data.batching import BatchSchedule
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.cost_of_use import milliseconds_per_sentence, size_of
from bert_emd_jax.evaluation.metrics import compute_metrics
from bert_emd_jax.evaluation.prediction import Predictor
from bert_emd_jax.training.checkpoints import Checkpoints, Progress
from bert_emd_jax.training.config import TrainingConfig, flags_of
from bert_emd_jax.training.loop import Observer, Work, total_steps, train
from bert_emd_jax.training.optimizer import learning_rate_schedule, make_optimizer
from bert_emd_jax.training.parallel import pmap_step, replicate
from bert_emd_jax.training.run_directory import (
    CHECKPOINTS,
    RESULTS,
    MetricsLog,
    write_json,
    write_run_config,
)
from bert_emd_jax.training.state import TrainState, create_state
from bert_emd_jax.training.task_data import TaskData
from bert_emd_jax.transport.layer_weights import LayerWeights
from bert_emd_jax.weights.initialization import PROJECTION
from bert_emd_jax.weights.model_directory import Model, save_model

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Method:
    """What tells one kind of training from another.

    make_step: optimizer to the step for `pmap_step`. frozen: its second argument by epoch. teacher: measured
    beside the trained model. See `loop.Work` for the rest; `before_checkpoint` is `loop.train`'s.
    """

    make_step: Callable[[optax.GradientTransformation], Callable[..., Any]]
    frozen: Callable[[int], Any] = lambda epoch: None
    layer_weights: LayerWeights | None = None
    teacher: Model | None = None
    observe: Observer = lambda step, measurements: {}
    check: Observer = lambda step, measurements: {}
    check_every: int = 0
    one_at_a_time: bool = False
    before_checkpoint: Callable[[], None] = lambda: None


def classifier(config: BertConfig, dtype: str) -> nn.Module:
    """The module of a model, computing in `dtype`."""
    return BertForSequenceClassification(config, jnp.dtype(dtype))


def finished_results(config: TrainingConfig) -> dict[str, Any] | None:
    """The results of a run to be resumed that has nothing left to do: they are written last."""
    path = config.output_dir / RESULTS
    if not config.resume or not path.is_file():
        return None
    logger.info("%s: this run is finished", config.output_dir)
    return json.loads(path.read_text())


def latest_checkpoint(config: TrainingConfig) -> int:
    """The step that a resumed run goes on from; 0 without a checkpoint and for a new run."""
    directory = config.output_dir / CHECKPOINTS
    if not config.resume or not directory.is_dir():
        return 0
    checkpoints = Checkpoints(directory)
    steps = checkpoints.steps()
    checkpoints.close()
    return steps[-1] if steps else 0


def run_training(
    config: TrainingConfig, program: str, model: Model, data: TaskData, method: Method, resume_step: int
) -> dict[str, Any]:
    """Trains `model`, leaves everything in `config.output_dir`, and returns what `eval_results.json` holds.

    `config.output_dir` has been prepared (`prepare_run_directory`).
    """
    directory = config.output_dir
    schedule = BatchSchedule(data.train.lengths, data.bucket_lengths, config.train_batch_size, config.seed)
    learning_rate = learning_rate_schedule(config, total_steps(config, schedule))
    optimizer = make_optimizer(config, learning_rate)
    module = classifier(model.config, config.dtype)
    predictor = Predictor(module)

    def evaluate(params: Any) -> dict[str, float]:
        logits = predictor.logits(params, data.dev, data.bucket_lengths, config.eval_batch_size)
        return dev_metrics(data, logits)

    trained = dict(model.params)
    if model.projection is not None:
        trained[PROJECTION] = model.projection
    fresh = create_state(trained, optimizer, config.seed, method.layer_weights)
    write_run_config(directory, program, flags_of(config))
    checkpoints = Checkpoints(directory / CHECKPOINTS)
    state, progress = fresh, Progress()
    if resume_step:
        state, progress = checkpoints.restore(resume_step, fresh)
        logger.info("resuming at step %d", resume_step)
    elif config.resume:
        logger.info("no checkpoint yet in %s: starting from the beginning", directory)

    log = MetricsLog(directory, resume_step)
    work = Work(
        step=pmap_step(method.make_step(optimizer)),
        frozen=method.frozen,
        dataset=data.train,
        schedule=schedule,
        learning_rate=learning_rate,
        evaluate=evaluate,
        primary_metric=data.task.metrics[0],
        observe=method.observe,
        check=method.check,
        check_every=method.check_every,
        one_at_a_time=method.one_at_a_time,
    )
    try:
        progress = train(config, work, state, progress, log, checkpoints, method.before_checkpoint)
    finally:
        log.close()
        checkpoints.close()

    best = best_state(config, progress, fresh)
    params = dict(best.params)
    projection = params.pop(PROJECTION, None)
    best_model = Model(model.config, params, model.tokenizer, projection)
    save_model(directory, best_model)
    results = {
        "task": data.task.name,
        "split": "dev",
        "primary_metric": data.task.metrics[0],
        "best_step": progress.best_step,
        **measured_models(config, best_model, method.teacher, data),
    }
    write_json(directory / RESULTS, results)
    return results


def best_state(config: TrainingConfig, progress: Progress, template: TrainState) -> TrainState:
    """The state with the best score, from its checkpoint; the last one where no score was a number."""
    checkpoints = Checkpoints(config.output_dir / CHECKPOINTS)
    step = progress.best_step or checkpoints.steps()[-1]
    state, _ = checkpoints.restore(step, template)
    checkpoints.close()
    return state


def dev_metrics(data: TaskData, logits: np.ndarray) -> dict[str, float]:
    """The task's metrics on the dev rows."""
    assert data.dev.labels is not None  # read_split refuses train and dev rows without a label
    if not np.isfinite(logits).all():
        raise UserError("the model's predictions are not finite any more: try a lower --learning_rate")
    return compute_metrics(data.task.metrics, logits, data.dev.labels)


def measured_models(
    config: TrainingConfig, student: Model, teacher: Model | None, data: TaskData
) -> dict[str, Any]:
    """Metrics on the dev rows, sizes and latency of the trained model and of its teacher."""
    models = {"student": student} | ({"teacher": teacher} if teacher is not None else {})
    modules = {name: classifier(model.config, config.dtype) for name, model in models.items()}
    latency = milliseconds_per_sentence(
        {name: (modules[name], model.params) for name, model in models.items()}, data.dev, data.bucket_lengths
    )
    measured = {}
    for name, model in models.items():
        logits = Predictor(modules[name]).logits(
            replicate(model.params), data.dev, data.bucket_lengths, config.eval_batch_size
        )
        measured[name] = {
            "metrics": dev_metrics(data, logits),
            **size_of(model.config, model.params),
            "milliseconds_per_sentence": latency[name],
        }
    return measured
