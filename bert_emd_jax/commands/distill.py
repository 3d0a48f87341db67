"""run_distill.py: distils a teacher into a student by optimal-transport layer mapping."""

import sys
from collections.abc import Sequence

from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.training.config import DistillConfig, GeneralDistillConfig
from bert_emd_jax.training.presets import with_preset_flags

_PROGRAM = "run_distill.py"


def run(config: DistillConfig) -> None:
    """Distils, writes the report and prints where things are."""
    from bert_emd_jax.commands.results import report_training
    from bert_emd_jax.training.distill import distill

    report_training(config.output_dir, distill(config))


def run_general(config: GeneralDistillConfig) -> None:
    """Distils over a corpus, writes the report and prints where things are."""
    from bert_emd_jax.commands.results import report_training
    from bert_emd_jax.training.general_distill import general_distill

    report_training(config.output_dir, general_distill(config))


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    args = sys.argv[1:] if argv is None else list(argv)
    if any(arg.replace("-", "_").startswith("__pregenerated_data") for arg in args):
        return run_program(
            GeneralDistillConfig,
            run_general,
            prog=_PROGRAM,
            description="General distillation: a student learns the layers of a teacher over a corpus that"
            " run_pretrain_data.py has prepared.",
            argv=args,
        )
    return run_program(
        DistillConfig,
        run,
        prog=_PROGRAM,
        description="Distils a fine-tuned BERT teacher into a smaller student; the Earth Mover's Distance"
        " between the two stacks of layers says, at every step, which layer learns from which."
        " For general distillation, without a task: run_distill.py --pregenerated_data DIR --help.",
        argv=args,
        expand=with_preset_flags,
    )
