"""run_eval.py --compare: finished runs side by side; no model is loaded."""

import dataclasses
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.configs import Config
from bert_emd_jax.report.table_formats import FORMATS


@dataclasses.dataclass(frozen=True, init=False)
class CompareConfig(Config):
    """Runs to compare, and output."""

    compare: tuple[Path, ...]
    """Output directories of bert-emd distill, finetune or eval, or directories that contain some."""
    format: Literal[("text", *FORMATS)] = "text"  # pyright: ignore[reportInvalidTypeForm]
    """text: for the screen, with notes and differences; csv, markdown, latex: only the table."""
    output_dir: Path | None = None
    """Also write comparison.html to this directory."""
    debug: bool = False
    """Show the traceback of an error."""


def run(config: CompareConfig) -> None:
    """Prints the table and writes the page."""
    from bert_emd_jax.errors import UserError
    from bert_emd_jax.report import compare
    from bert_emd_jax.report.compared_runs import group_runs, read_compared_run, runs_below

    if not config.compare:
        raise UserError("--compare: name the output directories of the runs")
    runs = [run for directory in config.compare for run in runs_below(directory)]
    for directory, count in Counter(directory.resolve() for directory in runs).items():
        if count > 1:
            raise UserError(f"--compare: {directory} is named {count} times; name each run once")
    groups = group_runs([read_compared_run(directory) for directory in runs])
    if config.format == "text":
        print(compare.as_text(groups))
    else:
        print(FORMATS[config.format](compare.comparison_table(groups)))
    if config.output_dir is not None:
        page = compare.write_comparison(config.output_dir / compare.PAGE, groups)
        print(f"page: {page}", file=sys.stdout if config.format == "text" else sys.stderr)


def asks_to_compare(args: Sequence[str]) -> bool:
    """Returns whether a command line of bert-emd eval has --compare."""
    return any(arg.partition("=")[0] == "--compare" for arg in args)


def main(argv: Sequence[str]) -> int:
    """Runs the program; returns its exit code."""
    return run_program(
        CompareConfig,
        run,
        prog="run_eval.py",
        description="Compares finished runs; those that differ only in the seed share a line.",
        examples=(
            "--compare runs/emd-1 runs/emd-2 runs/uniform-1 --output_dir comparison",
            "--compare runs --format latex",
        ),
        argv=argv,
    )
