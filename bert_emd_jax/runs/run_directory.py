"""The output directory of a training run: what may be done to it, and `run_config.json`."""

import dataclasses
import datetime
import importlib.metadata
import json
import logging
import platform
import shutil
import subprocess
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from bert_emd_jax import layout
from bert_emd_jax.configs import Config, all_flags, path_in_full, plain_values, spelled_flag, takes_paths
from bert_emd_jax.devices.hosts import on_main
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import read_json, write_json
from bert_emd_jax.runs.run_config import RunConfig

logger = logging.getLogger(__name__)

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers", "safetensors")

_INPUTS = {"bert_model", "teacher_model", "student_model", "student_config", "data_dir", "unlabelled"}
"""Flags of what a run is made from, which may have been moved since."""


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The directory at `path` for a run of a program with a config, of which `run` is a part."""

    path: Path
    program: str
    config: Config
    run: RunConfig

    @cached_property
    def flags(self) -> dict[str, Any]:
        """The flags as values that JSON can hold."""
        return plain_values(self.config.flags())

    @cached_property
    def _times(self) -> dict[str, Any]:
        """When the run was started, and when it was resumed."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        before = self._read_if_resumed(layout.RUN_CONFIG)
        if before is None:
            return {"started": now}
        return {"started": before.get("started", now), "resumed": [*before.get("resumed", ()), now]}

    def prepare(self) -> None:
        """Makes the directory ready for a new run, or checks that it holds the run to be resumed.

        Raises UserError as `check` does.
        """
        if self.check():
            return
        for name in layout.WRITTEN:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)

    def check(self) -> bool:
        """Whether the directory holds the run to be resumed; changes nothing.

        Raises:
          UserError: it holds something and neither flag says what to do with it, or the run to be resumed was
            started by another program or with flags that change its result.
        """
        path, run_config = self.path, self.path / layout.RUN_CONFIG
        if path.exists() and not path.is_dir():
            raise UserError(f"--output_dir {path}: is a file; name a directory")
        for flag in ("bert_model", "teacher_model", "student_model"):
            given = self.flags.get(flag) or ()
            models = [given] if isinstance(given, str) else given
            if any(Path(model).resolve() == path.resolve() for model in models):
                raise UserError(f"--output_dir {path}: is the model of --{flag}; choose another directory")
        holds_something = path.is_dir() and any(path.iterdir())
        if self.run.resume and run_config.is_file():
            self._check_same_run(run_config)
            return True
        if self.run.resume and holds_something:
            raise UserError(
                f"--resume: {path} holds no run ({layout.RUN_CONFIG} is missing);"
                " without --resume a new one starts there"
            )
        if holds_something and not self.run.overwrite:
            hint = "--resume continues that run, --overwrite replaces it"
            if not run_config.is_file():
                hint = "choose another directory, or --overwrite to replace what this program writes"
            raise UserError(f"--output_dir {path} is not empty: {hint}")
        return False

    def facts_before(self) -> dict[str, Any] | None:
        """What `run_config.json` says of the run to be resumed, in all processes; None for a new run."""
        return on_main(lambda: self._read_if_resumed(layout.RUN_CONFIG))

    def finished_results(self) -> dict[str, Any] | None:
        """The results of a run to be resumed that has nothing left to do: they are written last."""
        results = self._read_if_resumed(layout.RESULTS)
        if results is not None:
            logger.info("%s: this run is finished", self.path)
        return results

    def write_config(self, facts: Mapping[str, Any]) -> None:
        """Writes `run_config.json`: flags and where each came from, versions, devices, times, `facts`."""
        sources = self.config.sources()
        values = {
            "program": self.program,
            "command_line": self._command_line(sources),
            "working_directory": str(Path.cwd()),
            "flags": self.flags,
            "flag_sources": sources,
            "versions": {
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in _PACKAGES},
            },
            "git_revision": _git_revision(),
            "devices": [str(device.device_kind) for device in jax.devices()],
            "processes": jax.process_count(),
            **facts,
            **self._times,
        }
        write_json(self.path / layout.RUN_CONFIG, values)

    def _read_if_resumed(self, name: str) -> Any:
        path = self.path / name
        return read_json(path) if self.run.resume and path.is_file() else None

    def _command_line(self, sources: Mapping[str, str]) -> list[str]:
        """The program with the flags that were given: what repeats the run, from any directory."""
        line = ["bert-emd", self.program.removeprefix("run_")]
        with_paths = {flag.name for flag in all_flags(type(self.config)) if takes_paths(flag.hint)}
        for name, value in self.flags.items():
            if sources.get(name) == "given":
                line += spelled_flag(name, path_in_full(value, Path.cwd()) if name in with_paths else value)
        return line

    def check_inputs(self, inputs: Mapping[str, str]) -> None:
        """Raises UserError if the run to be resumed was made from models or rows of another content."""
        before = (self._read_if_resumed(layout.RUN_CONFIG) or {}).get("inputs", {})
        changed = [what for what, content in inputs.items() if before.get(what, content) != content]
        if changed:
            named = " and ".join(changed)
            raise UserError(
                f"--resume: {named} are not what the run in {self.path} was made from; give it the same, or"
                " start anew with --overwrite"
            )

    def _check_same_run(self, path: Path) -> None:
        try:
            stored = read_json(path)
            before, started_by = dict(stored["flags"]), stored["program"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{path}: damaged; --overwrite starts anew") from None
        if started_by != self.program:
            raise UserError(
                f"--resume: {path.parent} was written by {started_by}, not by {self.program};"
                " resume it with that program"
            )
        flags = list(all_flags(type(self.config)))
        free = {flag.name for flag in flags if not flag.changes_result}
        # A flag that is newer than the run was at its default.
        defaults = {flag.name: flag.default for flag in flags if flag.default is not dataclasses.MISSING}
        before = json.loads(json.dumps(plain_values(defaults))) | before
        now = json.loads(json.dumps(self.flags))
        # What is a list now may have been one value: there was one teacher.
        before |= {
            name: [value]
            for name, value in before.items()
            if isinstance(value, str) and isinstance(now.get(name), list)
        }
        if now.get("dtype") == "auto":  # goes on in the type that it began with
            free |= {"dtype"}
        before["dtype"] = stored.get("compute_dtype", before.get("dtype"))
        if "inputs" in stored:  # wherever they are now, `check_inputs` compares what they hold
            free |= _INPUTS
        changed = [
            f"--{name} was {before.get(name)}, is {now.get(name)}"
            for name in sorted(now.keys() | before.keys())
            if name not in free and now.get(name) != before.get(name)
        ]
        if changed:
            raise UserError(
                f"--resume: these flags change the result of the run in {path.parent}: {'; '.join(changed)};"
                " give them as they were, or start anew with --overwrite"
            )


def _git_revision() -> str | None:
    """The commit of the checkout that this package runs from, None for an installed one.

    The repository around an environment, or around a copy of the package, is somebody else's.
    """
    root = Path(__file__).parents[2]
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    top, revision = done.stdout.splitlines()
    return revision if Path(top).resolve() == root.resolve() else None
