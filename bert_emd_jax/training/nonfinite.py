"""Steps whose loss or gradient was not finite: counted, left out of means; too many of them end the run."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_emd_jax import layout
from bert_emd_jax.errors import UserError
from bert_emd_jax.files import write_json
from bert_emd_jax.training.row_source import RowSource

Row = dict[str, Any]


def scalars_to_json(scalars: Mapping[str, Any]) -> Row:
    """A step's scalar measurements as Python numbers; what is not finite is None, for JSON has no NaN."""
    values = {name: getattr(value, "item", lambda value=value: value)() for name, value in scalars.items()}
    return {name: value if value is None or math.isfinite(value) else None for name, value in values.items()}


def means(rows: Sequence[Row]) -> Row:
    """Means over the good steps (None if none was), and how many were bad, or skipped by float16."""
    counted = [name for name in ("bad_steps", "skipped_steps") if name in rows[0]]
    good = [row for row in rows if not any(row[name] for name in counted)]
    return {
        name: sum(row[name] for row in good) / len(good) if good else None
        for name in rows[0]
        if name not in counted
    } | {name: sum(row[name] > 0 for row in rows) for name in counted}


def stop_at_nonfinite_steps(
    limit: int, source: RowSource, rows: Sequence[Row], step: int, directory: Path
) -> None:
    """Ends a run that learns nothing any more.

    Args:
      rows: measurements of the last steps, up to `step`.

    Raises:
      UserError: at least `max_bad_steps` in a row were bad; `bad_steps.json` then says what is known of those
        among `rows`: step, rows of the training file (from 0), and the terms that were not finite.
    """
    in_a_row = rows[-1]["bad_steps"]
    if in_a_row < limit:
        return
    bad = [
        {
            "step": number,
            "training_rows": [int(row) for row in source.batch(number - 1).rows],
            "not_finite": [name for name, value in row.items() if value is None],
        }
        for number, row in enumerate(rows, start=step - len(rows) + 1)
        if row["bad_steps"]
    ]
    write_json(directory / layout.NONFINITE_STEPS, bad)
    raise UserError(
        f"loss or gradient was not finite in {in_a_row} steps in a row (--max_bad_steps), the last at step"
        f" {step} ({', '.join(bad[-1]['not_finite'])}); no such step has changed the weights. Details:"
        f" {directory / layout.NONFINITE_STEPS}. A lower --learning_rate may help"
    )
