"""Memory-mapped `.npy` files of integers."""

import tokenize
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from bert_emd_jax.errors import one_line


def map_integers(path: Path) -> Integer[np.ndarray, " values"]:
    """Maps the one-dimensional array of integers or booleans in a file.

    Raises OSError if the file cannot be read and ValueError if it holds anything else.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (SyntaxError, tokenize.TokenError, OverflowError) as error:  # of a damaged header
        raise ValueError(one_line(error)) from None
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise ValueError("no one-dimensional array of integers")
    return array.view(np.ndarray)
