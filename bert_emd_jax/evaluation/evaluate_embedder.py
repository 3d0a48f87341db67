"""Measuring a sentence embedder on a split of texts, as `bert-emd eval` and the Python API call it."""

import logging
from typing import Any

import jax.numpy as jnp
import numpy as np

from bert_emd_jax.checkpoints.model_directory import LoadedModel
from bert_emd_jax.configs import plain_values
from bert_emd_jax.data.kinds import SIMILARITY_METRICS
from bert_emd_jax.data.task import Task
from bert_emd_jax.devices.device_needs import device_needs
from bert_emd_jax.devices.parallel import replicate
from bert_emd_jax.devices.precision import resolved_dtype
from bert_emd_jax.encoding.batching import choose_bucket_lengths
from bert_emd_jax.encoding.dataset import check_length, check_rows
from bert_emd_jax.encoding.embedding_data import EmbeddingSplit, load_embedding_split
from bert_emd_jax.encoding.task_data import bucket_count
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.evaluation_config import EvaluationConfig
from bert_emd_jax.evaluation.intervals import score_interval
from bert_emd_jax.evaluation.metrics import Scored, ScoredRows
from bert_emd_jax.evaluation.model_cost import flops_per_sentence, measure_latency, size_of
from bert_emd_jax.evaluation.prediction import Predictor
from bert_emd_jax.evaluation.submission import write_table
from bert_emd_jax.evaluation.vector_scores import metrics_of, scored_vectors
from bert_emd_jax.models.heads import SentenceEmbedder

logger = logging.getLogger(__name__)


def evaluate_embedder(
    config: EvaluationConfig, model: LoadedModel, task: Task, source: str
) -> dict[str, Any]:
    """Returns what `eval_results.json` says; writes the cosine of every scored pair.

    Raises:
      UserError: a file or row that the user can put right, or nothing is there to measure by.
    """
    texts, embedding = config.task, model.config.embedding
    assert embedding is not None
    check_length(texts.max_seq_length, model.config.longest_input, config.student_model)
    split = load_embedding_split(texts, task, model.tokenizer, embedding, config.split)
    if split is None or (split.pairs is None and split.retrieval is None):
        raise UserError(
            f"--data_dir {texts.data_dir}: {config.split} has neither scored pairs (--text_column,"
            " --text_pair_column and --label_column) nor queries.tsv, documents.tsv and relevance.tsv in a"
            f" directory {config.split}: there is nothing to measure vectors by"
        )
    check_rows(split.rows, model.config, source)
    dtype = resolved_dtype(config.program.dtype)
    module = SentenceEmbedder(model.config, jnp.dtype(dtype))
    batches = -(-len(split.texts) // config.eval_batch_size)
    count = bucket_count(batches, device_needs().steps_for_another_length)
    lengths = choose_bucket_lengths(split.rows.lengths, texts.max_seq_length, count)
    logger.info("%s %s: %d %s", task.name, config.split, len(split), split.unit)
    vectors = Predictor(module).logits(replicate(model.params), split.rows, lengths, config.eval_batch_size)
    if not np.isfinite(vectors).all():
        raise UserError(f"{source}: its vectors are not finite; take another checkpoint")
    scored = scored_vectors(split, vectors)
    metric = task.primary_metric if task.primary_metric in scored else next(iter(scored))
    config.program.output_dir.mkdir(parents=True, exist_ok=True)
    _write_cosines(config, split, scored)
    latency = measure_latency({"student": (module, model.params)}, split.rows)
    return {
        "task": task.name,
        "kind": task.kind.name,
        "labels": None,
        "split": config.split,
        "rows": len(split),
        "unit": split.unit,
        "primary_metric": metric,
        "student": {
            "metrics": metrics_of(tuple(scored), scored),
            "interval": score_interval(metric, scored[metric], None),
            **size_of(model.config, model.params),
            "vector_size": model.config.output_size,
            "flops_per_sentence": flops_per_sentence(model.config, split.rows.lengths),
            "milliseconds_per_sentence": latency.milliseconds["student"],
        },
        "timed_on": latency.timed_on(),
        "compute_dtype": dtype,
        "flags": plain_values(config.flags()),
    }


def _write_cosines(config: EvaluationConfig, split: EmbeddingSplit, scored: dict[str, Scored]) -> None:
    """One row per scored pair: identifier, cosine, score."""
    cosines = scored.get(SIMILARITY_METRICS[0])
    if split.pairs is None or not isinstance(cosines, ScoredRows):
        return
    columns = [
        split.pairs.examples.identifiers,
        [f"{value:.6f}" for value in cosines.predictions],
        [f"{score:.6g}" for score in split.pairs.scores],
    ]
    path = config.program.output_dir / f"predictions_{config.split}.tsv"
    write_table(path, ["index", "prediction", "label"], columns)
