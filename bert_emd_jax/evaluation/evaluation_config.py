"""The settings of an evaluation. No JAX here: flags are parsed before it is imported."""

import dataclasses
from pathlib import Path
from typing import Literal

from bert_emd_jax.errors import UserError
from bert_emd_jax.training.config import ProgramConfig, TaskConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig(TaskConfig, ProgramConfig):
    """What is evaluated."""

    student_model: Path
    """The model to evaluate: a model directory or a Hugging Face directory."""
    do_eval: bool = True
    """Accepted for the original command line; this program does nothing else."""
    split: Literal["dev", "test", "train"] = "dev"
    """The split to evaluate on."""
    submission: bool = False
    """With --split test: write the file that the GLUE benchmark takes, as SST-2.tsv."""
    eval_batch_size: int = 64
    """Examples per batch, over all devices."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("eval_batch_size", self.eval_batch_size >= 1, "at least 1")
        if self.submission and self.split != "test":
            raise UserError("--submission: GLUE takes predictions for its test sets; add --split test")
