"""What is measured of a sentence embedder during its training and at its end, beside its teacher."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_emd_jax import layout
from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.data.kinds import AGREEMENT_METRIC, SIMILARITY_METRICS
from bert_emd_jax.devices.compile_ahead import Task
from bert_emd_jax.devices.parallel import replicate
from bert_emd_jax.encoding.embedding_data import EmbeddingData, EmbeddingSplit
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.intervals import difference_interval, score_interval
from bert_emd_jax.evaluation.metrics import Scored, ScoredRows
from bert_emd_jax.evaluation.model_cost import (
    LATENCY_BATCH_SIZES,
    compile_for_latency,
    flops_per_sentence,
    measure_latency,
    size_of,
)
from bert_emd_jax.evaluation.prediction import Predictor
from bert_emd_jax.evaluation.row_predictions import write_row_predictions
from bert_emd_jax.evaluation.similarities import write_similarities
from bert_emd_jax.evaluation.vector_scores import agreement, metrics_of, scored_vectors
from bert_emd_jax.models.heads import SentenceEmbedder
from bert_emd_jax.models.initialization import VECTOR_PROJECTION
from bert_emd_jax.models.pooling import project


class EmbeddingEvaluation:
    """The scores of an embedder under training (`task_evaluation.Evaluation`)."""

    def __init__(
        self,
        data: EmbeddingData,
        modules: Mapping[str, SentenceEmbedder],
        teacher: LoadedModel,
        *,
        batch_size: int,
        directory: Path,
    ) -> None:
        """Measures models of `modules`, "student" and "teacher"; `directory` is that of the run."""
        self._data, self._batch_size, self._directory = data, batch_size, directory
        self._modules, self._teacher = modules, teacher
        self._predictors = {name: Predictor(module) for name, module in modules.items()}
        assert teacher.config.embedding is not None
        self._normalizes = teacher.config.embedding.normalizes
        self._needs_teacher = AGREEMENT_METRIC in data.task.metrics

    def needed_later(self, params: Any, models: Mapping[str, LoadedModel]) -> Iterator[Task]:
        dev = self._data.dev
        batches = dev.rows, self._lengths(dev), self._batch_size
        yield "evaluate", functools.partial(self._predictors["student"].compile, params, *batches)
        when = "evaluate" if self._needs_teacher else "export"
        yield when, functools.partial(self._predictors["teacher"].compile, models["teacher"].params, *batches)
        for name, model in models.items():
            for count in LATENCY_BATCH_SIZES:
                module = self._modules[name]
                yield "export", functools.partial(compile_for_latency, module, model.params, dev.rows, count)

    def metrics(self, params: Any) -> dict[str, float]:
        dev = self._data.dev
        vectors = self._vectors("student", params, dev, by_all_processes=True)
        projection = jax.device_get(params.get(VECTOR_PROJECTION))
        scored = self._scored(dev, vectors, projection, self._teachers_dev_vectors)
        return metrics_of(self._data.task.metrics, scored)

    def results(self, models: Mapping[str, LoadedModel], projection: Any = None) -> dict[str, Any]:
        """As `TaskEvaluation.results`.

        Writes the cosines of scored pairs, and how both models see a sample of texts, to the run's directory.

        Args:
          projection: of the student's vectors, if these have another width than the teacher's.
        """
        data = self._data
        latency = measure_latency(
            {name: (self._modules[name], model.params) for name, model in models.items()}, data.dev.rows
        )
        results: dict[str, Any] = {"task": data.task.name, "kind": data.task.kind.name, "labels": None}
        results |= {"split": "dev", "rows": len(data.dev), "unit": data.dev.unit, "chose_step": True}
        on_dev = self._measured(data.dev, models, projection, layout.DEV_PREDICTIONS)
        difference = on_dev.pop("difference")
        for name, model in models.items():
            results[name] = {
                "metrics": on_dev[name].pop("metrics"),
                **size_of(model.config, model.params),
                "vector_size": model.config.output_size,
                "flops_per_sentence": flops_per_sentence(model.config, data.dev.rows.lengths),
                "milliseconds_per_sentence": latency.milliseconds[name],
                **on_dev[name],
            }
        results |= {"difference": difference, "timed_on": latency.timed_on()}
        if data.test is not None:
            on_test = self._measured(data.test, models, projection, layout.TEST_PREDICTIONS)
            if data.task.primary_metric in on_test["student"]["metrics"]:
                results["test"] = {"rows": len(data.test), "unit": data.test.unit, **on_test}
        return results

    def _measured(
        self, split: EmbeddingSplit, models: Mapping[str, LoadedModel], projection: Any, file: str
    ) -> dict[str, Any]:
        """Scores and intervals of both models on a split, and their difference; writes what they say."""
        names, metric = self._data.task.metrics, self._data.task.primary_metric
        vectors = {
            name: self._vectors(name, replicate(model.params), split) for name, model in models.items()
        }
        scored = {
            "student": self._scored(split, vectors["student"], projection, vectors["teacher"]),
            "teacher": self._scored(split, vectors["teacher"], None, vectors["teacher"]),
        }
        measured: dict[str, Any] = {}
        for name, one in scored.items():
            interval = score_interval(metric, one[metric], None) if metric in one else None
            measured[name] = {"metrics": metrics_of(names, one), "interval": interval}
        measured["difference"] = None
        if all(metric in one for one in scored.values()):
            ours, theirs = (one[metric] for one in scored.values())
            low, high = difference_interval(metric, [ours], [theirs], None)
            values = [measured[name]["metrics"][metric] for name in scored]
            measured["difference"] = {"value": values[0] - values[1], "low": low, "high": high}
        if split.pairs is not None:
            cosines = {name: one[SIMILARITY_METRICS[0]] for name, one in scored.items()}
            said = {name: one.predictions for name, one in cosines.items() if isinstance(one, ScoredRows)}
            write_row_predictions(self._directory / file, self._data.task, split.pairs.examples, said)
        if split is self._data.dev:
            write_similarities(self._directory / layout.DEV_SIMILARITIES, split.texts, vectors)
        return measured

    def _scored(
        self, split: EmbeddingSplit, vectors: np.ndarray, projection: Any, teacher: np.ndarray | None
    ) -> dict[str, Scored]:
        if teacher is None or not self._needs_teacher:
            return scored_vectors(split, vectors)
        there = project(jnp.asarray(vectors), projection, normalized=self._normalizes)
        return scored_vectors(split, vectors) | agreement(np.asarray(there), teacher)

    @functools.cached_property
    def _teachers_dev_vectors(self) -> np.ndarray | None:
        """Computed in all processes, if they are compared with the student's during the training."""
        if not self._needs_teacher:
            return None
        return self._vectors(
            "teacher", replicate(self._teacher.params), self._data.dev, by_all_processes=True
        )

    def _vectors(
        self, name: str, params: Any, split: EmbeddingSplit, *, by_all_processes: bool = False
    ) -> np.ndarray:
        """Vectors of all texts of a split by a model's parameters."""
        vectors = self._predictors[name].logits(
            params, split.rows, self._lengths(split), self._batch_size, by_all_processes=by_all_processes
        )
        if not np.isfinite(vectors).all():
            raise UserError("the model's vectors are not finite any more: try a lower --learning_rate")
        return vectors

    def _lengths(self, split: EmbeddingSplit) -> tuple[int, ...]:
        lengths, longest = self._data.bucket_lengths, int(split.rows.lengths.max())
        # The test rows had no part in choosing the lengths.
        return lengths if longest <= max(lengths) else (*lengths, longest)
