"""What a trained model and its teacher predict on every row, for the report, --compare and own tools."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from bert_emd_jax.data.examples import Examples
from bert_emd_jax.data.questions import Questions
from bert_emd_jax.data.sentences import Sentences
from bert_emd_jax.data.task import Task
from bert_emd_jax.encoding.dataset import EncodedDataset
from bert_emd_jax.encoding.question_rows import QuestionRows
from bert_emd_jax.evaluation.answers import found_answers
from bert_emd_jax.files import replacing


def write_row_predictions(
    path: Path,
    task: Task,
    examples: Examples | Sentences | Questions,
    predictions: Mapping[str, Float[np.ndarray, "predicted ..."]],
    rows: EncodedDataset | None = None,
) -> None:
    """Writes one JSON object per row: identifier, text or texts, label, predictions.

    `predictions` by model, as "student" and "teacher": of each row the probabilities of the task's
    labels in their order, or a value. Of a sentence: its tokens, and the names of their labels. Of a
    question: its text, the right answers, and those of the models, which are found in its `rows`.
    """
    if isinstance(rows, QuestionRows):
        contents = _of_questions(rows, predictions)
    elif isinstance(examples, Sentences):
        contents = _of_sentences(task, examples, predictions)
    else:
        assert isinstance(examples, Examples)
        contents = _of_texts(task, examples, predictions)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for content in contents:
            file.write(json.dumps(content, ensure_ascii=False) + "\n")


def _of_questions(
    rows: QuestionRows, predictions: Mapping[str, Float[np.ndarray, "tokens 2"]]
) -> Iterator[dict[str, Any]]:
    questions = rows.questions
    assert questions.answers is not None
    said = {model: found_answers(rows, logits) for model, logits in predictions.items()}
    for row, (question, context, right) in enumerate(
        zip(questions.questions, questions.contexts, questions.answers, strict=True)
    ):
        yield {
            "id": questions.identifiers[row],
            "text": question,
            "context": context,
            "label": [{"text": answer.text, "start": answer.start} for answer in right],
            **{
                model: {"text": best[row][0].text, "start": best[row][0].start, "score": best[row][0].score}
                for model, best in said.items()
            },
        }


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
