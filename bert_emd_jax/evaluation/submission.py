"""The files that the GLUE benchmark takes: predictions on its test sets, in the form of its web site."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from bert_emd_jax.data.readers import Examples
from bert_emd_jax.data.task import Task
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import write_text

_FILES = {
    ("CoLA", "test"): "CoLA.tsv",
    ("SST-2", "test"): "SST-2.tsv",
    ("MRPC", "test"): "MRPC.tsv",
    ("STS-B", "test"): "STS-B.tsv",
    ("QQP", "test"): "QQP.tsv",
    ("MNLI", "test"): "MNLI-m.tsv",
    ("MNLI", "test_mismatched"): "MNLI-mm.tsv",
    ("QNLI", "test"): "QNLI.tsv",
    ("RTE", "test"): "RTE.tsv",
    ("WNLI", "test"): "WNLI.tsv",
    ("AX", "test"): "AX.tsv",
}


def check_can_submit(task: Task) -> None:
    """Raises UserError for a task that is none of the benchmark's."""
    if (task.name, "test") not in _FILES:
        raise UserError(f"--submission: {task.name} is not a task of the GLUE benchmark; leave it out")


def write_submission(
    directory: Path, task: Task, split: str, examples: Examples, logits: Float[np.ndarray, "rows labels"]
) -> Path:
    """Writes the benchmark's file for a test set; returns its path.

    Class names where the benchmark has names, numbers elsewhere; similarities are cut to 0 … 5.

    Raises:
      UserError: rows of the test set were skipped, so that predictions for them are missing.
    """
    if examples.skipped_lines:
        raise UserError(
            f"{examples.path}:{examples.skipped_lines[0]}: malformed, so there is no prediction for it;"
            " the benchmark wants one for every row: correct the file"
        )
    answers = task.kind.answers(task.kind.predictions(logits))
    if task.name == "STS-B":
        predictions = [f"{value:.3f}" for value in np.clip(answers, 0, 5)]
    else:
        predictions = [task.kind.text(answer, task.labels) for answer in answers]
    path = directory / _FILES[task.name, split]
    write_table(path, ["index", "prediction"], [examples.identifiers, predictions])
    return path


def write_table(path: Path, header: Sequence[str], columns: Sequence[Sequence[str]]) -> None:
    """Writes columns of text as a tab-separated file, complete or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    write_text(path, text.getvalue())
