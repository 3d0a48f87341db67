"""Training on a task: its rows, its metrics on the dev sets, and what is measured of the result."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bert_emd_jax import layout
from bert_emd_jax.checkpoints.model_directory import Model
from bert_emd_jax.data.batching import BatchSchedule
from bert_emd_jax.data.encoding import EncodedDataset
from bert_emd_jax.data.task_data import TaskData
from bert_emd_jax.devices.parallel import replicate
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.intervals import difference_interval, score_interval
from bert_emd_jax.evaluation.metrics import compute_metrics
from bert_emd_jax.evaluation.model_cost import flops_per_sentence, measure_latency, size_of
from bert_emd_jax.evaluation.prediction import Predictor
from bert_emd_jax.evaluation.row_predictions import write_row_predictions
from bert_emd_jax.files import content_hash
from bert_emd_jax.models.bert_config import BertConfig
from bert_emd_jax.models.heads import BertForSequenceClassification
from bert_emd_jax.training.row_source import TaskRows
from bert_emd_jax.training.training_config import OptimizerConfig


def classifier(config: BertConfig, dtype: str, remat: bool = False) -> nn.Module:
    """The module of a model, computing in `dtype`; see `BertEncoder` for `remat`."""
    return BertForSequenceClassification(config, jnp.dtype(dtype), remat)


def task_rows(data: TaskData, config: OptimizerConfig) -> TaskRows:
    """The training rows of a task in the order of the seed."""
    lengths, batch_size = data.train.lengths, config.train_batch_size
    return TaskRows(data.train, BatchSchedule(lengths, data.bucket_lengths, batch_size, config.seed))


def rows_hashes(data: TaskData) -> dict[str, str]:
    """Hashes of the rows of a task that a run is made from."""
    return {
        f"the {name} rows": content_hash(
            rows.pad_id,
            {key: values for key, values in vars(rows).items() if isinstance(values, np.ndarray)},
        )
        for name, rows in (("training", data.train), ("dev", data.dev))
    }


class TaskEvaluation:
    """The scores of a model under training on a task's dev sets."""

    def __init__(
        self, data: TaskData, module: nn.Module, dtype: str, batch_size: int, directory: Path
    ) -> None:
        """Scores parameters of `module`; `directory` is that of the run."""
        self._data, self._dtype, self._batch_size = data, dtype, batch_size
        self._predictor = Predictor(module)
        self._directory = directory

    def metrics(self, params: Any) -> dict[str, float]:
        """The task's metrics on the first dev set, for replicated parameters."""
        return self._scores(self._data.dev, self._logits(self._predictor, params, self._data.dev))

    def results(self, models: Mapping[str, Model]) -> dict[str, Any]:
        """Metrics on every dev set, sizes and latency of models: of the student, perhaps of its teacher.

        `test` has the same of a test split with labels, which has chosen nothing. `interval` and `difference`
        (the student's score above its teacher's, with `low` and `high`) are of the deciding metric.

        Writes what they predict on the first dev set, and on the test split, to the run's directory.
        """
        data = self._data
        modules = {name: classifier(model.config, self._dtype) for name, model in models.items()}
        latency = measure_latency(
            {name: (modules[name], model.params) for name, model in models.items()}, data.dev
        )
        measured, predictions, on_test = {}, {}, {}
        for name, model in models.items():
            predictor, params = Predictor(modules[name]), replicate(model.params)
            metrics = {}
            for suffix, dev in {"": data.dev, **data.more_dev}.items():
                logits = self._logits(predictor, params, dev)
                metrics |= {metric + suffix: score for metric, score in self._scores(dev, logits).items()}
                if dev is data.dev:
                    predictions[name] = logits
            measured[name] = {
                "metrics": metrics,
                **size_of(model.config, model.params),
                "flops_per_sentence": flops_per_sentence(model.config, data.dev.lengths),
                "milliseconds_per_sentence": latency.milliseconds[name],
            }
            if data.test is not None:
                on_test[name] = self._logits(predictor, params, data.test)
        path = self._directory / layout.DEV_PREDICTIONS
        write_row_predictions(path, data.task, data.dev_examples, predictions)
        if data.test_examples is not None:
            path = self._directory / layout.TEST_PREDICTIONS
            write_row_predictions(path, data.task, data.test_examples, on_test)
        certainty = self._certainty(data.dev, predictions)
        for name, interval in certainty.pop("intervals").items():
            measured[name]["interval"] = interval
        results = {"task": data.task.name, "split": "dev", "rows": len(data.dev), "chose_step": True}
        results |= {"labels": data.task.labels, **measured, **certainty, "timed_on": latency.timed_on()}
        if data.test is not None:
            of_test = self._certainty(data.test, on_test)
            scores = {
                name: {"metrics": self._scores(data.test, logits), "interval": of_test["intervals"][name]}
                for name, logits in on_test.items()
            }
            difference = {key: value for key, value in of_test.items() if key == "difference"}
            results["test"] = {"rows": len(data.test), **scores, **difference}
        return results

    def _certainty(
        self, rows: EncodedDataset, logits: Mapping[str, Float[np.ndarray, "rows labels"]]
    ) -> dict[str, Any]:
        """Intervals of the deciding metric by model, and that of the difference between both."""
        assert rows.labels is not None
        metric = self._data.task.metrics[0]
        result: dict[str, Any] = {
            "intervals": {
                name: score_interval(metric, values, rows.labels) for name, values in logits.items()
            }
        }
        if len(logits) == 2:
            student, teacher = logits["student"], logits["teacher"]
            low, high = difference_interval(metric, [student], [teacher], rows.labels)
            scores = (self._scores(rows, values)[metric] for values in (student, teacher))
            ours, theirs = scores
            result["difference"] = {"value": ours - theirs, "low": low, "high": high}
        return result

    def _logits(
        self, predictor: Predictor, params: Any, dev: EncodedDataset
    ) -> Float[np.ndarray, "rows labels"]:
        lengths, longest = self._data.bucket_lengths, int(dev.lengths.max())
        # The test rows had no part in choosing the lengths.
        lengths = lengths if longest <= max(lengths) else (*lengths, longest)
        return predictor.logits(params, dev, lengths, self._batch_size)

    def _scores(self, dev: EncodedDataset, logits: Float[np.ndarray, "rows labels"]) -> dict[str, float]:
        assert dev.labels is not None  # read_split refuses train and dev rows without a label
        if not np.isfinite(logits).all():
            raise UserError("the model's predictions are not finite any more: try a lower --learning_rate")
        return compute_metrics(self._data.task.metrics, logits, dev.labels)
