"""What a run leaves on disk beside models and checkpoints: its config, metrics, layer mappings, results."""

import datetime
import importlib.metadata
import json
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_emd_jax.devices.hosts import is_main, on_main
from bert_emd_jax.errors import UserError
from bert_emd_jax.runs.trackers import EVENTS, WANDB, TensorBoard, Tracker, WeightsAndBiases
from bert_emd_jax.training.config import TrainingConfig, flags_of

CHECKPOINTS = "checkpoints"
RUN_CONFIG = "run_config.json"
METRICS = "metrics.jsonl"
MAPPING = "layer_mapping.npz"
RESULTS = "eval_results.json"
DEV_PREDICTIONS = "dev_predictions.jsonl"
TEACHER_OUTPUTS = "teacher_outputs"
TRACE = "trace"
_ROWS_PER_PICTURE = 20  # of metrics.jsonl, where no evaluation comes earlier
WRITTEN = (
    *("config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "params", "pytorch"),
    *(CHECKPOINTS, RUN_CONFIG, METRICS, MAPPING, RESULTS, DEV_PREDICTIONS, EVENTS),
    *("report.html", "bad_steps.json", WANDB, TEACHER_OUTPUTS, TRACE),
)
"""All that a training program writes; --overwrite removes these and nothing else."""
# Flags that may differ when a run is resumed: they do not change its numbers.
_FREE_FLAGS = (
    "resume",
    "overwrite",
    "debug",
    "output_dir",
    "eval_batch_size",
    "cache_dir",
    "token_cache",
    *("compilation_cache_dir", "trace_steps"),
    "teacher_cache",  # checked where it acts: memory and disk give the same numbers
    "check_tolerance",
    "save_steps",
    *("dry_run", "wandb", "mirror_dir", "distributed", "coordinator_address", "num_processes", "process_id"),
)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers", "safetensors")


def prepare_run_directory(config: TrainingConfig, program: str) -> None:
    """Makes `config.output_dir` ready for a new run, or checks that it holds the run to be resumed.

    Raises UserError as `check_run_directory` does.
    """
    if check_run_directory(config, program):
        return
    directory = config.output_dir
    for name in WRITTEN:
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)


def check_run_directory(config: TrainingConfig, program: str) -> bool:
    """Whether `config.output_dir` holds the run to be resumed; changes nothing.

    Raises:
      UserError: it holds something and neither flag says what to do with it, or the run to be resumed was
        started by another program or with flags that change its result.
    """
    directory, flags = config.output_dir, flags_of(config)
    resume, overwrite = config.resume, config.overwrite
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--output_dir {directory}: is a file; name a directory")
    for flag in ("bert_model", "teacher_model", "student_model"):
        if flags.get(flag) and Path(str(flags[flag])).resolve() == directory.resolve():
            raise UserError(f"--output_dir {directory}: is the model of --{flag}; choose another directory")
    holds_something = directory.is_dir() and any(directory.iterdir())
    if resume and (directory / RUN_CONFIG).is_file():
        _check_same_run(directory / RUN_CONFIG, program, flags)
        return True
    if resume and holds_something:
        raise UserError(
            f"--resume: {directory} holds no run ({RUN_CONFIG} is missing);"
            " without --resume a new one starts there"
        )
    if holds_something and not overwrite:
        hint = "--resume goes on with that run, --overwrite replaces it"
        if not (directory / RUN_CONFIG).is_file():
            hint = "choose another directory, or --overwrite to replace what this program writes"
        raise UserError(f"--output_dir {directory} is not empty: {hint}")
    return False


def facts_before(config: TrainingConfig) -> dict[str, Any] | None:
    """What `run_config.json` says of the run to be resumed; None for a new run."""
    path = config.output_dir / RUN_CONFIG
    return on_main(lambda: json.loads(path.read_text()) if config.resume and path.is_file() else None)


def write_run_config(
    directory: Path,
    program: str,
    flags: Mapping[str, Any],
    sources: Mapping[str, str],
    facts: Mapping[str, Any],
) -> None:
    """Writes `run_config.json`: flags and where each came from, versions, git revision, devices, `facts`."""
    values = {
        "program": program,
        "command_line": _command_line(program, flags, sources),
        "flags": dict(flags),
        "flag_sources": dict(sources),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "git_revision": _git_revision(),
        "devices": [str(device.device_kind) for device in jax.devices()],
        "processes": jax.process_count(),
        **facts,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_json(directory / RUN_CONFIG, values)


def _command_line(program: str, flags: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """The program with the flags that were given: what repeats the run, whoever called it."""
    line = [f"{program}.py"]
    for name, value in flags.items():
        if sources.get(name) != "given":
            continue
        if isinstance(value, bool):
            line.append(f"--{name}" if value else f"--no_{name}")
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            line += [f"--{name}", text]
    return line


def write_json(path: Path, values: Any) -> None:
    """Writes a JSON file aside and renames it, so that a reader never sees half of it."""
    aside = path.with_name(f".{path.name}.writing")
    aside.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    aside.replace(path)


class MetricsLog:
    """`metrics.jsonl`, one row per event; the same numbers and pictures of the plans to TensorBoard and W&B.

    Written by the main process; in the others it does nothing.
    """

    def __init__(self, directory: Path, resume_step: int, config: TrainingConfig | None = None) -> None:
        """Opens the log; rows past `resume_step` belong to steps that will be run again and are dropped.

        Raises:
          UserError: Weights & Biases, which `config` asks for, does not let us in.
        """
        self.directory = directory
        self._file = None
        self._trackers: list[Tracker] = []
        self._plans: dict[str, np.ndarray] = {}
        self._rows_since_picture = 0
        if not is_main():
            return
        path = directory / METRICS
        kept = []
        if path.is_file():
            for line in path.read_text(errors="replace").splitlines():
                step = _logged_step(line)
                if step is not None and step <= resume_step:
                    kept.append(line + "\n")
        path.write_text("".join(kept))
        if config is not None and config.wandb is not None:
            self._trackers.append(WeightsAndBiases(directory, config.wandb, flags_of(config)))
        self._trackers.append(TensorBoard(directory, resume_step))
        self._file = path.open("a")

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Adds a row {"step", "kind", **values}; plans [S, T] among the values only become pictures."""
        if self._file is None:
            return
        row = {name: value for name, value in values.items() if not isinstance(value, np.ndarray)}
        self._file.write(json.dumps({"step": step, "kind": kind, **row}) + "\n")
        self._file.flush()
        scalars = {
            f"{kind}/{name}": value
            for name, value in row.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        for tracker in self._trackers:
            tracker.scalars(step, scalars)
        self._plans |= {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        self._rows_since_picture += 1
        if self._plans and (kind == "eval" or self._rows_since_picture >= _ROWS_PER_PICTURE):
            self._show_plans(step)

    def _show_plans(self, step: int) -> None:
        from bert_emd_jax.runs.plan_figures import draw_plans, pixels

        self._rows_since_picture = 0
        picture = pixels(draw_plans({name.split("_")[0]: plan for name, plan in self._plans.items()}))
        for tracker in self._trackers:
            tracker.picture(step, "mapping", picture)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        for tracker in self._trackers:
            tracker.close()


def _logged_step(line: str) -> int | None:
    """The step of a row; None for a line that a killed process was writing, or a damaged one."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) else None


def _check_same_run(path: Path, program: str, flags: Mapping[str, Any]) -> None:
    try:
        stored = json.loads(path.read_text())
        before, started_by = dict(stored["flags"]), stored["program"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: damaged; --overwrite starts anew") from None
    if started_by != program:
        raise UserError(
            f"--resume: {path.parent} was written by {started_by}, not by {program};"
            " resume it with that program"
        )
    now = json.loads(json.dumps(dict(flags)))
    changed: Sequence[str] = [
        f"--{name} was {before.get(name)}, is {now.get(name)}"
        for name in sorted(now.keys() | before.keys())
        if name not in _FREE_FLAGS and now.get(name) != before.get(name)
    ]
    if changed:
        raise UserError(
            f"--resume: these flags change the result of the run in {path.parent}: {'; '.join(changed)};"
            " give them as they were, or start anew with --overwrite"
        )


def _git_revision() -> str | None:
    """The commit of the checkout that this package runs from, None for an installed one."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
