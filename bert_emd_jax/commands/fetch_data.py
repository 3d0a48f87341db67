"""bert-emd data: the files of a GLUE task, where there is a network."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.configs import Config
from bert_emd_jax.data.tasks import TASK_NAMES
from bert_emd_jax.errors import UserError


@dataclasses.dataclass(frozen=True, init=False)
class FetchDataConfig(Config):
    """Task to fetch, and its directory."""

    task: Annotated[str, tyro.conf.Positional]
    """GLUE task, such as mrpc or SST-2; `bert-emd list tasks` lists them."""
    directory: Annotated[Path, tyro.conf.Positional]
    """Directory for its files: train.tsv, dev.tsv, test.tsv."""
    debug: bool = False
    """Show the traceback of an error."""


def run(config: FetchDataConfig) -> None:
    """Fetches the task and prints what is there."""
    from bert_emd_jax.data.glue_download import fetch_glue
    from bert_emd_jax.data.tasks import get_task

    if config.task == "custom":
        names = ", ".join(name for name in TASK_NAMES if name != "custom")
        raise UserError(f"custom: files of your own need no fetching; GLUE's tasks are {names}")
    task = get_task(config.task)
    for split, rows in fetch_glue(task, config.directory).items():
        print(f"{config.directory / task.splits[split].name}: {rows:,} rows")
    print(f"use it with --data_dir {config.directory} --task_name {task.name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    return run_program(
        FetchDataConfig,
        run,
        prog="python -m bert_emd_jax.commands.fetch_data",
        description="Fetches a GLUE task from the Hugging Face hub, with the files of GLUE's own download.",
        examples=("mrpc glue/MRPC",),
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())
