"""What a trained model and its teacher predict on every row, for the report, --compare and own tools."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from bert_emd_jax.data.examples import Examples
from bert_emd_jax.data.task import Task
from bert_emd_jax.files import replacing


def write_row_predictions(
    path: Path, task: Task, examples: Examples, logits: Mapping[str, Float[np.ndarray, "rows labels"]]
) -> None:
    """Writes one JSON object per row: identifier, text or texts, label, predictions.

    `logits` by model, as "student" and "teacher": each becomes the list of the classes' probabilities in the
    order of the task's labels, or the predicted value for regression.
    """
    assert examples.labels is not None  # dev rows without are refused, test rows not scored
    values = {
        model: array[:, 0] if task.is_regression else softmax(array.astype(np.float64), axis=1)
        for model, array in logits.items()
    }
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row, label in enumerate(examples.labels):
            content: dict[str, object] = {"id": examples.identifiers[row], "text": examples.texts_a[row]}
            if examples.texts_b is not None:
                content["text_pair"] = examples.texts_b[row]
            content["label"] = float(label) if task.labels is None else task.labels[int(label)]
            content |= {model: np.round(array[row], 6).tolist() for model, array in values.items()}
            file.write(json.dumps(content, ensure_ascii=False) + "\n")
