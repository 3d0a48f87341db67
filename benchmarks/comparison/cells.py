"""What the cells of the study's tables say."""

import math
from collections.abc import Sequence

from comparison.findings import mean_and_deviation
from comparison.intervals import Interval
from comparison.records import Record

ABSENT = "–"


def count_text(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def setting_text(run: Record | None) -> str:
    if run is None or run.setting is None:
        return ABSENT
    flag, value = run.setting
    return f"{flag.replace('beta', 'β').replace('_', ' ')} {value:g}"


def points_text(score: float | None) -> str:
    return ABSENT if score is None else f"{100 * score:.1f}"


def mean_text(scores: Sequence[float]) -> str:
    mean, deviation = mean_and_deviation(100 * score for score in scores)
    return f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"


def interval_text(interval: Interval) -> str:
    if math.isnan(interval.mean):
        return ABSENT
    return f"{100 * interval.mean:+.1f} {bounds_text(interval)}".strip()


def bounds_text(interval: Interval) -> str:
    if not math.isfinite(interval.high - interval.low):
        return ""
    return f"({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
