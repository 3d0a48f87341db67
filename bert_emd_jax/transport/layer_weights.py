"""Cost attention: how much each layer weighs in the next step (paper section 3.3)."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bert_emd_jax.transport.names import LAYER_WEIGHT_RULES


class LayerWeights(NamedTuple):
    """Weights of the layers in the attention plan and in the hidden plan; each array sums to 1."""

    attention_student: Float[Array, " S"]
    attention_teacher: Float[Array, " T"]
    hidden_student: Float[Array, " S"]
    hidden_teacher: Float[Array, " T"]


def uniform_layer_weights(student_layers: int, teacher_layers: int) -> LayerWeights:
    """The weights that training starts with: all layers of one side weigh the same."""
    student = jnp.full(student_layers, 1 / student_layers, jnp.float32)
    teacher = jnp.full(teacher_layers, 1 / teacher_layers, jnp.float32)
    return LayerWeights(student, teacher, student, teacher)


def initial_layer_weight_logits(
    student_layers: int, teacher_layers: int
) -> dict[str, Float[np.ndarray, " layers"]]:
    """The parameters of the rule "learned" before training, named as in `LayerWeights`: equal weights."""
    layers = {"student": student_layers, "teacher": teacher_layers}
    return {
        f"{kind}_{side}": np.zeros(count, np.float32)
        for kind in ("attention", "hidden")
        for side, count in layers.items()
    }


def learned_layer_weights(logits: Mapping[str, Float[Array, " layers"]], separate: bool) -> LayerWeights:
    """The softmax of trained logits; unless `separate`, attention and hidden layers share their mean."""
    if not separate:
        student = (logits["attention_student"] + logits["hidden_student"]) / 2
        teacher = (logits["attention_teacher"] + logits["hidden_teacher"]) / 2
        logits = LayerWeights(student, teacher, student, teacher)._asdict()
    return LayerWeights(**{name: jax.nn.softmax(values) for name, values in logits.items()})


def divergence_from_uniform(weights: Float[Array, " layers"]) -> Float[Array, ""]:
    """Kullback-Leibler divergence of positive layer weights from equal ones: log(n) less their entropy."""
    return jnp.sum(jax.scipy.special.xlogy(weights, weights * weights.shape[0]))


def update_layer_weights(
    flow: Float[Array, "S T"],
    cost: Float[Array, "S T"],
    student_weights: Float[Array, " S"],
    teacher_weights: Float[Array, " T"],
    rule: str = "normalize",
    temperature: float = 1.0,
) -> tuple[Float[Array, " S"], Float[Array, " T"]]:
    """New (student_weights, teacher_weights) from the unit cost of each layer under the plan.

    A layer's unit cost is c_i = Σ_j flow_ij cost_ij / weight_i, its value v_i = Σ_k c_k / c_i (0 where
    c_i or the weight is 0). "normalize": v / Σv. "softmax" and "double_softmax": softmax(v /
    temperature); the second softmax belongs to `update_shared_layer_weights`. "fixed": unchanged, and
    "learned" as well, whose weights the optimizer moves.
    """
    _check_rule(rule)
    if rule in ("fixed", "learned"):
        return student_weights, teacher_weights
    transported = flow * cost
    student = _update_side(transported.sum(axis=1), student_weights, rule, temperature)
    teacher = _update_side(transported.sum(axis=0), teacher_weights, rule, temperature)
    return student, teacher


def update_shared_layer_weights(
    weights: LayerWeights,
    attention_flow: Float[Array, "S T"] | None,
    attention_cost: Float[Array, "S T"] | None,
    hidden_flow: Float[Array, "S T"] | None,
    hidden_cost: Float[Array, "S T"] | None,
    rule: str = "normalize",
    temperature: float = 1.0,
    separate: bool = False,
) -> LayerWeights:
    """The whole update of one train step: both plans, their average, and double_softmax's second softmax.

    Unless `separate`, attention and hidden weights are averaged after the update. A plan that is not
    used is None: with `separate` its weights stay, else both take the weights of the other plan.
    """
    _check_rule(rule)
    if rule in ("fixed", "learned") or (attention_flow is None and hidden_flow is None):
        return weights
    attention = (weights.attention_student, weights.attention_teacher)
    hidden = (weights.hidden_student, weights.hidden_teacher)
    use_attention, use_hidden = attention_flow is not None, hidden_flow is not None
    if attention_flow is not None and attention_cost is not None:
        attention = update_layer_weights(attention_flow, attention_cost, *attention, rule, temperature)
    if hidden_flow is not None and hidden_cost is not None:
        hidden = update_layer_weights(hidden_flow, hidden_cost, *hidden, rule, temperature)
    if not separate:
        if use_attention and use_hidden:
            student, teacher = ((a + h) / 2 for a, h in zip(attention, hidden, strict=True))
        else:
            student, teacher = attention if use_attention else hidden
        attention = hidden = (student, teacher)
    if rule == "double_softmax":
        if use_attention or not separate:
            attention = jax.nn.softmax(attention[0]), jax.nn.softmax(attention[1])
        if use_hidden or not separate:
            hidden = jax.nn.softmax(hidden[0]), jax.nn.softmax(hidden[1])
    return LayerWeights(*attention, *hidden)


def _update_side(
    transported: Float[Array, " n"], weights: Float[Array, " n"], rule: str, temperature: float
) -> Float[Array, " n"]:
    unit_cost = jnp.where(weights > 0, transported / jnp.where(weights > 0, weights, 1), 0)
    positive = unit_cost > 0
    safe_cost = jnp.where(positive, unit_cost, 1)
    if rule == "normalize":
        # Proportional to Σc / c_i, without a quotient that could overflow.
        cheapest = jnp.min(jnp.where(positive, unit_cost, jnp.inf))
        value = jnp.where(positive, cheapest / safe_cost, 0)
        updated = value / jnp.where(positive.any(), value.sum(), 1)
    else:
        value = jnp.where(positive, unit_cost.sum() / safe_cost, 0) / temperature
        updated = jax.nn.softmax(jnp.minimum(value, jnp.finfo(value.dtype).max))
    return jnp.where(positive.any(), updated, weights)


def _check_rule(rule: str) -> None:
    if rule not in LAYER_WEIGHT_RULES:
        raise ValueError(f"layer-weight rule must be one of {', '.join(LAYER_WEIGHT_RULES)}, not {rule!r}")
