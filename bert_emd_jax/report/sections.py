"""Which figures the report has, and what stands beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from bert_emd_jax.evaluation.metrics import CLASSIFICATION_METRICS, REGRESSION_METRICS
from bert_emd_jax.report.figures import Series, draw_curves, draw_layers, draw_scatter
from bert_emd_jax.report.predictions import Predictions
from bert_emd_jax.report.run_files import HELD_OUT_LOSS, Curve, RunFiles
from bert_emd_jax.runs.layer_mapping import COST_KINDS, LayerMapping, entropy

GAP_FLOOR = 1e-8  # a gap of 0 has no place on a logarithmic axis


@dataclass(frozen=True)
class Panel:
    """One figure with its title, the curves of its legend and a sentence on how to read it."""

    title: str
    svg: Markup
    series: list[Series]
    note: str = ""


def training_panels(files: RunFiles) -> list[Panel]:
    """Losses by term, the learning rate and the gradient's norm."""
    train = {} if files.metrics is None else files.metrics.train
    panels = [
        _curves(
            "loss",
            "Total loss",
            [("total", "loss", train.get("loss"))],
            "loss",
            smooth="values",
        ),
        _curves(
            "layer-losses",
            "Losses between layers",
            [
                ("attention (EMD)", "attention", train.get("attention_loss")),
                ("hidden states (EMD)", "hidden", train.get("hidden_loss")),
                ("embeddings", "embedding", train.get("embedding_loss")),
            ],
            "loss, before its factor",
            smooth="values",
        ),
        _curves(
            "prediction-losses",
            "Prediction losses",
            [
                ("prediction", "prediction", train.get("prediction_loss")),
                ("soft: teacher's logits", "soft", train.get("soft_loss")),
                ("hard: labels", "hard", train.get("hard_loss")),
                ("masked words", "third", train.get("masked_lm_loss")),
            ],
            "loss",
            smooth="values",
        ),
        _curves(
            "learning-rate",
            "Learning rate",
            [("learning rate", "muted", train.get("learning_rate"))],
            "learning rate",
            scale="linear",
        ),
        _curves(
            "gradient-norm",
            "Norm of the gradient",
            [("norm", "muted", train.get("gradient_norm"))],
            "l2 norm",
            smooth="values",
        ),
        _curves(
            "throughput",
            "Throughput",
            [("examples per second", "muted", train.get("examples_per_second"))],
            "examples / s",
            scale="linear",
            smooth="values",
        ),
    ]
    return [panel for panel in panels if panel is not None]


def score_panel(files: RunFiles) -> Panel | None:
    """The task's metrics on the dev set, the best step and the teacher's score marked."""
    if files.metrics is None:
        return None
    known = (*CLASSIFICATION_METRICS, *REGRESSION_METRICS)
    primary = files.primary_metric
    # "accuracy_mm" and the like are known by how they begin.
    names = [name for name in files.metrics.eval if name == primary or name.startswith(known)]
    names.sort(key=lambda name: name != primary)
    colours = ("score", "second", "third")
    teacher = files.results.teacher if files.results is not None else None
    level = teacher.metrics.get(primary) if teacher is not None and primary is not None else None
    return _curves(
        "score",
        "Loss on the rows held out" if primary == HELD_OUT_LOSS else "Score on the dev set",
        [
            (name.replace("_", " "), colour, files.metrics.eval[name])
            for name, colour in zip(names, colours, strict=False)
        ],
        (primary or "score").replace("_", " ") if len(names) == 1 else "score",
        scale="linear",
        dots=True,
        best_step=files.best_step,
        level=level,
        level_label="" if level is None else f"teacher {level:.4f}",
    )


def mapping_panels(files: RunFiles) -> list[Panel]:
    """Layer weights of both sides, the plans' entropy, their certified and true gaps."""
    panels = [] if files.mapping is None else _weight_panels(files.mapping) + _entropy_panels(files.mapping)
    gap = _gap_panel(files)
    return panels if gap is None else [*panels, gap]


def _weight_panels(mapping: LayerMapping) -> list[Panel]:
    panels = []
    for role, weights in (("student", mapping.student_weights), ("teacher", mapping.teacher_weights)):
        sides = [side for side in COST_KINDS if side in weights]
        # They are sums over the plans: the same weights may differ by a rounding error.
        shared = len(sides) == 2 and np.allclose(
            weights[sides[0]], weights[sides[1]], rtol=0, atol=1e-5, equal_nan=True
        )
        for side in sides[:1] if shared else sides:
            which = "attention and hidden plans" if shared else f"{side} plan"
            panels.append(
                Panel(
                    f"Weights of the {role}'s layers",
                    draw_layers(
                        f"{role}-weights-{side}",
                        mapping.steps,
                        weights[side],
                        "weight",
                        f"Weights of the {role}'s layers in the {which} over the training steps",
                    ),
                    [],
                    f"Share of the mass in the {which}; the numbers at the right are layers, the dotted line "
                    "is the uniform weight.",
                )
            )
    return panels


def _entropy_panels(mapping: LayerMapping) -> list[Panel]:
    students, teachers = next(iter(mapping.flow.values())).shape[1:] if mapping.flow else (1, 1)
    panel = _curves(
        "entropy",
        "Entropy of the plans",
        [
            (side, side, _finite(Curve(mapping.steps, entropy(mapping.flow[side]))))
            for side in COST_KINDS
            if side in mapping.flow
        ],
        "nats",
        scale="linear",
        note=f"Low: each layer has few partners. A uniform plan has ln({students}·{teachers}) = "
        f"{np.log(students * teachers):.2f}.",
    )
    return [] if panel is None else [panel]


def _gap_panel(files: RunFiles) -> Panel | None:
    if files.metrics is None:
        return None
    series = []
    for kind, word in ((files.metrics.train, "certified"), (files.metrics.check, "true")):
        for side in COST_KINDS:
            curve = kind.get(f"{side}_gap")
            if curve is not None:
                curve = Curve(curve.steps, np.maximum(curve.values, GAP_FLOOR))
                series.append(
                    Series(f"{side}, {word}", side, curve, dots=word == "true", line=word == "certified")
                )
    return _panel(
        "gap",
        "Gap of the plans to the optimum",
        series,
        "relative gap",
        scale="log",
        smooth="maxima",
        note="Certified by the dual bound: running mean (strong) and maximum (faint). True: "
        f"against the exact network simplex. Gaps below {GAP_FLOOR:g} are drawn there.",
    )


def scatter_panels(predictions: Predictions) -> list[Panel]:
    """The predicted against the true values of a regression, for each model."""
    drawn = [predictions.truth, *predictions.by_model.values()]
    limits = float(min(map(np.min, drawn))), float(max(map(np.max, drawn)))
    return [
        Panel(
            f"Predictions of the {model}",
            draw_scatter(
                f"scatter-{model}",
                predictions.truth,
                values,
                limits,
                f"Predicted against true values, {model}: {len(values)} rows",
            ),
            [],
            "The dotted line is where both are equal.",
        )
        for model, values in predictions.by_model.items()
    ]


def _finite(curve: Curve) -> Curve:
    finite = np.isfinite(curve.values)
    return Curve(curve.steps[finite], curve.values[finite])


def _curves(
    name: str,
    title: str,
    lines: Sequence[tuple[str, str, Curve | None]],
    y_label: str,
    dots: bool = False,
    **options,
) -> Panel | None:
    series = [Series(label, colour, curve, dots=dots) for label, colour, curve in lines if curve is not None]
    return _panel(name, title, series, y_label, **options)


def _panel(
    name: str, title: str, series: Sequence[Series], y_label: str, note: str = "", **options
) -> Panel | None:
    series = [one for one in series if len(one.curve.steps)]
    if not series:
        return None
    last = ", ".join(f"{one.label} {one.curve.values[-1]:.4g}" for one in series)
    svg = draw_curves(
        name, series, y_label, f"{title} over the training steps; at the end: {last}", **options
    )
    return Panel(title, svg, list(series), note)
