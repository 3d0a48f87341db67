"""The primary comparisons of docs/protocol.md, decided before its runs."""

import dataclasses
import statistics
from typing import NamedTuple

from comparison.findings import Findings, Pair
from comparison.intervals import Test, t_test
from comparison.methods import METHODS, WITHOUT_LAYERS


@dataclasses.dataclass(frozen=True)
class Primary:
    """The first of `ours` minus the first of `theirs`, of several the best on the first seed.

    students: where both sides are one method on different students, (ours, theirs); None: on all students.
    screened: whether the first seed has chosen `ours` among all methods, so that it counts no more.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    students: tuple[str, str] | None = None
    screened: bool = False


PRIMARY = (
    Primary(("uniform",), (WITHOUT_LAYERS,)),
    Primary(("last",), ("uniform",)),
    Primary(("emd",), ("uniform",)),
    Primary(("capped",), ("uniform", "emd")),
    Primary(("relations",), ("uniform",), screened=True),
    Primary((WITHOUT_LAYERS,), (WITHOUT_LAYERS,), ("cut2_lower", "cut2")),
)


class PrimaryTest(NamedTuple):
    """A primary comparison and its result; without any unit its interval counts 0."""

    title: str
    result: Test


def primary_tests(findings: Findings) -> list[PrimaryTest]:
    """Returns the result of every primary comparison over the units that have runs of both sides."""
    return [PrimaryTest(_title(primary), t_test(_differences(findings, primary))) for primary in PRIMARY]


def _differences(findings: Findings, primary: Primary) -> list[float]:
    """Returns the mean difference by seed of every unit that has one."""
    found = []
    for pair in findings.finals:
        ours, theirs = pair, pair
        if primary.students is not None:
            if pair.student != primary.students[0]:
                continue
            theirs = Pair(pair.task, primary.students[1])
        left = _best(findings, ours, primary.ours, screened=primary.screened)
        right = _best(findings, theirs, primary.theirs)
        shared = [seed for seed in left if seed in right]
        if shared:
            found.append(statistics.fmean(left[seed] - right[seed] for seed in shared))
    return found


def _best(
    findings: Findings, pair: Pair, methods: tuple[str, ...], *, screened: bool = False
) -> dict[int, float]:
    """Returns seed → score of the method that is best on the first seed; none if one of them has no such run.

    Where it has chosen, the first seed is left out if there are others: it would count for the chosen one.
    """
    first = findings.plan.seeds[0]
    runs = [findings.finals.get(pair, {}).get(method, {}) for method in methods]
    if not all(first in by_seed for by_seed in runs):
        return {}
    chosen = max(runs, key=lambda by_seed: by_seed[first].score or 0.0)
    has_chosen = screened or len(methods) > 1
    skipped = {first} if has_chosen and len(chosen) > 1 else set()
    return {seed: run.score or 0.0 for seed, run in chosen.items() if seed not in skipped}


def _title(primary: Primary) -> str:
    sides = [" or ".join(METHODS[method].title for method in side) for side in (primary.ours, primary.theirs)]
    if primary.students is not None:
        sides = [f"{side}, {student}" for side, student in zip(sides, primary.students, strict=True)]
    return " − ".join(sides)
