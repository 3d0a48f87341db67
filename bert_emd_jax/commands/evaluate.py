"""run_eval.py: evaluates a model on a task and writes its predictions."""

import sys
from collections.abc import Sequence

from bert_emd_jax.commands import compare
from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.devices.machine import Machine
from bert_emd_jax.evaluation.evaluation_config import EvaluationConfig


def run(config: EvaluationConfig) -> None:
    """Evaluates and prints the scores."""
    from bert_emd_jax import evaluate

    results = evaluate(config)
    student = results["student"]
    for name, value in student["metrics"].items():
        print(f"{name}: {value:.4f}")
    if "interval" in student:
        low, high = student["interval"]
        where = f"{results['rows']:,} {results['split']} {results.get('unit', 'rows')}"
        print(f"{where}; 95 % interval of {results['primary_metric']}: {low:.4f} to {high:.4f}")
    for batch_size, milliseconds in student["milliseconds_per_sentence"].items():
        print(f"milliseconds per sentence, batch {batch_size}: {milliseconds:.2f}")
    timed_on = results["timed_on"]
    print(f"timed on {Machine.from_json(timed_on)}; {timed_on['tokens']} tokens per sentence")
    print(f"results and predictions: {config.program.output_dir}")


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    args = sys.argv[1:] if argv is None else argv
    if compare.asks_to_compare(args):
        return compare.main(args)
    return run_program(
        EvaluationConfig,
        run,
        prog="run_eval.py",
        description="Evaluates a model on a split of a task; writes eval_results.json and its predictions."
        "\nTo compare finished runs: bert-emd eval --compare --help.",
        examples=(
            "--student_model student --data_dir glue/MRPC --task_name mrpc --output_dir scores",
            "--student_model student --data_dir glue/MRPC --task_name mrpc --output_dir mrpc_test "
            "--split test --submission",
        ),
        argv=args,
    )


if __name__ == "__main__":
    sys.exit(main())
