"""Training on a task: its rows, its metrics on the dev sets, and what is measured of the result."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from bert_emd_jax.checkpoints.model_directory import Model
from bert_emd_jax.data.batching import BatchSchedule
from bert_emd_jax.data.encoding import EncodedDataset
from bert_emd_jax.data.task import Task
from bert_emd_jax.data.task_data import TaskData
from bert_emd_jax.devices.parallel import replicate
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.dev_predictions import write_dev_predictions
from bert_emd_jax.evaluation.metrics import compute_metrics
from bert_emd_jax.evaluation.model_cost import flops_per_sentence, milliseconds_per_sentence, size_of
from bert_emd_jax.evaluation.prediction import Predictor
from bert_emd_jax.models.bert_config import BertConfig
from bert_emd_jax.models.heads import BertForSequenceClassification
from bert_emd_jax.runs.run_directory import DEV_PREDICTIONS
from bert_emd_jax.training.config import TaskTrainingConfig
from bert_emd_jax.training.row_source import TaskRows
from bert_emd_jax.training.run import Target


def classifier(config: BertConfig, dtype: str, remat: bool = False) -> nn.Module:
    """The module of a model, computing in `dtype`; see `BertEncoder` for `remat`."""
    return BertForSequenceClassification(config, jnp.dtype(dtype), remat)


def task_target(
    config: TaskTrainingConfig, module: nn.Module, data: TaskData, teacher: Model | None = None
) -> Target:
    """The rows and measurements of a task; `teacher` is measured beside the trained model."""
    schedule = BatchSchedule(data.train.lengths, data.bucket_lengths, config.train_batch_size, config.seed)
    predictor = Predictor(module)

    def evaluate(params: Any) -> dict[str, float]:
        logits = predictor.logits(params, data.dev, data.bucket_lengths, config.eval_batch_size)
        return dev_metrics(data.task, data.dev, logits)

    def results(model: Model) -> dict[str, Any]:
        facts = {"task": data.task.name, "split": "dev", "labels": data.task.labels}
        return facts | measured_models(config, model, teacher, data)

    return Target(TaskRows(data.train, schedule), evaluate, data.task.metrics[0], results)


def dev_metrics(task: Task, dev: EncodedDataset, logits: np.ndarray) -> dict[str, float]:
    """The task's metrics on a dev set."""
    assert dev.labels is not None  # read_split refuses train and dev rows without a label
    if not np.isfinite(logits).all():
        raise UserError("the model's predictions are not finite any more: try a lower --learning_rate")
    return compute_metrics(task.metrics, logits, dev.labels)


def measured_models(
    config: TaskTrainingConfig, student: Model, teacher: Model | None, data: TaskData
) -> dict[str, Any]:
    """Metrics on every dev set, sizes and latency of the trained model and of its teacher.

    Writes what both predict on the first dev set to the run's directory.
    """
    models = {"student": student} | ({"teacher": teacher} if teacher is not None else {})
    modules = {name: classifier(model.config, config.dtype) for name, model in models.items()}
    latency = milliseconds_per_sentence(
        {name: (modules[name], model.params) for name, model in models.items()}, data.dev, data.bucket_lengths
    )
    measured, predictions = {}, {}
    for name, model in models.items():
        predictor, params = Predictor(modules[name]), replicate(model.params)
        metrics = {}
        for suffix, dev in {"": data.dev, **data.more_dev}.items():
            logits = predictor.logits(params, dev, data.bucket_lengths, config.eval_batch_size)
            scores = dev_metrics(data.task, dev, logits)
            metrics |= {metric + suffix: score for metric, score in scores.items()}
            if dev is data.dev:
                predictions[name] = logits
        measured[name] = {
            "metrics": metrics,
            **size_of(model.config, model.params),
            "flops_per_sentence": flops_per_sentence(model.config, data.dev.lengths),
            "milliseconds_per_sentence": latency[name],
        }
    write_dev_predictions(config.output_dir / DEV_PREDICTIONS, data.task, data.dev_examples, predictions)
    return measured
