"""Optimal transport between two stacks of layers: costs, plans, layer weights, mappings."""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bert_emd_jax.transport.cost import attention_cost, embedding_cost, hidden_cost
    from bert_emd_jax.transport.layer_weights import update_layer_weights
    from bert_emd_jax.transport.network_simplex import network_simplex
    from bert_emd_jax.transport.sinkhorn import Plan, sinkhorn

__all__ = [
    "Plan",
    "attention_cost",
    "embedding_cost",
    "hidden_cost",
    "network_simplex",
    "sinkhorn",
    "update_layer_weights",
]

_HOME = {
    "Plan": "sinkhorn",
    "attention_cost": "cost",
    "embedding_cost": "cost",
    "hidden_cost": "cost",
    "network_simplex": "network_simplex",
    "sinkhorn": "sinkhorn",
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


class _Package(ModuleType):
    """This package. Two of its functions share a name with their file: the function is the attribute.

    The import system assigns every imported submodule to an attribute of its package, which would
    hide the function; here that assignment is dropped. `from bert_emd_jax.transport.sinkhorn import …`
    does not read the attribute and works as usual.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
