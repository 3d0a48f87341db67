"""The numbers of the report as text: the teacher/student table and the settings of the run."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bert_emd_jax.report.results_reader import HELD_OUT_LOSS, Difference, ModelResult, Results, TestResults

ABSENT = "–"


@dataclass(frozen=True)
class TableRow:
    """One line of the teacher/student table."""

    label: str
    teacher: str
    student: str
    comparison: str
    important: bool = False

    @property
    def is_empty(self) -> bool:
        return self.teacher == self.student == ABSENT


def score_text(score: float) -> str:
    return f"{score:.4f}"


def interval_text(interval: tuple[float, float] | None) -> str:
    """Returns " (0.7900 to 0.8400)", or nothing."""
    return "" if interval is None else f" ({interval[0]:.4f} to {interval[1]:.4f})"


def share_text(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.1f} %"


def rows_text(results: Results, *, of_test: bool = False) -> str:
    """Returns which rows a score is of: "1,000 test rows", "500 dev rows, which chose the step"."""
    scored = results.test if of_test and results.test is not None else results
    split = "test" if of_test else results.split or "dev"
    counted = (
        f"the {split} {scored.unit}" if scored.rows is None else f"{scored.rows:,} {split} {scored.unit}"
    )
    return f"{counted}, which chose the step" if results.chose_step and not of_test else counted


def difference_text(difference: Difference, metric_name: str) -> str:
    """Returns how far the student is from its teacher, and between which bounds."""
    way = "above" if difference.value > 0 else "below"
    apart = f"is {abs(difference.value):.4f} {way}" if difference.value else "scores as high as"
    how_sure = f"95 % interval of the difference {difference.low:+.4f} to {difference.high:+.4f}"
    if difference.low == difference.high:
        how_sure = "no draw of these rows gives another difference"
    doubt = ": these rows do not tell the two apart" if difference.low <= 0 <= difference.high else ""
    return f"The student {apart} its teacher in {metric_name} ({how_sure}){doubt}."


def headline(results: Results, metric: str | None) -> str:
    """Returns the one line of result, of the split that has chosen nothing if there is one; or ""."""
    scored = results.test or results
    where = rows_text(results, of_test=results.test is not None)
    if metric == HELD_OUT_LOSS and results.student is not None and metric in results.student.metrics:
        loss = results.student.metrics[metric]
        return (
            f"The validation loss is {loss:.4f} on {where}: the losses of the training, weighted as there."
            " It scores no task, and compares runs with equal weights on equal rows alone."
        )
    metric_name = (metric or "score").replace("_", " ")
    share = retained_share(scored, metric)
    if share is None:
        return ""
    text = f"The student keeps {share_text(share)} of its teacher's {metric_name} on {where}."
    return text if scored.difference is None else f"{text} {difference_text(scored.difference, metric_name)}"


def retained_share(results: Results | TestResults, metric: str | None) -> float | None:
    """Returns the student's score over the teacher's, which must be positive; None if one is absent."""
    if metric is None or results.student is None or results.teacher is None:
        return None
    student, teacher = results.student.metrics.get(metric), results.teacher.metrics.get(metric)
    return None if student is None or teacher is None or teacher <= 0 else student / teacher


def times(teacher: float | None, student: float | None, better: str, worse: str) -> str:
    """Returns how many times smaller or faster the student is, such as "1.93× faster"."""
    if not teacher or not student or teacher < 0 or student < 0:
        return ABSENT
    ratio = teacher / student
    if ratio == 1:
        return "equal"
    return f"{ratio:.2f}× {better}" if ratio >= 1 else f"{1 / ratio:.2f}× {worse}"


def comparison_rows(results: Results, metric: str | None) -> list[TableRow]:
    """Returns the lines that have a number: scores (`metric` first), shape, size, speed."""
    return [row for row in (*score_rows(results, metric), *cost_rows(results)) if not row.is_empty]


def score_rows(results: Results, metric: str | None) -> list[TableRow]:
    """Returns scores on test rows, then on dev rows, `metric` first; the very first is important."""
    rows = []
    for scored in (results.test, results):
        if scored is not None:
            where = rows_text(results, of_test=scored is results.test)
            rows += _score_rows(scored, metric, where, leads=scored is (results.test or results))
    return rows


def cost_rows(results: Results) -> list[TableRow]:
    """Returns shape, size and speed, a line each."""
    models = results.teacher, results.student
    present = [model for model in models if model is not None]
    rows = []
    for label, field, text, words in (
        ("layers", "layers", str, ("fewer", "more")),
        ("hidden size", "hidden_size", "{:,}".format, ("smaller", "larger")),
        ("attention heads", "heads", str, ("fewer", "more")),
        ("intermediate size", "intermediate_size", "{:,}".format, ("smaller", "larger")),
        ("parameters", "parameters", "{:,}".format, ("smaller", "larger")),
        ("weights file", "file_bytes", _megabytes, ("smaller", "larger")),
        ("FLOPs per sentence", "flops_per_sentence", _operations, ("fewer", "more")),
    ):
        sizes = [getattr(model, field, None) for model in models]
        rows.append(_row(label, sizes, text, times(sizes[0], sizes[1], *words)))
    for batch in sorted({batch for model in present for batch in model.milliseconds_per_sentence}):
        speeds = [None if model is None else model.milliseconds_per_sentence.get(batch) for model in models]
        comparison = times(speeds[0], speeds[1], "faster", "slower")
        rows.append(_row(f"ms per sentence, batch {batch}", speeds, _milliseconds, comparison))
    return rows


_SHOWN = 3


def leading_metrics(model: ModelResult, primary: str | None) -> dict[str, float]:
    """Returns the scores that tables have room for: the deciding one, and those named next to it."""
    names = sorted(model.metrics, key=lambda name: name != primary)
    return {name: model.metrics[name] for name in names[:_SHOWN]}


@dataclass(frozen=True)
class LabelTable:
    """Scores by label: each of `rows` has a label, its rows, those predicted, and what `head` names."""

    head: list[str]
    rows: list[list[str]]
    where: str
    counted: str


def label_table(results: Results) -> LabelTable | None:
    """Returns the scores by label on the split that has chosen nothing if there is one; None without any."""
    scored = results.test or results
    models = {
        name: model.by_label
        for name, model in (("teacher", scored.teacher), ("student", scored.student))
        if model is not None and model.by_label
    }
    if "student" not in models:
        return None
    metrics = [name for name in next(iter(models["student"].values())) if name not in ("true", "predicted")]
    columns = [(name, metric) for name in models for metric in metrics]
    rows = []
    for label, scores in models["student"].items():
        values = [models[name].get(label, {}).get(metric) for name, metric in columns]
        counts = [scores.get("true"), scores.get("predicted")]
        texts = [ABSENT if count is None else f"{count:,.0f}" for count in counts]
        texts += [ABSENT if value is None else score_text(value) for value in values]
        rows.append([label, *texts])
    shown = [(name, metric.replace("_", " ")) for name, metric in columns]
    head = [f"{name} {metric}" if len(models) > 1 else metric for name, metric in shown]
    counted = "entities" if results.unit == "sentences" else results.unit
    return LabelTable(head, rows, rows_text(results, of_test=results.test is not None), counted)


def _score_rows(
    scored: Results | TestResults, metric: str | None, where: str, *, leads: bool
) -> list[TableRow]:
    models = scored.teacher, scored.student
    rows = []
    names = dict.fromkeys(
        name for model in reversed(models) if model is not None for name in leading_metrics(model, metric)
    )
    for name in sorted(names, key=lambda name: name != metric):
        scores = [None if model is None else model.metrics.get(name) for model in models]
        share = retained_share(scored, name)
        retained = "" if share is None else f"{share_text(share)} retained"
        label = f"{name.replace('_', ' ')}, {where}"
        row = _row(label, scores, score_text, retained, important=leads and name == metric)
        if name == metric:
            row = _with_intervals(row, scored)
        rows.append(row)
    return rows


def _with_intervals(row: TableRow, scored: Results | TestResults) -> TableRow:
    intervals = (None if model is None else model.interval for model in (scored.teacher, scored.student))
    teacher, student = map(interval_text, intervals)
    return replace(row, teacher=row.teacher + teacher, student=row.student + student)


def _row(
    label: str,
    values: Sequence[float | None],
    text: Callable[[Any], str],
    comparison: str,
    important: bool = False,
) -> TableRow:
    teacher, student = (ABSENT if value is None else text(value) for value in values)
    return TableRow(label, teacher, student, comparison, important)


def _milliseconds(value: float) -> str:
    return f"{value:#.3g}" if value < 99.95 else f"{value:,.0f}"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def _operations(count: float) -> str:
    return f"{count / 1e6:,.0f} M" if count < 1e9 else f"{count / 1e9:,.1f} G"


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Returns a table for a screen, numbers aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in table
    )


def timing_note(results: Results | None) -> str:
    """Returns where the milliseconds of the table were measured; "" without milliseconds."""
    if results is None or results.student is None or not results.student.milliseconds_per_sentence:
        return ""
    where = results.timed_on or "a machine that eval_results.json does not name"
    return f"Milliseconds are medians over interleaved runs, timed on {where}."


def settings(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns (name, value as text) of flags or versions, in the order of the file."""
    return [(str(name), setting_text(value)) for name, value in values.items()]


def flags_by_source(
    flags: dict[str, Any], sources: dict[str, Any]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Returns (title, settings) of the flags given, of each preset, and at their defaults.

    Args:
      sources: where each flag comes from; without any, the flags are one list.
    """
    groups: dict[str, dict[str, Any]] = {"given": {}}
    for name, value in flags.items():
        groups.setdefault(str(sources.get(name, "default")), {})[name] = value
    defaults = groups.pop("default", {})
    listed = [
        ("Flags given" if source == "given" else f"Flags of the {source}", settings(group))
        for source, group in groups.items()
    ]
    return [*listed, ("Flags at their defaults" if sources else "Flags", settings(defaults))]


def setting_text(value: Any) -> str:
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def seconds_text(seconds: float) -> str:
    """Returns a duration as people say it: "41 s", "12 min 5 s", "3 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def bytes_text(size: float) -> str:
    """Returns a size in units of 1,000: "3.42 GB"."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} GB" if size < 999.5 else f"{size:,.0f} GB"


def measured_facts(measured: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (name, text) of what a run took: `measured` of `run_config.json`, by the units in its names."""
    facts = []
    for name, value in measured.items():
        if not isinstance(value, int | float):
            continue
        words = name.split("_")
        if "seconds" in words:
            rest = " ".join(word for word in words if word != "seconds")
            facts.append((f"time {rest}".strip(), seconds_text(value)))
        elif words[-1] == "bytes":
            facts.append((f"{' '.join(words[:-1])} memory", bytes_text(value)))
        else:
            facts.append((" ".join(words), setting_text(value)))
    return facts


def devices_text(devices: list[Any]) -> str:
    """Returns equal devices with their number: "8 × TPU v4"."""
    counts = Counter(setting_text(device) for device in devices)
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items())
