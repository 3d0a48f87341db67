"""Writes a run's report: one HTML page that needs no other file and no network; its script moves a slider."""

import os
from pathlib import Path
from typing import Any

import jinja2

from bert_emd_jax.report import heatmaps, tables
from bert_emd_jax.report.predictions import agreement, confusion, notable_examples
from bert_emd_jax.report.run_files import HELD_OUT_LOSS, RunFiles, read_run
from bert_emd_jax.report.theme import style_variables
from bert_emd_jax.runs.layer_mapping import COST_KINDS


def write_report(run_dir: Path) -> Path:
    """Writes `run_dir/report.html` from the files of a run and returns its path.

    Only `run_config.json` must be there; a section whose file or numbers are missing is left out, and the
    page says so. Raises UserError, naming the file, for a damaged one.
    """
    run_dir = Path(run_dir)
    return write_page(run_dir / "report.html", render(read_run(run_dir)))


def write_page(path: Path, page: str) -> Path:
    """Writes a page aside and renames it: a reader never sees half of it."""
    unfinished = path.with_name(f".{path.name}.partial")
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, path)
    return path


def template(name: str) -> jinja2.Template:
    """A page of this package by file name; everything put into it is escaped."""
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
    """The page as text."""
    from bert_emd_jax.report import sections
    from bert_emd_jax.report.figures import SMOOTHED_FROM  # Matplotlib takes half a second to import

    training = sections.training_panels(files)
    score = sections.score_panel(files)
    mapping = sections.mapping_panels(files)
    head = _head(files)
    return template("run.html").render(
        **head,
        title=f"{head['task']} · BERT-EMD run",
        is_finetune=_is_finetune(files),
        rows=[] if files.results is None else tables.comparison_rows(files.results, files.primary_metric),
        has_teacher=files.results is not None and files.results.teacher is not None,
        has_flops=_has_flops(files),
        plans=_plans(files),
        player=_player(files),
        training=training,
        score=score,
        smoothed=any(len(series.curve.steps) >= SMOOTHED_FROM for one in training for series in one.series),
        mapping=mapping,
        **_predictions(files),
        run=_settings(files),
        command_line=files.command_line,
        wide=any(flow.shape[2] > 8 for flow in _flows(files)),
        missing=_missing(files, bool(training), score is not None),
    )


def _flows(files: RunFiles) -> list[Any]:
    return [] if files.mapping is None else list(files.mapping.flow.values())


def _is_finetune(files: RunFiles) -> bool:
    return files.config.get("program") == "run_finetune"


def _object(config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _head(files: RunFiles) -> dict[str, Any]:
    """The title, its one line of result, and the few numbers under it."""
    results, metric = files.results, files.primary_metric
    task = (
        (None if results is None else results.task)
        or _object(files.config, "flags").get("task_name")
        or "run"
    )
    metric_name = (metric or "score").replace("_", " ")
    headline, tiles = "", []
    student = None if results is None else results.student
    teacher = None if results is None else results.teacher
    if results is not None and student is not None:
        split = results.split or "dev"
        share = tables.retained_share(results, metric)
        score = student.metrics.get(metric or "")
        if share is not None:
            headline = f"The student keeps {tables.share_text(share)} of its teacher's {metric_name}."
            tiles.append((tables.share_text(share), f"of the teacher's {metric_name}"))
        if score is not None:
            teacher_score = None if teacher is None else teacher.metrics.get(metric or "")
            beside = "" if teacher_score is None else f", teacher {tables.score_text(teacher_score)}"
            where = "" if metric == HELD_OUT_LOSS else f" on {split}"
            tiles.append((tables.score_text(score), f"{metric_name}{where}{beside}"))
        if teacher is not None and teacher.parameters and student.parameters:
            ratio = tables.times(teacher.parameters, student.parameters, "smaller", "larger")
            tiles.append(
                (ratio, f"{student.parameters / 1e6:,.1f} of {teacher.parameters / 1e6:,.1f} M parameters")
            )
        elif student.parameters:
            tiles.append((f"{student.parameters / 1e6:,.1f} M", "parameters"))
        latency = student.milliseconds_per_sentence
        before = {} if teacher is None else teacher.milliseconds_per_sentence
        for batch in sorted(latency)[:1]:
            if batch in before:
                ratio = tables.times(before[batch], latency[batch], "faster", "slower")
                tiles.append(
                    (ratio, f"{latency[batch]:.3g} ms per sentence at batch {batch}, was {before[batch]:.3g}")
                )
            else:
                tiles.append((f"{latency[batch]:.3g} ms", f"per sentence at batch {batch}"))
    title = tables.setting_text(task)
    if title == "custom" and (directory := _object(files.config, "flags").get("data_dir")):
        title = f"custom: {tables.setting_text(directory)}"
    return {"task": title, "headline": headline, "tiles": tiles}


def _plans(files: RunFiles) -> list[dict[str, Any]]:
    if files.mapping is None or len(files.mapping.steps) == 0:
        return []
    return [
        {
            "side": side,
            "step": int(files.mapping.steps[-1]),
            "flow": heatmaps.plan_grid(files.mapping, side),
            "cost": heatmaps.cost_grid(files.mapping, side) if side in files.mapping.cost else None,
            "moments": heatmaps.moments(files.mapping, side),
        }
        for side in COST_KINDS
        if side in files.mapping.flow
    ]


def _player(files: RunFiles) -> dict[str, Any] | None:
    if files.mapping is None or len(files.mapping.steps) == 0 or not files.mapping.flow:
        return None
    return heatmaps.player(files.mapping)


def _has_flops(files: RunFiles) -> bool:
    student = None if files.results is None else files.results.student
    return student is not None and student.flops_per_sentence is not None


def _predictions(files: RunFiles) -> dict[str, Any]:
    """Confusion matrices or scatter plots, and the rows worth a look."""
    from bert_emd_jax.report.sections import scatter_panels

    predictions = files.predictions
    shown: dict[str, Any] = {
        "agreement": "",
        "confusion": [],
        "scatter": [],
        "examples": [],
        "has_opinions": False,
    }
    if predictions is None:
        return shown
    if predictions.labels is None:
        shown["scatter"] = scatter_panels(predictions)
    else:
        for model in predictions.by_model:
            grid = heatmaps.confusion_grid(confusion(predictions, model), predictions.labels)
            if grid is not None:
                shown["confusion"].append((model, grid))
    return shown | {
        "agreement": agreement(predictions),
        "examples": notable_examples(predictions),
        "has_opinions": "teacher" in predictions.by_model,
    }


def _settings(files: RunFiles) -> list[tuple[str, list[tuple[str, str]]]]:
    """(title, names and values): the run itself, its flags by where they came from, versions."""
    return [
        ("", _run_facts(files)),
        *tables.flags_by_source(_object(files.config, "flags"), _object(files.config, "flag_sources")),
        ("Versions", tables.settings(_object(files.config, "versions"))),
    ]


def _run_facts(files: RunFiles) -> list[tuple[str, str]]:
    """What `run_config.json` says besides flags and versions."""
    facts = []
    for name, value in files.config.items():
        if name in ("flags", "flag_sources", "versions", "command_line"):
            continue
        text = tables.devices_text(value) if name == "devices" and isinstance(value, list) else None
        facts.append((name.replace("_", " "), text or tables.setting_text(value)))
    if files.best_step is not None:
        facts.append(("best step", f"{files.best_step:,}"))
    return facts


def _missing(files: RunFiles, has_training: bool, has_score: bool) -> list[str]:
    """One line for each thing that the page would show and cannot."""
    lines = []
    if files.results is None:
        lines.append("There is no eval_results.json: the table of scores, sizes and speeds is left out.")
    elif files.results.student is None:
        lines.append("eval_results.json has no student: its scores, size and speed are left out.")
    elif files.primary_metric not in files.results.student.metrics:
        lines.append("eval_results.json does not have the deciding metric: the score is left out.")
    if files.predictions is None and files.results is not None and files.results.labels != ():
        lines.append("There is no dev_predictions.jsonl: single predictions are left out.")
    if files.metrics is None:
        lines.append("There is no metrics.jsonl: the curves over training are left out.")
    else:
        if not has_training:
            lines.append("metrics.jsonl has no train rows: losses and learning rate are left out.")
        if not has_score:
            lines.append("metrics.jsonl has no eval rows with a metric: the score over training is left out.")
        lines += files.metrics.notes
    if _is_finetune(files):
        return lines
    is_general = files.primary_metric == HELD_OUT_LOSS  # general distillation has no task to compare on
    if files.results is not None and files.results.teacher is None and not is_general:
        lines.append("eval_results.json has no teacher: the comparison with it is left out.")
    if files.mapping is None:
        lines.append("There is no layer_mapping.npz: plans and layer weights are left out.")
    elif len(files.mapping.steps) == 0:
        lines.append("layer_mapping.npz has no steps yet: plans and layer weights are left out.")
    else:
        absent = [side for side in COST_KINDS if side not in files.mapping.flow]
        lines += [f"layer_mapping.npz has no {side}_flow: the {side} plan is left out." for side in absent]
    return lines
