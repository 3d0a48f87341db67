"""How far each configuration is from the first one on the same rows, and how sure that is."""

import functools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bert_emd_jax.evaluation.intervals import difference_interval, seeds_interval
from bert_emd_jax.evaluation.metrics import compute_metrics
from bert_emd_jax.report import tables
from bert_emd_jax.report.answered_questions import AnsweredQuestions
from bert_emd_jax.report.compared_runs import ComparedRun, Group, Scored
from bert_emd_jax.report.predictions_reader import Predictions
from bert_emd_jax.report.tagged_sentences import TaggedSentences

MINUS, SCORE, NOTE = "minus", "score", "note"
_INTERVALS = "95 % over rows", "95 % over seeds"
_EXPLANATION = (
    "Over rows: how far the difference may be off on other rows, by a paired bootstrap. Over seeds: how far"
    " with other seeds, by a t interval from the second seed on, which takes both configurations to scatter"
    " alike. Neither has both in it; where an interval holds 0, the difference may be none."
)
NONE = "no differences: no two configurations were scored on the same task, split and number of rows"
_SAME_SCORE = 1e-3  # predictions are kept with six digits

_Predictions = Predictions | TaggedSentences | AnsweredQuestions
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class _Scores:
    """The runs of one configuration that were scored on the same split, with one entry for each run."""

    group: Group
    runs: list[ComparedRun]
    scored: Scored

    @property
    def values(self) -> list[float]:
        return [run.scores[self.scored] for run in self.runs]

    @property
    def by_seed(self) -> list[float]:
        """One score of each seed: a repeated seed repeats its result, and an evaluation has none."""
        seeded = {str(run.seed): run.scores[self.scored] for run in self.runs if run.seed is not None}
        return list(seeded.values())

    @property
    def chose_step(self) -> bool:
        """Whether the scores are those of the best steps on the same rows."""
        return any(run.results.chose_step and run.results.split == self.scored.split for run in self.runs)

    @functools.cached_property
    def predictions(self) -> list[_Predictions] | None:
        """What each run predicts row by row; None if a run has not kept it, or kept that of other scores."""
        kept = [run.predictions(self.scored.split) for run in self.runs]
        known = [one for one in kept if one is not None]
        same = (
            _gives(one, self.scored.metric, value) for one, value in zip(known, self.values, strict=False)
        )
        return known if len(known) == len(kept) and all(same) else None


class DifferenceTable(NamedTuple):
    """Lines below their head; `notes` belong below them."""

    title: str
    head: list[str]
    lines: list[list[str]]
    notes: list[str]


def difference_table(groups: Sequence[Group]) -> DifferenceTable | None:
    """Returns the differences of `difference_lines`; None without any.

    What all lines have in common is said in the title and in the notes; intervals that none has are left out.
    """
    lines = difference_lines(groups)
    if not lines:
        return None
    common = {
        column: lines[0][column]
        for column in (MINUS, SCORE, NOTE)
        if len({line[column] for line in lines}) == 1
    }
    title = "Differences to the first configuration with the same task, split and rows"
    if MINUS in common:
        title = f"Differences to {common[MINUS]}, the first configuration"
    if SCORE in common:
        title += f" ({common[SCORE]})"
    empty = [column for column in _INTERVALS if {line[column] for line in lines} == {tables.ABSENT}]
    head = [column for column in lines[0] if column not in common and column not in empty]
    notes = [f"{common[NOTE][0].upper()}{common[NOTE][1:]}."] if common.get(NOTE) else []
    notes += [_EXPLANATION] if len(empty) < len(_INTERVALS) else []
    return DifferenceTable(title, head, [[line[column] for column in head] for line in lines], notes)


def difference_lines(groups: Sequence[Group]) -> list[dict[str, str]]:
    """Returns by column a line for each score that a configuration shares with an earlier one.

    The first configuration with a score on a split is what later ones are compared with. Intervals are over
    rows (paired bootstrap, if every run keeps its predictions) and over seeds (t interval, from the second
    seed on).
    """
    return [_line(ours, baseline) for baseline, *others in _scored_alike(groups) for ours in others]


def _scored_alike(groups: Sequence[Group]) -> Iterator[list[_Scores]]:
    """Yields the configurations with the deciding metric of one task, split and number of rows."""
    deciding = dict.fromkeys(
        scored
        for group in groups
        for run in group.runs
        for scored in run.scores
        if scored.metric == run.results.primary_metric
    )
    for scored in sorted(deciding, key=lambda scored: scored.split != "test"):
        having = [(group, [run for run in group.runs if scored in run.scores]) for group in groups]
        yield [_Scores(group, runs, scored) for group, runs in having if runs]


def _line(ours: _Scores, theirs: _Scores) -> dict[str, str]:
    scored = ours.scored
    kept = ours.predictions, theirs.predictions
    difference, over_rows, over_seeds = tables.ABSENT, None, None
    note = _obstacle(ours, theirs, kept)
    if not note:
        difference = f"{statistics.fmean(ours.values) - statistics.fmean(theirs.values):+.4f}"
        over_rows = _over_rows(scored.metric, *kept)
        over_seeds = seeds_interval(ours.by_seed, theirs.by_seed)
        doubts = ["the rows chose the step"] if ours.chose_step or theirs.chose_step else []
        if over_rows is None and over_seeds is None:
            doubts.append("no interval: not all predictions are kept, and no second seed scores otherwise")
        note = "; ".join(doubts)
    return ours.group.settings | {
        MINUS: theirs.group.name,
        SCORE: f"{scored.task}: {scored}",
        "difference": difference,
        **dict(zip(_INTERVALS, map(_text, (over_rows, over_seeds)), strict=True)),
        NOTE: note,
    }


def _obstacle(
    ours: _Scores, theirs: _Scores, kept: tuple[list[_Predictions] | None, list[_Predictions] | None]
) -> str:
    """Says why scores of the same task, split and number of rows do not compare; "" if they do."""
    if kept[0] and kept[1]:
        first, *others = [*kept[0], *kept[1]]
        return "" if all(first.has_rows_of(other) for other in others) else "other rows"
    if ours.scored.rows is None:
        return "how many rows they are of is not recorded"
    places = {str(run.flags.get("data_dir")) for scores in (ours, theirs) for run in scores.runs}
    if ours.scored.task == "custom" and len(places) > 1:
        return "custom tasks of two directories, without predictions per row"
    return ""


def _over_rows(metric: str, ours: list[_Predictions] | None, theirs: list[_Predictions] | None) -> Interval:
    if not ours or not theirs:
        return None
    our_rows, their_rows = ([one.scored("student") for one in side] for side in (ours, theirs))
    return difference_interval(metric, our_rows, their_rows, ours[0].labels)


def _gives(predictions: _Predictions, metric: str, score: float) -> bool:
    """Whether these are the predictions that the score was computed from."""
    try:
        again = compute_metrics([metric], predictions.scored("student"), predictions.labels)[metric]
    except ValueError:  # no metric of such predictions
        return False
    return abs(again - score) < _SAME_SCORE


def _text(interval: Interval) -> str:
    return tables.ABSENT if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"
