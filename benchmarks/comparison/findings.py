"""The results of a study: scores, and differences from the baseline, by task and student."""

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from comparison.intervals import Interval, bootstrap_interval, pooled_interval
from comparison.matrix import Plan
from comparison.methods import BASELINE, METHODS, STUDENTS
from comparison.records import Record
from comparison.tasks import TASKS


class Pair(NamedTuple):
    """A task and a student: the method is all that differs within it."""

    task: str
    student: str

    @property
    def title(self) -> str:
        return f"{TASKS[self.task].title}, {self.student}"


@dataclasses.dataclass(frozen=True)
class Findings:
    """The records of a study, sorted. Differences are paired by seed, above the baseline by default."""

    plan: Plan
    records: Sequence[Record]

    @cached_property
    def finals(self) -> dict[Pair, dict[str, dict[int, Record]]]:
        """pair → method → seed → run, in the order of the tables."""
        runs: dict[tuple[str | None, ...], dict[int, Record]] = {}
        for run in sorted(self.of_kind("final"), key=lambda run: run.seed):
            runs.setdefault((run.task, run.student, run.method), {})[run.seed] = run
        found: dict[Pair, dict[str, dict[int, Record]]] = {}
        for pair in (Pair(task, student) for task in TASKS for student in STUDENTS):
            if by_method := {name: runs[*pair, name] for name in METHODS if (*pair, name) in runs}:
                found[pair] = by_method
        return found

    def of_kind(self, kind: str) -> list[Record]:
        return [record for record in self.records if record.kind == kind]

    def first_run(self, pair: Pair, method: str) -> Record | None:
        return next(iter(self.finals.get(pair, {}).get(method, {}).values()), None)

    @property
    def methods(self) -> list[str]:
        """Those with a run, in the order of the tables."""
        return [method for method in METHODS if any(method in runs for runs in self.finals.values())]

    @property
    def students(self) -> list[str]:
        return [student for student in STUDENTS if any(pair.student == student for pair in self.finals)]

    def scores(self, pair: Pair, method: str) -> list[float]:
        return [run.score or 0.0 for run in self.finals[pair].get(method, {}).values()]

    def differences(self, pair: Pair, method: str, above: str = BASELINE) -> list[float]:
        """Returns the differences of scores for the seeds that both methods have."""
        ours, theirs = (self.finals[pair].get(name, {}) for name in (method, above))
        return [(ours[seed].score or 0.0) - (theirs[seed].score or 0.0) for seed in ours if seed in theirs]

    def difference(self, pair: Pair, method: str, above: str = BASELINE) -> Interval:
        return pooled_interval([self.differences(pair, method, above)])

    def difference_over_rows(self, pair: Pair, method: str) -> Interval | None:
        """Returns the bootstrap interval over dev rows; None if predictions are missing."""
        ours, theirs = (self.finals[pair].get(name, {}) for name in (method, BASELINE))
        seeds = [seed for seed in ours if seed in theirs]
        labels = next((run.labels for run in self.teachers(pair.task) if run.labels), None)
        texts = [[runs[seed].predictions for seed in seeds] for runs in (ours, theirs)]
        metric = next((run.metric for run in ours.values()), None)
        if not seeds or labels is None or metric is None or None in texts[0] + texts[1]:
            return None
        return bootstrap_interval(metric, _digits([labels])[0], _digits(texts[0]), _digits(texts[1]))

    def pooled(self, method: str, student: str | None = None, above: str = BASELINE) -> Interval:
        """Returns the interval over all pairs, or those of a student, that have both methods."""
        pairs = [pair for pair in self.finals if student in (None, pair.student)]
        return pooled_interval([self.differences(pair, method, above) for pair in pairs])

    def rows_predicted_differently(self, method: str, other: str) -> float | None:
        """Returns the share of dev rows, over all pairs and seeds that both have; None if there are none."""
        shares = [
            float(np.mean([ours != theirs for ours, theirs in zip(texts[0], texts[1], strict=True)]))
            for runs in self.finals.values()
            for seed in runs.get(method, {})
            if seed in runs.get(other, {})
            and None not in (texts := [runs[name][seed].predictions for name in (method, other)])
        ]
        return statistics.mean(shares) if shares else None

    def teachers(self, task: str) -> list[Record]:
        """Returns the candidates, best first; of equals the first was taken."""
        runs = [record for record in self.of_kind("teacher") if record.task == task]
        return sorted(runs, key=lambda run: -run.standing)

    def missing(self) -> dict[Pair, dict[str, list[int]]]:
        """Returns pair → method → planned seeds without a run."""
        found: dict[Pair, dict[str, list[int]]] = {}
        for pair in (Pair(task, student) for task in self.plan.tasks for student in self.plan.students):
            for method in self.plan.methods:
                done = self.finals.get(pair, {}).get(method, {})
                if seeds := [seed for seed in self.plan.seeds if seed not in done]:
                    found.setdefault(pair, {})[method] = seeds
        return found

    def trials(self, pair: Pair, method: str) -> list[Record]:
        """Returns the trials of a method, in the order of the values."""
        runs = [
            record
            for record in self.of_kind("tuning")
            if (record.task, record.student, record.method) == (*pair, method)
        ]
        return sorted(runs, key=lambda run: run.setting[1] if run.setting else 0.0)

    @property
    def tuned_pairs(self) -> list[Pair]:
        tuned = {(record.task, record.student) for record in self.of_kind("tuning")}
        return [Pair(task, student) for task in TASKS for student in STUDENTS if (task, student) in tuned]


def mean_and_deviation(values: Iterable[float]) -> tuple[float, float | None]:
    """Returns the mean and the sample standard deviation, None for one value."""
    values = list(values)
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _digits(texts: Sequence[str | None]) -> np.ndarray:
    return np.array([[int(digit) for digit in text or ""] for text in texts])
