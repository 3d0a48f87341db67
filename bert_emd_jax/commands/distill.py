"""run_distill.py: distils a teacher into a student by optimal-transport layer mapping."""

import sys
from collections.abc import Sequence

from bert_emd_jax import distill, general_distill
from bert_emd_jax.commands.cli import Program
from bert_emd_jax.commands.config_file import names_flag
from bert_emd_jax.commands.results import print_training
from bert_emd_jax.distillation.distill_config import DistillConfig, GeneralDistillConfig
from bert_emd_jax.distillation.presets import with_preset_flags
from bert_emd_jax.runs.run_config import on_disk

_PROGRAM = "run_distill.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Distils and prints where things are; returns the exit code of the program."""
    args = sys.argv[1:] if argv is None else list(argv)
    if names_flag(args, "pregenerated_data"):
        return _main_general(args)
    with Program(
        _PROGRAM,
        "Distils a fine-tuned BERT teacher into a smaller student. The Earth Mover's Distance"
        " between the two stacks of layers says, at every step, which layer learns from which."
        "\nGeneral distillation, without a task: bert-emd distill --pregenerated_data DIR --help.",
        (
            "--teacher_model teacher --student_init_layers 1,3,5,7,9,11 --data_dir glue/MRPC "
            "--task_name mrpc --output_dir student",
            "--teacher_model teacher --student_model tinybert --data_dir glue/MRPC --task_name mrpc "
            "--output_dir student --preset bert_emd_4 --dry_run",
        ),
        args,
    ) as program:
        config = on_disk(program.parse(DistillConfig, with_preset_flags))
        print_training(config, distill(config))
    return program.exit_code


def _main_general(args: Sequence[str]) -> int:
    with Program(
        _PROGRAM,
        "General distillation: a student learns the layers of a teacher over a corpus"
        " that bert-emd pretrain-data has prepared.",
        (
            "--pregenerated_data corpus --teacher_model bert --student_config small/config.json "
            "--output_dir general_student",
        ),
        args,
    ) as program:
        config = on_disk(program.parse(GeneralDistillConfig))
        print_training(config, general_distill(config))
    return program.exit_code


if __name__ == "__main__":
    sys.exit(main())
