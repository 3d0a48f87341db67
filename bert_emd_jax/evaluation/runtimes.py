"""One model by several runtimes, on a task: scores, and milliseconds per sentence, measured in turn."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.checkpoints.onnx_file import Runtime
from bert_emd_jax.data.kinds import EMBEDDING, kind_of
from bert_emd_jax.data.label_matching import match_labels
from bert_emd_jax.data.task_config import TaskConfig
from bert_emd_jax.encoding.batching import choose_bucket_lengths, evaluation_batches
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.encoding.embedding_data import load_embedding_split
from bert_emd_jax.encoding.task_data import encoded, read_examples, task_of
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.metrics import compute_metrics
from bert_emd_jax.evaluation.model_cost import latency_batches, seconds_in_turn
from bert_emd_jax.evaluation.scored_predictions import scored_predictions
from bert_emd_jax.evaluation.vector_scores import metrics_of, scored_vectors
from bert_emd_jax.models.params import flatten

_BATCH, _LENGTHS, _ROUNDS = 32, 4, 10


class RuntimeResults(NamedTuple):
    """Scores and median milliseconds per sentence (batch size → ms) of each runtime, on so many `rows`."""

    metric: str
    rows: int
    unit: str
    scores: dict[str, float]
    milliseconds: dict[str, dict[int, float]]


def measure_runtimes(
    model: LoadedModel, runtimes: Mapping[str, Runtime], texts: TaskConfig, split: str, source: str
) -> RuntimeResults:
    """Measures every runtime of a model on a split of a task.

    Args:
      runtimes: by name; each computes the model's outputs.
      source: what errors call the model.

    Raises:
      UserError: files or labels that do not fit the model, or a split without labels.
    """
    task = task_of(texts, model_kind=kind_of(model.config, source), model_labels=model.config.id2label)
    if task.kind is EMBEDDING:
        assert model.config.embedding is not None
        vectors = load_embedding_split(texts, task, model.tokenizer, model.config.embedding, split)
        if vectors is None or (vectors.pairs is None and vectors.retrieval is None):
            raise UserError(f"{texts.data_dir}: {split} has no pairs with scores and no search to measure by")
        dataset, rows, unit = vectors.rows, len(vectors), vectors.unit

        def scores_of(outputs: Float[np.ndarray, "..."]) -> dict[str, float]:
            scored = scored_vectors(vectors, outputs)
            return metrics_of(tuple(scored), scored)
    else:
        if not _same_outputs(match_labels(model, task, source), model):
            raise UserError(f"{source}: its labels are in another order than those of {texts.data_dir}")
        examples = read_examples(texts, task, split)
        if examples.labels is None:
            raise UserError(f"{texts.data_dir}: {split} has no labels to score by")
        dataset, rows, unit = encoded(texts, task, model.tokenizer, examples), len(examples), task.kind.unit

        def scores_of(outputs: Float[np.ndarray, "..."]) -> dict[str, float]:
            predictions = task.kind.predictions(outputs)
            scored = scored_predictions(task.kind, task.labels, predictions, dataset)
            return compute_metrics(task.metrics, scored, task.labels)

    outputs = {name: _outputs(run, dataset, model, texts.max_seq_length) for name, run in runtimes.items()}
    all_scores = {name: scores_of(of_runtime) for name, of_runtime in outputs.items()}
    first = next(iter(all_scores.values()))
    metric = task.primary_metric if task.primary_metric in first else next(iter(first))
    return RuntimeResults(
        metric=metric,
        rows=rows,
        unit=unit,
        scores={name: scores[metric] for name, scores in all_scores.items()},
        milliseconds=_milliseconds(runtimes, dataset),
    )


def _same_outputs(model: LoadedModel, other: LoadedModel) -> bool:
    """Whether the classifiers of two models have their labels in the same order."""
    ours, theirs = (flatten(one.params).get("classifier/kernel") for one in (model, other))
    return ours is theirs if ours is None or theirs is None else bool(np.array_equal(ours, theirs))


def _outputs(
    run: Runtime, dataset: EncodedDataset, model: LoadedModel, longest: int
) -> Float[np.ndarray, "predicted outputs"]:
    """Returns the outputs for every row, word or token, in the dataset's order."""
    lengths = choose_bucket_lengths(dataset.lengths, longest, _LENGTHS)
    results = np.zeros((dataset.predicted, model.config.output_size), np.float32)
    for batch in evaluation_batches(dataset.lengths, lengths, _BATCH):
        arrays = dataset.collate(batch.rows, batch.length, _BATCH)
        dataset.place(results, batch.rows, np.asarray(run(arrays))[: len(batch.rows)])
    return results


def _milliseconds(runtimes: Mapping[str, Runtime], dataset: EncodedDataset) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {name: {} for name in runtimes}
    for rows, batch in latency_batches(dataset).items():
        calls = {name: functools.partial(run, batch) for name, run in runtimes.items()}
        seconds_in_turn(calls, 1)  # compiles
        for name, seconds in seconds_in_turn(calls, _ROUNDS).items():
            found[name][rows] = 1000 * float(np.median(seconds)) / rows
    return found
