"""The rules of cost attention, one entry each: how layer weights follow from unit costs.

Imports no JAX: programs read the names of the rules before they pay for it.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jax import Array


@dataclasses.dataclass(frozen=True)
class WeightRule:
    """A rule of cost attention.

    text: what it does, for the documentation.
    update: (unit costs [layers], which of them are positive [layers], temperature) to new weights [layers];
      None leaves the weights as they are.
    ends_with_softmax: of the weights, after those of all plans are averaged.
    is_trained: the weights are the softmax of parameters, which the optimizer moves.
    """

    name: str
    text: str
    update: "Callable[[Array, Array, float], Array] | None" = None
    ends_with_softmax: bool = False
    is_trained: bool = False


def _normalize(unit_cost: "Array", positive: "Array", temperature: float) -> "Array":
    import jax.numpy as jnp

    # Proportional to Σc / c_i, without a quotient that could overflow.
    cheapest = jnp.min(jnp.where(positive, unit_cost, jnp.inf))
    value = jnp.where(positive, cheapest / jnp.where(positive, unit_cost, 1), 0)
    return value / jnp.where(positive.any(), value.sum(), 1)


def _softmax(unit_cost: "Array", positive: "Array", temperature: float) -> "Array":
    import jax
    import jax.numpy as jnp

    value = jnp.where(positive, unit_cost.sum() / jnp.where(positive, unit_cost, 1), 0) / temperature
    return jax.nn.softmax(jnp.minimum(value, jnp.finfo(value.dtype).max))


WEIGHT_RULES = {
    rule.name: rule
    for rule in (
        WeightRule("normalize", "in proportion to Σc / c_i, the authors' code since 2021", _normalize),
        WeightRule("softmax", "softmax of (Σc / c_i) / --emd_temperature, as in the paper", _softmax),
        WeightRule(
            "double_softmax",
            "softmax, then a second one of the averaged weights, the authors' code of 2020",
            _softmax,
            ends_with_softmax=True,
        ),
        WeightRule("fixed", "equal weights"),
        WeightRule("learned", "softmax of trained logits", is_trained=True),
    )
}
"""The rules by name; c_i is the cost of transporting a unit of layer i's weight."""


def rule_named(name: str) -> WeightRule:
    """The entry of a rule; raises ValueError if it is unknown."""
    if name not in WEIGHT_RULES:
        raise ValueError(f"layer-weight rule must be one of {', '.join(WEIGHT_RULES)}, not {name!r}")
    return WEIGHT_RULES[name]
