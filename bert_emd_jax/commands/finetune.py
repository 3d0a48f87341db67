"""run_finetune.py: fine-tunes a BERT on a task; this makes a teacher."""

from collections.abc import Sequence

from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.training.config import FinetuneConfig


def run(config: FinetuneConfig) -> None:
    """Fine-tunes, writes the report and prints where things are."""
    from bert_emd_jax.commands.results import report_training
    from bert_emd_jax.training.finetune import finetune

    report_training(config.output_dir, finetune(config))


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_program(
        FinetuneConfig,
        run,
        prog="run_finetune.py",
        description="Fine-tunes a BERT on a task; the result can be the teacher of run_distill.py.",
        argv=argv,
    )
