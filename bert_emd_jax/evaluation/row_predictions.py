"""What a trained model and its teacher predict on every row, for the report, --compare and own tools."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from bert_emd_jax.data.examples import Examples
from bert_emd_jax.data.task import Task
from bert_emd_jax.files import replacing


def write_row_predictions(
    path: Path, task: Task, examples: Examples, predictions: Mapping[str, Float[np.ndarray, "rows ..."]]
) -> None:
    """Writes one JSON object per row: identifier, text or texts, label, predictions.

    `predictions` by model, as "student" and "teacher": of each row the probabilities of the task's
    labels in their order, or a value.
    """
    assert examples.labels is not None  # dev rows without are refused, test rows not scored
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row, label in enumerate(examples.labels):
            content: dict[str, object] = {"id": examples.identifiers[row], "text": examples.texts_a[row]}
            if examples.texts_b is not None:
                content["text_pair"] = examples.texts_b[row]
            content["label"] = task.kind.json(label, task.labels)
            content |= {model: np.round(array[row], 6).tolist() for model, array in predictions.items()}
            file.write(json.dumps(content, ensure_ascii=False) + "\n")
