"""The figures of the report: which there are, and what is written beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from bert_emd_jax.data.kinds import AGREEMENT_METRIC, RETRIEVAL_METRICS
from bert_emd_jax.distillation.layer_costs import LAYER_COSTS
from bert_emd_jax.evaluation.answers import EXACT, F1
from bert_emd_jax.evaluation.metrics import LABEL_METRICS, METRICS
from bert_emd_jax.report.figures import Series, draw_curves, draw_density, draw_layers, draw_scatter, finite
from bert_emd_jax.report.metrics_reader import Curve
from bert_emd_jax.report.predictions_reader import Predictions
from bert_emd_jax.report.results_reader import HELD_OUT_LOSS
from bert_emd_jax.report.run_reader import RunFiles
from bert_emd_jax.report.similarities_reader import MODELS, Similarities
from bert_emd_jax.runs.layer_mapping import LayerMapping, entropy

GAP_FLOOR = 1e-8  # a logarithmic axis has no 0
_SMOOTH = {"smooth": "values"}
# Panels by name: title, y label, options of `draw_curves`.
_TRAINING_PANELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "loss": ("Total loss", "loss", _SMOOTH),
    "layer-losses": ("Losses between layers", "loss, before its factor", _SMOOTH),
    "prediction-losses": ("Prediction losses", "loss", _SMOOTH),
    "learning-rate": ("Learning rate", "learning rate", {"scale": "linear"}),
    "gradient-norm": ("Norm of the gradient", "l2 norm", _SMOOTH),
    "throughput": ("Throughput", "examples / s", _SMOOTH | {"scale": "linear"}),
}
# Their curves by name in metrics.jsonl: panel, label, color.
_TRAINING_CURVES = {
    "loss": ("loss", "total", "loss"),
    **{
        cost.loss_name: ("layer-losses", cost.title + " (EMD)" * cost.is_mapped, cost.name)
        for cost in LAYER_COSTS
    },
    "prediction_loss": ("prediction-losses", "prediction", "prediction"),
    "soft_loss": ("prediction-losses", "soft: teacher's logits", "soft"),
    "hard_loss": ("prediction-losses", "hard: labels", "hard"),
    "vector_loss": ("prediction-losses", "vectors", "soft"),
    "similarity_loss": ("prediction-losses", "cosines of the batch", "third"),
    "masked_lm_loss": ("prediction-losses", "masked words", "third"),
    "learning_rate": ("learning-rate", "learning rate", "muted"),
    "gradient_norm": ("gradient-norm", "norm", "muted"),
    "examples_per_second": ("throughput", "examples per second", "muted"),
}


@dataclass(frozen=True)
class Panel:
    """One figure with its title, the curves of its legend and a sentence on how to read it."""

    title: str
    svg: Markup
    series: list[Series]
    note: str = ""


def training_panels(files: RunFiles) -> list[Panel]:
    """Returns losses by term, the learning rate, the norm of the gradient and the throughput."""
    train = {} if files.metrics is None else files.metrics.train
    panels = []
    for name, (title, y_label, options) in _TRAINING_PANELS.items():
        series = [
            Series(label, color, train[key])
            for key, (panel, label, color) in _TRAINING_CURVES.items()
            if panel == name and key in train
        ]
        panels += _panels(name, title, series, y_label, **options)
    return panels


def score_panels(files: RunFiles) -> list[Panel]:
    """Returns the metrics of the task on the dev set, the best step and the teacher's score marked."""
    if files.metrics is None:
        return []
    known = (*METRICS, *LABEL_METRICS, *RETRIEVAL_METRICS, AGREEMENT_METRIC, EXACT, F1)
    primary = files.primary_metric
    # A prefix is enough: "accuracy_mm".
    names = [name for name in files.metrics.eval if name == primary or name.startswith(known)]
    names.sort(key=lambda name: name != primary)
    series = [
        Series(name.replace("_", " "), color, files.metrics.eval[name], dots=True)
        for name, color in zip(names, ("score", "second", "third"), strict=False)
    ]
    teacher = files.results.teacher if files.results is not None else None
    level = teacher.metrics.get(primary) if teacher is not None and primary is not None else None
    rows = None if files.results is None else files.results.rows
    unit = "rows" if files.results is None else files.results.unit
    where = "the dev set" if rows is None else f"{rows:,} dev {unit}"
    if primary == HELD_OUT_LOSS:
        where = "the rows held out" if rows is None else f"{rows:,} rows held out"
    return _panels(
        "score",
        f"{'Loss' if primary == HELD_OUT_LOSS else 'Score'} on {where}",
        series,
        (primary or "score").replace("_", " ") if len(names) == 1 else "score",
        scale="linear",
        best_step=files.best_step,
        level=level,
        level_label="" if level is None else f"teacher {level:.4f}",
    )


def mapping_panels(files: RunFiles) -> list[Panel]:
    """Returns the layer weights of both models, the entropy of the plans, their certified and true gaps."""
    panels = [] if files.mapping is None else _weight_panels(files.mapping) + _entropy_panels(files.mapping)
    return panels + _gap_panels(files)


def _weight_panels(mapping: LayerMapping) -> list[Panel]:
    panels = []
    for role, weights in (("student", mapping.student_weights), ("teacher", mapping.teacher_weights)):
        kinds = list(weights)
        # They are sums over the plans: the same weights may differ by a rounding error.
        shared = len(kinds) == 2 and np.allclose(
            weights[kinds[0]], weights[kinds[1]], rtol=0, atol=1e-5, equal_nan=True
        )
        for kind in kinds[:1] if shared else kinds:
            which = "attention and hidden plans" if shared else f"{kind} plan"
            title = f"Weights of the {role}'s layers"
            svg = draw_layers(
                f"{role}-weights-{kind}",
                mapping.steps,
                weights[kind],
                "weight",
                f"{title} in the {which} over the training steps",
            )
            note = f"Share of the mass in the {which}; the numbers at the right are layers, the dotted line "
            panels.append(Panel(title, svg, [], note + "is the uniform weight."))
    return panels


def _entropy_panels(mapping: LayerMapping) -> list[Panel]:
    students, teachers = next(iter(mapping.flow.values())).shape[1:] if mapping.flow else (1, 1)
    series = [
        Series(kind, kind, finite(Curve(mapping.steps, entropy(mapping.flow[kind])))) for kind in mapping.flow
    ]
    note = (
        f"Low: each layer has few partners. A uniform plan has ln({students}·{teachers}) = "
        f"{np.log(students * teachers):.2f}."
    )
    return _panels("entropy", "Entropy of the plans", series, "nats", note, scale="linear")


def _gap_panels(files: RunFiles) -> list[Panel]:
    if files.metrics is None:
        return []
    series = []
    for curves, word in ((files.metrics.train, "certified"), (files.metrics.check, "true")):
        for cost in LAYER_COSTS:
            kind = cost.name
            if (curve := curves.get(f"{kind}_gap")) is not None:
                curve = Curve(curve.steps, np.maximum(curve.values, GAP_FLOOR))
                is_true = word == "true"
                series.append(Series(f"{kind}, {word}", kind, curve, dots=is_true, line=not is_true))
    note = (
        "Certified by the dual bound: running mean (strong) and maximum (faint). True: "
        f"against the exact network simplex. Gaps below {GAP_FLOOR:g} are drawn there."
    )
    title = "Gap of the plans to the optimum"
    return _panels("gap", title, series, "relative gap", note, scale="log", smooth="maxima")


def scatter_panels(predictions: Predictions) -> list[Panel]:
    """Returns the predicted over the true values, for each model."""
    drawn = [predictions.truth, *predictions.by_model.values()]
    limits = float(min(map(np.min, drawn))), float(max(map(np.max, drawn)))
    panels = []
    for model, values in predictions.by_model.items():
        description = f"Predicted against true values, {model}: {len(values)} rows"
        svg = draw_scatter(f"scatter-{model}", predictions.truth, values, limits, description)
        panels.append(
            Panel(f"Predictions of the {model}", svg, [], "The dotted line is where both are equal.")
        )
    return panels


def similarity_panels(similarities: Similarities) -> list[Panel]:
    """Returns the student's over the teacher's cosines."""
    teacher, student = (similarities.cosines[name] for name in MODELS)
    if len(teacher) < 2:
        return []
    correlation = float(np.corrcoef(teacher, student)[0, 1])
    description = f"The student's over the teacher's cosines of {len(teacher):,} pairs of dev texts"
    svg = draw_density(
        "similarities", teacher, student, ("teacher's cosine", "student's cosine"), description
    )
    note = (
        f"{len(teacher):,} pairs of dev texts, half of them near neighbours; correlation {correlation:.3f}."
        " The darker, the more pairs (logarithmic); on the dotted line both are equal."
    )
    return [Panel("Cosines of the same pairs", svg, [], note)]


def _panels(
    name: str, title: str, series: Sequence[Series], y_label: str, note: str = "", **options: Any
) -> list[Panel]:
    """Returns one panel, none if no series has a point."""
    series = [one for one in series if len(one.curve.steps)]
    if not series:
        return []
    last = ", ".join(f"{one.label} {one.curve.values[-1]:.4g}" for one in series)
    description = f"{title} over the training steps; at the end: {last}"
    return [Panel(title, draw_curves(name, series, y_label, description, **options), series, note)]
