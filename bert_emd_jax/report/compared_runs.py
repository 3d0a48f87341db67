"""Finished runs to be compared: what each scored, on which rows, and which are repetitions."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bert_emd_jax import layout
from bert_emd_jax.configs import all_flags
from bert_emd_jax.data.kinds import ANSWER, TOKEN
from bert_emd_jax.distillation.distill_config import DistillConfig, GeneralDistillConfig
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.evaluation_config import EvaluationConfig
from bert_emd_jax.evaluation.metrics import LABEL_METRICS, METRICS
from bert_emd_jax.report import tables
from bert_emd_jax.report.answered_questions import AnsweredQuestions, read_answered_questions
from bert_emd_jax.report.json_files import read_object
from bert_emd_jax.report.metrics_reader import MetricsCurves, read_metrics
from bert_emd_jax.report.predictions_reader import Predictions, read_prediction_table, read_predictions
from bert_emd_jax.report.results_reader import HELD_OUT_LOSS, ModelResult, Results, TestResults, read_results
from bert_emd_jax.report.tagged_sentences import (
    TaggedSentences,
    read_tagged_conll,
    read_tagged_sentences,
)
from bert_emd_jax.training.training_config import FinetuneConfig

_TRAINING_PREDICTIONS = {"dev": layout.DEV_PREDICTIONS, "test": layout.TEST_PREDICTIONS}


@dataclass(frozen=True)
class Scored:
    """A metric on the rows of a split of a task: others do not compare with it. `rows`: None if unknown."""

    task: str
    split: str
    rows: int | None
    metric: str

    @property
    def place(self) -> str:
        return self.split if self.rows is None else f"{self.rows:,} {self.split} rows"

    def __str__(self) -> str:
        return f"{self.metric.replace('_', ' ')}, {self.place}"


@dataclass(frozen=True)
class ComparedRun:
    """A finished run: its flags and its results. `metrics` is None for those of bert-emd eval."""

    directory: Path
    program: str
    flags: dict[str, Any]
    results: Results
    student: ModelResult
    metrics: MetricsCurves | None

    @property
    def seed(self) -> Any:
        return self.flags.get("seed")

    @functools.cached_property
    def scores(self) -> dict[Scored, float]:
        """The student's scores; those on a labelled test split, which has chosen nothing, first."""
        return {
            self._scored(part, name): value
            for part in self._parts
            if part.student is not None
            for name, value in tables.leading_metrics(part.student, self.results.primary_metric).items()
        }

    @functools.cached_property
    def shares(self) -> dict[Scored, float]:
        """What the student retains of its teacher's score in the deciding metric."""
        metric = self.results.primary_metric
        return {
            self._scored(part, metric): share
            for part in self._parts
            if metric is not None and (share := tables.retained_share(part, metric)) is not None
        }

    @property
    def deciding(self) -> Scored | None:
        """What chose the best step, on the rows on which it was measured over the training."""
        metric = self.results.primary_metric
        return None if metric is None else self._scored(self.results, metric)

    @property
    def _parts(self) -> list[Results | TestResults]:
        return [part for part in (self.results.test, self.results) if part is not None]

    def _scored(self, part: Results | TestResults, metric: str) -> Scored:
        split = "test" if isinstance(part, TestResults) else part.split or "dev"
        # A further dev set, whose metrics have a suffix, has rows of its own.
        named = () if self.results.kind is None else self.results.kind.scored_names(self.results.labels)
        of_labels = {f"{name}_{label}" for name in LABEL_METRICS for label in named}
        rows = part.rows if metric in {*METRICS, *of_labels, HELD_OUT_LOSS} else None
        return Scored(self.results.task or "run", split, rows, metric)

    def predictions(self, split: str) -> Predictions | TaggedSentences | AnsweredQuestions | None:
        """Reads what the student predicts on every row of a split; None if the run has not kept it.

        Raises:
          UserError: the file is damaged.
        """
        kind, labels = self.results.kind, self.results.labels
        if self.program == "run_eval":
            suffix = "conll" if kind is TOKEN else "jsonl" if kind is ANSWER else "tsv"
            path = self.directory / f"predictions_{split}.{suffix}"
            if not path.is_file():
                return None
            if kind is ANSWER:
                return read_answered_questions(path, ANSWER)
            if kind is TOKEN:
                return read_tagged_conll(path, TOKEN, labels or ())
            return self._deciding(read_prediction_table(path, kind))
        name = _TRAINING_PREDICTIONS.get(split)
        if name is None or kind is None or not (self.directory / name).is_file():
            return None
        if kind is ANSWER:
            return read_answered_questions(self.directory / name, kind)
        if kind is TOKEN:
            return read_tagged_sentences(self.directory / name, kind, labels or ())
        return self._deciding(read_predictions(self.directory / name, kind, labels))

    def _deciding(self, predictions: Predictions | None) -> Predictions | None:
        return predictions and replace(predictions, thresholds=self.results.thresholds)


@dataclass(frozen=True)
class Group:
    """Repetitions of one configuration.

    settings: the flags in which some configurations differ, all groups with the same in the same order.
    """

    name: str
    runs: list[ComparedRun]
    settings: dict[str, str]

    def values(self, value: Callable[[ComparedRun], float | None]) -> list[float]:
        """Returns `value` of each run that has it."""
        return [number for number in map(value, self.runs) if number is not None]


def runs_below(directory: Path) -> list[Path]:
    """Returns a directory if it is a run, else those of the finished runs in it, at any depth.

    Itself if there are none: to read it says what is missing.
    """
    if (directory / layout.RESULTS).is_file() or not directory.is_dir():
        return [directory]
    return sorted(path.parent for path in directory.rglob(layout.RESULTS)) or [directory]


def read_compared_run(directory: Path) -> ComparedRun:
    """Reads a training run, or a directory of bert-emd eval.

    Raises:
      UserError: it is not a finished run, or a file is damaged.
    """
    path = directory / layout.RESULTS
    if not path.is_file():
        raise UserError(f"{path} is missing: is {directory} the --output_dir of a finished run?")
    results = read_results(path)
    if results.student is None:
        raise UserError(f"{path}: has no results of a student: run again")
    config_path = directory / layout.RUN_CONFIG
    config = read_object(config_path if config_path.is_file() else path)
    flags = config.get("flags")
    metrics = directory / layout.METRICS
    return ComparedRun(
        directory=directory,
        program=str(config.get("program", "run")),
        flags=flags if isinstance(flags, dict) else {},
        results=results,
        student=results.student,
        metrics=read_metrics(metrics) if metrics.is_file() else None,
    )


def group_runs(runs: Sequence[ComparedRun]) -> list[Group]:
    """Returns the runs by configuration, in the order in which they came."""
    groups: dict[str, list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps([run.program, _settings(run)], sort_keys=True), []).append(run)
    firsts = [group[0] for group in groups.values()]
    differing = [_differing(run, firsts) for run in firsts]
    # Programs have different flags: only those of one program can be compared.
    several = len({run.program for run in firsts}) > 1
    columns = list(dict.fromkeys(name for settings in differing for name in settings))

    def group(runs: list[ComparedRun], settings: dict[str, str]) -> Group:
        name = ", ".join(f"{flag}={value}" for flag, value in settings.items())
        name = name or runs[0].results.task or "run"
        program = {"program": runs[0].program} if several else {}
        shown = program | {flag: settings.get(flag, tables.ABSENT) for flag in columns}
        name = f"{runs[0].program}: {name}" if several else name
        return Group(name, runs, shown or {"configuration": name})

    return [group(runs, settings) for runs, settings in zip(groups.values(), differing, strict=True)]


def _differing(run: ComparedRun, others: Sequence[ComparedRun]) -> dict[str, str]:
    """The flags of a run that other runs of its program have with another value."""
    settings = [_settings(other) for other in others if other.program == run.program]
    return {
        name: tables.setting_text(value)
        for name, value in _settings(run).items()
        if any(other.get(name) != value for other in settings)
    }


@functools.cache
def repeated_flags() -> frozenset[str]:
    """Flags in which repetitions of one run may differ: those that do not change its result, and the seed."""
    configs = (FinetuneConfig, DistillConfig, GeneralDistillConfig, EvaluationConfig)
    flags = (flag for config in configs for flag in all_flags(config))
    return frozenset({"seed"} | {flag.name for flag in flags if not flag.changes_result})


def _settings(run: ComparedRun) -> dict[str, Any]:
    return {name: value for name, value in run.flags.items() if name not in repeated_flags()}
