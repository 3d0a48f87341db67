"""run_finetune.py: fine-tunes a model on a task; this makes a teacher."""

import sys
from collections.abc import Sequence

from bert_emd_jax import finetune
from bert_emd_jax.commands.cli import Program
from bert_emd_jax.commands.results import print_training
from bert_emd_jax.runs.run_config import on_disk
from bert_emd_jax.training.training_config import FinetuneConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Fine-tunes and prints where things are; returns the exit code of the program."""
    with Program(
        "run_finetune.py",
        "Fine-tunes a model on a task; the result can be the teacher of bert-emd distill.",
        (
            "--bert_model google-bert/bert-base-uncased --data_dir glue/MRPC --task_name mrpc "
            "--output_dir teacher",
            "--bert_model bert --data_dir reviews --task_name custom --text_column text "
            "--output_dir teacher --dry_run",
        ),
        argv,
    ) as program:
        config = on_disk(program.parse(FinetuneConfig))
        print_training(config, finetune(config))
    return program.exit_code


if __name__ == "__main__":
    sys.exit(main())
