"""Where things are kept that can be made or fetched again."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """`$BERT_EMD_JAX_CACHE`, else `bert_emd_jax` in the user's cache."""
    if given := os.environ.get("BERT_EMD_JAX_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bert_emd_jax"
