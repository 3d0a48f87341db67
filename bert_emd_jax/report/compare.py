"""Several runs side by side: those that differ in nothing but the seed share a line, as mean ± deviation."""

import functools
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_emd_jax import layout
from bert_emd_jax.configs import all_flags
from bert_emd_jax.distillation.distill_config import DistillConfig, GeneralDistillConfig
from bert_emd_jax.errors import UserError
from bert_emd_jax.evaluation.evaluation_config import EvaluationConfig
from bert_emd_jax.files import write_text
from bert_emd_jax.report import tables
from bert_emd_jax.report.html import template
from bert_emd_jax.report.run_reader import (
    MetricsCurves,
    ModelResult,
    Results,
    read_metrics,
    read_object,
    read_results,
)
from bert_emd_jax.training.training_config import FinetuneConfig

PAGE = "comparison.html"
# The colors of the lines of the table, in turn.
_COLORS = ("attention", "hidden", "embedding", "prediction", "soft", "hard", "text", "muted")


@dataclass(frozen=True)
class ComparedRun:
    """A finished run: its flags and its results. `metrics` is None for those of run_eval.py."""

    directory: Path
    program: str
    flags: dict[str, Any]
    results: Results
    student: ModelResult
    metrics: MetricsCurves | None

    @property
    def seed(self) -> Any:
        return self.flags.get("seed")


@dataclass(frozen=True)
class Group:
    """Repetitions of one configuration; `name` lists the flags in which it differs from the other groups."""

    name: str
    runs: list[ComparedRun]

    def values(self, value: Callable[[ComparedRun], float | None]) -> list[float]:
        """Returns `value` of each run that has it."""
        return [number for number in map(value, self.runs) if number is not None]


def read_compared_run(directory: Path) -> ComparedRun:
    """Reads a training run, or a directory of run_eval.py.

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
    programs = {run.program for run in firsts}

    def group_name(run: ComparedRun) -> str:
        # Programs have different flags: only those of one program can be compared.
        others = [_settings(other) for other in firsts if other.program == run.program]
        settings = [
            f"{name}={tables.setting_text(value)}"
            for name, value in _settings(run).items()
            if any(other.get(name) != value for other in others)
        ]
        name = ", ".join(settings) or run.results.task or "run"
        return name if len(programs) == 1 else f"{run.program}: {name}"

    return [Group(group_name(group[0]), group) for group in groups.values()]


@functools.cache
def repeated_flags() -> frozenset[str]:
    """Flags in which repetitions of one run may differ: those that do not change its result, and the seed."""
    configs = (FinetuneConfig, DistillConfig, GeneralDistillConfig, EvaluationConfig)
    flags = (flag for config in configs for flag in all_flags(config))
    return frozenset({"seed"} | {flag.name for flag in flags if not flag.changes_result})


def _settings(run: ComparedRun) -> dict[str, Any]:
    return {name: value for name, value in run.flags.items() if name not in repeated_flags()}


def mean_text(values: Sequence[float], digits: int = 4) -> str:
    """Returns the mean; of two values or more with the sample standard deviation."""
    if not values:
        return tables.ABSENT
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def comparison_table(groups: Sequence[Group]) -> list[list[str]]:
    """Returns the lines of the table, its head first: scores with deviations, share retained, size, speed."""
    runs = [run for group in groups for run in group.runs]
    primaries = dict.fromkeys(run.results.primary_metric for run in runs)
    # Scores of different splits do not share a column; those that have chosen nothing come first.
    metrics = sorted(
        dict.fromkeys((split, name) for run in runs for split, name in _scores(run)),
        key=lambda column: (column[1] not in primaries, column[0] != "test"),
    )
    batches = sorted({batch for run in runs for batch in run.student.milliseconds_per_sentence})

    def score(split: str, metric: str) -> Callable[[Group], str]:
        return lambda group: mean_text(group.values(lambda run: _scores(run).get((split, metric))))

    def share(group: Group) -> str:
        shares = group.values(
            lambda run: tables.retained_share(run.results.test or run.results, run.results.primary_metric)
        )
        return mean_text([100 * share for share in shares], 1)

    def speed(batch: int) -> Callable[[Group], str]:
        return lambda group: _median(
            group.values(lambda run: run.student.milliseconds_per_sentence.get(batch))
        )

    columns: list[tuple[str, Callable[[Group], str]]] = [
        ("configuration", lambda group: group.name),
        ("runs", lambda group: str(len(group.runs))),
        *((f"{metric.replace('_', ' ')}, {split}", score(split, metric)) for split, metric in metrics),
        ("% retained", share),
        ("M parameters", lambda group: _millions(group.values(lambda run: run.student.parameters))),
        ("M FLOPs", lambda group: _millions(group.values(lambda run: run.student.flops_per_sentence))),
        *((f"ms, batch {batch}", speed(batch)) for batch in batches),
    ]
    return [[head for head, _ in columns], *([text(group) for _, text in columns] for group in groups)]


def _scores(run: ComparedRun) -> dict[tuple[str, str], float]:
    """Scores of the student by split and metric."""
    split, test = run.results.split or "dev", run.results.test
    scores = {(split, name): value for name, value in run.student.metrics.items()}
    if test is not None and test.student is not None:
        scores |= {("test", name): value for name, value in test.student.metrics.items()}
    return scores


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g}" if values else tables.ABSENT


def _millions(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values) / 1e6:,.1f}" if values else tables.ABSENT


def as_text(table: Sequence[Sequence[str]]) -> str:
    """Returns the table for a screen, numbers aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in table
    )


def write_comparison(path: Path, groups: Sequence[Group]) -> Path:
    """Writes the comparison as one HTML page that needs no other file, and returns its path."""
    page = template("comparison.html").render(
        title="BERT-EMD runs compared",
        wide=False,
        table=comparison_table(groups),
        runs=[_run_line(group, run) for group in groups for run in group.runs],
        panels=_score_panels(groups),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def _run_line(group: Group, run: ComparedRun) -> list[str]:
    metric = run.results.primary_metric or ""
    score = run.student.metrics.get(metric)
    return [
        str(run.directory),
        group.name,
        tables.setting_text(run.seed),
        metric.replace("_", " "),
        tables.ABSENT if score is None else tables.score_text(score),
        tables.share_text(tables.retained_share(run.results.test or run.results, metric)),
        tables.setting_text(run.results.best_step),
    ]


def _score_panels(groups: Sequence[Group]) -> list[Any]:
    """Returns the dev score of every run over training, one figure per deciding metric."""
    from bert_emd_jax.report.figures import Series, draw_curves
    from bert_emd_jax.report.sections import Panel

    panels = []
    metrics = dict.fromkeys(run.results.primary_metric for group in groups for run in group.runs)
    for number, metric in enumerate(name for name in metrics if name is not None):
        series = [
            Series(group.name, _COLORS[index % len(_COLORS)], run.metrics.eval[metric], dots=True)
            for index, group in enumerate(groups)
            for run in group.runs
            if run.metrics is not None and metric in run.metrics.eval
        ]
        if not series:
            continue
        title = f"{metric.replace('_', ' ')} on the dev set"
        svg = draw_curves(f"score-{number}", series, metric.replace("_", " "), title, scale="linear")
        legend = list({one.label: one for one in series}.values())  # one entry for all seeds
        note = "One line per run; runs of one configuration share a colour."
        panels.append(Panel(title, svg, legend, note))
    return panels
