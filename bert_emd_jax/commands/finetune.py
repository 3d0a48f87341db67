"""run_finetune.py: fine-tunes a BERT on a task; this makes a teacher."""

from collections.abc import Sequence

from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.training.config import FinetuneConfig


def run(config: FinetuneConfig) -> None:
    """Fine-tunes and prints where things are."""
    from bert_emd_jax import finetune
    from bert_emd_jax.commands.results import print_training

    print_training(config, finetune(config))


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_program(
        FinetuneConfig,
        run,
        prog="run_finetune.py",
        description="Fine-tunes a BERT on a task; the result can be the teacher of run_distill.py.",
        examples=(
            "--bert_model google-bert/bert-base-uncased --data_dir glue/MRPC --task_name mrpc "
            "--output_dir teacher",
            "--bert_model bert --data_dir reviews --task_name custom --text_column text "
            "--output_dir teacher --dry_run",
        ),
        argv=argv,
    )
