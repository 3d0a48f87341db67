"""Several runs side by side: those that differ in nothing but the seed share a line, as mean ± deviation."""

import os
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bert_emd_jax import layout
from bert_emd_jax.files import write_text
from bert_emd_jax.report import differences, tables
from bert_emd_jax.report.compared_runs import ComparedRun, Group
from bert_emd_jax.report.html import template

PAGE = "comparison.html"
# The colors of the lines of the table, in turn.
_COLORS = ("attention", "hidden", "embedding", "prediction", "soft", "hard", "text", "muted")
_RUNS_HEAD = ["directory", "configuration", "seed", "metric", "score", "retained", "best step", "timed on"]
_UNNAMED = "a machine that eval_results.json does not name"


def mean_text(values: Sequence[float], digits: int = 4) -> str:
    """Returns the mean; of two values or more with the sample standard deviation."""
    if not values:
        return tables.ABSENT
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def setting_columns(groups: Sequence[Group]) -> list[str]:
    """Returns the columns that tell configurations apart, the first of every table."""
    return list(groups[0].settings) if groups else []


def comparison_table(groups: Sequence[Group]) -> list[list[str]]:
    """Returns the lines of the table, its head first: scores with deviations, share retained, size, speed.

    Scores of other tasks, splits or numbers of rows have columns of their own, and so have other machines.
    """
    columns: list[tuple[str, Callable[[Group], str]]] = [
        *((name, lambda group, name=name: group.settings[name]) for name in setting_columns(groups)),
        ("runs", lambda group: str(len(group.runs))),
        *_score_columns(groups),
        ("M parameters", lambda group: _millions(group.values(lambda run: run.student.parameters))),
        ("M FLOPs", lambda group: _millions(group.values(lambda run: run.student.flops_per_sentence))),
        *_speed_columns(groups),
    ]
    return [[head for head, _ in columns], *([text(group) for _, text in columns] for group in groups)]


def _score_columns(groups: Sequence[Group]) -> list[tuple[str, Callable[[Group], str]]]:
    """Returns the deciding metrics first, and of each those on a test split, then the shares retained."""
    runs = [run for group in groups for run in group.runs]
    primaries = dict.fromkeys(run.results.primary_metric for run in runs)
    found = sorted(
        dict.fromkeys(scored for run in runs for scored in run.scores),
        key=lambda scored: (scored.metric not in primaries, scored.split != "test"),
    )
    shared = [scored for scored in found if any(scored in run.shares for run in runs)]
    several = len({scored.task for scored in found}) > 1

    def head(text: str, task: str) -> str:
        return f"{task}: {text}" if several else text

    return [
        *(
            (
                head(str(scored), scored.task),
                lambda group, scored=scored: mean_text(group.values(lambda run: run.scores.get(scored))),
            )
            for scored in found
        ),
        *(
            (
                head(f"% retained, {scored.place}", scored.task),
                lambda group, scored=scored: mean_text(
                    [100 * share for share in group.values(lambda run: run.shares.get(scored))], 1
                ),
            )
            for scored in shared
        ),
    ]


def _speed_columns(groups: Sequence[Group]) -> list[tuple[str, Callable[[Group], str]]]:
    runs = [run for group in groups for run in group.runs]
    batches = sorted({batch for run in runs for batch in run.student.milliseconds_per_sentence})
    names = machine_names(groups)

    def speed(batch: int, machine: str) -> Callable[[Group], str]:
        def milliseconds(run: ComparedRun) -> float | None:
            of_run = run.student.milliseconds_per_sentence.get(batch)
            return of_run if _machine(run) == machine else None

        return lambda group: _median(group.values(milliseconds))

    return [
        (f"ms, batch {batch}{short}", speed(batch, machine))
        for machine, short in names.items()
        for batch in batches
    ]


def machine_names(groups: Sequence[Group]) -> dict[str, str]:
    """Returns what each machine on which runs were timed is called in a head: nothing if there is but one."""
    timed = [run for group in groups for run in group.runs if run.student.milliseconds_per_sentence]
    machines = list(dict.fromkeys(map(_machine, timed)))
    return {
        machine: "" if len(machines) == 1 else f", machine {number}"
        for number, machine in enumerate(machines, 1)
    }


def _machine(run: ComparedRun) -> str:
    return _UNNAMED if run.results.timed_on is None else run.results.timed_on.name


def notes(groups: Sequence[Group]) -> list[str]:
    """Returns what a reader must know of the table: where runs were timed, and which repeat each other."""
    lines = []
    for machine, short in machine_names(groups).items():
        timed = [run for group in groups for run in group.runs if _machine(run) == machine]
        where = [run.results.timed_on.machine for run in timed if run.results.timed_on is not None]
        busy = sum(one.is_busy for one in where)
        doubt = f"; busy in {busy} of {len(timed)} runs (the program's own work counts)" if busy else ""
        lines.append(f"ms{short}: per sentence, timed on {machine}{doubt}")
    for group in groups:
        for seed, count in Counter(str(run.seed) for run in group.runs if run.seed is not None).items():
            if count > 1:
                lines.append(f"{group.name}: {count} runs of seed {seed}, which repeat each other")
    return lines


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g}" if values else tables.ABSENT


def _millions(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values) / 1e6:,.1f}" if values else tables.ABSENT


def as_text(groups: Sequence[Group]) -> str:
    """Returns the tables and notes for a screen."""
    parts = [tables.aligned(comparison_table(groups)), "\n".join(notes(groups))]
    if table := differences.difference_table(groups):
        parts.append("\n".join([table.title, tables.aligned([table.head, *table.lines]), *table.notes]))
    elif len(groups) > 1:
        parts.append(differences.NONE)
    return "\n\n".join(part for part in parts if part)


def write_comparison(path: Path, groups: Sequence[Group]) -> Path:
    """Writes the comparison as one HTML page that needs no other file, and returns its path."""
    page = template("comparison.html").render(
        title="BERT-EMD runs compared",
        wide=False,
        table=comparison_table(groups),
        notes=notes(groups),
        differences=differences.difference_table(groups),
        settings=setting_columns(groups),
        runs_head=_RUNS_HEAD,
        runs=[_run_line(group, run) for group in groups for run in group.runs],
        reports=[_report_of(run, path.parent) for group in groups for run in group.runs],
        panels=_score_panels(groups),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def _report_of(run: ComparedRun, directory: Path) -> str | None:
    """Returns the way to a run's report from the directory of the page; None if it has none."""
    report = run.directory / layout.REPORT
    return quote(os.path.relpath(report, directory).replace(os.sep, "/")) if report.is_file() else None


def _run_line(group: Group, run: ComparedRun) -> list[str]:
    """Returns the line of a run, with the score that has chosen nothing if there is one."""
    metric = run.results.primary_metric or ""
    scored = next((scored for scored in run.scores if scored.metric == metric), None)
    return [
        str(run.directory),
        group.name,
        tables.setting_text(run.seed),
        metric.replace("_", " ") if scored is None else str(scored),
        tables.ABSENT if scored is None else tables.score_text(run.scores[scored]),
        tables.share_text(None if scored is None else run.shares.get(scored)),
        tables.setting_text(run.results.best_step),
        tables.ABSENT if run.results.timed_on is None else str(run.results.timed_on),
    ]


def _score_panels(groups: Sequence[Group]) -> list[Any]:
    """Returns the score of every run over training, one figure per task, rows and deciding metric."""
    from bert_emd_jax.report.figures import Series, draw_curves
    from bert_emd_jax.report.sections import Panel

    panels = []
    deciding = dict.fromkeys(run.deciding for group in groups for run in group.runs)
    for number, scored in enumerate(one for one in deciding if one is not None):
        metric = scored.metric
        series = [
            Series(group.name, _COLORS[index % len(_COLORS)], run.metrics.eval[metric], dots=True)
            for index, group in enumerate(groups)
            for run in group.runs
            if run.deciding == scored and run.metrics is not None and metric in run.metrics.eval
        ]
        if not series:
            continue
        title = f"{scored.task}: {scored}"
        svg = draw_curves(f"score-{number}", series, metric.replace("_", " "), title, scale="linear")
        legend = list({one.label: one for one in series}.values())  # one entry for all seeds
        note = "One line per run; runs of one configuration share a colour."
        panels.append(Panel(title, svg, legend, note))
    return panels
