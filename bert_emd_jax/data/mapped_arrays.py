"""Arrays of whole numbers in `.npy` files, mapped into memory instead of read."""

import tokenize
from pathlib import Path

import numpy as np

from bert_emd_jax.errors import one_line


def map_integers(path: Path) -> np.ndarray:
    """The one-dimensional array of integers or booleans in a file.

    Raises OSError where the file cannot be read and ValueError where it holds something else.
    """
    try:
        array = np.load(path, mmap_mode="r")
    except (EOFError, SyntaxError, tokenize.TokenError, OverflowError) as error:  # of a damaged header
        raise ValueError(one_line(error)) from None
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iub":
        raise ValueError("no one-dimensional array of integers")
    return array.view(np.ndarray)
