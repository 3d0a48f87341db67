"""Parameters as a nested dict, and as a flat one whose keys are paths like `bert/layer_0/output/kernel`."""

from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

Params = dict[str, Any]
"""A nested dict of arrays, as `module.apply({"params": params}, …)` takes it."""


def flatten(params: Params) -> dict[str, Any]:
    """Returns path → leaf."""
    return flatten_dict(params, sep="/")


def unflatten(flat: Mapping[str, Any]) -> Params:
    """Returns the nested dict of a flat one."""
    return unflatten_dict(dict(flat), sep="/")
