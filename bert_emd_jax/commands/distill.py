"""run_distill.py: distils a teacher into a student by optimal-transport layer mapping."""

import sys
from collections.abc import Sequence

from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.distillation.presets import with_preset_flags
from bert_emd_jax.training.config import DistillConfig, GeneralDistillConfig

_PROGRAM = "run_distill.py"


def run(config: DistillConfig) -> None:
    """Distils and prints where things are."""
    from bert_emd_jax import distill
    from bert_emd_jax.commands.results import print_training

    print_training(config, distill(config))


def run_general(config: GeneralDistillConfig) -> None:
    """Distils over a corpus and prints where things are."""
    from bert_emd_jax import general_distill
    from bert_emd_jax.commands.results import print_training

    print_training(config, general_distill(config))


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    args = sys.argv[1:] if argv is None else list(argv)
    if any(arg.replace("-", "_").startswith("__pregenerated_data") for arg in args):
        return run_program(
            GeneralDistillConfig,
            run_general,
            prog=_PROGRAM,
            description="General distillation: a student learns the layers of a teacher over a corpus"
            " that run_pretrain_data.py has prepared.",
            examples=(
                "--pregenerated_data corpus --teacher_model bert --student_config small/config.json "
                "--output_dir general_student",
            ),
            argv=args,
        )
    return run_program(
        DistillConfig,
        run,
        prog=_PROGRAM,
        description="Distils a fine-tuned BERT teacher into a smaller student. The Earth Mover's Distance"
        " between the two stacks of layers says, at every step, which layer learns from which."
        "\nGeneral distillation, without a task: run_distill.py --pregenerated_data DIR --help.",
        examples=(
            "--teacher_model teacher --student_init_layers 1,3,5,7,9,11 --data_dir glue/MRPC "
            "--task_name mrpc --output_dir student",
            "--teacher_model teacher --student_model tinybert --data_dir glue/MRPC --task_name mrpc "
            "--output_dir student --preset bert_emd_4 --dry_run",
        ),
        argv=args,
        expand=with_preset_flags,
    )
