"""Evaluating a model directory on a split of a task, as `bert-emd eval` and the Python API call it."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bert_emd_jax.checkpoints.model_directory import LoadedModel, load_model
from bert_emd_jax.configs import plain_values
from bert_emd_jax.data.kinds import EMBEDDING, KINDS, kind_of
from bert_emd_jax.data.label_matching import match_labels
from bert_emd_jax.data.readers import Examples, scored_splits
from bert_emd_jax.data.sentences import Sentences
from bert_emd_jax.data.task import Task
from bert_emd_jax.devices.device_needs import device_needs
from bert_emd_jax.devices.parallel import replicate
from bert_emd_jax.devices.precision import resolved_dtype
from bert_emd_jax.encoding.batching import choose_bucket_lengths
from bert_emd_jax.encoding.dataset import check_length, check_rows
from bert_emd_jax.encoding.question_rows import QuestionRows
from bert_emd_jax.encoding.task_data import bucket_count, encoded, read_examples, task_of
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.answers import found_answers
from bert_emd_jax.evaluation.evaluate_embedder import evaluate_embedder
from bert_emd_jax.evaluation.evaluation_config import EvaluationConfig
from bert_emd_jax.evaluation.intervals import score_interval
from bert_emd_jax.evaluation.metrics import compute_metrics, scores_by_label
from bert_emd_jax.evaluation.model_cost import flops_per_sentence, measure_latency, size_of
from bert_emd_jax.evaluation.prediction import Predictor
from bert_emd_jax.evaluation.row_predictions import write_row_predictions
from bert_emd_jax.evaluation.scored_predictions import scored_predictions
from bert_emd_jax.evaluation.submission import check_can_submit, write_submission, write_table
from bert_emd_jax.evaluation.thresholds import thresholds_of
from bert_emd_jax.files import read_json, write_json, write_text
from bert_emd_jax.layout import RESULTS
from bert_emd_jax.models.heads import MODULES, AnswerFinder, SequenceClassifier, TokenClassifier

logger = logging.getLogger(__name__)

PROGRAM = "run_eval"


def evaluate(config: EvaluationConfig) -> dict[str, Any]:
    """Writes `eval_results.json`, `predictions_SPLIT.tsv` and, if asked for, the GLUE benchmark's files.

    Both sets of MNLI are covered. Returns the content of the first file.

    Raises:
      UserError: a flag, file or row that the user can put right, or a model of other labels than the task's.
    """
    output_dir, texts = config.program.output_dir, config.task
    check_results_are_ours(output_dir)
    given = texts.columns.given_kind
    head = KINDS[given].head if given else None
    model = load_model(config.student_model, head=head, do_lower_case=texts.do_lower_case)
    source = f"--student_model {config.student_model}"
    task = task_of(texts, model_kind=kind_of(model.config, source), model_labels=model.config.id2label)
    if config.submission:
        check_can_submit(task)
    if task.kind is EMBEDDING:
        results = evaluate_embedder(config, model, task, source)
    else:
        results = _evaluate_classifier(config, model, task, source)
    results = {"program": PROGRAM, **results}
    write_json(output_dir / RESULTS, results)
    return results


def _evaluate_classifier(
    config: EvaluationConfig, model: LoadedModel, task: Task, source: str
) -> dict[str, Any]:
    output_dir, texts = config.program.output_dir, config.task
    dtype = resolved_dtype(config.program.dtype)
    model = match_labels(model, task, source, in_order=config.labels_in_order)
    task = dataclasses.replace(task, kind=task.kind.deciding_by(model.config.thresholds))
    check_length(texts.max_seq_length, model.config.longest_input, config.student_model)
    splits = scored_splits(task, texts.directory, config.split, texts.tfds_data_dir)
    sets = {split: read_examples(texts, task, split) for split in splits}
    datasets = {split: encoded(texts, task, model.tokenizer, examples) for split, examples in sets.items()}
    for dataset in datasets.values():
        check_rows(dataset, model.config, source)
    lengths = np.concatenate([dataset.lengths for dataset in datasets.values()])
    batches = -(-len(lengths) // config.eval_batch_size)
    count = bucket_count(batches, device_needs().steps_for_another_length)
    buckets = choose_bucket_lengths(lengths, texts.max_seq_length, count)

    module = MODULES[task.kind.head](model.config, jnp.dtype(dtype))
    assert isinstance(module, SequenceClassifier | TokenClassifier | AnswerFinder)
    predictor, params = Predictor(module), replicate(model.params)
    metrics: dict[str, float] = {}
    of_split: dict[str, Any] = {}
    output_dir.mkdir(parents=True, exist_ok=True)
    for split, examples in sets.items():
        logger.info("%s %s: %d %s", task.name, split, len(examples), task.kind.unit)
        logits = predictor.logits(params, datasets[split], buckets, config.eval_batch_size)
        if not np.isfinite(logits).all():
            raise UserError(f"{source}: its predictions are not finite; take another checkpoint")
        if examples.labels is not None:
            suffix = split.removeprefix(config.split)
            predictions = task.kind.predictions(logits)
            scored = scored_predictions(task.kind, task.labels, predictions, datasets[split])
            scores = compute_metrics(task.metrics, scored, task.labels)
            metrics |= {name + suffix: score for name, score in scores.items()}
            if split == config.split:
                of_split = {"interval": score_interval(task.primary_metric, scored, task.labels)}
                of_split |= {"by_label": scores_by_label(scored, task.labels)}
        rows = datasets[split]
        if isinstance(rows, QuestionRows):
            write_answers(output_dir, split, rows, logits)
            if examples.labels is not None:
                path = output_dir / f"predictions_{split}.jsonl"
                write_row_predictions(path, task, examples, {"student": logits}, rows)
            continue
        if isinstance(examples, Sentences):
            write_conll(output_dir / f"predictions_{split}.conll", task, examples, logits)
            continue
        assert isinstance(examples, Examples)
        write_predictions(output_dir / f"predictions_{split}.tsv", task, examples, logits)
        if config.submission:
            path = write_submission(output_dir, task, split, examples, logits)
            logger.info("for the GLUE benchmark: %s", path)
    latency = measure_latency({"student": (module, model.params)}, datasets[config.split])
    return {
        "task": task.name,
        "kind": task.kind.name,
        "labels": task.labels,
        "split": config.split,
        "rows": len(sets[config.split]),
        "unit": task.kind.unit,
        "primary_metric": task.primary_metric,
        "student": {
            "metrics": metrics,
            **of_split,
            **thresholds_of(model.config),
            **size_of(model.config, model.params),
            "flops_per_sentence": flops_per_sentence(model.config, datasets[config.split].lengths),
            "milliseconds_per_sentence": latency.milliseconds["student"],
        },
        "timed_on": latency.timed_on(),
        "compute_dtype": dtype,
        "flags": plain_values(config.flags()),
    }


def check_results_are_ours(output_dir: Path) -> None:
    """Raises UserError where the results file of a training run would be overwritten."""
    path = output_dir / RESULTS
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output_dir {output_dir}: is a file; name a directory")
    if not path.is_file():
        return
    try:
        ours = read_json(path).get("program") == PROGRAM
    except (ValueError, AttributeError):
        ours = False
    if not ours:
        raise UserError(
            f"--output_dir {output_dir}: {RESULTS} there is not from this program; choose another directory"
        )


def write_answers(
    directory: Path, split: str, rows: QuestionRows, logits: Float[np.ndarray, "tokens 2"]
) -> None:
    """`predictions_SPLIT.json`: question → answer, as SQuAD's evaluation takes it; `nbest_SPLIT.json`."""
    found = dict(zip(rows.questions.identifiers, found_answers(rows, logits), strict=True))
    best = {identifier: answers[0].text for identifier, answers in found.items()}
    write_json(directory / f"predictions_{split}.json", best)
    ranked = {identifier: [one._asdict() for one in answers] for identifier, answers in found.items()}
    write_json(directory / f"nbest_{split}.json", ranked)


def write_conll(
    path: Path, task: Task, sentences: Sentences, logits: Float[np.ndarray, "words labels"]
) -> None:
    """A word a line with its true label, if it is known, and the predicted one, as conlleval reads them."""
    columns = [np.array(task.labels)[task.kind.answers(task.kind.predictions(logits))]]
    if sentences.labels is not None:
        columns.insert(0, np.array(task.labels)[sentences.labels])
    starts = sentences.starts.tolist()
    lines: list[str] = []
    for row, words in enumerate(sentences.words):
        of_row = (column[starts[row] : starts[row + 1]].tolist() for column in columns)
        # A word of a file of lists may hold what separates words here.
        plain = (" ".join(word.split()) or "_" for word in words)
        lines += ["\t".join(cells) for cells in zip(plain, *of_row, strict=True)]
        lines.append("")
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_predictions(
    path: Path, task: Task, examples: Examples, logits: Float[np.ndarray, "rows labels"]
) -> None:
    """One row per example: identifier, prediction, the true label where known, what each label is given."""
    kind, labels = task.kind, task.labels
    predictions = kind.predictions(logits)
    header = ["index", "prediction"]
    columns: list[list[str]] = [list(examples.identifiers)]
    columns.append([kind.text(answer, labels) for answer in kind.answers(predictions)])
    if examples.labels is not None:
        header.append("label")
        columns.append([kind.text(label, labels) for label in examples.labels])
    for index, name in enumerate(labels or ()):
        header.append(f"{kind.output_name}_{name}")
        columns.append([f"{value:.6f}" for value in predictions[:, index]])
    write_table(path, header, columns)
