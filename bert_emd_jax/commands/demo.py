"""Fine-tuning, distillation and evaluation on real weights and sentences, by the programs that users call."""

import csv
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bert_emd_jax.commands import demo_assets, distill, evaluate, finetune
from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.commands.programs import typed_command, typed_name
from bert_emd_jax.configs import Config
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import read_json, write_text
from bert_emd_jax.layout import REPORT, RESULTS

DEV_ROWS = 500
TEST_ROWS = 1000


@dataclasses.dataclass(frozen=True, init=False)
class DemoConfig(Config):
    """The demo: a fine-tuned 6-layer teacher and its 3-layer student."""

    output_dir: Path = Path("demo_output")
    """Where everything goes; a second run goes on from what is there."""
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
    print(table({name: results_of(root, name) for name in ("teacher", "student")}))
    if config.smoke:
        print("(a smoke run: some hundred rows show that everything works, and teach next to nothing)")
    print(f"\nopen {student / REPORT}")


def write_splits(directory: Path, sizes: dict[str, int]) -> None:
    """Writes dev.csv, test.csv and train.csv of Rotten Tomatoes; without a size, all rows that are left."""
    rows = demo_assets.rotten_tomatoes()
    directory.mkdir(parents=True, exist_ok=True)
    start = 0
    for split in ("dev", "test", "train"):
        end = start + sizes[split] if split in sizes else len(rows)
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


def results_of(root: Path, name: str) -> dict[str, Any]:
    """Returns what run_eval.py wrote about a model."""
    return read_json(root / f"evaluation_{name}" / RESULTS)["student"]


def table(results: dict[str, dict[str, Any]]) -> str:
    """Returns accuracy, size and latency of the models, one line each."""
    lines = [
        f"{'':8} {'accuracy':>9} {'layers':>7} {'parameters':>11} {'ms/sentence':>12} {'at batch 32':>12}"
    ]
    for name, result in results.items():
        latency = result["milliseconds_per_sentence"]
        lines.append(
            f"{name:8} {result['metrics']['accuracy']:9.3f} {result['layers']:7d} {result['parameters']:11,d}"
            f" {latency['1']:12.2f} {latency['32']:12.2f}"
        )
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
