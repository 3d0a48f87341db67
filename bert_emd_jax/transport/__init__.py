"""Optimal transport between two stacks of layers: costs, plans, layer weights, mappings."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bert_emd_jax.transport.capacities import capped
    from bert_emd_jax.transport.costs import attention_cost, embedding_cost, hidden_cost
    from bert_emd_jax.transport.layer_weights import update_layer_weights
    from bert_emd_jax.transport.simplex import network_simplex
    from bert_emd_jax.transport.solver import Plan, sinkhorn

__all__ = [
    "Plan",
    "attention_cost",
    "capped",
    "embedding_cost",
    "hidden_cost",
    "network_simplex",
    "sinkhorn",
    "update_layer_weights",
]

_HOME = {
    "Plan": "solver",
    "attention_cost": "costs",
    "capped": "capacities",
    "embedding_cost": "costs",
    "hidden_cost": "costs",
    "network_simplex": "simplex",
    "sinkhorn": "solver",
    "update_layer_weights": "layer_weights",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that a program can read the names of the mappings before it pays for importing jax.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
