"""The report's numbers as text: the teacher/student table and the run's settings."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bert_emd_jax.report.run_files import ModelResult, Results

ABSENT = "–"


@dataclass(frozen=True)
class Row:
    """One line of the teacher/student table."""

    label: str
    teacher: str
    student: str
    comparison: str
    important: bool = False


def score_text(score: float) -> str:
    return f"{score:.4f}"


def share_text(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.1f} %"


def retained_share(results: Results, metric: str | None) -> float | None:
    """The student's score over the teacher's; None where one is absent or the teacher's is not positive."""
    if metric is None or results.student is None or results.teacher is None:
        return None
    student, teacher = results.student.metrics.get(metric), results.teacher.metrics.get(metric)
    return None if student is None or teacher is None or teacher <= 0 else student / teacher


def times(teacher: float | None, student: float | None, better: str, worse: str) -> str:
    """How many times smaller or faster the student is, such as "1.93× faster"."""
    if not teacher or not student or teacher < 0 or student < 0:
        return ABSENT
    ratio = teacher / student
    if ratio == 1:
        return "equal"
    return f"{ratio:.2f}× {better}" if ratio >= 1 else f"{1 / ratio:.2f}× {worse}"


def comparison_rows(results: Results, metric: str | None) -> list[Row]:
    """The table's lines: scores (the deciding one first), shape, size, speed. Lines without a number go."""
    student, teacher = results.student, results.teacher
    models = [model for model in (student, teacher) if model is not None]

    def row(
        label: str, value: Callable[[ModelResult], Any], text: Callable[[Any], str], better: str, worse: str
    ) -> Row:
        values = [None if model is None else value(model) for model in (teacher, student)]
        texts = [ABSENT if one is None else text(one) for one in values]
        comparison = times(values[0], values[1], better, worse) if better else ""
        return Row(label, texts[0], texts[1], comparison)

    rows = []
    names = dict.fromkeys(name for model in models for name in model.metrics)
    for name in sorted(names, key=lambda name: name != metric):
        line = row(
            name.replace("_", " "), lambda model, name=name: model.metrics.get(name), score_text, "", ""
        )
        share = retained_share(results, name)
        kept = "" if share is None else f"{share_text(share)} retained"
        rows.append(Row(line.label, line.teacher, line.student, kept, important=name == metric))
    rows += [
        row("layers", lambda model: model.layers, str, "fewer", "more"),
        row("hidden size", lambda model: model.hidden_size, _grouped, "smaller", "larger"),
        row("attention heads", lambda model: model.heads, str, "fewer", "more"),
        row("intermediate size", lambda model: model.intermediate_size, _grouped, "smaller", "larger"),
        row("parameters", lambda model: model.parameters, _grouped, "smaller", "larger"),
        row("weights file", lambda model: model.file_bytes, _megabytes, "smaller", "larger"),
        row("FLOPs per sentence", lambda model: model.flops_per_sentence, _operations, "fewer", "more"),
    ]
    for batch in sorted({batch for model in models for batch in model.milliseconds_per_sentence}):
        rows.append(
            row(
                f"ms per sentence, batch {batch}",
                lambda model, batch=batch: model.milliseconds_per_sentence.get(batch),
                lambda value: f"{value:.3g}" if value < 100 else f"{value:,.0f}",
                "faster",
                "slower",
            )
        )
    return [line for line in rows if (line.teacher, line.student) != (ABSENT, ABSENT)]


def _grouped(value: float) -> str:
    return f"{value:,}"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def _operations(count: float) -> str:
    return f"{count / 1e6:,.0f} M" if count < 1e9 else f"{count / 1e9:,.1f} G"


def settings(values: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, value as text) of flags or versions, in the file's order."""
    return [(str(name), setting_text(value)) for name, value in values.items()]


def flags_by_source(
    flags: dict[str, Any], sources: dict[str, Any]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """(title, flags) for those given by hand, of a preset, and at their defaults; or all in one."""
    groups: dict[str, dict[str, Any]] = {"given": {}}
    for name, value in flags.items():
        groups.setdefault(str(sources.get(name, "default")), {})[name] = value
    defaults = groups.pop("default", {})
    titles = {"given": "Flags given"} | {
        source: f"Flags of the {source}" for source in groups if source != "given"
    }
    listed = [(title, settings(groups[source])) for source, title in titles.items()]
    return [*listed, ("Flags at their defaults" if sources else "Flags", settings(defaults))]


def setting_text(value: Any) -> str:
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def devices_text(devices: list[Any]) -> str:
    """Equal devices counted: "8 × TPU v4"."""
    counts = Counter(setting_text(device) for device in devices)
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items())
