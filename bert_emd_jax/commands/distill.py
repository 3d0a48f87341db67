"""run_distill.py: distils a fine-tuned teacher into a student by optimal-transport layer mapping."""

from collections.abc import Sequence

from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.training.config import DistillConfig


def run(config: DistillConfig) -> None:
    """Distils, writes the report and prints where things are."""
    from bert_emd_jax.commands.results import report_training
    from bert_emd_jax.training.distill import distill

    report_training(config.output_dir, distill(config))


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_program(
        DistillConfig,
        run,
        prog="run_distill.py",
        description="Distils a fine-tuned BERT teacher into a smaller student; the Earth Mover's Distance"
        " between the two stacks of layers says, at every step, which layer learns from which.",
        argv=argv,
    )
