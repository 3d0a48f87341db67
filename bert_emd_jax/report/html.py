"""Writes the report of a run: one HTML page that needs no other file and no network."""

from pathlib import Path
from typing import Any

import jinja2

from bert_emd_jax import layout
from bert_emd_jax.data.kinds import EMBEDDING
from bert_emd_jax.files import write_text
from bert_emd_jax.report import heatmaps, tables
from bert_emd_jax.report.answered_questions import AnsweredQuestions, notable_answers
from bert_emd_jax.report.downloads import downloads
from bert_emd_jax.report.predictions import (
    SHOWN_EXAMPLES,
    agreement,
    confusion,
    constant_models,
    notable_examples,
)
from bert_emd_jax.report.predictions_reader import Predictions
from bert_emd_jax.report.results_reader import HELD_OUT_LOSS, Results
from bert_emd_jax.report.run_reader import RunFiles, read_run
from bert_emd_jax.report.tagged_sentences import TaggedSentences, constant_taggers, marked_sentences
from bert_emd_jax.report.theme import style_variables
from bert_emd_jax.runs.layer_mapping import COST_KINDS


def write_report(run_dir: Path) -> Path:
    """Writes `report.html` from the files of a run and returns its path.

    Only `run_config.json` must be there; sections without their files are left out, and the page says so.

    Raises:
      UserError: a file is damaged; the message names it.
    """
    path = Path(run_dir) / layout.REPORT
    write_text(path, render(read_run(path.parent)))
    return path


def template(name: str) -> jinja2.Template:
    """Returns a page of this package by file name; everything that is put into it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bert_emd_jax", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"light": style_variables(dark=False), "dark": style_variables(dark=True)}
    return environment.get_template(name)


def render(files: RunFiles) -> str:
    """Returns the page as text."""
    from bert_emd_jax.report import sections
    from bert_emd_jax.report.figures import SMOOTHED_FROM  # Matplotlib takes half a second to import

    training, score = sections.training_panels(files), sections.score_panels(files)
    results, mapping = files.results, files.mapping
    title = _title(files)
    return template("run.html").render(
        title=f"{title} · BERT-EMD run",
        task=title,
        is_finetune=_is_finetune(files),
        **_headline(files),
        rows=[] if results is None else tables.comparison_rows(results, files.primary_metric),
        by_label=None if results is None else tables.label_table(results),
        has_teacher=results is not None and results.teacher is not None,
        has_flops=results is not None and getattr(results.student, "flops_per_sentence", None) is not None,
        timed_on=tables.timing_note(results),
        has_intervals=results is not None and getattr((results.test or results).student, "interval", None),
        **_plans(files),
        training=training,
        score=score,
        smoothed=any(len(series.curve.steps) >= SMOOTHED_FROM for one in training for series in one.series),
        mapping=sections.mapping_panels(files),
        **_predictions(files),
        shown_examples=SHOWN_EXAMPLES,
        similarities=files.similarities,
        similarity=[] if files.similarities is None else sections.similarity_panels(files.similarities),
        downloads=downloads(files),
        run=_settings(files),
        command_line=files.command_line,
        wide=mapping is not None and any(flow.shape[2] > 8 for flow in mapping.flow.values()),
        missing=_missing(files, bool(training), bool(score)),
    )


def _is_finetune(files: RunFiles) -> bool:
    return files.config.get("program") == "run_finetune"


def _object(config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _title(files: RunFiles) -> str:
    """Returns what `--run_name` says, or the name of the task; for a custom one also its directory."""
    flags = _object(files.config, "flags")
    if name := flags.get("run_name"):
        return tables.setting_text(name)
    task = (None if files.results is None else files.results.task) or flags.get("task_name") or "run"
    title = tables.setting_text(task)
    if title == "custom" and (directory := flags.get("data_dir")):
        title = f"custom: {tables.setting_text(directory)}"
    return title


def _headline(files: RunFiles) -> dict[str, Any]:
    """Returns the one line of result, and the few numbers under it with their meanings."""
    results, metric = files.results, files.primary_metric
    if results is None or results.student is None:
        return {"headline": "", "tiles": []}
    tiles = [*_score_tiles(results, metric), *_cost_tiles(results)]
    return {"headline": tables.headline(results, metric), "tiles": tiles}


def _score_tiles(results: Results, metric: str | None) -> list[tuple[str, str]]:
    """Returns the share retained and the scores; what has chosen nothing leads."""
    tiles, name = [], (metric or "score").replace("_", " ")
    scored = results.test or results
    where = tables.rows_text(results, of_test=results.test is not None)
    share = tables.retained_share(scored, metric)
    if share is not None:
        apart = scored.difference
        sure = "" if apart is None else f"; difference {apart.low:+.4f} to {apart.high:+.4f}"
        tiles.append((tables.share_text(share), f"of the teacher's {name} on {where}{sure}"))
    for one, place in ((scored, where), *(((results, tables.rows_text(results)),) if results.test else ())):
        score = None if one.student is None else one.student.metrics.get(metric or "")
        if one.student is None or score is None:
            continue
        teacher_score = None if one.teacher is None else one.teacher.metrics.get(metric or "")
        interval = tables.interval_text(one.student.interval)
        beside = "" if teacher_score is None else f"; teacher {tables.score_text(teacher_score)}"
        tiles.append((tables.score_text(score), f"{name}{interval} on {place}{beside}"))
    return tiles


def _cost_tiles(results: Results) -> list[tuple[str, str]]:
    """Returns size and latency of the student, beside its teacher's."""
    tiles, student, teacher = [], results.student, results.teacher
    assert student is not None
    if student.parameters:
        millions = f"{student.parameters / 1e6:,.1f}"
        if teacher is not None and teacher.parameters:
            ratio = tables.times(teacher.parameters, student.parameters, "smaller", "larger")
            tiles.append((ratio, f"{millions} of {teacher.parameters / 1e6:,.1f} M parameters"))
        else:
            tiles.append((f"{millions} M", "parameters"))
    latency = student.milliseconds_per_sentence
    of_teacher = {} if teacher is None else teacher.milliseconds_per_sentence
    if latency:
        batch = min(latency)
        meaning, where = f"per sentence at batch {batch}", _timed_in_short(results)
        if batch in of_teacher:
            ratio = tables.times(of_teacher[batch], latency[batch], "faster", "slower")
            meaning = f"{latency[batch]:.3g} ms {meaning}, was {of_teacher[batch]:.3g}"
            tiles.append((ratio, f"{meaning}{where}"))
        else:
            tiles.append((f"{latency[batch]:.3g} ms", f"{meaning}{where}"))
    return tiles


def _timed_in_short(results: Results) -> str:
    if results.timed_on is None:
        return ""
    machine = results.timed_on.machine
    return f", on {machine.name}{', busy' if machine.is_busy else ''}"


def _plans(files: RunFiles) -> dict[str, Any]:
    """Returns the last plans and costs of each cost kind, earlier plans, and what the slider shows."""
    mapping = files.mapping
    if mapping is None or len(mapping.steps) == 0 or not mapping.flow:
        return {"plans": [], "slider": None}
    plans = [
        {
            "kind": kind,
            "step": int(mapping.steps[-1]),
            "flow": heatmaps.plan_grid(mapping, kind),
            "cost": heatmaps.cost_grid(mapping, kind) if kind in mapping.cost else None,
            "shades": heatmaps.plan_shades(mapping, kind),
        }
        for kind in mapping.flow
    ]
    return {"plans": plans, "slider": heatmaps.slider_data(mapping)}


def _predictions(files: RunFiles) -> dict[str, Any]:
    """Returns the figures of the task's kind, and the rows to look at."""
    from bert_emd_jax.report.sections import scatter_panels

    figures = {"agreement": agreement, "confusion": _confusion_grids, "scatter": scatter_panels}
    predictions = files.predictions
    nothing = dict.fromkeys((*figures, "examples", "marked"))
    if predictions is None:
        return nothing
    compares_models = "teacher" in predictions.by_model
    if isinstance(predictions, TaggedSentences):
        return nothing | {"marked": marked_sentences(predictions), "compares_models": compares_models}
    if isinstance(predictions, AnsweredQuestions):
        examples = notable_answers(predictions)
        return nothing | {"examples": examples, "compares_models": compares_models}
    drawn = predictions.kind.figures
    return nothing | {
        **{name: draw(predictions) if name in drawn else None for name, draw in figures.items()},
        "examples": notable_examples(predictions),
        "compares_models": compares_models,
    }


def _confusion_grids(predictions: Predictions) -> list[tuple[str, heatmaps.Grid]]:
    grids = {
        model: heatmaps.confusion_grid(confusion(predictions, model), predictions.labels or ())
        for model in predictions.by_model
    }
    return [(model, grid) for model, grid in grids.items() if grid is not None]


def _settings(files: RunFiles) -> list[tuple[str, list[tuple[str, str]]]]:
    """Returns (title, settings) of the run itself, of its flags by source, and of versions."""
    return [
        ("", _run_facts(files)),
        *tables.flags_by_source(_object(files.config, "flags"), _object(files.config, "flag_sources")),
        ("Versions", tables.settings(_object(files.config, "versions"))),
    ]


def _run_facts(files: RunFiles) -> list[tuple[str, str]]:
    """Returns the content of `run_config.json` besides flags and versions."""
    facts = []
    for name, value in files.config.items():
        if name in ("flags", "flag_sources", "versions", "command_line", "measured"):
            continue
        if name == "inputs" and isinstance(value, dict):
            facts += [(f"SHA-256 of {what}", str(digest)[:12]) for what, digest in value.items()]
            continue
        text = tables.devices_text(value) if name == "devices" and isinstance(value, list) else None
        facts.append((name.replace("_", " "), text or tables.setting_text(value)))
    if files.best_step is not None:
        facts.append(("best step", f"{files.best_step:,}"))
    return [*facts, *tables.measured_facts(_object(files.config, "measured"))]


def _has_predictions(results: Results) -> bool:
    """Whether a run with these results leaves predictions row by row: texts without scores have none."""
    return results.labels != () and (results.kind is not EMBEDDING or results.unit == "pairs")


def _missing(files: RunFiles, has_training: bool, has_score: bool) -> list[str]:
    """Returns one line for each section that is left out, and for what makes a score worthless."""
    lines = []
    results, metrics, mapping = files.results, files.metrics, files.mapping
    if results is None:
        lines.append("There is no eval_results.json: the table of scores, sizes and speeds is left out.")
    elif results.student is None:
        lines.append("eval_results.json has no student: its scores, size and speed are left out.")
    elif files.primary_metric not in results.student.metrics:
        lines.append("eval_results.json does not have the deciding metric: the score is left out.")
    if files.predictions is None and results is not None and _has_predictions(results):
        lines.append("There is no dev_predictions.jsonl: single predictions are left out.")
    if isinstance(files.predictions, TaggedSentences):
        lines += constant_taggers(files.predictions)
    elif isinstance(files.predictions, Predictions):
        lines += constant_models(files.predictions)
    if metrics is None:
        lines.append("There is no metrics.jsonl: the curves over training are left out.")
    else:
        if not has_training:
            lines.append("metrics.jsonl has no train rows: losses and learning rate are left out.")
        if not has_score:
            lines.append("metrics.jsonl has no eval rows with a metric: the score over training is left out.")
        lines += metrics.notes
    if _is_finetune(files):
        return lines
    is_general = files.primary_metric == HELD_OUT_LOSS  # general distillation has no task to compare on
    if results is not None and results.teacher is None and not is_general:
        lines.append("eval_results.json has no teacher: the comparison with it is left out.")
    if mapping is None:
        lines.append("There is no layer_mapping.npz: plans and layer weights are left out.")
    elif len(mapping.steps) == 0:
        lines.append("layer_mapping.npz has no steps yet: plans and layer weights are left out.")
    else:
        absent = [kind for kind in COST_KINDS if kind not in mapping.flow]
        lines += [f"layer_mapping.npz has no {kind}_flow: the {kind} plan is left out." for kind in absent]
    return lines
