"""What a trained model and its teacher predict on every row, for the report, --compare and own tools."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from bert_emd_jax.data.examples import Examples
from bert_emd_jax.data.sentences import Sentences
from bert_emd_jax.data.task import Task
from bert_emd_jax.files import replacing


def write_row_predictions(
    path: Path,
    task: Task,
    examples: Examples | Sentences,
    predictions: Mapping[str, Float[np.ndarray, "predicted ..."]],
) -> None:
    """Writes one JSON object per row: identifier, text or texts, label, predictions.

    `predictions` by model, as "student" and "teacher": of each row the probabilities of the task's
    labels in their order, or a value. Of a sentence: its tokens, and the names of their labels.
    """
    rows = _of_sentences if isinstance(examples, Sentences) else _of_texts
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for content in rows(task, examples, predictions):  # pyright: ignore[reportArgumentType]
            file.write(json.dumps(content, ensure_ascii=False) + "\n")


def _of_sentences(
    task: Task, sentences: Sentences, predictions: Mapping[str, Float[np.ndarray, "words labels"]]
) -> Iterator[dict[str, Any]]:
    labels, starts, truths = task.labels or (), sentences.starts.tolist(), sentences.labels
    assert truths is not None
    sides = {"label": truths} | {model: task.kind.answers(array) for model, array in predictions.items()}
    for row, words in enumerate(sentences.words):
        content: dict[str, Any] = {"id": sentences.identifiers[row], "tokens": words}
        of_row = slice(starts[row], starts[row + 1])
        yield content | {name: [labels[index] for index in side[of_row]] for name, side in sides.items()}


def _of_texts(
    task: Task, examples: Examples, predictions: Mapping[str, Float[np.ndarray, "rows ..."]]
) -> Iterator[dict[str, Any]]:
    assert examples.labels is not None  # dev rows without are refused, test rows not scored
    for row, label in enumerate(examples.labels):
        content: dict[str, Any] = {"id": examples.identifiers[row], "text": examples.texts_a[row]}
        if examples.texts_b is not None:
            content["text_pair"] = examples.texts_b[row]
        content["label"] = task.kind.json(label, task.labels)
        yield content | {model: np.round(array[row], 6).tolist() for model, array in predictions.items()}
