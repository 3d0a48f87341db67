"""Training on a task: its rows, its metrics on the dev sets, and what is measured of the result."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float

from bert_emd_jax import layout
from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.data.kind import LearnedKind
from bert_emd_jax.data.kinds import CLASSIFICATION, MULTI_LABEL
from bert_emd_jax.data.task import Task
from bert_emd_jax.devices.compile_ahead import Task as CompileTask
from bert_emd_jax.devices.parallel import replicate
from bert_emd_jax.encoding.batching import BatchSchedule
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.encoding.embedding_data import EmbeddingData
from bert_emd_jax.encoding.task_data import AnyExamples, TaskData
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.intervals import difference_interval, score_interval
from bert_emd_jax.evaluation.metrics import Scored, compute_metrics, scores_by_label
from bert_emd_jax.evaluation.model_cost import (
    LATENCY_BATCH_SIZES,
    compile_for_latency,
    flops_per_sentence,
    measure_latency,
    size_of,
)
from bert_emd_jax.evaluation.prediction import Predictor
from bert_emd_jax.evaluation.row_predictions import write_row_predictions
from bert_emd_jax.evaluation.scored_predictions import scored_predictions
from bert_emd_jax.evaluation.thresholds import best_thresholds, best_thresholds_by_label, thresholds_of
from bert_emd_jax.files import content_hash
from bert_emd_jax.models.batch import Batch
from bert_emd_jax.models.encoder_config import EncoderConfig
from bert_emd_jax.models.ensemble import Ensemble
from bert_emd_jax.training.classifiers import Classifier, members_of, module_of
from bert_emd_jax.training.kept_logits import kept_logits
from bert_emd_jax.training.row_source import TaskRows
from bert_emd_jax.training.training_config import CHOSEN_BY_LABEL, CHOSEN_ON_DEV, OptimizerConfig

logger = logging.getLogger(__name__)


def task_rows(data: TaskData | EmbeddingData, config: OptimizerConfig) -> TaskRows:
    """The training rows of a task in the order of the seed."""
    lengths, batch_size = data.train.lengths, config.train_batch_size
    return TaskRows(data.train, BatchSchedule(lengths, data.bucket_lengths, batch_size, config.seed))


def rows_hashes(data: TaskData | EmbeddingData) -> dict[str, str]:
    """Hashes of the rows of a task that a run is made from."""
    rows = {"training": data.train.arrays, "dev": data.dev.arrays}
    return {f"the {name} rows": content_hash(data.train.pad_id, arrays) for name, arrays in rows.items()}


def check_threshold(threshold: str | None, task: Task) -> None:
    """Raises UserError if `--threshold` asks for what such a task does not have."""
    if threshold is None:
        return
    if task.kind is MULTI_LABEL:
        return
    if task.kind is not CLASSIFICATION or task.num_labels != 2:
        raise UserError(
            f"--threshold: for two classes, or --kind {MULTI_LABEL.name}; {task.name} is of kind"
            f" {task.kind.name} with {task.num_labels} labels; leave it out"
        )
    if threshold == CHOSEN_BY_LABEL:
        raise UserError(f"--threshold {threshold}: two classes have one threshold; use {CHOSEN_ON_DEV}")


def labelled(task: Task, batch: Batch) -> Float[Array, " micro"]:
    """How many labels there are in each of a step's micro-batches: `Trainer.weighs` of a task."""
    kind = task.kind
    assert isinstance(kind, LearnedKind)
    weights = jax.vmap(kind.loss_weights)(batch["labels"], batch["weights"])
    return weights.reshape(len(weights), -1).sum(axis=1)


class Evaluation(Protocol):
    """What is measured of models during a training on a task, and at its end."""

    def needed_later(self, params: Any, models: Mapping[str, LoadedModel]) -> Iterator[CompileTask]:
        """What `metrics` of such parameters ("evaluate") and `results` of such models ("export") compile."""
        ...

    def metrics(self, params: Any) -> dict[str, float]:
        """The scores on the dev set of replicated parameters; called in all processes."""
        ...

    def results(self, models: Mapping[str, LoadedModel]) -> dict[str, Any]:
        """What a results file says of models: the "student" and perhaps its "teacher"."""
        ...


class _Predicted(NamedTuple):
    """Predictions of the task's kind, and what their scores are computed of."""

    predictions: Float[np.ndarray, "predicted ..."]
    scored: Scored


class TaskEvaluation:
    """The scores of a model under training on a task's dev sets."""

    def __init__(
        self,
        data: TaskData,
        module: Classifier,
        dtype: str,
        batch_size: int,
        directory: Path,
        kept_in: Path | None = None,
    ) -> None:
        """Scores parameters of `module`.

        Args:
          directory: of the run.
          kept_in: where a teacher's predictions are kept for other runs; None: nowhere.
        """
        self._data, self._dtype, self._batch_size = data, dtype, batch_size
        self._kept_in = kept_in
        self._predictor = Predictor(module)
        self._directory = directory

    def needed_later(self, params: Any, models: Mapping[str, LoadedModel]) -> Iterator[CompileTask]:
        """What `metrics` of such parameters ("evaluate") and `results` of such models ("export") compile."""
        dev = self._data.dev
        rows = dev, self._lengths(dev), self._batch_size
        yield "evaluate", functools.partial(self._predictor.compile, params, *rows)
        for name, model in models.items():
            module = module_of(model, self._dtype)
            if name != "student":
                yield "export", functools.partial(Predictor(module).compile, model.params, *rows)
            for count in LATENCY_BATCH_SIZES:
                yield "export", functools.partial(compile_for_latency, module, model.params, dev, count)

    def metrics(self, params: Any) -> dict[str, float]:
        """The task's metrics on the first dev set, for replicated parameters; called in all processes."""
        dev = self._data.dev
        logits = self._predictor.logits(
            params, dev, self._lengths(dev), self._batch_size, by_all_processes=True
        )
        return self._scores(self._scored(logits, dev).scored)

    def results(self, models: Mapping[str, LoadedModel]) -> dict[str, Any]:
        """Metrics on every dev set, sizes and latency of models: of the student, perhaps of its teacher.

        `test` has the same of a test split with labels, which has chosen nothing. `interval` and `difference`
        (student minus teacher) are of the deciding metric, `by_label` of every label.

        Writes what they predict on the first dev set, and on the test split, to the run's directory.
        """
        data = self._data
        modules = {name: module_of(model, self._dtype) for name, model in models.items()}
        latency = measure_latency(
            {name: (modules[name], model.params) for name, model in models.items()}, data.dev
        )
        measured: dict[str, Any] = {}
        on_dev: dict[str, _Predicted] = {}
        on_test: dict[str, _Predicted] = {}
        for name, model in models.items():
            kept_in = None if name == "student" else self._kept_in
            predicted = self._predictions_of(model, modules[name], kept_in)
            on_dev[name] = predicted(data.dev)
            metrics = self._scores(on_dev[name].scored)
            for suffix, dev in data.more_dev.items():
                scores = self._scores(predicted(dev).scored)
                metrics |= {metric + suffix: score for metric, score in scores.items()}
            measured[name] = {
                "metrics": metrics,
                **thresholds_of(model.config),
                **size_of(model.config, model.params),
                "flops_per_sentence": sum(
                    flops_per_sentence(one.config, data.dev.lengths) for one in members_of(model)
                ),
                "milliseconds_per_sentence": latency.milliseconds[name],
            }
            if data.test is not None:
                on_test[name] = predicted(data.test)
        of_dev, difference = self._certainty(on_dev)
        self._write_predictions(layout.DEV_PREDICTIONS, data.dev_examples, data.dev, on_dev)
        kind, unit = data.task.kind, data.task.kind.unit
        results = {"task": data.task.name, "kind": kind.name, "labels": data.task.labels}
        results |= {"split": "dev", "rows": len(data.dev_examples), "unit": unit, "chose_step": True}
        results |= {name: measured[name] | of_dev[name] for name in models}
        results |= {**difference, "timed_on": latency.timed_on()}
        if data.test is not None and data.test_examples is not None:
            of_test, difference = self._certainty(on_test)
            self._write_predictions(layout.TEST_PREDICTIONS, data.test_examples, data.test, on_test)
            scores = {
                name: {"metrics": self._scores(on_test[name].scored), **of_test[name]} for name in models
            }
            results["test"] = {"rows": len(data.test_examples), "unit": unit, **scores, **difference}
        return results

    def _certainty(
        self, predicted: Mapping[str, _Predicted]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """By model the interval of the deciding metric and scores by label; and how far two are apart."""
        task = self._data.task
        metric, labels = task.primary_metric, task.labels
        scored = {name: one.scored for name, one in predicted.items()}
        by_model = {
            name: {"interval": score_interval(metric, one, labels), "by_label": scores_by_label(one, labels)}
            for name, one in scored.items()
        }
        if len(scored) < 2:
            return by_model, {}
        student, teacher = scored["student"], scored["teacher"]
        low, high = difference_interval(metric, [student], [teacher], labels)
        ours, theirs = (compute_metrics([metric], one, labels)[metric] for one in (student, teacher))
        return by_model, {"difference": {"value": ours - theirs, "low": low, "high": high}}

    def decided(self, model: LoadedModel, threshold: str | None) -> LoadedModel:
        """Returns the model with the thresholds that `--threshold` asks for, chosen on the first dev set."""
        if threshold is None:
            return model
        task, dev = self._data.task, self._data.dev
        if threshold in (CHOSEN_ON_DEV, CHOSEN_BY_LABEL):
            undecided = dataclasses.replace(model, config=dataclasses.replace(model.config, thresholds=None))
            module = module_of(model, self._dtype)
            predictions = self._predictions_of(undecided, module)(dev).predictions
            assert dev.labels is not None
            if threshold == CHOSEN_BY_LABEL:
                chosen = best_thresholds_by_label(predictions, dev.labels)
            else:
                metric = task.primary_metric
                chosen = best_thresholds(task.kind, task.labels, predictions, dev.labels, metric)
        else:
            chosen = (float(threshold),) * (task.num_labels if task.kind is MULTI_LABEL else 1)
        logger.info("labels are given from %s on", ", ".join(f"{one:.3f}" for one in dict.fromkeys(chosen)))
        return dataclasses.replace(model, config=dataclasses.replace(model.config, thresholds=chosen))

    def _predictions_of(
        self, model: LoadedModel, module: Classifier | Ensemble, kept_in: Path | None = None
    ) -> Callable[[EncodedDataset], _Predicted]:
        """What a model predicts, as its thresholds say; kept for other runs if `kept_in` says where."""
        predictor, params = Predictor(module), functools.cache(lambda: replicate(model.params))

        def predicted(rows: EncodedDataset) -> _Predicted:
            def logits() -> np.ndarray:
                return predictor.logits(params(), rows, self._lengths(rows), self._batch_size)

            return self._scored(kept_logits(kept_in, module, model, rows, logits), rows, model.config)

        return predicted

    def _scored(
        self, logits: np.ndarray, rows: EncodedDataset, config: EncoderConfig | None = None
    ) -> _Predicted:
        """Scores predictions for rows, which have labels: train and dev rows without one are refused.

        Args:
          config: of a model that is scored as its thresholds say.
        """
        if not np.isfinite(logits).all():
            raise UserError("the model's predictions are not finite any more: try a lower --learning_rate")
        task = self._data.task
        kind = task.kind.deciding_by(config.thresholds if config else None)
        predictions = kind.predictions(logits)
        return _Predicted(predictions, scored_predictions(kind, task.labels, predictions, rows))

    def _lengths(self, rows: EncodedDataset) -> tuple[int, ...]:
        lengths, longest = self._data.bucket_lengths, int(rows.lengths.max())
        # The test rows had no part in choosing the lengths.
        return lengths if longest <= max(lengths) else (*lengths, longest)

    def _scores(self, scored: Scored) -> dict[str, float]:
        return compute_metrics(self._data.task.metrics, scored, self._data.task.labels)

    def _write_predictions(
        self, name: str, examples: AnyExamples, rows: EncodedDataset, predicted: Mapping[str, _Predicted]
    ) -> None:
        predictions = {model: one.predictions for model, one in predicted.items()}
        write_row_predictions(self._directory / name, self._data.task, examples, predictions, rows)
