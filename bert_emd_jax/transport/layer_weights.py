"""Cost attention: how much each layer weighs in the next step (paper section 3.3)."""

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bert_emd_jax.transport.weight_rules import WeightRule, rule_named


class LayerWeights(NamedTuple):
    """The marginals of one plan: the weights of the layers of either side, each summing to 1."""

    student: Float[Array, " S"]
    teacher: Float[Array, " T"]


def uniform_layer_weights(student_layers: int, teacher_layers: int) -> LayerWeights:
    """The weights that training starts with: all layers of one side weigh the same."""
    return LayerWeights(
        jnp.full(student_layers, 1 / student_layers, jnp.float32),
        jnp.full(teacher_layers, 1 / teacher_layers, jnp.float32),
    )


def initial_layer_weight_logits(
    student_layers: int, teacher_layers: int
) -> dict[str, Float[np.ndarray, " layers"]]:
    """The parameters of the rule "learned" for one plan before training: equal weights."""
    return {"student": np.zeros(student_layers, np.float32), "teacher": np.zeros(teacher_layers, np.float32)}


def learned_layer_weights(
    logits: Sequence[Mapping[str, Float[Array, " layers"]]], separate: bool
) -> tuple[LayerWeights, ...]:
    """The softmax of each plan's trained logits; unless `separate`, all plans share their mean."""
    sides = [LayerWeights(**of_plan) for of_plan in logits]
    sides = sides if separate else _shared(sides)
    return tuple(jax.tree.map(jax.nn.softmax, of_plan) for of_plan in sides)


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

    A layer's unit cost is c_i = Σ_j flow_ij cost_ij / weight_i, its value v_i = Σ_k c_k / c_i (0 if
    c_i or the weight is 0). "normalize": v / Σv. "softmax" and "double_softmax": softmax(v /
    temperature); the second softmax belongs to `update_all_layer_weights`. "fixed": unchanged, and
    "learned" as well, whose weights the optimizer moves.
    """
    entry = rule_named(rule)
    transported = flow * cost
    student = _update_side(transported.sum(axis=1), student_weights, entry, temperature)
    teacher = _update_side(transported.sum(axis=0), teacher_weights, entry, temperature)
    return student, teacher


def update_all_layer_weights(
    weights: Sequence[LayerWeights],
    transported: Sequence[Float[Array, "S T"]],
    rule: str = "normalize",
    temperature: float = 1.0,
    separate: bool = False,
) -> tuple[LayerWeights, ...]:
    """The whole update of one train step: every plan's, their average, double_softmax's second softmax.

    Args:
      transported: flow times cost of each plan.
      separate: each plan keeps weights of its own; else all have the mean of them.
    """
    entry = rule_named(rule)
    if entry.update is None:
        return tuple(weights)
    updated = [
        LayerWeights(*update_layer_weights(products, jnp.ones_like(products), *sides, rule, temperature))
        for products, sides in zip(transported, weights, strict=True)
    ]
    updated = updated if separate else _shared(updated)
    if entry.ends_with_softmax:
        updated = [jax.tree.map(jax.nn.softmax, sides) for sides in updated]
    return tuple(updated)


def _shared(weights: Sequence[LayerWeights]) -> list[LayerWeights]:
    """For every plan the mean of all."""
    mean = jax.tree.map(lambda *sides: functools.reduce(operator.add, sides) / len(sides), *weights)
    return [mean] * len(weights)


def _update_side(
    transported: Float[Array, " n"], weights: Float[Array, " n"], rule: WeightRule, temperature: float
) -> Float[Array, " n"]:
    if rule.update is None:
        return weights
    unit_cost = jnp.where(weights > 0, transported / jnp.where(weights > 0, weights, 1), 0)
    positive = unit_cost > 0
    return jnp.where(positive.any(), rule.update(unit_cost, positive, temperature), weights)
