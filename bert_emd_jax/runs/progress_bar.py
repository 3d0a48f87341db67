"""The progress bar of a run, in a terminal or a notebook."""

import sys
import warnings
from collections.abc import Mapping
from typing import Any

from tqdm import TqdmWarning, tqdm

_SHOWN_PARTS = ("soft", "attention", "hidden")  # of the loss, as a narrow terminal has room for


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
    """Returns what the bar shows of a row of `metrics.jsonl`: losses, throughput, the certified gap."""
    fields = {} if row["loss"] is None else {"loss": f"{row['loss']:.4f}"}
    for part in _SHOWN_PARTS:
        if row.get(f"{part}_loss") is not None:
            fields[part] = f"{row[f'{part}_loss']:.3g}"
    fields["examples/s"] = f"{row['examples_per_second']:.0f}"
    gaps = [value for name, value in row.items() if name.endswith("_gap")]
    return fields | ({"gap": f"{max(gaps):.0e}"} if gaps else {})
