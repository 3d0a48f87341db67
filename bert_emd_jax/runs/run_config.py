"""The flags that say what a run measures and keeps. No JAX here."""

import dataclasses
import importlib.util
from typing import Annotated, TypeVar

import tyro

from bert_emd_jax.buckets import place_on_disk, url_of
from bert_emd_jax.configs import Config, SameResult
from bert_emd_jax.errors import UserError


@dataclasses.dataclass(frozen=True, init=False)
class RunConfig(Config):
    """Evaluation, logging and checkpoints; start and end of a run."""

    dry_run: SameResult[bool] = False
    """Print what would happen (rows, steps, memory, estimated time) and write nothing."""
    run_name: SameResult[Annotated[str | None, tyro.conf.arg(metavar="TEXT")]] = None
    """Name of the run in the report and in Weights & Biases; default: the task, and its directory's name."""
    eval_batch_size: SameResult[int] = 64
    """Examples per evaluation batch, over all devices."""
    eval_steps: int = 0
    """Evaluate every N steps; 0: after every epoch."""
    patience: int = 0
    """Stop after this many evaluations in a row without a better score; 0: never. Until then the learning
    rate follows the schedule of the full run."""
    save_steps: SameResult[int] = 0
    """Save a checkpoint every N steps, besides those at evaluations; 0: only those."""
    log_steps: SameResult[int] = 10
    """Write a row of metrics.jsonl every N steps."""
    wandb: SameResult[Annotated[str | None, tyro.conf.arg(metavar="PROJECT")]] = None
    """Also log to this Weights & Biases project, with the key and mode from its own environment variables."""
    mirror_dir: SameResult[Annotated[str | None, tyro.conf.arg(metavar="URL")]] = None
    """Keep a copy of --output_dir at this URL, e.g. gs://bucket/run; --resume fetches it if --output_dir is
    gone."""
    max_bad_steps: SameResult[int] = 20
    """Stop after this many steps in a row with a non-finite loss or gradient (they are skipped)."""
    overwrite: SameResult[bool] = False
    """Replace what an earlier run of this program wrote to --output_dir, and nothing else there."""
    resume: SameResult[bool] = False
    """Continue from the last checkpoint in --output_dir."""

    def check(self) -> None:
        for name in ("eval_batch_size", "log_steps", "max_bad_steps"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("eval_steps", "save_steps", "patience"):
            self.require(name, getattr(self, name) >= 0, "at least 0")
        if self.resume and self.overwrite:
            raise UserError("--resume and --overwrite: choose one")
        if self.wandb is not None and not _is_installed("wandb"):
            raise UserError(
                "--wandb: Weights & Biases is not installed; pip install 'bert_emd_jax[wandb]' brings it"
            )


Run = TypeVar("Run", bound=Config)


def on_disk(config: Run) -> Run:
    """Returns the config of a run whose --output_dir is in a bucket with a directory here and a copy there.

    Raises:
      UserError: another copy is asked for, too.
    """
    flags = config.flags()
    url = url_of(flags["output_dir"])
    if url is None:
        return config
    if flags["mirror_dir"] is not None:
        raise UserError(f"--output_dir {url} and --mirror_dir {flags['mirror_dir']}: choose one")
    return config.replace(output_dir=place_on_disk(url, "runs"), mirror_dir=url)


def _is_installed(package: str) -> bool:
    """Whether a package can be imported; a directory of its name is none."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None
