"""The tables of all runs of a study, behind the page of its results."""

import statistics
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from bert_emd_jax.runs.layer_mapping import COST_KINDS
from comparison.cells import (
    ABSENT,
    bounds_text,
    count_text,
    interval_text,
    markdown_table,
    mean_text,
    points_text,
    setting_text,
)
from comparison.findings import Findings, Pair
from comparison.methods import BASELINE, DEFAULT, METHODS, STUDENTS, WITHOUT_LAYERS
from comparison.records import Record
from comparison.tasks import TASKS

_METRICS = {
    "accuracy": "accuracy",
    "accuracy_and_f1": "mean of accuracy and F1",
    "matthews_correlation": "Matthews correlation",
}


def appendix_sections(findings: Findings, pictures: dict[str, str], folder: str) -> Iterable[str]:
    """Gives the sections after the title; empty ones are those that the study has nothing for.

    Args:
      pictures: what each picture in `folder` shows, by its name.
    """

    def picture(name: str) -> str:
        return f"![{pictures[name]}]({folder}/{name}.svg)" if name in pictures else ""

    yield _conditions(findings)
    yield "## Methods, over all pairs"
    yield _pooled(findings)
    yield _single_changes(findings)
    yield "## Tasks, teachers and students"
    yield _tasks(findings)
    yield _students(findings)
    yield _augmented_rows(findings)
    yield "## Scores"
    yield (
        "Mean ± standard deviation over seeds, in points. Differences are paired by seed, with their 95 %"
        f" interval over new seeds (t), and above {METHODS[BASELINE].title} over other dev sets of the same"
        " size (bootstrap over rows, the seeds as they are)."
    )
    yield picture("scores")
    for pair in findings.finals:
        yield f"### {pair.title}"
        yield _scores(findings, pair)
    if "curves" in pictures:
        yield "## Learning from the teacher's predictions"
        yield "The loss on the teacher's predictions over training, the mean over seeds."
        yield picture("curves")
    yield "## Tuning"
    yield _tuning(findings)
    if costs := _transported_costs(findings):
        yield "## Layer weights and plans"
        yield (
            "Of the first seed and the first task that has a run: the weights of the teacher's layers over"
            " training, under the rules that move them, and the last plans of EMD, in percent of the mass."
        )
        yield from (picture("layer_weights"), picture("plans"), costs)
    yield "## Time and machine"
    yield _time(findings)
    if missing := _missing(findings):
        yield "## Not run yet"
        yield missing


def _conditions(findings: Findings) -> str:
    text = (
        "Every run is a command line of `run_finetune.py` or `run_distill.py`. Its score is that of the last"
        " step on the dev set: no step and no seed is chosen by it. Within a pair of task and student the"
        " method is all that differs: as many epochs in batches of 32, one teacher, one"
        " learning rate. All methods that have trials have as many, on a seed that is used for nothing"
        " else: of β, or of the learning rate where there is no β."
    )
    if findings.plan.dev_halves:
        text += (
            " One half of the dev rows, drawn once, chooses teachers and trials; all scores below are of the"
            " other half."
        )
    return text


def _missing(findings: Findings) -> str:
    """Lists what the plan has and the records do not: methods, single seeds of methods, whole pairs."""
    lines, whole_pairs = [], []
    for pair, methods in findings.missing().items():
        if pair not in findings.finals:
            whole_pairs.append(pair.title)
            continue
        names = [
            name if len(seeds) == len(findings.plan.seeds) else f"{name} (seed {', '.join(map(str, seeds))})"
            for name, seeds in methods.items()
        ]
        lines.append(f"- {pair.title}: {', '.join(names)}")
    if whole_pairs:
        lines.append(f"- no method at all: {'; '.join(whole_pairs)}")
    return "\n".join(lines)


def _pooled(findings: Findings) -> str:
    """Returns a table of differences for each method that the others are compared with."""
    students, tables = findings.students, []
    for above in (BASELINE, WITHOUT_LAYERS, DEFAULT):
        rows = []
        for method in findings.methods:
            everywhere = findings.pooled(method, above=above)
            if method != above and everywhere.count:
                by_student = [interval_text(findings.pooled(method, student, above)) for student in students]
                cells = [interval_text(everywhere), str(everywhere.count), *by_student]
                rows.append([METHODS[method].title, *cells])
        if rows:
            header = [f"points above {METHODS[above].title}", "all pairs", "paired runs", *students]
            tables.append(markdown_table(header, rows))
    if not tables:
        return f"No method has a seed in common with {METHODS[BASELINE].title} yet."
    return (
        "Differences paired by seed, every pair of task and student weighing the same, and their 95 %"
        " interval over new seeds.\n\n" + "\n\n".join(tables)
    )


def _single_changes(findings: Findings) -> str:
    """Compares the methods that differ from another in one thing with that one; empty if there are none."""
    rows = []
    for method in findings.methods:
        like = METHODS[method].like
        if like is None or not (difference := findings.pooled(method, above=like)).count:
            continue
        changed = findings.rows_predicted_differently(method, like)
        share = ABSENT if changed is None else f"{100 * changed:.1f} %"
        titles = [METHODS[name].title for name in (method, like)]
        rows.append([*titles, interval_text(difference), str(difference.count), share])
    if not rows:
        return ""
    header = ["method", "is like", "points above it", "paired runs", "dev rows predicted otherwise"]
    return "What differs from another method in one thing, at the same β:\n\n" + markdown_table(header, rows)


def _tasks(findings: Findings) -> str:
    rows = []
    for name, task in TASKS.items():
        candidates = findings.teachers(name)
        if not candidates:
            continue
        teacher = candidates[0]
        dev_rows = str(len(teacher.labels)) if teacher.labels else ABSENT
        others = ", ".join(f"{_candidate(run)}: {points_text(run.score)}" for run in candidates[1:])
        metric = _METRICS.get(teacher.metric or "", str(teacher.metric))
        chosen = f"{points_text(teacher.score)} ({_candidate(teacher)})"
        train_rows = f"{teacher.rows:,}" if teacher.rows else ABSENT
        rows.append([task.title, metric, train_rows, dev_rows, task.rows, chosen, others or ABSENT])
    plan = findings.plan
    body = "A tiny body of random weights" if plan.tiny else "all-MiniLM-L6-v2 (6 layers, hidden size 384)"
    header = ["task", "metric", "training rows", "dev rows", "which", "teacher", "other candidates"]
    return (
        f"{body}, fine-tuned for {count_text(plan.teacher_epochs, 'epoch')}, is the teacher: the best on the"
        f" dev set of the seeds and learning rates tried.\n\n{markdown_table(header, rows)}"
    )


def _candidate(run: Record) -> str:
    rate = f"{run.setting[1]:g}, " if run.setting else ""
    return f"{rate}seed {run.seed}"


def _students(findings: Findings) -> str:
    rows = []
    for name in findings.students:
        pair = next(pair for pair in findings.finals if pair.student == name)
        model = next(iter(next(iter(findings.finals[pair].values())).values())).model
        origin = next((run for run in findings.of_kind("student") if run.student == name), None)
        loss = ABSENT if origin is None else _held_out(origin)
        size = f"{model.get('layers')} × {model.get('hidden_size')}"
        student = STUDENTS[name]
        parameters = f"{model.get('parameters', 0) / 1e6:.1f} M"
        epochs = f"{findings.plan.epochs * student.epochs:g}"
        rows.append([name, student.title, size, parameters, f"{student.learning_rate:g}", epochs, loss])
    plan = findings.plan
    header = ["student", "start", "layers × width", "parameters", "learning rate", "epochs", "held-out loss"]
    table = markdown_table(header, rows)
    if not any(STUDENTS[name].pretraining for name in findings.students):
        return table
    return table + (
        f"\n\nGeneral distillation: {plan.general_steps:,} steps of 32 rows, up to 64 tokens each, of"
        f" {plan.reviews:,} IMDB reviews. The held-out loss is the one of its own mapping."
    )


def _held_out(run: Record) -> str:
    return f"{run.scores['held_out_loss_at_start']:.3g} → {run.scores['held_out_loss']:.3g}"


def _augmented_rows(findings: Findings) -> str:
    """Says how many augmented rows there are and which model proposed their words; empty without any."""
    made = findings.of_kind("augmentation")
    if not made:
        return ""
    counts = ", ".join(f"{run.rows:,} of {TASKS[run.task or ''].title}" for run in made)
    source = "Another masked-language model"
    for model in findings.of_kind("masked_lm"):
        source = (
            f"The body, taught to predict masked words of the reviews (held-out loss {_held_out(model)}),"
        )
    return f"Augmented rows: {counts}, learned from in as many steps. {source} proposed their words."


def _scores(findings: Findings, pair: Pair) -> str:
    rows = []
    for method, by_seed in findings.finals[pair].items():
        over_rows = None if method == BASELINE else findings.difference_over_rows(pair, method)
        rows.append(
            [
                METHODS[method].title,
                setting_text(findings.first_run(pair, method)),
                mean_text(findings.scores(pair, method)),
                str(len(by_seed)),
                _above(findings, pair, method, BASELINE),
                ABSENT if over_rows is None else bounds_text(over_rows),
                _above(findings, pair, method, WITHOUT_LAYERS),
                f"{statistics.median(run.seconds for run in by_seed.values()):.0f}",
            ]
        )
    above = [f"above {METHODS[name].title}" for name in (BASELINE, WITHOUT_LAYERS)]
    header = ["method", "chosen", "score", "seeds", above[0], "over dev rows", above[1], "seconds a run"]
    return markdown_table(header, rows)


def _above(findings: Findings, pair: Pair, method: str, other: str) -> str:
    return ABSENT if method == other else interval_text(findings.difference(pair, method, other))


def _tuning(findings: Findings) -> str:
    rows = []
    for pair in findings.tuned_pairs:
        for method in METHODS:
            if trials := findings.trials(pair, method):
                best = max(trials, key=lambda run: run.standing)
                texts = {run.name: f"{setting_text(run)}: {points_text(run.standing)}" for run in trials}
                texts[best.name] = f"**{texts[best.name]}**"
                tried = ", ".join(texts.values())
                rows.append([TASKS[pair.task].title, pair.student, METHODS[method].title, tried])
    if not rows:
        return "Nothing was tuned."
    where = "on one task for all" if findings.plan.tuning_task else "on each task"
    return (
        f"The trials of every method, {where}; the best is taken for all seeds. What differs from a method in"
        " one thing takes its choice: ablations, other solvers, a second softmax, other choices of teacher"
        " layers (that of uniform).\n\n" + markdown_table(["task", "student", "method", "tried"], rows)
    )


def _transported_costs(findings: Findings) -> str:
    """Returns the transported costs, methods down, pairs across; empty if no run has plans."""
    rows = []
    for method in findings.methods:
        cells = [_transported(findings.first_run(pair, method)) for pair in findings.finals]
        if set(cells) != {ABSENT}:
            rows.append([METHODS[method].title, *cells])
    if not rows:
        return ""
    header = ["ΣF·C", *(pair.title for pair in findings.finals)]
    return (
        "What these plans leave of the costs at the last step of the first seed: of attention scores and of"
        " hidden states.\n\n" + markdown_table(header, rows)
    )


def _transported(run: Record | None) -> str:
    if run is None or run.mapping is None:
        return ABSENT
    flow, cost = run.mapping["flow"], run.mapping["cost"]
    return ", ".join(
        f"{np.sum(np.multiply(flow[kind], cost[kind])):.2f}" if kind in flow else ABSENT
        for kind in COST_KINDS
    )


def _time(findings: Findings) -> str:
    kinds = {
        "teacher": "a teacher",
        "student": "general distillation",
        "masked_lm": "a masked-language model",
        "tuning": "a trial",
        "final": "a run of the comparison",
    }
    rows = []
    for kind, title in kinds.items():
        if runs := findings.of_kind(kind):
            seconds = [run.seconds for run in runs]
            speeds = [run.examples_per_second or 0.0 for run in runs]
            cells = [str(len(runs)), f"{statistics.median(seconds):.0f}", f"{sum(seconds) / 3600:.2f}"]
            rows.append([title, *cells, f"{statistics.median(speeds):.0f}"])
    table = markdown_table(["what", "runs", "median seconds", "hours", "examples per second"], rows)
    revisions: dict[str, Counter[str]] = {}
    for record in findings.records:
        if record.environment:
            revision = record.environment.get("git_revision") or "unknown"
            revisions.setdefault(_machine(record.environment), Counter())[revision[:8]] += 1
    dates = sorted(record.started[:10] for record in findings.records)
    machines = "\n".join(
        f"- {machine}: {counts.total()} runs, by git revision"
        f" {', '.join(f'{revision} ({count})' for revision, count in sorted(counts.items()))}"
        for machine, counts in sorted(revisions.items())
    )
    days = f"\n\nRun from {dates[0]} to {dates[-1]}." if dates else ""
    return f"{table}\n\n{machines}{days}"


def _machine(environment: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    return f"{environment.get('machine', '')}; {', '.join(environment['devices'])}; {versions}"
