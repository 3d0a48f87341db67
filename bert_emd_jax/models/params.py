"""Parameters as a nested dict, and as a flat one whose keys are paths like `bert/layer_0/output/kernel`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from numpy.typing import DTypeLike

Params = dict[str, Any]
"""A nested dict of arrays, as `module.apply({"params": params}, …)` takes it."""


def flatten(params: Params) -> dict[str, Any]:
    """Returns path → leaf."""
    return flatten_dict(params, sep="/")


def unflatten(flat: Mapping[str, Any]) -> Params:
    """Returns the nested dict of a flat one."""
    return unflatten_dict(dict(flat), sep="/")


_WORD_EMBEDDINGS = "word_embeddings"


def without_word_embeddings(params: Params) -> Params:
    """Returns a model's parameters but for its word embeddings."""
    bert = params["bert"]
    embeddings = {name: values for name, values in bert["embeddings"].items() if name != _WORD_EMBEDDINGS}
    return {**params, "bert": {**bert, "embeddings": embeddings}}


def with_word_embeddings(params: Params, whole: Params) -> Params:
    """Returns parameters that may lack their word embeddings with those of `whole`."""
    words = whole["bert"]["embeddings"][_WORD_EMBEDDINGS]
    bert = params["bert"]
    return {**params, "bert": {**bert, "embeddings": {**bert["embeddings"], _WORD_EMBEDDINGS: words}}}


STACKED_LAYERS = "layers"
"""Key of all layers' parameters with an axis of layers in front, in place of `layer_0` and so on."""


def stack_layers(params: Params, dtype: DTypeLike) -> Params:
    """Returns a model's parameters as a forward pass that loops over layers takes them without a copy.

    Args:
      dtype: the compute type, in which kernels are wanted; outputs are the same.
    """
    bert = dict(params["bert"])
    layers = [flatten(bert.pop(f"layer_{number}")) for number in range(sum(map(_is_layer, bert)))]

    def stacked(path: str) -> np.ndarray:
        leaves = [np.asarray(layer[path]) for layer in layers]
        return np.stack([leaf.astype(dtype) for leaf in leaves] if path.endswith("kernel") else leaves)

    bert[STACKED_LAYERS] = unflatten({path: stacked(path) for path in layers[0]})
    return params | {"bert": bert}


def _is_layer(name: str) -> bool:
    return name.startswith("layer_") and name.removeprefix("layer_").isdigit()
