"""The config of an evaluation. No JAX here: flags are parsed before it is imported."""

import dataclasses
from pathlib import Path
from typing import Literal

from bert_emd_jax.configs import Config, ProgramConfig, ReadAnywhere, SameResult
from bert_emd_jax.data.task_config import TaskConfig
from bert_emd_jax.errors import UserError


@dataclasses.dataclass(frozen=True, init=False)
class EvaluationConfig(Config):
    """What to evaluate."""

    student_model: ReadAnywhere[Path]
    """Model to evaluate: a model directory or a Hugging Face directory."""
    do_eval: bool = True
    """Accepted for compatibility with the original command line; this program only evaluates."""
    split: Literal["dev", "test", "train"] = "dev"
    """Split to evaluate on."""
    labels_in_order: bool = False
    """Treat the model's labels as the task's, in the same order, although their names differ."""
    submission: bool = False
    """With --split test: write the file to submit to the GLUE benchmark, e.g. SST-2.tsv."""
    eval_batch_size: SameResult[int] = 64
    """Examples per batch, over all devices."""
    task: TaskConfig
    program: ProgramConfig

    def check(self) -> None:
        self.require("eval_batch_size", self.eval_batch_size >= 1, "at least 1")
        if self.submission and self.split != "test":
            raise UserError("--submission: GLUE takes predictions for its test sets; add --split test")
