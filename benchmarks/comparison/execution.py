"""Runs a study: a process for each run, several at a time, or all in this one; finished runs are skipped."""

import concurrent.futures
import contextlib
import datetime
import importlib
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_emd_jax import layout
from comparison.commands import Study, command_line, is_done, setting_of
from comparison.matrix import Run
from comparison.records import LOG, RECORD, Record, read_record, record_of, write_log, write_record
from comparison.tasks import training_rows

ROOT = Path(__file__).resolve().parents[2]
# What is deleted of a finished run, the weights only of runs that no other run loads.
_HEAVY = (
    *(layout.CHECKPOINTS, layout.TENSORBOARD, layout.PYTORCH),
    *(layout.DEV_PREDICTIONS, layout.TEST_PREDICTIONS),
)
_WEIGHTS = (layout.PARAMS, "vocab.txt", "tokenizer_config.json", layout.CONFIG)


# The module of each program, for runs in this process.
_MODULES = {
    "run_augment.py": "augment",
    "run_distill.py": "distill",
    "run_finetune.py": "finetune",
    "run_pretrain_data.py": "pretrain_data",
}
_INTERRUPTED = (130, 143)


class RunFailedError(Exception):
    """A program ended with an error; the text names its log."""


class Programs:
    """Starts programs, and ends those that still run when the study ends."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def __call__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Runs a program of this checkout to its end. Raises RunFailedError."""
        line = [sys.executable, str(ROOT / command[0]), *command[1:]]
        with log.open("wb") as output:
            with self._lock:
                if self._stopped:
                    raise RunFailedError("the study was stopped")
                process = subprocess.Popen(line, stdout=output, stderr=output, env=os.environ | environment)
                self._running.add(process)
            code = process.wait()
        with self._lock:
            self._running.discard(process)
        if code:
            raise RunFailedError(_failure(code, log))

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()


class InThisProcess:
    """Runs programs one after the other in this process, which imports and starts devices once."""

    def __call__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Runs a program to its end. Raises RunFailedError; after a signal KeyboardInterrupt."""
        os.environ.update(environment)
        program = importlib.import_module(f"bert_emd_jax.commands.{_MODULES[command[0]]}")
        with (
            log.open("w", encoding="utf-8") as output,
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
        ):
            try:
                code = program.main(list(command[1:]))
            except SystemExit as error:  # of a wrong flag
                code = error.code
        if code in _INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            raise RunFailedError(_failure(code, log))


class _AtOnce(concurrent.futures.Executor):
    """Does what it is given at once, in this thread: only here do signals reach Python."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


def _failure(code: object, log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"exit code {code}: {lines[-1] if lines else 'no output'} (see {log})"


def perform(run: Run, study: Study, records: Mapping[str, Record], start: Callable[..., None]) -> Record:
    """Runs one run and writes its record. Raises RunFailedError."""
    directory = study.path(run)
    if directory.exists():
        shutil.rmtree(directory)  # never finished, or of another setting
    directory.parent.mkdir(parents=True, exist_ok=True)
    command = command_line(run, study, records)
    started, since = datetime.datetime.now(datetime.UTC), time.perf_counter()
    start(command, directory.with_name(f"{directory.name}.log"), study.environment)
    seconds = round(time.perf_counter() - since, 1)
    directory.mkdir(exist_ok=True)  # run_augment.py writes beside the task's rows
    rows = None
    if run.task is not None and run.kind in ("teacher", "augmentation"):
        rows = training_rows(run.task, study.data(run.task), augmented=run.kind == "augmentation")
    record = record_of(
        run,
        directory,
        command=shlex.join(["python", *(_relative(part, study.root) for part in command)]),
        started=started.isoformat(timespec="seconds"),
        seconds=seconds,
        setting=setting_of(run, records),
        rows=rows,
        halves=study.plan.dev_halves,
    )
    write_record(directory, record)
    for name in _HEAVY + (_WEIGHTS if run.kind in ("tuning", "final") else ()):
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return record


def _relative(part: str, root: Path) -> str:
    """Returns a part of a command without directories of this machine."""
    path = Path(part)
    return str("study" / path.relative_to(root)) if path.is_relative_to(root) else part


def finished(root: Path) -> dict[str, Record]:
    """Returns the records of all runs that are done, by name, also of those that the plan no longer has."""
    records = [read_record(path.parent) for path in sorted(root.glob(f"*/**/{RECORD}"))]
    return {record.name: record for record in records}


def perform_all(
    runs: Sequence[Run],
    study: Study,
    *,
    jobs: int = 1,
    deadline: float | None = None,
    start: Callable[..., None] | None = None,
) -> dict[str, Record]:
    """Performs the runs that are not done, in their order; returns all records.

    A run whose best setting or teacher has changed is performed again. A failed run, and those that require
    it, are left out; a line says so. The raw log is written anew after every run.

    Args:
      jobs: runs at a time; one in this process.
      deadline: no run starts after this time (of time.monotonic).
      start: runs a program; called as `Programs` is.
    """
    programs = start or Programs()
    records = finished(study.root)
    waiting = [run for run in runs if not is_done(run, records)]
    count, failed = len(waiting), 0
    print(f"{len(runs) - count} of {len(runs)} runs are done", flush=True)
    in_this_thread = isinstance(programs, InThisProcess)
    with _AtOnce() if in_this_thread else concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        pending: dict[concurrent.futures.Future[Record], Run] = {}
        try:
            while True:
                in_time = deadline is None or time.monotonic() < deadline
                while in_time and len(pending) < jobs and (run := _next(waiting, pending.values(), records)):
                    waiting.remove(run)
                    if is_done(run, records):  # its new trials chose the same setting
                        continue
                    pending[pool.submit(perform, run, study, dict(records), programs)] = run
                if not pending:
                    break
                done, _ = concurrent.futures.wait(pending, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    run = pending.pop(future)
                    position = f"[{count - len(waiting) - len(pending)}/{count}] {run.name}"
                    try:
                        record = records[run.name] = future.result()
                    except Exception as error:  # whatever it is, the other runs go on
                        failed += 1
                        records.pop(run.name, None)  # of an earlier setting, and gone with its directory
                        print(f"{position} failed: {type(error).__name__}: {error}", flush=True)
                        continue
                    score = "" if record.score is None else f"  {record.metric} {record.score:.4f}"
                    print(f"{position}  {record.seconds:.0f} s{score}", flush=True)
                    write_log(study.root / LOG, study.plan, records.values())
        except BaseException:
            if isinstance(programs, Programs):
                programs.stop()
            raise
    if failed or waiting:
        print(f"not done: {failed} failed, {len(waiting)} not begun; the same command goes on", flush=True)
    return records


def _next(waiting: Sequence[Run], running: Iterable[Run], records: Mapping[str, Record]) -> Run | None:
    """Returns the first run whose requirements are done, none of them waiting or running again."""
    ready = records.keys() - {run.name for run in (*waiting, *running)}
    return next((run for run in waiting if ready.issuperset(run.requires)), None)
