"""The progress bar of a run, in a terminal or a notebook."""

import sys
import warnings
from collections.abc import Mapping
from typing import Any

from tqdm import TqdmWarning, tqdm


def progress_bar(total: int, initial: int, *, shown: bool) -> tqdm:
    """The bar of a run, in a terminal or a notebook: steps, time left, and what `progress_fields` adds."""
    if in_notebook():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TqdmWarning)  # without ipywidgets it draws with letters
            from tqdm.auto import tqdm as notebook_bar

        return notebook_bar(total=total, initial=initial, unit="step", disable=not shown)
    # None: not where the output goes to a file.
    return tqdm(total=total, initial=initial, unit="step", disable=None if shown else True)


def in_notebook() -> bool:
    """Whether this is a Jupyter or Colab kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def progress_fields(row: Mapping[str, Any]) -> dict[str, str]:
    """What the progress bar shows of a row of `metrics.jsonl`: loss, throughput, the plans' certified gap."""
    fields = {"examples/s": f"{row['examples_per_second']:.0f}"}
    if row["loss"] is not None:
        fields = {"loss": f"{row['loss']:.4f}"} | fields
    gaps = [value for name, value in row.items() if name.endswith("_gap")]
    return fields | ({"gap": f"{max(gaps):.0e}"} if gaps else {})
