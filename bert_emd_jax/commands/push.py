"""bert-emd push: a finished run, or a directory for PyTorch, to the Hugging Face hub."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from bert_emd_jax.commands.cli import run_program
from bert_emd_jax.configs import Config
from bert_emd_jax.errors import UserError


@dataclasses.dataclass(frozen=True, init=False)
class PushConfig(Config):
    """What is uploaded, and where to."""

    directory: Annotated[Path, tyro.conf.Positional]
    """The output directory of a run (its pytorch/ is uploaded), or a Hugging Face directory."""
    repository: Annotated[str, tyro.conf.Positional]
    """Its name on the hub, as me/small-bert."""
    private: bool = False
    """Make the repository private if it is created."""
    message: str = "Upload from bert_emd_jax"
    """The message of the commit."""
    dry_run: bool = False
    """Show what would be uploaded, and stop."""
    yes: bool = False
    """Upload without asking."""
    debug: bool = False
    """Show the traceback of an error."""


def run(config: PushConfig) -> None:
    """Shows what would be uploaded, asks, and uploads it."""
    from bert_emd_jax.publishing.upload import planned_upload, upload
    from bert_emd_jax.report.tables import bytes_text

    planned = planned_upload(config.directory, config.repository)
    total = bytes_text(sum(planned.files.values()))
    print(f"{planned.directory} to {config.repository}: {len(planned.files)} files, {total}")
    for name, size in planned.files.items():
        print(f"  {bytes_text(size):>8}  {name}")
    if "README.md" not in planned.files:
        print("  without a model card: the directory has no README.md")
    if config.dry_run:
        return
    if not config.yes:
        if not sys.stdin.isatty():
            raise UserError("--yes uploads without asking, where there is nobody to ask")
        if input("Upload? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was uploaded")
            return
    print(upload(planned, private=config.private, message=config.message))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    return run_program(
        PushConfig,
        run,
        prog="python -m bert_emd_jax.commands.push",
        description="Uploads a student to the Hugging Face hub, with its model card.",
        examples=("student me/small-bert --dry_run", "student me/small-bert --private --yes"),
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())
